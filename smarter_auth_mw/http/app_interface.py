"""Detects from its signature whether an app is ASGI or WSGI."""

from __future__ import annotations

import inspect
from typing import Any, Literal


def interface_of(app: Any) -> Literal["asgi", "wsgi", "either"] | None:
    """Return the app's interface: ``either`` if its signature does not say, None if it is not an app."""
    if not callable(app) or inspect.isclass(app):
        return None
    if any(map(inspect.iscoroutinefunction, (app, type(app).__call__))):
        return "asgi"
    match _arity(app):
        case 2:
            return "wsgi"  # environ, start_response
        case 3:
            return "asgi"  # scope, receive, send
        case None:
            return "either"
        case _:
            return None


def _arity(app: Any) -> int | None:
    """Return how many arguments a call of the app needs; None if its signature does not say."""
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in positional and parameter.default is parameter.empty for parameter in parameters)
