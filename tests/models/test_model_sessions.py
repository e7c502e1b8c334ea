"""Where the models find their database: behind a middleware, in a script, and where more than one could be meant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from weakref import WeakSet

import asyncpg
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import smarter_auth_mw
from smarter_auth_mw.config.settings import DatabaseSettings
from smarter_auth_mw.engine import engines
from smarter_auth_mw.errors import ConfigurationError, RefusedError, SchemaError
from smarter_auth_mw.model_sessions import AmbiguousConnectionError, NotConnectedError
from smarter_auth_mw.models import ChatBot, ChatBotAPIKey, SmarterAuthToken, acting_as
from tests.support.asgi import client, guarded, lifespan
from tests.support.database import Database

ROUTES = ["chatbot /bots/{ref}"]


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The middlewares of other tests, some of which live for as long as their process, do not count."""
    monkeypatch.setattr(engines, "_all", WeakSet())


async def protect(request: Request) -> JSONResponse:
    """What an application's own page would do: bind a new key to a bot."""
    bot = await ChatBot.objects.create(name=request.query_params["name"])
    created = await SmarterAuthToken.objects.create(name=request.query_params["name"])
    await ChatBotAPIKey.objects.create(chatbot=bot, api_key=created.key)
    return JSONResponse({"id": bot.id, "token": created.token})


async def release(request: Request) -> JSONResponse:
    deleted, _ = await ChatBotAPIKey.objects.filter(chatbot_id=request.query_params["id"]).delete(allow_anonymous=True)
    return JSONResponse(deleted)


async def turn(request: Request) -> JSONResponse:
    async for binding in ChatBotAPIKey.objects.filter(chatbot_id=request.query_params["id"]):
        await binding.api_key.toggle_active()
    return JSONResponse(None)


async def bot(_: Request) -> JSONResponse:
    return JSONResponse("served")


APP = Starlette(
    routes=[
        Route("/protect", protect),
        Route("/release", release),
        Route("/turn", turn),
        Route("/bots/{ref}", bot),
    ]
)


@pytest.mark.parametrize("is_started", [True, False], ids=["with lifespan", "without lifespan"])
async def test_models_work_behind_the_middleware_as_they_are(database: Database, is_started: bool) -> None:
    app = guarded(database.manager, APP, routes=ROUTES)
    async with lifespan(app) if is_started else client(app), client(app) as http:
        made = (await http.get("/protect", params={"name": "mine"})).json()
        url, credentials = f"/bots/{made['id']}", {"Authorization": f"Token {made['token']}"}
        assert (await http.get(url)).status_code == 401
        assert (await http.get(url, headers=credentials)).status_code == 200
    await app._guard.close()


async def test_what_models_change_counts_from_the_next_request_on(database: Database) -> None:
    app = guarded(database.manager, APP, routes=ROUTES)
    async with lifespan(app), client(app) as http:
        made = (await http.get("/protect", params={"name": "mine"})).json()
        url, chosen = f"/bots/{made['id']}", {"id": made["id"]}
        credentials = {"Authorization": f"Token {made['token']}"}
        for _ in range(3):
            assert (await http.get(url, headers=credentials)).status_code == 200
            await http.get("/turn", params=chosen)
            assert (await http.get(url, headers=credentials)).status_code == 401
            await http.get("/turn", params=chosen)
        assert (await http.get(url)).status_code == 401
        assert (await http.get("/release", params=chosen)).json() == 1
        assert (await http.get(url)).status_code == 200


async def test_new_name_counts_from_the_next_request_on(database: Database) -> None:
    app = guarded(database.manager, APP, routes=["chatbot /bots/{name}"])
    async with lifespan(app), client(app) as http:
        await http.get("/protect", params={"name": "one"})
        mine = await ChatBot.objects.get(name="one")
        for before, after in (("one", "two"), ("two", "three")):
            assert (await http.get(f"/bots/{before}")).status_code == 401
            assert (await http.get(f"/bots/{after}")).status_code == 404
            mine.name = after
            await mine.save()
            assert (await http.get(f"/bots/{before}")).status_code == 404
            assert (await http.get(f"/bots/{after}")).status_code == 401


async def test_rotation_without_overlap_counts_from_the_next_request_on(database: Database) -> None:
    app = guarded(database.manager, APP, routes=ROUTES)
    async with lifespan(app), client(app) as http:
        made = (await http.get("/protect", params={"name": "mine"})).json()
        key = await SmarterAuthToken.objects.get(name="mine")
        for overlap, status in ((timedelta(hours=1), 200), (timedelta(0), 401)):
            rotated = await key.rotate(overlap, force=True)
            for token, expected in ((made["token"], status), (rotated.token, 200)):
                credentials = {"Authorization": f"Token {token}"}
                assert (await http.get(f"/bots/{made['id']}", headers=credentials)).status_code == expected


