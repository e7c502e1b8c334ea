"""The ASGI shell: scope in, decision out, and then one of two endings."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from starlette.authentication import AuthCredentials, UnauthenticatedUser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from smarter_auth_mw.decision import Anonymous, Decision, Denial, Grant
from smarter_auth_mw.domain import Target
from smarter_auth_mw.http_auth import Credentials
from smarter_auth_mw.settings import Settings
from smarter_auth_mw.websocket import POLICY_VIOLATION, converse
from smarter_auth_mw.wiring import Wiring


def _takes_denials(scope: Scope) -> bool:
    """Whether the server lets a WebSocket be refused with a whole response.

    granian 2.8 offers it, and may lose its worker over it: the denial races with its own ending of the connection.
    """
    return "websocket.http.response" in (scope.get("extensions") or {}) and "granian" not in sys.modules


class SmarterAuthMiddleware:
    """Lets a request for a protected resource pass only with a valid token that is bound to it.

    Pure ASGI middleware, for ``app.add_middleware(SmarterAuthMiddleware)`` or ``SmarterAuthMiddleware(app)``. Without
    ``settings`` it is configured by ``SMARTER_AUTH_*`` in the environment. It never raises for a mistake there:
    ``lifespan.startup.failed`` reports it, and where no lifespan comes, what may be a resource answers 503.

    What it knows travels in the scope and never in a header, so that there is none that a client could send instead.
    """

    def __init__(self, app: ASGIApp, settings: Settings | None = None) -> None:
        self._wiring = Wiring(app, settings)
        self.app = self._wiring.pages.before(self._wiring.verified(app))

    @property
    def settings(self) -> Settings | None:
        """What it is configured by; None where the configuration has mistakes."""
        return self._wiring.settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind not in ("http", "websocket"):
            await self._other(scope, receive, send)
            return
        scope = self._wiring.trusted(scope)
        target = self._wiring.resolve(scope)
        if target is None and not self._wiring.is_sure:
            target = await self._wiring.resolve_surely(scope)
        if target is None:
            await self.app(scope, receive, send)
            return
        credentials = self._wiring.extractors[kind](scope["headers"])
        decision = await self._decide(target, credentials, scope)
        if isinstance(decision, Denial):
            await self._reject(await self._wiring.denied(decision, scope), scope, send)
            return
        self._wiring.observe(decision, scope)
        admitted = self._admitted(scope, decision)
        if kind == "websocket":
            await converse(self.app, admitted, receive, send, partial(self._decide_again, target, credentials, scope))
        else:
            await self.app(admitted, receive, send)

    async def _decide(self, target: Target | Denial, credentials: Credentials, scope: Scope) -> Decision:
        if isinstance(target, Denial):
            return target
        authenticator = self._wiring.authenticator()
        decision = None if authenticator is None else authenticator.warm(target, credentials)
        return decision or await self._wiring.authenticate(target, credentials, scope)

    async def _decide_again(self, target: Target | Denial, credentials: Credentials, scope: Scope) -> Decision:
        """The same for a message: what was let in is counted once, that it is cut is to be seen."""
        decision = await self._decide(target, credentials, scope)
        if isinstance(decision, Denial):
            self._wiring.observe(decision, scope)
        return decision

    async def _reject(self, denial: Denial, scope: Scope, send: Send) -> None:
        prefix = ""
        if scope["type"] == "websocket":
            if not _takes_denials(scope):
                await send({"type": "websocket.close", "code": POLICY_VIOLATION})
                return
            prefix = "websocket."
        rejection = self._wiring.rejections[denial]
        headers = list(rejection.headers)
        await send({"type": f"{prefix}http.response.start", "status": rejection.status, "headers": headers})
        await send({"type": f"{prefix}http.response.body", "body": rejection.body})

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            raise RuntimeError(f"Refused: the ASGI scope type {scope['type']!r} is not known to smarter_auth_mw.")
        message = await receive()
        if self._wiring.mistakes:
            await send({"type": "lifespan.startup.failed", "message": str(self._wiring.mistakes)})
            return
        await self._wiring.open()
        waiting: list[Message] = [message]

        async def receive_again() -> Message:
            return waiting.pop() if waiting else await receive()

        async def send_closed(message: Message) -> None:
            # The server may end the loop as soon as it hears of the end.
            if message["type"].startswith("lifespan.shutdown."):
                await self._wiring.close()
            await send(message)

        try:
            await self.app(scope, receive_again, send_closed)
        except Exception:
            if not waiting:
                raise
            # It went without listening, as an app does that does not speak lifespan. But we have something to close.
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send_closed({"type": "lifespan.shutdown.complete"})

    def _admitted(self, scope: Scope, decision: Grant | Anonymous) -> Scope:
        """A copy of the scope that tells the app who is there; the caller's own stays as it is."""
        outer_user = scope.get("user")
        told: dict[str, Any] = {"smarter_auth": decision}
        if isinstance(decision, Grant):
            if outer_user is not None:
                told["smarter_auth"] = Grant(decision.resource, decision.principal, outer_user)
            told["user"], told["auth"] = decision.principal, AuthCredentials(["authenticated"])
        elif outer_user is None:
            told["user"], told["auth"] = UnauthenticatedUser(), AuthCredentials()
        else:
            told["smarter_auth"] = Anonymous(decision.resource, outer_user)
        if self._wiring.hides_credentials:
            told["headers"] = self._wiring.extractors[scope["type"]].hide(scope["headers"])
        return {**scope, **told}
