"""An app that somebody would write, a middleware in front of it, and a client that speaks ASGI to both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import Message, Scope
from starlette.websockets import WebSocket

from smarter_auth_mw import Settings, SmarterAuthMiddleware


async def bot(request: Request) -> JSONResponse:
    decision = request.scope["smarter_auth"]
    return JSONResponse(
        {
            "ref": request.path_params["ref"],
            "user": request.user.display_name,
            "is_authenticated": request.user.is_authenticated,
            "scopes": request.auth.scopes,
            "resource": str(decision.resource),
            "key_id": decision.key_id,
            "outer_user": decision.outer_user and str(decision.outer_user),
        }
    )


async def health(request: Request) -> JSONResponse:
    return JSONResponse(sorted(set(request.scope) & {"user", "auth", "smarter_auth"}))


async def chat(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(f"{websocket.user.display_name}: {text}")


APP = Starlette(
    routes=[
        Route("/bots/{ref}", bot, methods=["GET", "POST"]),
        Route("/health", health),
        WebSocketRoute("/bots/{ref}/chat", chat),
    ]
)


def guarded(url: str, app: Any = APP, **settings: Any) -> SmarterAuthMiddleware:
    """The app behind the middleware, on a database."""
    values = {"database_url": url, "routes": ["bot /bots/{ref}"]} | settings
    return SmarterAuthMiddleware(app, Settings(**values))


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver")


def scope(path: str, *headers: tuple[bytes, bytes], kind: str = "http", **more: Any) -> Scope:
    method = {"method": "GET"} if kind == "http" else {"subprotocols": []}
    return {
        "type": kind,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": list(headers),
        "client": ("127.0.0.1", 50000),
        **method,
        **more,
    }


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[Any]:
    """The app started as a server starts it, and stopped in the end."""
    ready, over = asyncio.Event(), asyncio.Event()
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Message:
        message = next(messages)
        if message["type"] == "lifespan.shutdown":
            await over.wait()
        return message

    async def send(message: Message) -> None:
        assert message["type"] in {"lifespan.startup.complete", "lifespan.shutdown.complete"}, message
        ready.set()

    running = asyncio.create_task(app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send))
    await ready.wait()
    try:
        yield app
    finally:
        over.set()
        await running


class Conversation:
    """Both ends of an ASGI call: what the server still has to say, and what the app has sent."""

    def __init__(self, *messages: Message) -> None:
        self.to_come = list(messages)
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        return self.to_come.pop(0)

    async def send(self, message: Message) -> None:
        self.sent.append(message)
