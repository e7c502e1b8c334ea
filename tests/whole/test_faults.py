"""What requests get while the database is down or hangs, and that all is well again after it.

Run with ``-s`` to see how long each took.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import pytest

from smarter_auth_mw.authentication import authenticator
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from tests.support.asgi import KEYED
from tests.support.cli import environment
from tests.support.database import Database
from tests.support.faults import GONE, HEALTHY, UNKNOWN, Opening, Site, stopped
from tests.support.postgres import Postgres
from tests.support.process_scenarios import SCENARIOS
from tests.support.worker import FOREVER_S, PATIENCE_S, beaten, until


@pytest.mark.parametrize("fault", GONE)
async def test_nothing_is_granted_that_cannot_be_known_while_the_database_is_gone(
    fault: str, own_server: Postgres, site: Site
) -> None:
    async with GONE[fault](own_server):
        unknown_s = await site.comes_to(UNKNOWN)
    well_s = await site.comes_to(HEALTHY)
    print(f"\n{fault}: 503 after {unknown_s:.2f} s, well {well_s:.2f} s after its end, slowest {site.slowest_s:.2f} s")


async def test_restart_of_the_database_needs_none_of_ours(own_server: Postgres, site: Site) -> None:
    for _ in range(3):
        restarting = asyncio.create_task(asyncio.to_thread(own_server.restart))
        while not restarting.done():
            await site.comes_to(HEALTHY)
        await restarting
        await site.settles()


async def test_requests_get_503_while_the_database_has_no_connection_left(
    own_server: Postgres, own_database: Database, site: Site
) -> None:
    async with administered(own_database) as owner:
        await owner.execute("ALTER ROLE smarter_auth_runtime CONNECTION LIMIT 0")
        try:
            await owner.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'smarter_auth_runtime'"
            )
            await site.comes_to(UNKNOWN)
        finally:
            await owner.execute("ALTER ROLE smarter_auth_runtime CONNECTION LIMIT -1")
    await site.settles()


@asynccontextmanager
async def administered(database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database.owner)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.mark.parametrize("fault", ["stopped", "frozen"])
async def test_database_that_is_gone_at_the_start_is_waited_for(
    fault: str,
    own_server: Postgres,
    opening: Opening,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with AsyncExitStack() as stack:
        async with GONE[fault](own_server):
            impatient = stack.enter_context(monkeypatch.context())
            impatient.setattr("smarter_auth_mw.postgres.connections.connector.CONNECT_TIMEOUT_S", 0.2)
            site = await stack.enter_async_context(opening())
            for _ in range(3):
                assert await site.answers() == UNKNOWN
            impatient.undo()
        await site.settles()
    assert [record.levelname for record in caplog.records].count("ERROR") == 1


class TestStaleIfError:
    async def test_outage_lengthens_grants_and_nothing_else(self, own_server: Postgres, opening: Opening) -> None:
        async with opening(stale_if_error_s=FOREVER_S) as site:
            await site.settles()
            async with stopped(own_server):
                await site.comes_to((200, 503, 503, 503))
                assert await site.answers() == (200, 503, 503, 503)
                assert site.worker.counts.stale
            await site.comes_to(HEALTHY)

    async def test_resource_may_be_left_out_of_it(self, own_server: Postgres, opening: Opening) -> None:
        async with opening(stale_if_error_s=FOREVER_S) as site:
            await site.keys.set_resource(KEYED, on_error="deny")
            await site.settles()
            async with stopped(own_server):
                await site.comes_to(UNKNOWN)

    async def test_key_that_was_heard_to_be_revoked_is_left_out_of_it(
        self, own_server: Postgres, opening: Opening
    ) -> None:
        async with opening(stale_if_error_s=FOREVER_S) as site:
            minted = await site.keys.create("late", bind=[KEYED])
            await site.worker.comes_to(200, KEYED, minted.token)
            await site.keys.revoke(minted.key.key_id)
            await beaten(site.worker)
            async with stopped(own_server):
                assert await site.worker.ask(KEYED, minted.token) in (401, 503)
                await site.worker.comes_to(503, KEYED, minted.token)

    async def test_nobody_waits_for_a_frozen_database_after_the_first(
        self, own_server: Postgres, opening: Opening
    ) -> None:
        async with opening(stale_if_error_s=FOREVER_S) as site:
            await site.settles()
            async with own_server.frozen():
                await until(lambda: not site.worker.has(KEYED))
                assert await site.worker.ask(KEYED, site.valid) == 200
                fills = site.worker.counts.fills
                for _ in range(100):
                    assert await site.worker.ask(KEYED, site.valid) == 200
                assert site.worker.counts.fills < fills + 50
            await site.comes_to(HEALTHY)
            await until(lambda: site.worker.has(KEYED))

    async def test_outage_is_told_once(
        self, own_server: Postgres, opening: Opening, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(authenticator, "REPORT_EVERY_S", 0.0)
        async with opening(stale_if_error_s=FOREVER_S) as site:
            await site.settles()
            for _ in range(2):
                async with stopped(own_server):
                    await site.comes_to((200, 503, 503, 503))
                    await site.answers()
                await site.settles()
        told = Counter(record.getMessage().partition(":")[0] for record in caplog.records)
        assert told["store.unavailable"] == told["store.stale"] == told["store.recovered"] == 2
        assert told["listener.lost"] == told["listener.recovered"] == 2
        assert [record for record in caplog.records if record.name != "smarter_auth_mw" or record.exc_info] == []


@pytest.mark.parametrize("name", SCENARIOS)
async def test_process_hears_of_revocations_wherever_it_serves_now(
    name: str, own_database: Database, strict_python: list[str]
) -> None:
    async with open_pool(own_database.manager) as pool:
        minted = await Management(Store(pool), actor="tester").create("laptop", bind=[KEYED])
    settings = {"database_url": own_database.runtime, "routes": "bot /bots/{ref}", "failed_attempts": ""}
    done = await asyncio.to_thread(
        subprocess.run,
        [*strict_python, "-m", "tests.support.process_scenarios", name],
        env=environment(**settings)
        | {"TOKEN": minted.token.reveal(), "KEY_ID": str(minted.key.key_id), "MANAGER_URL": own_database.manager},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
    )
    told = [line for line in done.stderr.splitlines() if not line.startswith("Executing <")]  # A busy machine.
    assert (done.returncode, told) == (0, []), done.stderr
