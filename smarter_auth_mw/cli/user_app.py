"""Somebody's application, by its name: imported as uvicorn does it, and looked through for our middleware."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from smarter_auth_mw.asgi import SmarterAuthMiddleware
from smarter_auth_mw.config.settings import Settings
from smarter_auth_mw.errors import NotFoundError, UsageError
from smarter_auth_mw.wsgi import SmarterAuthWSGIMiddleware

MAX_DEPTH = 32
WITHIN = ("app", "wsgi_app", "asgi_app")
"""Where a middleware has the app that it wraps; Flask and Quart are wrapped at the last two."""
EXAMPLE = "Write it as uvicorn takes it: main:app is the app in main.py of this directory."


@dataclass(frozen=True, slots=True)
class Found:
    """Our middleware in an app: its settings (None: the environment), what it wraps, and the prefix it stands below."""

    settings: Settings | None
    app: Any
    root_path: str


def load(name: str) -> Any:
    """Import ``MODULE:APP``, with the working directory on the path; raises UsageError."""
    module_name, _, attributes = name.partition(":")
    if not module_name or not attributes:
        raise UsageError(f"{name!r} names no app.", hint=EXAMPLE)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Ours is for the command's own result.
            found: Any = importlib.import_module(module_name)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {error}{_place(error.__traceback__)}"
        raise UsageError(f"The app {name!r} cannot be imported: {said}", hint=EXAMPLE) from error
    return found


def find_middleware(app: Any) -> Found | None:
    """The outermost of our middlewares in ``app``: wrapped around it, or added to it."""
    return next(_walk(app, "", MAX_DEPTH), None)


def inner_middlewares(app: Any) -> list[Found]:
    """Those that stand further in, one in each app below a path or at a host that has one."""
    return [found for _, inner in _mounted(app, MAX_DEPTH) if (found := find_middleware(inner))]


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


def middleware_of(name: str) -> Found:
    """Our middleware in the app ``MODULE:APP``; raises UsageError and NotFoundError."""
    found = find_middleware(load(name))
    if found is None:
        raise NotFoundError(
            f"The app {name!r} has no SmarterAuthMiddleware.",
            hint="Name the app that it is added to or wrapped around, or leave --app out and set SMARTER_AUTH_ROUTES.",
        )
    return found


def _walk(app: Any, root_path: str, depth: int) -> Iterator[Found]:
    if app is None or depth == 0:
        return
    root_path += str(getattr(app, "root_path", "") or "")
    if isinstance(app, SmarterAuthMiddleware | SmarterAuthWSGIMiddleware):
        yield Found(app.settings, app.app, root_path)
        return
    for added in getattr(app, "user_middleware", ()):
        if inspect.isclass(added.cls) and issubclass(added.cls, SmarterAuthMiddleware):
            yield Found(added.kwargs.get("settings"), app, root_path)
    for within in WITHIN:
        yield from _walk(getattr(app, within, None), root_path, depth - 1)


def _mounted(app: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """Every app below a path or at a host of ``app``, however deep, with that path or host."""
    if app is None or depth == 0:
        return
    for route in getattr(app, "routes", None) or ():
        inner = getattr(route, "app", None)
        if inner is not None and not hasattr(route, "endpoint"):
            place = str(getattr(route, "path", "") or getattr(route, "host", ""))
            yield place, inner
            for deeper, one in _mounted(inner, depth - 1):
                yield f"{place}{'' if deeper.startswith('/') else ' at '}{deeper}", one
    for within in WITHIN:
        yield from _mounted(getattr(app, within, None), depth - 1)


def _place(trace: TracebackType | None) -> str:
    """Where in the user's own code it happened, as far as that can be told."""
    frames = [frame for frame in traceback.extract_tb(trace) if frame.filename.startswith(str(Path.cwd()))]
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
