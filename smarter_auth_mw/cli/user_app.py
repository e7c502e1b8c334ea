"""Imports a user's app by name, as uvicorn does, and finds SmarterAuthMiddleware in it."""

from __future__ import annotations

import contextlib
import importlib
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

from smarter_auth_mw.cli.guards import FoundMiddleware, find_middleware, inner_middlewares
from smarter_auth_mw.errors import NotFoundError, UsageError

EXAMPLE = "Write MODULE:APP, as for uvicorn: main:app is the app in main.py of this directory."


def load(name: str) -> Any:
    """Import ``MODULE:APP``, with the working directory on the path; raises UsageError."""
    module_name, _, attributes = name.partition(":")
    if not module_name or not attributes:
        raise UsageError(f"{name!r} does not name an app.", hint=EXAMPLE)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for the command's own result.
            found: Any = importlib.import_module(module_name)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {error}{_place(error.__traceback__)}"
        raise UsageError(f"The app {name!r} cannot be imported: {said}", hint=EXAMPLE) from error
    return found


def middleware_of(name: str) -> FoundMiddleware:
    """Return the SmarterAuthMiddleware of the app ``MODULE:APP``; raises UsageError and NotFoundError."""
    app = load(name)
    found = find_middleware(app)
    if found is None:
        raise NotFoundError(
            f"The app {name!r} has no SmarterAuthMiddleware{only_at(app)}.",
            hint="Name the app that it is added to or wrapped around, or omit --app and set SMARTER_AUTH_ROUTES.",
        )
    return found


def only_at(app: Any) -> str:
    """Return the end of the sentence "the app has no middleware": where mounted apps have one."""
    places = ", ".join(dict.fromkeys(place for place, _ in inner_middlewares(app)))
    return f" in front, only at {places}" if places else ""


def _place(trace: TracebackType | None) -> str:
    """Return the place in the user's code where the error happened, if known."""
    frames = [frame for frame in traceback.extract_tb(trace) if frame.filename.startswith(str(Path.cwd()))]
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
