"""Finds SmarterAuthMiddleware in a user's app, and decides whether a request can bypass it."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from smarter_auth_mw.asgi import SmarterAuthMiddleware
from smarter_auth_mw.config.settings import Settings

MAX_DEPTH = 32
WITHIN = ("app", "wsgi_app", "asgi_app")
"""The attributes in which middlewares store the wrapped app; Flask and Quart use the last two."""
PASSED_ON = {
    "starlette.middleware.authentication.AuthenticationMiddleware": "app",
    "starlette.middleware.cors.CORSMiddleware": "app",
    "starlette.middleware.errors.ServerErrorMiddleware": "app",
    "starlette.middleware.exceptions.ExceptionMiddleware": "app",
    "starlette.middleware.gzip.GZipMiddleware": "app",
    "starlette.middleware.httpsredirect.HTTPSRedirectMiddleware": "app",
    "starlette.middleware.sessions.SessionMiddleware": "app",
    "starlette.middleware.trustedhost.TrustedHostMiddleware": "app",
    "uvicorn.middleware.proxy_headers.ProxyHeadersMiddleware": "app",
    "hypercorn.middleware.proxy_fix.ProxyFixMiddleware": "app",
    "werkzeug.middleware.proxy_fix.ProxyFix": "app",
    "a2wsgi.asgi.ASGIMiddleware": "app",
    "a2wsgi.wsgi.WSGIMiddleware": "app",
    "asgiref.wsgi.WsgiToAsgi": "wsgi_application",
    "flask.app.Flask": "wsgi_app",
    "quart.app.Quart": "asgi_app",
}
"""Classes that pass every request on, with the attribute that holds the next app."""
_OURS = frozenset({"smarter_auth_mw.asgi.SmarterAuthMiddleware", "smarter_auth_mw.wsgi.SmarterAuthWSGIMiddleware"})
_STARLETTE = frozenset({"starlette.applications.Starlette", "fastapi.applications.FastAPI"})
_ROUTERS = _STARLETTE | {"starlette.routing.Router", "fastapi.routing.APIRouter"}


@dataclass(frozen=True, slots=True)
class FoundMiddleware:
    """A middleware that was found: its settings (None: the environment), the app it wraps, and its mount prefix."""

    settings: Settings | None
    app: Any
    root_path: str


def find_middleware(app: Any) -> FoundMiddleware | None:
    """Return the outermost SmarterAuthMiddleware around ``app``, whatever else wraps it.

    It gives the app's settings and routes; :func:`guard_of` decides whether every request passes it.
    """
    return next(_walk(app, "", MAX_DEPTH), None)


def guard_of(app: Any) -> FoundMiddleware | None:
    """Return the app's SmarterAuthMiddleware if no request can bypass it.

    It is the app itself, or was added to the app, or is behind middleware that is known to pass every request on. Any
    other wrapper may answer by itself, or dispatch to an app without the middleware; so may a subclass of ours that is
    called in its own way.
    """
    front = _front(app)
    return find_middleware(front) if _is_guard(front) else None


def wrapper_of(app: Any) -> str:
    """Return the name of a wrapper around the app's middleware that may answer by itself, or an empty string."""
    front = _front(app)
    is_wrapped = find_middleware(app) is not None and not _is_guard(front)
    return added_in_front(app) or type(front).__qualname__ if is_wrapped else ""


def added_in_front(app: Any) -> str:
    """Return the name of a middleware that the app itself adds outside of ours, and that may answer by itself."""
    others = itertools.takewhile(lambda added: not _is_ours(added), getattr(_front(app), "user_middleware", ()))
    return next((_name(added) for added in others if _called_by(added.cls) not in PASSED_ON), "")


def is_guarded_below(app: Any) -> bool:
    """Return whether the app only mounts apps, each behind a SmarterAuthMiddleware."""
    if _called_class(app) not in _ROUTERS or not _is_without_default(app):
        return False
    routes = _routes(app)
    return bool(routes) and all(_is_mount(route) and _is_guarded(route.app) for route in routes)


def inner_middlewares(app: Any) -> list[tuple[str, FoundMiddleware]]:
    """The middlewares further in, each with the path or host at which its app is mounted."""
    return [(place, found) for place, inner in _mounted(app, MAX_DEPTH) if (found := find_middleware(inner))]


