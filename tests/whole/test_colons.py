"""A reference with a colon, as models have in their names, from the key to the request."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from smarter_auth_mw.domain import Resource
from smarter_auth_mw.management.keys import Management
from tests.support.asgi import client, guarded, lifespan
from tests.support.database import Database

MODEL = Resource("model", "llama3:8b")


async def endpoint(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.path_params["ref"])


async def test_key_opens_the_model_that_it_is_bound_to_and_no_other(database: Database, keys: Management) -> None:
    created = await keys.create("laptop", bind=[MODEL])
    await keys.create("other", bind=[Resource("model", "llama3:70b")])
    app = Starlette(routes=[Route("/models/{ref}", endpoint)])
    made = guarded(database.runtime, app, routes=["model /models/{ref:exact}"])
    token = {"X-API-Key": created.token.reveal()}
    async with lifespan(made) as started, client(started) as http:
        answers = [await http.get(path, headers=token) for path in ("/models/llama3:8b", "/models/llama3%3A8b")]
        assert [(answer.status_code, answer.text) for answer in answers] == [(200, "llama3:8b")] * 2
        assert [(await http.get(f"/models/{ref}", headers=token)).status_code for ref in ("llama3:70b", ":8b")] == [
            401,
            400,
        ]
        assert (await http.get("/models/llama3:8b")).status_code == 401
