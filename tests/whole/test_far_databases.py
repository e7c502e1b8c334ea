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
from tests.support.worker import until, worker


@pytest.mark.parametrize("round_trip_ms", [50, 200, 400, 800])
async def test_a_far_database_is_heard_by_its_heartbeat_alone(
    round_trip_ms: int, own_server: Postgres, own_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smarter_auth_mw.postgres.notifications.CHANNEL", "nobody_notifies_here")
    async with away(own_server.socket, round_trip_ms / 2000) as port, open_pool(own_database.manager) as pool:
        keys = Management(Store(pool), actor="tester")
        minted = await keys.create("laptop", bind=[KEYED])
        role, name = own_database.runtime.removeprefix("postgresql://").split("?")[0].split("@/")
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
                    await asyncio.sleep(0.002)
                slowest_s = max(slowest_s, granted_s - committed_s)
                assert await started.comes_to(401, KEYED, minted.token) <= {401}
                await keys.activate(minted.key.key_id)
                assert await started.comes_to(200, KEYED, minted.token) <= {401}
    print(f"\na round trip of {round_trip_ms} ms: granted for {slowest_s:.2f} s after the commit at most")
