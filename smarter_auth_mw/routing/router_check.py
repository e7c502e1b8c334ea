"""``VERIFY_ROUTER``: in development, compare the resolved resource with what the app's router has read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from smarter_auth_mw.domain import Resource, Target
from smarter_auth_mw.errors import SmarterAuthError
from smarter_auth_mw.routing.grammar import NoResource
from smarter_auth_mw.routing.references import hashed
from smarter_auth_mw.routing.resolution import shown
from smarter_auth_mw.routing.routes import Routes

ANSWERS = frozenset({"http.response.start", "websocket.accept"})


class RouterDisagreementError(SmarterAuthError):
    """The app's router reads the request differently than the middleware."""

    code = "router_disagreement"
    default_hint = "Compare SMARTER_AUTH_ROUTES with the app's routes: smarter-auth doctor --app MODULE:APP"


class RouterCheck:
    """Calls the app, and raises ``RouterDisagreementError`` if the app serves another resource.

    It compares the ``path_params`` that the routers of Starlette, FastAPI and Litestar leave in the scope; without
    them, nothing can be compared. A handler that has served a resource must serve nothing else.
    """

    def __init__(self, app: ASGIApp, routes: Routes) -> None:
        self.app = app
        self._routes = routes
        self._handlers: set[tuple[Any, ...]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        target, path = self._routes.resolve(scope), scope["path"]  # before a router changes the scope

        async def send_checked(message: Message) -> None:
            if message["type"] in ANSWERS:
                self._check(target, path, scope)
            await send(message)

        await self.app(scope, receive, send_checked)

    def _check(self, target: Any, path: str, scope: Scope) -> None:
        params = scope.get("path_params")
        if not params:
            return
        chosen, handler = set(_words(params)), (id(scope.get("endpoint")), *params)
        if isinstance(target, Target):
            self._handlers.add(handler)
            if chosen.isdisjoint(_names(target)):
                read = ", ".join(map(shown, sorted(chosen)))
                raise RouterDisagreementError(f"{shown(path)} is {target.names}, but the app has read {read}.")
        elif handler in self._handlers and not none_line(self._routes, path):
            raise RouterDisagreementError(
                f"{shown(path)} is not a resource, but the app serves it by the handler of one."
            )


def none_line(routes: Routes, path: str) -> NoResource | None:
    """Return the configured `none` line for the path, or None."""
    segments = path.rstrip("/").split("/")[1:]
    return next((line for line in routes.lines if isinstance(line, NoResource) and line.covers(segments)), None)


def _names(target: Target) -> set[str]:
    targets = [target, target.also] if target.also else [target]
    return {one.names.ref if isinstance(one.names, Resource) else one.names.value for one in targets}


def _words(path_params: Mapping[str, Any]) -> Iterator[str]:
    """Yield each segment of a parameter, unchanged and in its equivalent spellings."""
    for value in path_params.values():
        for word in str(value).split("/"):
            if word:
                yield from {word, word.lower(), hashed(word) or word}
