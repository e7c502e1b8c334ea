"""A table is locked for long, as by VACUUM FULL: requests get 503, and the server keeps its connections for others."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import asyncpg
import pytest

from smarter_auth_mw.domain import Resource
from smarter_auth_mw.postgres.pool import open_pool
from tests.support.asgi import KEYED
from tests.support.database import Database
from tests.support.worker import Worker, workers

POOL_MAX = 3
WORKERS = 4
OURS = "FROM pg_stat_activity WHERE datname = current_database() AND usename = $1"


@pytest.mark.parametrize("statement_cache_size", [100, 0])
@pytest.mark.parametrize("table", ["binding", "change"])
async def test_no_worker_has_more_connections_than_its_pool_and_its_listener_while_a_table_is_locked(
    database: Database, owner: asyncpg.Connection, table: str, statement_cache_size: int
) -> None:
    most, over = 0, asyncio.Event()
    settings = {"pool_max": POOL_MAX, "query_timeout_s": 0.2, "heartbeat_s": 0.1, "max_staleness_s": 0.5}
    if not statement_cache_size:
        settings |= {"statement_cache_size": 0}

    async def asks(worker: Worker, start: int) -> None:
        number = start
        while not over.is_set():
            number += 10
            await worker.ask(Resource("bot", str(number)))

    async with workers(WORKERS, database.runtime, failed_attempts="", audit="none", **settings) as started:
        counting = await asyncpg.connect(database.owner)
        async with owner.transaction():
            await owner.execute(f"LOCK TABLE smarter_auth.{table}")
            asking = [asyncio.create_task(asks(one, number)) for one in started for number in range(10)]
            for _ in range(40):
                most = max(most, await counting.fetchval(f"SELECT count(*) {OURS}", database.runtime_role))
                await asyncio.sleep(0.05)
        over.set()
        await asyncio.gather(*asking)
        for one in started:
            assert await one.comes_to(200, KEYED) <= {503}
        await counting.close()
    # A cancel is a connection of its own, for a moment: it has no name in pg_stat_activity.
    assert 0 < most <= WORKERS * (POOL_MAX + 1)


async def test_a_statement_that_was_given_up_runs_no_longer(database: Database, owner: asyncpg.Connection) -> None:
    async with open_pool(database.runtime, query_timeout_s=1.0, statement_cache_size=0) as pool, owner.transaction():
        await owner.execute("LOCK TABLE smarter_auth.binding")
        with suppress(Exception):
            await pool.fetch("SELECT count(*) FROM smarter_auth.binding")
    async with asyncio.timeout(30):
        while await owner.fetchval(f"SELECT count(*) {OURS}", database.runtime_role):
            await asyncio.sleep(0.01)
