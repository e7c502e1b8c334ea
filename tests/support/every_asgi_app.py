"""The examples of all ASGI frameworks in one app: each at a host of its own, and each below a path.

Every one of them brings its own middleware, which stands inside ``Host`` and ``Mount`` and hears of no lifespan. One
stands in front, with the server's lifespan, at its own host.
"""

from __future__ import annotations

import sys
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Host, Mount
from starlette.types import ASGIApp, Receive, Scope, Send

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import django_app
import fastapi_app
import litestar_app
import mounted
import quart_app
import starlette_app

APPS: dict[str, ASGIApp] = {
    "starlette": starlette_app.app,
    "fastapi": fastapi_app.app,
    "litestar": litestar_app.app,
    "quart": quart_app.app,  # type: ignore[dict-item]
    "django": django_app.app,
}
FRONT = b"front.example.com"

routes: list[BaseRoute] = [
    *(Host(f"{name}.example.com", app) for name, app in APPS.items()),
    *(Mount(f"/{name}", app) for name, app in APPS.items()),
]
inside = Starlette(routes=routes)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Whoever asks for the front gets it, and the server's start and end belong to it."""
    is_front = scope["type"] == "lifespan" or (b"host", FRONT) in scope["headers"]
    await (mounted.app if is_front else inside)(scope, receive, send)
