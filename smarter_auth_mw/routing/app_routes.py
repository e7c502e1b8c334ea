"""Lists the routes of a user's app: through middleware, mounts, hosts and included routers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

MAX_DEPTH = 32
SAMPLES = ("1", "00000000-0000-4000-8000-000000000000", "a")
"""Sample references of every form: each placeholder accepts at least one."""
PLACEHOLDER = re.compile(r"\{([^{}:/]*)(?::[^{}]*)?\}")


@dataclass(frozen=True, slots=True)
class AppRoute:
    """One route: its path with ``{placeholders}``, its host, and its methods.

    ``methods`` are empty if its handler checks the method itself; a WebSocket's are ``("WEBSOCKET",)``.
    ``inner`` are the mounted apps that the request passes, each with the prefix that is removed before it.
    """

    path: str
    host: str = ""
    methods: tuple[str, ...] = ()
    takes_options: bool = False
    inner: tuple[tuple[Any, str], ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        methods = [method for method in self.methods if method not in ("HEAD", "OPTIONS")] or list(self.methods)
        return f"{','.join(methods) or 'ANY'} {self.host}{self.path}"

    def samples(self) -> list[str]:
        """Return paths that this route accepts, with references of every form for its placeholders."""
        return [PLACEHOLDER.sub(sample, self.path) for sample in SAMPLES]

    def filled(self, sample: str, prefix: str = "") -> dict[str, Any]:
        """Return the scope of a request that this route accepts, with ``sample`` for every placeholder.

        ``prefix`` is what a mount has already removed.
        """
        host = PLACEHOLDER.sub(sample, self.host) or "localhost"
        return {
            "type": "http",
            "method": "GET",
            "path": PLACEHOLDER.sub(sample, self.path),
            "root_path": PLACEHOLDER.sub(sample, prefix),
            "headers": [(b"host", host.encode("idna"))],
        }


def routes_of(app: Any) -> list[AppRoute]:
    """Return every route that can be seen in the app; a mounted app without visible routes counts as one."""
    return list(dict.fromkeys(_walk(app, AppRoute(""), MAX_DEPTH)))


def middlewares_of(app: Any) -> list[type]:
    """Return the middlewares that a request passes, the outermost one first."""
    found: list[type] = []
    for _ in range(MAX_DEPTH):
        found += [
            type(app),
            *(added.cls for added in getattr(app, "user_middleware", ()) if inspect.isclass(added.cls)),
        ]
        app = getattr(app, "app", None)
    return found


def _walk(app: Any, below: AppRoute, depth: int) -> Iterator[AppRoute]:
    if app is None or depth == 0:
        return
    routes = getattr(app, "routes", None)
    if isinstance(routes, list):
        for route in routes:
            yield from _walk_route(route, below, depth - 1)
    elif hasattr(app, "app"):
        yield from _walk(app.app, below, depth - 1)
    elif below.path:
        yield replace(below, path=f"{below.path}/{{path}}", takes_options=True)


def _walk_route(route: Any, below: AppRoute, depth: int) -> Iterator[AppRoute]:
    path = below.path + str(getattr(route, "path", "") or "")
    included = getattr(route, "original_router", None)  # FastAPI keeps an included router as one route
    if included is not None:
        prefix = str(getattr(route.include_context, "prefix", "") or "")
        yield from _walk(included, replace(below, path=below.path + prefix), depth)
    elif hasattr(route, "host"):
        yield from _walk(route.app, _behind(route.app, replace(below, host=route.host)), depth)
    elif not hasattr(route, "endpoint"):
        inner = getattr(route, "app", None)
        yield from _walk(inner, _behind(inner, replace(below, path=path)), depth)
    elif not hasattr(route, "methods"):
        yield replace(below, path=path, methods=("WEBSOCKET",))
    else:
        methods = tuple(sorted(route.methods or ()))
        yield replace(below, path=path, methods=methods, takes_options=_takes_options(route.endpoint, methods))


def _behind(app: Any, below: AppRoute) -> AppRoute:
    return replace(below, inner=(*below.inner, (app, below.path)))


def _takes_options(endpoint: Any, methods: tuple[str, ...]) -> bool:
    if methods:
        return "OPTIONS" in methods
    return hasattr(endpoint, "options") or not inspect.isclass(endpoint)
