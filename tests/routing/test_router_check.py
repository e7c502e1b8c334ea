"""``VERIFY_ROUTER``: an app that reads requests in another way than we do is told so, loudly."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from smarter_auth_mw.routing.router_check import RouterDisagreementError
from tests.support.asgi import Conversation, client, guarded, scope
from tests.support.database import Database


async def answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse("fine")


async def chat(websocket: WebSocket) -> None:
    await websocket.accept()


ROUTES = ["bot /bots/{ref}", "note /notes/{ref:hashed}", "doc /docs/{ref:uuid}", "none /bots/admin"]
APP = Starlette(
    routes=[
        Route("/bots/{bot_id}", answer),
        Route("/bots/{bot_id}/files/{rest:path}", answer),
        Route("/notes/{number:int}", answer),
        Route("/docs/{id:uuid}", answer),
        WebSocketRoute("/bots/{bot_id}/live", chat),
        Mount("/api", routes=[Route("/bots/{bot_id}", answer)]),
        Route("/health", answer),
    ]
)


async def ask(database: Database, app: ASGIApp, *paths: str) -> list[int]:
    guard = guarded(database.runtime, app, routes=ROUTES, verify_router=True)
    async with client(guard) as http:
        return [(await http.get(path)).status_code for path in paths]


async def test_an_app_that_agrees_is_left_alone(database: Database) -> None:
    uuid = "6F9619FF-8B86-D011-B42D-00C04FC964FF"
    paths = ["/bots/1", "/bots/my-bot/files/a/b", "/api/bots/2", "/notes/42", f"/docs/{uuid}", "/health", "/bots/admin"]
    assert await ask(database, APP, *paths) == [200] * len(paths)
    assert await ask(database, APP, "/nowhere", "/bots", "/health/") == [404, 404, 307]


async def test_websockets_are_compared_too(database: Database) -> None:
    talk = Conversation({"type": "websocket.connect"})
    guard = guarded(database.runtime, APP, routes=ROUTES, verify_router=True)
    await guard(scope("/bots/1/live", kind="websocket"), talk.receive, talk.send)
    assert talk.types == ["accept"]


def reading(change: dict[str, Any]) -> ASGIApp:
    """The app behind something that changes what its router reads."""

    async def changed(scope: Scope, receive: Receive, send: Send) -> None:
        scope.update(change)
        await APP(scope, receive, send)

    return changed


async def test_another_resource_is_told(database: Database) -> None:
    with pytest.raises(RouterDisagreementError, match="'/bots/1' is bot:1, but the app has read '2'"):
        await ask(database, reading({"path": "/bots/2"}), "/bots/1")


async def test_so_is_a_resource_in_the_place_of_none(database: Database) -> None:
    guard = guarded(database.runtime, APP, routes=ROUTES, verify_router=True)
    async with client(guard) as http:
        await http.get("/bots/1")
        guard.app.app = reading({"path": "/bots/2"})  # type: ignore[attr-defined]
        with pytest.raises(RouterDisagreementError, match="'/health' is not a resource"):
            await http.get("/health")


async def test_an_apps_own_error_handler_does_not_hide_it(database: Database) -> None:
    app = FastAPI()

    @app.get("/bots/{bot_id}")
    def bot(bot_id: str) -> str:
        return bot_id

    @app.exception_handler(Exception)
    async def handler(request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse("never mind")

    async def changed(scope: Scope, receive: Receive, send: Send) -> None:
        scope["path"] = "/bots/2"
        await app(scope, receive, send)

    with pytest.raises(RouterDisagreementError):
        await ask(database, changed, "/bots/1")


async def test_without_the_setting_nothing_is_compared(database: Database) -> None:
    async with client(guarded(database.runtime, reading({"path": "/bots/2"}), routes=ROUTES)) as http:
        assert (await http.get("/bots/1")).status_code == 200
