"""The ASGI shell: have each request decided, then call the app or send a rejection."""

from __future__ import annotations

import inspect
import sys
from asyncio import get_running_loop
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

from starlette.authentication import AuthCredentials, UnauthenticatedUser
from starlette.types import Message, Receive, Scope, Send

from smarter_auth_mw.config.settings import Settings
from smarter_auth_mw.decision import Anonymous, Decision, Denial, Grant, Reason
from smarter_auth_mw.domain import Target
from smarter_auth_mw.http.app_interface import interface_of
from smarter_auth_mw.http.preflights import bare_scope, without_body
from smarter_auth_mw.http.scopes import UNUSUAL, UnreadableScopeError, is_usual, mended, readable_part
from smarter_auth_mw.http.websocket import POLICY_VIOLATION, converse


def _takes_denials(scope: Scope) -> bool:
    """Return whether the server lets a WebSocket be refused with a whole response.

    granian 2.8 offers it, but the worker may crash, since the denial races with granian closing the connection.
    """
    return "websocket.http.response" in (scope.get("extensions") or {}) and "granian" not in sys.modules


class _Authenticated(AuthCredentials):
    """Starlette's credentials for granted requests; all requests share one object, so it returns only copies."""

    def __init__(self) -> None:
        pass

    @property
    def scopes(self) -> list[str]:
        return ["authenticated"]

    @scopes.setter
    def scopes(self, _: list[str]) -> None:
        raise AttributeError('Requests share these credentials: put your own into scope["auth"].')


AUTHENTICATED = _Authenticated()


