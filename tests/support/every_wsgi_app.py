"""The examples of all WSGI frameworks in one app, each below a path that the dispatcher moves into ``SCRIPT_NAME``."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

from werkzeug.middleware.dispatcher import DispatcherMiddleware

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import django_app
import flask_app


def nothing(_: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Whatever is neither."""
    start_response("404 Not Found", [])
    return []


app = DispatcherMiddleware(nothing, {"/flask": flask_app.app, "/django": django_app.wsgi_app})
