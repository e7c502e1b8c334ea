"""Any role that may connect can flood NOTIFY: requests are still answered, and revocations still take effect."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from smarter_auth_mw.management.keys import Management
from tests.support.asgi import KEYED
from tests.support.database import Database
from tests.support.worker import FOREVER_S, PATIENCE_S, Worker, beaten, until, worker

FLOODS = {
    "of different changes": "SELECT count(pg_notify('smarter_auth', 'key:' || n || ':' || n))"
    " FROM generate_series(1, 100000) AS n",
    "of changes to everything in transactions to come": "SELECT count(pg_notify('smarter_auth', '*:'"
    " || (pg_snapshot_xmax(pg_current_snapshot())::text::bigint + n))) FROM generate_series(1, 900) AS n",
    "of nonsense": "SELECT count(pg_notify('smarter_auth', n::text)) FROM generate_series(1, 500) AS n",
}
SETTINGS: dict[str, Any] = {"heartbeat_s": 0.1, "max_staleness_s": FOREVER_S, "query_timeout_s": PATIENCE_S}


@asynccontextmanager
async def stranger(database: Database, owner: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    """Connect as a role that may connect, and nothing else."""
    await owner.execute("CREATE ROLE nobody_special")
    connection = await asyncpg.connect(database.owner)
    try:
        await connection.execute("SET SESSION AUTHORIZATION nobody_special")
        yield connection
    finally:
        await connection.close()
        await owner.execute("DROP ROLE nobody_special")


async def heard(worker: Worker) -> None:
    """Wait until two heartbeats were answered that are sent from now on."""
    for _ in range(2):
        await beaten(worker)


@pytest.mark.parametrize("flood", FLOODS)
async def test_revocation_takes_effect_during_a_flood_and_after_it(
    flood: str, database: Database, owner: asyncpg.Connection, keys: Management
) -> None:
    first, second = [await keys.create(name, bind=[KEYED]) for name in ("first", "second")]
    async with worker(database.runtime, **SETTINGS) as started, stranger(database, owner) as flooding:
        await started.warm(KEYED, first.token)
        engine = started.app._guard.engines.ready()
        assert engine is not None
        listener = engine.listener
        await beaten(started)  # So that it listens.
        await flooding.execute(FLOODS[flood])
        await until(lambda: listener.is_flooded)
        assert await started.ask(KEYED, second.token) == 200
        await keys.revoke(first.key.key_id)
        await heard(started)
        assert await started.ask(KEYED, first.token) == 401
        assert await started.ask(KEYED, second.token) == 200
        await until(lambda: not listener.is_flooded)
        await keys.revoke(second.key.key_id)
        assert await started.comes_to(401, KEYED, second.token) <= {200}