class SmarterAuthMiddleware:
    """Lets a request for a protected resource pass only with a valid token that is bound to it.

    Pure ASGI middleware, for ``app.add_middleware(SmarterAuthMiddleware)`` or ``SmarterAuthMiddleware(app)``. Without
    ``settings`` it is configured by ``SMARTER_AUTH_*`` in the environment. It never raises for a mistake there:
    ``lifespan.startup.failed`` reports it, and without lifespan every path that may be a resource answers 503.

    The decision travels in the scope and never in a header, which a client could forge.
    """

    def __init__(self, app: Callable[..., Awaitable[Any]], settings: Settings | None = None) -> None:
        if interface_of(app) == "wsgi":
            raise TypeError("This is a WSGI app: wrap it with smarter_auth_mw.wsgi.SmarterAuthWSGIMiddleware.")
        # Imported late, so that importing this module does not load database and cache clients.
        from smarter_auth_mw.guard import Guard

        self._guard = Guard(app, settings)
        self._hides_credentials = self._guard.hides_credentials
        self._engines, self._extractor = self._guard.engines, self._guard.extractors["http"]
        self.app = self._guard.pages.before(self._guard.verified(app))

    @property
    def settings(self) -> Settings | None:
        """Return the settings in effect; None if the configuration has mistakes."""
        return self._guard.settings

    def _call(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Return an awaitable that answers the request: the app's own if nothing else has to be awaited."""
        decision = None
        try:
            target = self._guard.by_path.young[scope["path"], scope["raw_path"], scope["root_path"]]
            if (
                target is not None
                and (here := self._engines.last) is not None
                and here.loop is get_running_loop()
                and (engine := here.value) is not None
                and scope["type"] == "http"
                and type(headers := scope["headers"]) is list
            ):
                decision = engine.authenticator.warm(target, headers, self._extractor)
        except UNUSUAL:
            return self._wait(scope, receive, send)
        if target is None:
            return self.app(scope, receive, send)
        if type(decision) is not Grant or not (tally := decision.tally).is_kept:
            if is_usual(scope):
                return self._wait_for(target, decision, scope, receive, send)
            return self._wait(scope, receive, send)
        tally.once_more()
        if "user" in scope or self._hides_credentials:
            return self.app(self._admitted(scope, decision), receive, send)
        # The same as _admitted, for grants only: nearly every request ends here.
        scope = {**scope}
        scope["smarter_auth"] = decision
        scope["user"] = decision.principal
        scope["auth"] = AUTHENTICATED
        return self.app(scope, receive, send)

    if sys.version_info >= (3, 12):
        __call__ = inspect.markcoroutinefunction(_call)  # Servers distinguish ASGI 3 from ASGI 2 by this.
    else:

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self._call(scope, receive, send)

    async def _wait(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a lifespan or WebSocket, or an HTTP request whose host may name a resource."""
        if scope.get("type") not in ("http", "websocket"):
            await self._other(scope, receive, send)
            return
        try:
            scope = self._guard.trusted(scope if is_usual(scope) else mended(scope))
        except UnreadableScopeError as error:
            scope = readable_part(scope)
            denial = await self._guard.settle(Denial(Reason.NOT_CANONICAL, detail=str(error)), scope)
            await self._reject(cast("Denial", denial), scope, send)
            return
        target = await self._guard.find(scope)
        if target is not None:
            await self._wait_for(target, self._guard.warm(target, scope), scope, receive, send)
        elif self._guard.passes_preflight(scope):
            await self.app(bare_scope(scope), without_body(receive), send)
        else:
            await self.app(scope, receive, send)

    async def _wait_for(
        self, target: Target | Denial, decision: Decision | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer a request for a resource, once it is decided."""
        decision = await self._guard.settle(target, scope, decision)
        if isinstance(decision, Denial):
            await self._reject(decision, scope, send)
            return
        admitted = self._admitted(scope, decision)
        if scope["type"] == "websocket":
            await converse(self.app, admitted, receive, send, partial(self._guard.decide_again, target, scope))
        else:
            await self.app(admitted, receive, send)

    async def _reject(self, denial: Denial, scope: Scope, send: Send) -> None:
        prefix = ""
        if scope["type"] == "websocket":
            if not _takes_denials(scope):
                await send({"type": "websocket.close", "code": POLICY_VIOLATION})
                return
            prefix = "websocket."
        rejection = self._guard.rejections.by_reason[denial.reason]
        headers = list(rejection.headers)
        await send({"type": f"{prefix}http.response.start", "status": rejection.status, "headers": headers})
        body = b"" if scope.get("method") == "HEAD" else rejection.body
        await send({"type": f"{prefix}http.response.body", "body": body})

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("type") != "lifespan":
            raise RuntimeError(f"Refused: the ASGI scope type {scope.get('type')!r} is not known to smarter_auth_mw.")
        message = await receive()
        if obstacle := self._guard.obstacle():
            await send({"type": "lifespan.startup.failed", "message": str(obstacle)})
            raise obstacle  # As Starlette does: otherwise its TestClient would wait without end.
        await self._guard.open()
        waiting: list[Message] = [message]

        async def receive_again() -> Message:
            return waiting.pop() if waiting else await receive()

        async def send_closed(message: Message) -> None:
            # The server may stop the loop as soon as shutdown is complete.
            if message["type"].startswith("lifespan.shutdown."):
                await self._guard.close()
            await send(message)

        try:
            await self.app(scope, receive_again, send_closed)
        except Exception:
            if not waiting:
                raise
        if waiting:
            # The app returned without listening, as one without lifespan support does. But the engine must be closed.
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send_closed({"type": "lifespan.shutdown.complete"})

    def _admitted(self, scope: Scope, decision: Grant | Anonymous) -> Scope:
        """Return a copy of the scope with user and credentials for the app; the caller's scope is not changed."""
        outer_user = scope.get("user")
        admitted = {**scope}
        admitted["smarter_auth"] = decision if outer_user is None else replace(decision, outer_user=outer_user)
        if isinstance(decision, Grant):
            admitted["user"] = decision.principal
            admitted["auth"] = AUTHENTICATED
        elif outer_user is None:
            admitted["user"], admitted["auth"] = UnauthenticatedUser(), AuthCredentials()
        if self._guard.hides_credentials:
            admitted["headers"] = self._guard.extractors[scope["type"]].hide(scope["headers"])
        return admitted
