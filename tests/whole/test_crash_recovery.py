"""A backend of PostgreSQL is killed: transaction numbers are given out again, and nobody is let in by what was read.

The postmaster lives on, so that its start time, the timeline and the epoch stay the same. Numbers of transactions whose
log was not on disk are given to other transactions then, and an entry of the cache that was read before "sees" those.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from smarter_auth_mw.management.keys import Management, Minted
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from tests.support.asgi import KEYED, OTHER
from tests.support.plain_postgres import OWNER, PASSWORD, RUNTIME, PlainPostgres, installed
from tests.support.valkey import Valkey, free_port
from tests.support.worker import FOREVER_S, PATIENCE_S, Gate, Worker, beaten, until, worker

SERVERS = installed()
NEWEST = [*SERVERS][-1]
SOME = SERVERS if "CRASH_EVERY_SERVER" in os.environ else [NEWEST]
"""Where the rarer histories are tried."""
LOST = 20
"""So many transactions are forgotten: more than come after the crash until a key is revoked."""
ATTEMPTS = 20
SETTINGS: dict[str, Any] = {
    "heartbeat_s": 0.05,
    "max_staleness_s": FOREVER_S,
    "cache_ttl_s": FOREVER_S,
    "usage_flush_s": FOREVER_S,
    "query_timeout_s": 10,
    "failed_attempts": "",
}
"""What is kept is kept because it is thought to be current, and not because it is young."""
FORGETTING = {
    "rolled back": "BEGIN; SELECT pg_logical_emit_message(true, '', ''); ROLLBACK",
    "committed, and not on disk": "SET synchronous_commit = off; SELECT pg_logical_emit_message(true, '', '')",
}
LAZY = {"wal_writer_delay": "10s"}
"""The log reaches the disk when somebody commits, and not by itself meanwhile."""


class Site:
    """A database with a resource that a key opens, an open resource, and a key to close that one with."""

    def __init__(self, server: PlainPostgres, url: str, minted: Minted, spare: Minted) -> None:
        self.server = server
        self.url = url
        self.minted = minted
        self.spare = spare

    def on(self, server: PlainPostgres) -> Site:
        """The same database of another server."""
        return Site(server, server.url(self.name), self.minted, self.spare)

    @property
    def name(self) -> str:
        return urlsplit(self.url).path[1:]

    async def ask(self, statement: str, times: int = 1) -> Any:
        """What the statement answers the owner of the schema, at last."""
        connection = await asyncpg.connect(self.server.url(self.name, OWNER))
        try:
            for _ in range(times - 1):
                await connection.execute(statement)
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    async def next_number(self) -> int:
        return int(await self.ask("SELECT pg_snapshot_xmax(pg_current_snapshot())::text"))

    async def warm(self, worker: Worker) -> None:
        await worker.comes_to(200, KEYED, self.minted.token)
        await worker.comes_to(200, OTHER)
        await until(lambda: not worker.cache._writes)

    async def crash(self, *workers: Worker, forgetting: str = "rolled back") -> None:
        """Crash after the workers have read, and have heard that it is current; numbers that they saw come again."""
        for _ in range(ATTEMPTS):  # The log may just have been written by itself.
            await self.forget(forgetting)
            for each in workers:
                each.cache._known.empty()
                await self.warm(each)
                await beaten(each)
            seen = await self.next_number()
            await self.server.crash()
            if await self.next_number() < seen - LOST / 2:
                return
        pytest.fail("No number was given out again.")

    async def forget(self, how: str) -> None:
        connection = await asyncpg.connect(self.server.url(self.name, OWNER))
        try:
            for _ in range(LOST):
                await connection.execute(FORGETTING[how])
        finally:
            await connection.close()

    async def close_both(self) -> None:
        """Revoke the key of the one resource, and bind another to the other."""
        async with keys_on(self.url) as keys:
            await keys.revoke(self.minted.key.key_id)
            await keys.bind(self.spare.key.key_id, OTHER)

    async def is_closed(self, worker: Worker) -> None:
        """See that both are refused from the next heartbeat on."""
        await beaten(worker)
        assert await worker.ask(KEYED, self.minted.token) == 401
        assert await worker.ask(OTHER) == 401


@asynccontextmanager
async def keys_on(url: str) -> AsyncIterator[Management]:
    async with open_pool(url) as pool:
        yield Management(Store(pool), actor="tester")


async def site_on(server: PlainPostgres) -> Site:
    url = await server.database()
    async with keys_on(url) as keys:
        minted, spare = await keys.create("laptop", bind=[KEYED]), await keys.create("spare")
        await keys.add_resource(OTHER)
    return Site(server, url, minted, spare)


@pytest.fixture(scope="module", params=SERVERS)
def every_server(request: pytest.FixtureRequest) -> Iterator[PlainPostgres]:
    with PlainPostgres(SERVERS[request.param], **LAZY).made() as started:
        yield started


@pytest.fixture(scope="module", params=SOME)
def server(request: pytest.FixtureRequest) -> Iterator[PlainPostgres]:
    with PlainPostgres(SERVERS[request.param], **LAZY).made() as started:
        yield started


@pytest.fixture
async def site(server: PlainPostgres) -> Site:
    return await site_on(server)


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    with Valkey() as started:
        yield started


@pytest.mark.parametrize("forgetting", FORGETTING)
async def test_what_is_revoked_and_bound_after_it_is_refused(
    every_server: PlainPostgres, forgetting: str, valkey: Valkey
) -> None:
    """By a worker that was there, by one that shares what it read, and by one that comes later and borrows that."""
    site = await site_on(every_server)
    sharing = SETTINGS | {"cache_url": valkey.url}
    async with worker(site.url, **SETTINGS) as alone, worker(site.url, **sharing) as first:
        await beaten(first)
        await site.crash(alone, first, forgetting=forgetting)
        await site.close_both()
        for each in (alone, first):
            await site.is_closed(each)
    async with worker(site.url, **sharing) as later:
        await site.is_closed(later)


async def test_two_in_a_row_are_two(site: Site) -> None:
    async with worker(site.url, **SETTINGS) as started:
        await site.crash(started)
        await site.warm(started)
        await site.crash(started)
        await site.server.crash()
        await site.close_both()
        await site.is_closed(started)


async def test_workers_that_come_after_it_share_as_before(site: Site, valkey: Valkey) -> None:
    await site.server.crash()
    async with worker(site.url, **SETTINGS, cache_url=valkey.url) as first:
        await beaten(first)
        await site.warm(first)
        async with worker(site.url, **SETTINGS, cache_url=valkey.url) as second:
            async with asyncio.timeout(PATIENCE_S):
                while not second.counts.shared_hits:  # A call that takes too long is a miss.
                    for each in (first, second):
                        each.cache._known.empty()
                        await site.warm(each)


async def test_revocation_outlives_it_though_commits_do_not_wait_for_the_disk(server: PlainPostgres) -> None:
    for _ in range(ATTEMPTS):  # The log may just have been written by itself.
        site = await site_on(server)
        await site.ask(f"ALTER DATABASE {site.name} SET synchronous_commit = off")
        await site.close_both()
        await site.ask("INSERT INTO smarter_auth.key (name) VALUES ('lost')")
        await server.crash()
        async with worker(site.url, **SETTINGS) as started:
            await site.is_closed(started)
        if not await site.ask("SELECT true FROM smarter_auth.key WHERE name = 'lost'"):
            return
    pytest.fail("Every commit was on disk.")


async def test_fill_that_was_on_its_way_meanwhile_is_made_again(site: Site) -> None:
    async with worker(site.url, **SETTINGS) as filling, worker(site.url, **SETTINGS) as other:
        await beaten(filling)
        gate = Gate(filling.cache)
        asking = [
            asyncio.create_task(filling.ask(KEYED, site.minted.token)),
            asyncio.create_task(filling.ask(OTHER)),
        ]
        await gate.has_read.wait()
        await site.crash(other)
        await site.close_both()
        await beaten(filling)
        gate.is_open.set()
        assert await asyncio.gather(*asking) == [401, 401]


async def test_worker_that_has_not_heard_anybody_yet_takes_whom_it_hears_for_another_one(site: Site) -> None:
    async with wire_to(site) as (port, is_open):
        url = f"postgresql://{RUNTIME}:{PASSWORD}@127.0.0.1:{port}/{site.name}"
        async with worker(site.url, listen_url=url, **SETTINGS) as deaf, worker(site.url, **SETTINGS) as other:
            await site.forget("rolled back")
            await site.warm(deaf)
            await site.crash(other)
            await site.close_both()
            assert await deaf.ask(KEYED, site.minted.token) == 200
            is_open.set()
            await site.is_closed(deaf)


@asynccontextmanager
async def wire_to(site: Site) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """A port that leads to the server, once it is opened."""
    is_open = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if is_open.is_set():
            there = await asyncio.open_connection("127.0.0.1", site.server.port)
            await asyncio.gather(passed_on(reader, there[1]), passed_on(there[0], writer))
        writer.close()

    port = free_port()
    async with await asyncio.start_server(connected, "127.0.0.1", port):
        yield port, is_open


async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while sent := await reader.read(65536):
        writer.write(sent)
        await writer.drain()
    writer.close()


async def test_promoted_standby_has_a_name_of_its_own_and_notices_its_crash(site: Site) -> None:
    name = "SELECT id::text FROM smarter_auth.incarnation"
    of_the_primary = await site.ask(name)
    site.server.stop()
    standby = site.server.standby(**LAZY)
    site.server.start()
    with standby:
        standby.promote()
        promoted = site.on(standby)
        assert await promoted.ask(name) is None
        async with worker(promoted.url, **SETTINGS) as started:
            await beaten(started)
            assert await promoted.ask(name) not in (None, of_the_primary)
            await promoted.crash(started)
            await promoted.close_both()
            await promoted.is_closed(started)
