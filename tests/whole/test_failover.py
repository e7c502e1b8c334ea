"""Another server takes the place of the primary: what is answered comes from the new one, or from none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from smarter_auth_mw.management.keys import Management, Minted
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from tests.support.asgi import KEYED, OTHER
from tests.support.database import Database
from tests.support.postgres import Postgres, Proxy
from tests.support.worker import Gate, beaten, worker

SETTINGS: dict[str, Any] = {"heartbeat_s": 0.05, "query_timeout_s": 1, "failed_attempts": ""}


@dataclass
class Two:
    """A primary, a standby that has all that the primary had, and a database that is on both."""

    primary: Postgres
    standby: Postgres
    name: str
    minted: Minted

    def url(self, server: Postgres, role: str = "runtime") -> str:
        return server.url(role, self.name)


@pytest.fixture(scope="module")
def primary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("primary")) as started:
        yield started


@pytest.fixture
async def two(primary: Postgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Two]:
    database = await primary.database()
    async with keys_on(database.manager) as keys:
        minted = await keys.create("laptop", bind=[KEYED])
    primary.stop()
    standby = Postgres.standby_of(primary, tmp_path_factory.mktemp("standby"))
    primary.start()
    with standby:
        yield Two(primary, standby, name_of(database), minted)


@asynccontextmanager
async def keys_on(url: str) -> AsyncIterator[Management]:
    async with open_pool(url) as pool:
        yield Management(Store(pool), actor="tester")


async def test_standby_answers_nothing(two: Two) -> None:
    async with worker(two.url(two.standby), **SETTINGS) as started:
        assert await started.ask(KEYED, two.minted.token) == 503
        assert await started.ask(KEYED) == 503
        assert await started.ask(OTHER) == 503


async def test_nothing_is_read_from_the_deposed_primary_once_the_new_one_was_met(two: Two) -> None:
    async with Proxy(two.primary.socket) as pool_wire, Proxy(two.primary.socket) as listen_wire:
        urls = {"url": pool_wire.url(two.url(two.primary)), "listen_url": listen_wire.url(two.url(two.primary))}
        async with worker(**urls, **SETTINGS) as started:
            await beaten(started)
            assert await started.warm(KEYED, two.minted.token) == 200
            await two.standby.promote()
            for wire in (pool_wire, listen_wire):
                wire.lead_to(two.standby.socket)
            await run_ahead(two)
            async with keys_on(two.url(two.standby, "manager")) as keys:
                await keys.revoke(two.minted.key.key_id)
            listen_wire.cut()
            assert await started.comes_to(401, KEYED, two.minted.token) <= {200, 503}
            assert await started.warm(KEYED, two.minted.token) == 401


async def test_what_was_read_from_the_deposed_primary_while_it_was_replaced_is_read_again(two: Two) -> None:
    """The fills of an open resource and of a key are on their way; both are closed on the new primary meanwhile."""
    async with Proxy(two.primary.socket) as pool_wire, Proxy(two.primary.socket) as listen_wire:
        urls = {"url": pool_wire.url(two.url(two.primary)), "listen_url": listen_wire.url(two.url(two.primary))}
        async with worker(**urls, **SETTINGS) as started:
            await run_ahead(two)
            await beaten(started)
            gate = Gate(started.cache)
            asking = [
                asyncio.create_task(started.ask(KEYED, two.minted.token)),
                asyncio.create_task(started.ask(OTHER)),
            ]
            await gate.has_read.wait()
            await two.standby.promote()
            for wire in (pool_wire, listen_wire):
                wire.lead_to(two.standby.socket)
                wire.cut()
            async with keys_on(two.url(two.standby, "manager")) as keys:
                await keys.revoke(two.minted.key.key_id)
                await keys.create("another", bind=[OTHER])
            await beaten(started)
            gate.is_open.set()
            assert set(await asyncio.gather(*asking)) <= {401, 503}
            assert await started.warm(KEYED, two.minted.token) == await started.warm(OTHER) == 401


async def test_who_was_believed_because_nobody_was_heard_is_believed_no_longer_than_that(two: Two) -> None:
    async with Proxy(two.primary.socket) as pool_wire, Proxy(two.standby.socket) as listen_wire:
        await two.standby.promote()
        urls = {"url": pool_wire.url(two.url(two.primary)), "listen_url": listen_wire.url(two.url(two.primary))}
        async with worker(**urls, **SETTINGS, max_staleness_s=0.3) as started:
            assert await started.comes_to(503, KEYED, two.minted.token) <= {200}
            listen_wire.swallows = True
            assert await started.comes_to(200, KEYED, two.minted.token) <= {503}
            listen_wire.swallows = False
            assert await started.comes_to(503, KEYED, two.minted.token) <= {200}
            await beaten(started)
            assert await started.comes_to(503, KEYED, two.minted.token) <= {200}  # On a busy machine nobody is heard.


async def run_ahead(two: Two) -> None:
    """Have the old primary go on, with more transactions than the new one has had."""
    connection = await asyncpg.connect(two.url(two.primary, "owner"))
    try:
        for _ in range(100):
            await connection.execute("SELECT pg_current_xact_id()")
    finally:
        await connection.close()


async def test_dump_that_was_restored_brings_nothing_back(primary: Postgres) -> None:
    """A key that was deactivated when the dump was made, and activated since, is inactive again."""
    database = await primary.database()
    async with keys_on(database.manager) as keys, worker(database.runtime, **SETTINGS) as started:
        minted = await keys.create("laptop", bind=[KEYED])
        await keys.deactivate(minted.key.key_id)
        dump = primary.run("pg_dump", database.owner)
        await keys.activate(minted.key.key_id)
        await beaten(started)
        assert await started.warm(KEYED, minted.token) == 200
        await primary.execute(f"DROP DATABASE {name_of(database)} WITH (FORCE)")
        await primary.execute(f"CREATE DATABASE {name_of(database)}")
        primary.run("psql", database.owner, "--set=ON_ERROR_STOP=1", "--single-transaction", text=dump)
        assert await started.comes_to(401, KEYED, minted.token) <= {200, 503}
        await beaten(started)
        assert await started.warm(KEYED, minted.token) == 401


def name_of(database: Database) -> str:
    return urlsplit(database.owner).path[1:]
