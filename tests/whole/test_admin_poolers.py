"""The management API through a transaction pooler, where no connection is ours for longer than a transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from smarter_auth_mw import Settings
from smarter_auth_mw.admin import AdminApp
from smarter_auth_mw.management.operators import Operators, Role
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from tests.support.admin import ROUTES, Caller
from tests.support.asgi import lifespan
from tests.support.pgbouncer import pgbouncer, through
from tests.support.plain_postgres import OWNER, RUNTIME, PlainPostgres, installed


@pytest.fixture(scope="module")
def newest() -> Iterator[PlainPostgres]:
    with PlainPostgres([*installed().values()][-1]).made() as server:
        yield server


async def test_operators_work_through_a_transaction_pooler(newest: PlainPostgres) -> None:
    name = urlsplit(await newest.database()).path[1:]
    async with open_pool(newest.url(name, OWNER)) as pool:
        token = (await Operators(Store(pool), "tester").create("ada", Role.ADMIN)).token.reveal()
    with pgbouncer(newest, "transaction", size=2) as port:
        url = through(newest.url(name, RUNTIME), port)
        app = AdminApp(Settings(database_url=url, statement_cache_size=0, routes=ROUTES, query_timeout_s=30))
        async with (
            lifespan(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost", timeout=60) as client,
        ):
            admin = Caller(client, token)
            made = await asyncio.gather(
                *(admin.json("POST", "/keys", {"name": f"key {number}", "bind": ["bot:1"]}) for number in range(8))
            )
            for key in made:
                rotation = {"token_key": key["token_key"], "overlap": "0s"}
                await admin.json("POST", f"/keys/{key['key_id']}/rotate", rotation)
            await admin.json("POST", f"/keys/{made[0]['key_id']}/revoke")
            assert len((await admin.json("GET", "/keys"))["items"]) == 7
            assert (await admin.json("POST", "/check", {"url": "/bots/1"}))["decision"] == "deny"
            assert len((await admin.json("GET", "/audit?action=key.rotate"))["items"]) == 8
