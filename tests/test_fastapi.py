"""The FastAPI dependencies: what handlers get, what OpenAPI tells, and what happens without the middleware."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket

from smarter_auth_mw import Settings, SmarterAuthMiddleware
from smarter_auth_mw.decision import Grant
from smarter_auth_mw.fastapi import NoDecisionError, optional_key, require_key, require_key_by
from smarter_auth_mw.tokens import Token
from tests.support.asgi import Conversation, bearer, client, lifespan, raw, scope
from tests.support.database import Database


def app_of(*dependencies: Any) -> FastAPI:
    app = FastAPI(dependencies=dependencies)

    @app.get("/bots/{bot}/private")
    def private(grant: Annotated[Grant, Depends(require_key)]) -> dict[str, Any]:
        return {"resource": str(grant.resource), "key": grant.principal.display_name}

    @app.get("/bots/{bot}/shared")
    async def shared(grant: Annotated[Grant | None, Depends(optional_key)]) -> str | None:
        return grant.principal.display_name if grant else None

    @app.get("/elsewhere")
    def elsewhere(grant: Annotated[Grant | None, Depends(optional_key)]) -> None: ...

    @app.websocket("/bots/{bot}/chat")
    async def chat(websocket: WebSocket, grant: Annotated[Grant, Depends(require_key)]) -> None:
        await websocket.accept()
        await websocket.send_text(grant.principal.display_name)

    only_header = APIRouter(dependencies=[Depends(require_key_by("x-api-key", realm="bots"))])

    @only_header.get("/bots/{bot}/by-header")
    def by_header() -> None: ...

    app.include_router(only_header)

    @app.get("/health")
    def health() -> None: ...

    return app


@pytest.fixture
async def app(database: Database) -> AsyncIterator[FastAPI]:
    app = app_of()
    settings = Settings(database_url=database.runtime, routes=["bot /bots/{ref}"])
    app.add_middleware(SmarterAuthMiddleware, settings=settings)
    async with lifespan(app):
        yield app


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client(app) as connected:
        yield connected


async def test_a_handler_gets_its_grant(http: httpx.AsyncClient, token: Token) -> None:
    answer = await http.get("/bots/1/private", headers=bearer(token))
    assert answer.json() == {"resource": "bot:1", "key": "laptop"}
    assert (await http.get("/bots/1/shared", headers=bearer(token))).json() == "laptop"


async def test_an_open_resource_asks_for_a_key_where_the_handler_requires_one(http: httpx.AsyncClient) -> None:
    refused = await http.get("/bots/2/private")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == 'Bearer realm="smarter", ApiKey realm="smarter", header="X-API-Key"'
    assert refused.headers["cache-control"] == "no-store"
    by_header = await http.get("/bots/2/by-header")
    assert by_header.headers["www-authenticate"] == 'ApiKey realm="bots", header="X-API-Key"'
    assert (await http.get("/bots/2/shared")).json() is None


async def test_the_middleware_refuses_before_any_dependency(http: httpx.AsyncClient, token: Token) -> None:
    for path in ("private", "shared", "by-header"):
        refused = await http.get(f"/bots/1/{path}")
        assert (refused.status_code, refused.headers["content-type"]) == (401, "application/problem+json")


@pytest.mark.parametrize(("bot", "types"), [("1", ["accept", "send"]), ("2", ["close"])])
async def test_a_websocket_is_served_with_a_grant_only(app: FastAPI, token: Token, bot: str, types: list[str]) -> None:
    talk = Conversation({"type": "websocket.connect"})
    await app(scope(f"/bots/{bot}/chat", raw(token), kind="websocket"), talk.receive, talk.send)
    assert talk.types[: len(types)] == types
    if types == ["close"]:
        assert talk.sent[0]["code"] == 1008


async def test_openapi_tells_how_to_authorize(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    schemes = document["components"]["securitySchemes"]
    assert {name: (scheme["type"], scheme.get("scheme", scheme.get("name"))) for name, scheme in schemes.items()} == {
        "Bearer": ("http", "bearer"),
        "X-API-Key": ("apiKey", "X-API-Key"),
    }
    security = {path: item["get"].get("security") for path, item in document["paths"].items()}
    either: list[dict[str, list[str]]] = [{"Bearer": []}, {"X-API-Key": []}]
    assert security["/bots/{bot}/private"] == security["/bots/{bot}/shared"] == either
    assert security["/bots/{bot}/by-header"] == [{"X-API-Key": []}]
    assert security["/health"] is None
    assert not any(item["get"].get("parameters", [{}])[1:] for item in document["paths"].values())
    assert (await http.get("/docs")).status_code == 200


@pytest.mark.parametrize("path", ["/bots/1/private", "/bots/1/shared", "/bots/1/by-header"])
async def test_without_the_middleware_nothing_is_served_and_the_log_says_why(path: str) -> None:
    async with client(app_of()) as http:
        with pytest.raises(NoDecisionError, match=r"lacks app.add_middleware\(SmarterAuthMiddleware\)"):
            await http.get(path)
        assert (await http.get("/health")).status_code == 200


async def test_a_path_that_no_route_names_is_not_served_either(http: httpx.AsyncClient, token: Token) -> None:
    with pytest.raises(NoDecisionError, match="no line of SMARTER_AUTH_ROUTES names this path"):
        await http.get("/elsewhere", headers=bearer(token))


async def test_a_decision_of_somebody_else_is_none() -> None:
    async def forged(scope: Any, receive: Any, send: Any) -> None:
        await app_of()({**scope, "smarter_auth": {"principal": "me"}}, receive, send)

    async with client(forged) as http:
        with pytest.raises(NoDecisionError):
            await http.get("/bots/1/private")


def test_fastapi_is_imported_by_nobody_who_does_not_ask_for_it() -> None:
    script = "import sys, smarter_auth_mw, smarter_auth_mw.wsgi, smarter_auth_mw.cli; print('fastapi' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "False\n"