async def test_script_connects_by_its_environment(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMARTER_AUTH_DATABASE_URL", database.manager)
    async with smarter_auth_mw.connect():
        assert await ChatBot.objects.count() == 0
    with pytest.raises(NotConnectedError, match="no database"):
        await ChatBot.objects.count()


async def test_script_is_told_what_is_missing(empty_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMARTER_AUTH_DATABASE_URL", raising=False)
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        await smarter_auth_mw.connect().__aenter__()
    with pytest.raises(SchemaError):
        await smarter_auth_mw.connect(settings(empty_database)).__aenter__()
    with pytest.raises(NotConnectedError) as error:
        await ChatBot.objects.create(name="mine")
    assert "smarter_auth_mw.connect()" in error.value.hint


async def test_two_databases_are_not_mixed_up(database: Database, other_database: Database) -> None:
    one, other = guarded(database.manager, APP), guarded(other_database.manager, APP)
    async with lifespan(one):
        with pytest.raises(AmbiguousConnectionError) as error:
            await ChatBot.objects.create(name="mine")
        assert "connect(settings)" in error.value.hint
        del error  # Its traceback holds them both.
        async with smarter_auth_mw.connect(settings(other_database)):
            await ChatBot.objects.create(name="theirs")
            async with smarter_auth_mw.connect(settings(database)):
                assert await ChatBot.objects.count() == 0
            assert await ChatBot.objects.count() == 1
        del other
        assert await ChatBot.objects.count() == 0


async def test_two_middlewares_on_one_database_are_one_to_models(database: Database) -> None:
    apps = [guarded(database.manager, APP), guarded(database.manager, APP)]
    async with lifespan(apps[0]), lifespan(apps[1]):
        await ChatBot.objects.create(name="mine")
        assert await ChatBot.objects.count() == 1


async def test_default_account_is_a_part_of_what_is_meant(database: Database) -> None:
    apps = [guarded(database.manager, APP), guarded(database.manager, APP, default_account="acme")]
    with pytest.raises(AmbiguousConnectionError):
        await ChatBot.objects.count()
    assert len(apps) == 2


async def test_connection_of_one_task_is_not_that_of_the_others(database: Database, other_database: Database) -> None:
    app = guarded(database.manager, APP)
    has_connected, done = asyncio.Event(), asyncio.Event()

    async def elsewhere() -> int:
        async with smarter_auth_mw.connect(settings(other_database)):
            await ChatBot.objects.create(name="theirs")
            counted = await asyncio.create_task(ChatBot.objects.count())
            has_connected.set()
            await done.wait()
        return counted

    async with lifespan(app):
        task = asyncio.create_task(elsewhere())
        await has_connected.wait()
        assert await ChatBot.objects.count() == 0
        done.set()
        assert await task == 1


async def test_connection_around_a_servers_life_is_that_of_its_requests(database: Database) -> None:
    entered, over = asyncio.Event(), asyncio.Event()

    async def live() -> None:
        async with smarter_auth_mw.connect(settings(database)):
            entered.set()
            await over.wait()

    life = asyncio.create_task(live())
    await entered.wait()
    await ChatBot.objects.create(name="mine")
    over.set()
    await life
    with pytest.raises(NotConnectedError):
        await ChatBot.objects.count()


async def test_middleware_with_mistakes_connects_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "ROUTES"):
        monkeypatch.delenv(f"SMARTER_AUTH_{name}", raising=False)
    app = smarter_auth_mw.SmarterAuthMiddleware(APP)
    assert app.settings is None
    with pytest.raises(NotConnectedError):
        await ChatBot.objects.count()


async def actors(owner: asyncpg.Connection) -> list[Any]:
    return [row[0] for row in await owner.fetch("SELECT actor FROM smarter_auth.audit_event ORDER BY id")]


async def test_actor_is_the_one_that_was_named(database: Database, owner: asyncpg.Connection) -> None:
    async with smarter_auth_mw.connect(settings(database)):
        await ChatBot.objects.create(name="first")
        with acting_as("alice"):
            await ChatBot.objects.create(name="second")
    async with smarter_auth_mw.connect(settings(database), actor="nightly job"):
        await ChatBot.objects.create(name="third")
    assert await actors(owner) == ["models", "alice", "nightly job"]


async def test_refused_write_leaves_no_trace(database: Database, owner: asyncpg.Connection) -> None:
    async with smarter_auth_mw.connect(settings(database)):
        bot = await ChatBot.objects.create(name="mine", account="acme")
        key, _ = await SmarterAuthToken.objects.create(name="key")
        before = len(await actors(owner))
        with pytest.raises(RefusedError, match="acme"):
            await ChatBotAPIKey.objects.create(chatbot=bot, api_key=key)
        assert len(await actors(owner)) == before


def settings(database: Database) -> DatabaseSettings:
    return DatabaseSettings(database_url=database.manager)


@pytest.fixture
async def connected(database: Database) -> AsyncIterator[None]:
    async with smarter_auth_mw.connect(settings(database)):
        yield


async def test_fixture_connects_its_test(connected: None) -> None:
    assert await ChatBot.objects.count() == 0
