"""A database on another continent: heartbeats are answered, and a revocation is heard of by them.

Run with ``-s`` to see how long each took.
"""

from __future__ import annotations

import asyncio
import math
import time

import pytest

from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from tests.support.asgi import KEYED
from tests.support.database import Database
from tests.support.distance import away
from tests.support.postgres import Postgres
from tests.support.worker import ASK_EVERY_S, until, worker

ROUND_TRIPS_MS = (50, 200, 400, 800)


async def test_far_databases_are_heard_by_their_heartbeats_alone(
    own_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them at the same time: what takes long is to wait."""
    monkeypatch.setattr("smarter_auth_mw.postgres.notifications.CHANNEL", "nobody_notifies_here")
    databases = [await own_server.database() for _ in ROUND_TRIPS_MS]
    async with asyncio.TaskGroup() as group:
        for round_trip_ms, database in zip(ROUND_TRIPS_MS, databases, strict=True):
            group.create_task(_is_heard(round_trip_ms, own_server, database))


async def _is_heard(round_trip_ms: int, server: Postgres, database: Database) -> None:
    async with away(server.socket, round_trip_ms / 2000) as port, open_pool(database.manager) as pool:
        keys = Management(Store(pool), actor="tester")
        minted = await keys.create("laptop", bind=[KEYED])
        role, name = database.runtime.removeprefix("postgresql://").split("?")[0].split("@/")
        url = f"postgresql://{role}@127.0.0.1:{port}/{name}?sslmode=disable"
        async with worker(url, failed_attempts="") as started:
            assert await started.comes_to(200, KEYED, minted.token) <= {503}
            await until(lambda: started.cache.heartbeat_age_s < math.inf)
            slowest_s = 0.0
            for _ in range(3):
                await keys.deactivate(minted.key.key_id)
                committed_s = granted_s = time.monotonic()
                while await started.ask(KEYED, minted.token) == 200:
                    granted_s = time.monotonic()
                    await asyncio.sleep(ASK_EVERY_S)
                slowest_s = max(slowest_s, granted_s - committed_s)
                assert await started.comes_to(401, KEYED, minted.token) <= {401}
                await keys.activate(minted.key.key_id)
                assert await started.comes_to(200, KEYED, minted.token) <= {401}
    print(f"\na round trip of {round_trip_ms} ms: granted for {slowest_s:.2f} s after the commit at most")
