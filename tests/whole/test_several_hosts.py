"""Several hosts in one URL: the primary is found however the others behave, and the newest one of two."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from smarter_auth_mw.errors import SchemaError, UnavailableError
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.postgres.connections import election
from smarter_auth_mw.postgres.connections.connector import Connector
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from tests.support.asgi import KEYED
from tests.support.plain_postgres import OWNER, PASSWORD, RUNTIME, PlainPostgres, all_of, installed
from tests.support.worker import worker

PROGRAMS = [*installed().values()][-1]


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(election, "_primaries", {})


@pytest.fixture(scope="module")
def primary() -> Iterator[PlainPostgres]:
    with PlainPostgres(PROGRAMS).made() as started:
        yield started


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a host that takes connections and says nothing, as one that is frozen."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:
        yield listening.getsockname()[1]


def hosts_before(port: int, url: str) -> str:
    return url.replace("@127.0.0.1", f"@127.0.0.1:{port},127.0.0.1")


@asynccontextmanager
async def keys_on(url: str) -> AsyncIterator[Management]:
    async with open_pool(url) as pool:
        yield Management(Store(pool), actor="tester")


async def test_a_first_host_that_hangs_keeps_nobody_from_the_primary(
    primary: PlainPostgres, silent: int, caplog: pytest.LogCaptureFixture
) -> None:
    url = hosts_before(silent, await primary.database())
    async with asyncio.timeout(30), worker(url, heartbeat_s=0.1, failed_attempts="") as started:
        async with keys_on(url) as keys:
            minted = await keys.create("laptop", bind=[KEYED])
        assert await started.comes_to(200, KEYED, minted.token) <= {401, 503}
        assert await started.comes_to(401, KEYED) <= {200, 503}
    assert (
        f"server.silent: 127.0.0.1:{silent} did not answer, and 127.0.0.1:{primary.port} is the primary" in caplog.text
    )


async def test_a_primary_that_hangs_is_left_for_the_one_that_is_promoted(primary: PlainPostgres) -> None:
    """The pool, the listener and a new process find it without waiting for the one that hangs."""
    name = await primary.database()
    primary.stop()
    standby = primary.standby()
    primary.start()
    with standby:
        url = all_of([primary, standby], name)
        async with worker(url, heartbeat_s=0.1, max_staleness_s=0.5, failed_attempts="") as started:
            async with keys_on(url) as keys:
                minted = await keys.create("laptop", bind=[KEYED])
            assert await started.comes_to(200, KEYED, minted.token) <= {401, 503}
            while await lag(primary, standby):
                await asyncio.sleep(0.01)
            with primary.frozen():
                standby.promote()
                assert await started.comes_to(200, KEYED, minted.token) <= {401, 503}
                async with keys_on(url) as keys:
                    await keys.revoke(minted.key.key_id)
                assert await started.comes_to(401, KEYED, minted.token) <= {200, 503}


async def lag(primary: PlainPostgres, standby: PlainPostgres) -> bool:
    sent = await asked(primary, "SELECT pg_current_wal_lsn()::text")
    return sent != await asked(standby, "SELECT pg_last_wal_replay_lsn()::text")


async def asked(server: PlainPostgres, query: str) -> str:
    connection = await Connector(f"postgresql://{RUNTIME}:{PASSWORD}@127.0.0.1:{server.port}/postgres").connect()
    try:
        return str(await connection.fetchval(query))
    finally:
        await connection.close()


async def test_a_deposed_primary_that_is_back_and_named_first_is_not_followed_by_a_new_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with PlainPostgres(PROGRAMS).made() as deposed:
        name = await deposed.database()
        async with keys_on(name) as keys:
            minted = await keys.create("laptop", bind=[KEYED])
        deposed.stop()
        standby = deposed.standby()
        with standby:
            standby.promote()
            async with keys_on(all_of([standby], name)) as keys:
                await keys.revoke(minted.key.key_id)
            deposed.start()
            async with worker(all_of([deposed, standby], name), failed_attempts="") as started:
                assert await started.comes_to(401, KEYED, minted.token) <= {503}
            assert f"server.deposed: 127.0.0.1:{deposed.port}" in caplog.text


async def test_hosts_of_which_none_is_the_primary_are_named_with_what_became_of_each(primary: PlainPostgres) -> None:
    name = await primary.database()
    primary.stop()
    with primary.standby() as standby:
        url = all_of([primary, standby], name)
        with pytest.raises(UnavailableError, match="None of the hosts") as refused:
            await Connector(url).connect()
    primary.start()
    assert f"127.0.0.1:{primary.port} of" in refused.value.message
    assert f"127.0.0.1:{standby.port} is read-only: a standby" in refused.value.message


async def test_a_primary_with_a_read_only_default_is_told_apart_and_a_schema_is_no_matter_of_hosts(
    primary: PlainPostgres,
) -> None:
    name = await primary.database()
    url = all_of([primary, primary], name)
    database = name.rpartition("/")[2]
    owner = await asyncpg.connect(primary.url(database, OWNER))
    await owner.execute("UPDATE smarter_auth.meta SET serves_from = 9999")
    await owner.execute("UPDATE smarter_auth.schema_version SET version_num = '9999'")
    with pytest.raises(SchemaError):
        async with open_pool(url):
            pass
    await owner.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    await owner.close()
    with pytest.raises(UnavailableError, match="read-only: default_transaction_read_only is on") as refused:
        await Connector(url).connect()
    assert "SET default_transaction_read_only = off" in refused.value.hint
