"""A streaming replica that stands still knows of keys that are valid no more: nobody is let in by what it says."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import asyncpg
import pytest

from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from smarter_auth_mw.tokens import Token
from tests.support.asgi import KEYED, OTHER
from tests.support.plain_postgres import OWNER, PlainPostgres, all_of, installed
from tests.support.worker import PATIENCE_S, worker

SETTINGS: dict[str, Any] = {"heartbeat_s": 0.05, "max_staleness_s": 0.5, "failed_attempts": ""}


class Behind(NamedTuple):
    """A primary, its replica that was paused before a key was revoked, and the token of that key."""

    primary: PlainPostgres
    replica: PlainPostgres
    database: str
    token: Token

    def url(self, *servers: PlainPostgres) -> str:
        return all_of(servers, self.primary.url(self.database))


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[PlainPostgres, PlainPostgres]]:
    with PlainPostgres([*installed().values()][-1]).made() as primary:
        primary.stop()
        replica = primary.standby()
        primary.start()
        with replica:
            yield primary, replica


@pytest.fixture
async def behind(servers: tuple[PlainPostgres, PlainPostgres]) -> AsyncIterator[Behind]:
    primary, replica = servers
    url = await primary.database()
    database = url.rpartition("/")[2]
    async with open_pool(url) as pool, _administered(primary, database) as told:
        keys = Management(Store(pool), actor="tester")
        minted = await keys.create("laptop", bind=[KEYED])
        async with _administered(replica, "postgres") as asked:
            await _has_replayed(asked, str(await told.fetchval("SELECT pg_current_wal_lsn()::text")))
            await asked.execute("SELECT pg_wal_replay_pause()")
            await keys.revoke(minted.key.key_id)
            yield Behind(primary, replica, database, minted.token)
            await asked.execute("SELECT pg_wal_replay_resume()")


@asynccontextmanager
async def _administered(server: PlainPostgres, database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(server.url(database, OWNER))
    try:
        yield connection
    finally:
        await connection.close()


async def _has_replayed(replica: asyncpg.Connection, position: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await replica.fetchval("SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", position):
            await asyncio.sleep(0.01)


async def test_worker_that_is_led_to_the_replica_answers_nothing(behind: Behind) -> None:
    async with _administered(behind.replica, behind.database) as connection:
        assert await connection.fetchval("SELECT count(*) FROM smarter_auth.key WHERE revoked_at IS NULL") == 1
    for urls in (
        {"url": behind.url(behind.replica)},
        {"url": behind.url(behind.replica), "listen_url": behind.url(behind.primary)},
    ):
        async with worker(**urls, **SETTINGS) as started:
            assert await started.ask(KEYED, behind.token) == 503
            assert await started.ask(KEYED) == 503
            assert await started.ask(OTHER) == 503


async def test_worker_that_knows_both_asks_the_primary(behind: Behind) -> None:
    async with worker(behind.url(behind.replica, behind.primary), **SETTINGS) as started:
        assert await started.ask(KEYED, behind.token) == 401
        assert await started.ask(OTHER) == 200


async def test_replica_vouches_for_nothing(behind: Behind) -> None:
    """Where a worker reads from the primary, and would hear of changes from the replica."""
    urls = {"url": behind.url(behind.primary), "listen_url": behind.url(behind.replica)}
    async with worker(**urls, **SETTINGS) as started:
        assert await started.ask(KEYED, behind.token) == 401
        assert started.cache.heartbeat_age_s == math.inf
