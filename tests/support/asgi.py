"""An app that somebody would write, a middleware in front of it, and a client that speaks ASGI to both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from smarter_auth_mw import Settings, SmarterAuthMiddleware
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.tokens import Token
from tests.support.database import Database

KEYED, OTHER = Resource("bot", "1"), Resource("bot", "2")


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


@pytest.fixture
async def app(database: Database) -> AsyncIterator[SmarterAuthMiddleware]:
    async with lifespan(guarded(database.runtime)) as started:
        yield started


@pytest.fixture
async def http(app: SmarterAuthMiddleware) -> AsyncIterator[httpx.AsyncClient]:
    async with client(app) as connected:
        yield connected


@pytest.fixture
async def token(keys: Management) -> Token:
    """What opens ``KEYED``, and nothing else."""
    return (await keys.create("laptop", bind=[KEYED])).token


def bearer(token: Token) -> dict[str, str]:
    return {"Authorization": f"Bearer {token.reveal()}"}


def raw(token: Token) -> tuple[bytes, bytes]:
    return b"authorization", b"Token " + token.reveal().encode()


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver")


def scope(path: str, *headers: tuple[bytes, bytes], kind: str = "http", **more: Any) -> Scope:
    method: Scope = {"method": "GET"} if kind == "http" else {"subprotocols": []}
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


async def speak_lifespan(receive: Receive, send: Send) -> None:
    """What an app answers to its lifespan that has nothing to open or close."""
    for stage in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{stage}.complete"})


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
    """Both ends of an ASGI call: what the server still has to say, and what the app has sent.

    An ``async`` function among the messages is what happens before the next one comes.
    """

    def __init__(self, *to_come: Message | Callable[[], Awaitable[None]]) -> None:
        self.to_come = list(to_come)
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        while callable(next_one := self.to_come.pop(0)):
            await next_one()
        return next_one

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def types(self) -> list[str]:
        """The types of what was sent, less what they have in common."""
        return [message["type"].removeprefix("websocket.").removeprefix("http.response.") for message in self.sent]


def forget(app: SmarterAuthMiddleware) -> None:
    """Have the next decision made from the database."""
    engine = app._guard.engines.ready()
    assert engine is not None
    engine.cache._known.empty()
    engine.cache._unknown.empty()
