"""Our middleware in a user's application: which one it has, and whether a request can get around it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from smarter_auth_mw.asgi import SmarterAuthMiddleware
from smarter_auth_mw.config.settings import Settings
from smarter_auth_mw.wsgi import SmarterAuthWSGIMiddleware

MAX_DEPTH = 32
WITHIN = ("app", "wsgi_app", "asgi_app")
"""The attributes in which a middleware keeps the app that it wraps; Flask and Quart are wrapped at the last two."""
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
"""Classes that hand every request on, and the attribute in which each keeps the app that gets it."""
_STARLETTE = frozenset({"starlette.applications.Starlette", "fastapi.applications.FastAPI"})
_ROUTERS = _STARLETTE | {"starlette.routing.Router", "fastapi.routing.APIRouter"}


@dataclass(frozen=True, slots=True)
class FoundMiddleware:
    """Our middleware in an app: its settings (None: the environment), what it wraps, and the prefix it stands below."""

    settings: Settings | None
    app: Any
    root_path: str


def find_middleware(app: Any) -> FoundMiddleware | None:
    """The outermost of our middlewares around ``app``, whatever stands around it.

    It says which settings and routes the app has; :func:`guard_of` says whether every request meets it.
    """
    return next(_walk(app, "", MAX_DEPTH), None)


def guard_of(app: Any) -> FoundMiddleware | None:
    """Our middleware if no request gets around it.

    It is the app itself, or it was added to the app, or stands behind middleware that is known to hand every request
    on. Any other wrapper may answer by itself, or dispatch to an app that has no middleware.
    """
    front = _front(app)
    return find_middleware(front) if _is_guard(front) else None


def wrapper_of(app: Any) -> str:
    """Return the name of a wrapper around the app's middleware that may answer by itself, or an empty string."""
    front = _front(app)
    is_wrapped = find_middleware(app) is not None and not _is_guard(front)
    return type(front).__qualname__ if is_wrapped else ""


def is_guarded_below(app: Any) -> bool:
    """Return whether the app does nothing but mount apps, each of which has our middleware in front."""
    if _called_class(app) not in _ROUTERS or not _is_without_default(app):
        return False
    routes = _routes(app)
    return bool(routes) and all(_is_mount(route) and _is_guarded(route.app) for route in routes)


def inner_middlewares(app: Any) -> list[tuple[str, FoundMiddleware]]:
    """The middlewares further in, each with the path or host at which its app is mounted."""
    return [(place, found) for place, inner in _mounted(app, MAX_DEPTH) if (found := find_middleware(inner))]


def idle_lifespans(app: Any) -> list[str]:
    """Where apps are mounted whose own start-up nobody runs: a server starts the outermost app, and that one no other.

    Starlette and FastAPI tell whether they have one.
    """
    return [path for path, inner in _mounted(app, MAX_DEPTH) if _has_lifespan(inner)]


def _has_lifespan(app: Any) -> bool:
    router = getattr(app, "router", None)
    context = getattr(router, "lifespan_context", None)
    is_own = context is not None and type(context).__name__ != "_DefaultLifespan"
    return is_own or bool(getattr(router, "on_startup", None))


def _front(app: Any) -> Any:
    """Return what every request to ``app`` meets first, apart from middleware that is known to hand it on."""
    for _ in range(MAX_DEPTH):
        within = PASSED_ON.get(_called_class(app))
        if within is None or _is_guard(app):
            return app
        app = getattr(app, within, None)
    return None


def _is_guard(app: Any) -> bool:
    if isinstance(app, SmarterAuthMiddleware | SmarterAuthWSGIMiddleware):
        return True
    return _called_class(app) in _STARLETTE and any(map(_is_ours, app.user_middleware))


def _called_class(app: Any) -> str:
    """The full name of the class that defines how ``app`` is called: a subclass may leave it as it is."""
    classes = (cls for cls in type(app).__mro__ if "__call__" in vars(cls))
    return next((f"{cls.__module__}.{cls.__qualname__}" for cls in classes), "")


def _is_ours(added: Any) -> bool:
    return inspect.isclass(added.cls) and issubclass(added.cls, SmarterAuthMiddleware)


def _is_guarded(app: Any) -> bool:
    return guard_of(app) is not None or is_guarded_below(app)


def _is_mount(route: Any) -> bool:
    return hasattr(route, "app") and not hasattr(route, "endpoint")


def _is_without_default(app: Any) -> bool:
    """Return whether the router answers 404 to what no route takes, and hands it to no other app."""
    router = getattr(app, "router", app)
    return bool(router.default == router.not_found)


def _routes(app: Any) -> list[Any]:
    return list(getattr(app, "routes", None) or ())


def _walk(app: Any, root_path: str, depth: int) -> Iterator[FoundMiddleware]:
    if app is None or depth == 0:
        return
    root_path += str(getattr(app, "root_path", "") or "")
    if isinstance(app, SmarterAuthMiddleware | SmarterAuthWSGIMiddleware):
        yield FoundMiddleware(app.settings, app.app, root_path)
        return
    for added in getattr(app, "user_middleware", ()):
        if _is_ours(added):
            yield FoundMiddleware(added.kwargs.get("settings"), app, root_path)
    for within in WITHIN:
        yield from _walk(getattr(app, within, None), root_path, depth - 1)


def _mounted(app: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """Every app below a path or at a host of ``app``, however deep, with that path or host."""
    if app is None or depth == 0:
        return
    for route in filter(_is_mount, _routes(app)):
        place = str(getattr(route, "path", "") or getattr(route, "host", ""))
        yield place, route.app
        for deeper, one in _mounted(route.app, depth - 1):
            yield f"{place}{'' if deeper.startswith('/') else ' at '}{deeper}", one
    for within in WITHIN:
        yield from _mounted(getattr(app, within, None), depth - 1)
