"""``OPEN_BAD_TOKEN=reject``: an open resource takes no token that is none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from smarter_auth_mw import SmarterAuthMiddleware
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.tokens import Token
from tests.support.asgi import bearer, guarded, lifespan
from tests.support.database import Database


@pytest.fixture
async def app(database: Database) -> AsyncIterator[SmarterAuthMiddleware]:
    async with lifespan(guarded(database.runtime, open_bad_token="reject")) as started:
        yield started


async def test_without_a_token_it_is_open(http: httpx.AsyncClient) -> None:
    assert (await http.get("/bots/2")).status_code == 200
    assert (await http.get("/bots/2", headers={"Authorization": "Basic dTpw"})).status_code == 200


async def test_a_valid_token_of_any_key_passes_and_grants_nothing(http: httpx.AsyncClient, token: Token) -> None:
    for _ in range(2):  # from the database, then from the cache
        answer = await http.get("/bots/2", headers=bearer(token))
        assert (answer.status_code, answer.json()["is_authenticated"]) == (200, False)


@pytest.mark.parametrize("value", ["0" * 64, "a b", ""])
async def test_an_unknown_or_malformed_one_is_refused(http: httpx.AsyncClient, value: str) -> None:
    assert (await http.get("/bots/2", headers={"X-API-Key": value})).status_code == 401


@pytest.mark.parametrize("change", ["deactivate", "revoke"])
async def test_a_key_that_is_not_valid_any_more_is_refused(
    http: httpx.AsyncClient, keys: Management, change: str
) -> None:
    minted = await keys.create("k")
    await getattr(keys, change)(minted.key.key_id)
    assert (await http.get("/bots/2", headers=bearer(minted.token))).status_code == 401


async def test_an_expired_one_is_refused(http: httpx.AsyncClient, keys: Management, owner: asyncpg.Connection) -> None:
    minted = await keys.create("k", expires_at=datetime.now(UTC) + timedelta(hours=1))
    await owner.execute("UPDATE smarter_auth.key SET expires_at = now() - interval '1 s'")
    assert (await http.get("/bots/2", headers=bearer(minted.token))).status_code == 401


async def test_a_token_is_accepted_as_soon_as_it_is_minted(
    http: httpx.AsyncClient, keys: Management, owner: Any
) -> None:
    token = Token(b"a" * 64)
    assert (await http.get("/bots/2", headers=bearer(token))).status_code == 401
    minted = await keys.create("k")
    await owner.execute("UPDATE smarter_auth.token SET digest = $1 WHERE key_id = $2", token.digest, minted.key.key_id)
    assert (await http.get("/bots/2", headers=bearer(token))).status_code == 200


async def test_a_protected_resource_asks_for_its_own(http: httpx.AsyncClient, keys: Management, token: Token) -> None:
    assert (await http.get("/bots/1", headers=bearer(token))).status_code == 200
    assert (await http.get("/bots/1", headers=bearer((await keys.create("k")).token))).status_code == 401
    assert (await http.get("/bots/1", headers={"X-API-Key": "a b"})).status_code == 400


async def test_where_it_cannot_be_known_it_is_503(
    app: SmarterAuthMiddleware, http: httpx.AsyncClient, token: Token
) -> None:
    assert (await http.get("/bots/2")).status_code == 200
    engine = app._guard.engines.ready()
    assert engine is not None
    await engine.cache._reader._pool.close()  # type: ignore[attr-defined]
    assert (await http.get("/bots/2")).status_code == 200
    assert (await http.get("/bots/2", headers=bearer(token))).status_code == 503