def idle_lifespans(app: Any) -> list[str]:
    """Return where apps are mounted whose own lifespan nothing runs: a server starts only the outermost app.

    Only Starlette and FastAPI apps are checked.
    """
    return [path for path, inner in _mounted(app, MAX_DEPTH) if _has_lifespan(inner)]


def _has_lifespan(app: Any) -> bool:
    router = getattr(app, "router", None)
    context = getattr(router, "lifespan_context", None)
    is_own = context is not None and type(context).__name__ != "_DefaultLifespan"
    return is_own or bool(getattr(router, "on_startup", None))


def _front(app: Any) -> Any:
    """Return what every request to ``app`` reaches first, after middleware that is known to pass it on."""
    for _ in range(MAX_DEPTH):
        within = PASSED_ON.get(_called_class(app))
        if within is None or _is_guard(app):
            return app
        app = getattr(app, within, None)
    return None


def _is_guard(app: Any) -> bool:
    if _is_middleware(app):
        return _called_class(app) in _OURS
    is_usual = _called_class(app) in _STARLETTE and _owner(type(app), "build_middleware_stack") in _STARLETTE
    if not is_usual or app.middleware_stack is None:
        return is_usual and _meets_ours(app.user_middleware)
    return _called_class(_front(app.middleware_stack)) in _OURS  # What is built runs, whatever was added.


def _meets_ours(added: Iterable[Any]) -> bool:
    """Return whether every request that meets these middlewares, the outermost first, meets ours."""
    names = itertools.dropwhile(PASSED_ON.__contains__, (_called_by(one.cls) for one in added))
    return next(names, "") in _OURS


def _is_middleware(app: Any) -> bool:
    from smarter_auth_mw.wsgi import SmarterAuthWSGIMiddleware  # Late: most commands look at no app.

    return isinstance(app, SmarterAuthMiddleware | SmarterAuthWSGIMiddleware)


def _called_class(app: Any) -> str:
    """Return the full name of the class whose ``__call__`` the app uses; a subclass may inherit it."""
    return _called_by(type(app))


def _called_by(cls: Any) -> str:
    return _owner(cls, "__call__") if inspect.isclass(cls) else ""


def _owner(cls: type, method: str) -> str:
    """Return the full name of the class that defines this method of ``cls``."""
    classes = (one for one in cls.__mro__ if method in vars(one))
    return next((f"{one.__module__}.{one.__qualname__}" for one in classes), "")


def _name(added: Any) -> str:
    """Return the name of an added middleware: its function, if it is one of those that FastAPI decorates."""
    named = added.kwargs.get("dispatch", added.cls)
    return str(getattr(named, "__qualname__", type(named).__qualname__))


def _is_ours(added: Any) -> bool:
    return inspect.isclass(added.cls) and issubclass(added.cls, SmarterAuthMiddleware)


def _is_guarded(app: Any) -> bool:
    return guard_of(app) is not None or is_guarded_below(app)


def _is_mount(route: Any) -> bool:
    return hasattr(route, "app") and not hasattr(route, "endpoint")


def _is_without_default(app: Any) -> bool:
    """Return whether the router answers 404 for unknown paths instead of calling a default app."""
    router = getattr(app, "router", app)
    return bool(router.default == router.not_found)


def _routes(app: Any) -> list[Any]:
    return list(getattr(app, "routes", None) or ())


def _walk(app: Any, root_path: str, depth: int) -> Iterator[FoundMiddleware]:
    if app is None or depth == 0:
        return
    root_path += str(getattr(app, "root_path", "") or "")
    if _is_middleware(app):
        yield FoundMiddleware(app.settings, app.app, root_path)
        return
    for added in getattr(app, "user_middleware", ()):
        if _is_ours(added):
            yield FoundMiddleware(added.kwargs.get("settings"), app, root_path)
    for within in WITHIN:
        yield from _walk(getattr(app, within, None), root_path, depth - 1)


def _mounted(app: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """Yield every app below a path or at a host of ``app``, however deep, with that path or host."""
    if app is None or depth == 0:
        return
    for route in filter(_is_mount, _routes(app)):
        place = str(getattr(route, "path", "") or getattr(route, "host", ""))
        yield place, route.app
        for deeper, one in _mounted(route.app, depth - 1):
            yield f"{place}{'' if deeper.startswith('/') else ' at '}{deeper}", one
    for within in WITHIN:
        yield from _mounted(getattr(app, within, None), depth - 1)
