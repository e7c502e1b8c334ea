"""What requests get while something that they depend on is down, hangs or lies, and that all is well again after it.

Run with ``-s`` to see how long each took.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from smarter_auth_mw.errors import UnavailableError
from smarter_auth_mw.keys import Keys
from smarter_auth_mw.store import Store, open_pool
from smarter_auth_mw.tokens import Token
from tests.asgi_support import KEYED, OTHER, forget
from tests.cli_support import environment
from tests.database_support import Database
from tests.postgres_support import Postgres, Proxy
from tests.process_scenarios import SCENARIOS
from tests.valkey_support import Valkey
from tests.worker_support import FOREVER_S, PATIENCE_S, Worker, beaten, until, worker

BOUND_S = 0.4
QUICK: dict[str, Any] = {
    "heartbeat_s": 0.05,
    "max_staleness_s": BOUND_S,
    "query_timeout_s": 0.3,
    "failed_attempts": "1000000/minute",
}

Answers = tuple[int, ...]
HEALTHY: Answers = (200, 401, 401, 200)
"""What a valid token, a revoked one and none get on a protected resource, and what none gets on an open one."""
UNKNOWN: Answers = (503, 503, 503, 503)


class Site:
    """A worker, the keys it serves, and one of each who may ask."""

    def __init__(self, worker: Worker, keys: Keys, valid: Token, revoked: Token) -> None:
        self.worker = worker
        self.keys = keys
        self.valid = valid
        self.revoked = revoked
        self.slowest_s = 0.0

    async def answers(self) -> Answers:
        asked = ((KEYED, self.valid), (KEYED, self.revoked), (KEYED, None), (OTHER, None))
        return tuple([await self._ask(*each) for each in asked])

    async def _ask(self, *asked: Any) -> int:
        sent_s = time.monotonic()
        status = await self.worker.ask(*asked)
        self.slowest_s = max(self.slowest_s, time.monotonic() - sent_s)
        return status

    async def comes_to(self, expected: Answers) -> float:
        """Ask until the answers are these, and see none that is neither true nor 503; how many seconds it took."""
        begun_s = time.monotonic()
        async with asyncio.timeout(PATIENCE_S):
            while (answers := await self.answers()) != expected:
                assert all(told in (true, 503) for told, true in zip(answers, HEALTHY, strict=True)), answers
                await asyncio.sleep(0.01)
        return time.monotonic() - begun_s

    async def settles(self) -> None:
        """Wait until the worker listens, and answers from what it has read since."""
        for _ in range(2):
            await self.comes_to(HEALTHY)
            await beaten(self.worker)

    async def revoke(self, name: str) -> None:
        (key,) = [key for key in await self.keys.keys() if key.name == name]
        await self.keys.revoke(key.key_id)

    async def is_well_again(self) -> None:
        """A new key is let in, and its revocation heard by nothing but what listens."""
        minted = await self.keys.create("new", bind=[KEYED])
        await self.worker.comes_to(200, KEYED, minted.token)
        await beaten(self.worker)
        await self.keys.revoke(minted.key.key_id)
        await self.worker.comes_to(401, KEYED, minted.token)

    async def refuses(self, token: Token, since_s: float, bound_s: float = BOUND_S) -> None:
        """Ask until the token is refused, and see no grant of a request that was sent after the bound."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                sent_s = time.monotonic()
                if await self.worker.ask(KEYED, token) == 401:
                    return
                assert sent_s < since_s + bound_s
                await asyncio.sleep(0.005)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("postgres")) as started:
        yield started


@pytest.fixture
async def database(server: Postgres) -> Database:
    return await server.database()


Opening = Callable[..., AbstractAsyncContextManager[Site]]


@pytest.fixture
async def opening(database: Database) -> AsyncIterator[Opening]:
    """Opens sites on the database, with settings; what administers them goes around every fault but the server's."""
    async with open_pool(database.runtime, pool_min=0) as pool:
        keys = Keys(Store(pool), actor="tester")
        valid, revoked = [await keys.create(name, bind=[KEYED]) for name in ("valid", "revoked")]
        await keys.revoke(revoked.key.key_id)
        await keys.add_resource(OTHER)

        @asynccontextmanager
        async def open_site(**settings: Any) -> AsyncIterator[Site]:
            async with worker(database.runtime, **(QUICK | settings)) as started:
                yield Site(started, keys, valid.token, revoked.token)

        yield open_site


@pytest.fixture
async def site(opening: Opening) -> AsyncIterator[Site]:
    async with opening() as opened:
        await opened.settles()
        yield opened


@asynccontextmanager
async def stopped(server: Postgres) -> AsyncIterator[None]:
    await asyncio.to_thread(server.stop)
    yield
    await asyncio.to_thread(server.start)


@asynccontextmanager
async def killed(server: Postgres) -> AsyncIterator[None]:
    await asyncio.to_thread(server.kill)
    yield
    await asyncio.to_thread(server.start)


GONE: dict[str, Callable[[Postgres], AbstractAsyncContextManager[None]]] = {
    "stopped": stopped,
    "killed": killed,
    "frozen": Postgres.frozen,
}


@pytest.mark.parametrize("fault", GONE)
async def test_nothing_is_granted_that_cannot_be_known_while_the_database_is_gone(
    fault: str, server: Postgres, site: Site
) -> None:
    async with GONE[fault](server):
        unknown_s = await site.comes_to(UNKNOWN)
    well_s = await site.comes_to(HEALTHY)
    print(f"\n{fault}: 503 after {unknown_s:.2f} s, well {well_s:.2f} s after its end, slowest {site.slowest_s:.2f} s")


async def test_restart_of_the_database_needs_none_of_ours(server: Postgres, site: Site) -> None:
    for _ in range(3):
        restarting = asyncio.create_task(asyncio.to_thread(server.restart))
        while not restarting.done():
            await site.comes_to(HEALTHY)
        await restarting
        await site.settles()


async def test_requests_get_503_while_the_database_has_no_connection_left(
    server: Postgres, database: Database, site: Site
) -> None:
    async with administered(database) as owner:
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
    server: Postgres,
    opening: Opening,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("smarter_auth_mw.store.CONNECT_TIMEOUT_S", 0.2)
    async with AsyncExitStack() as stack:
        async with GONE[fault](server):
            site = await stack.enter_async_context(opening())
            for _ in range(3):
                assert await site.answers() == UNKNOWN
        await site.settles()
    assert [record.levelname for record in caplog.records].count("ERROR") == 1


class TestStaleIfError:
    async def test_outage_lengthens_grants_and_nothing_else(self, server: Postgres, opening: Opening) -> None:
        async with opening(stale_if_error_s=FOREVER_S) as site:
            await site.settles()
            async with stopped(server):
                await site.comes_to((200, 503, 503, 503))
                assert await site.answers() == (200, 503, 503, 503)
                assert site.worker.counts.stale
            await site.comes_to(HEALTHY)

    async def test_resource_may_be_left_out_of_it(self, server: Postgres, opening: Opening) -> None:
        async with opening(stale_if_error_s=FOREVER_S) as site:
            await site.keys.set_resource(KEYED, on_error="deny")
            await site.settles()
            async with stopped(server):
                await site.comes_to(UNKNOWN)

    async def test_key_that_was_heard_to_be_revoked_is_left_out_of_it(self, server: Postgres, opening: Opening) -> None:
        async with opening(stale_if_error_s=FOREVER_S) as site:
            minted = await site.keys.create("late", bind=[KEYED])
            await site.worker.comes_to(200, KEYED, minted.token)
            await site.keys.revoke(minted.key.key_id)
            await beaten(site.worker)
            async with stopped(server):
                assert await site.worker.ask(KEYED, minted.token) in (401, 503)
                await site.worker.comes_to(503, KEYED, minted.token)

    async def test_nobody_waits_for_a_frozen_database_after_the_first(self, server: Postgres, opening: Opening) -> None:
        async with opening(stale_if_error_s=FOREVER_S) as site:
            await site.settles()
            async with server.frozen():
                await until(lambda: not site.worker.has(KEYED))
                assert await site.worker.ask(KEYED, site.valid) == 200
                fills = site.worker.counts.fills
                for _ in range(100):
                    assert await site.worker.ask(KEYED, site.valid) == 200
                assert site.worker.counts.fills < fills + 50
            await site.comes_to(HEALTHY)
            await until(lambda: site.worker.has(KEYED))

    async def test_outage_is_told_once(
        self, server: Postgres, opening: Opening, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with opening(stale_if_error_s=FOREVER_S) as site:
            await site.settles()
            for _ in range(2):
                async with stopped(server):
                    await site.comes_to((200, 503, 503, 503))
                    await site.answers()
                await site.settles()
        told = Counter(record.getMessage().partition(":")[0] for record in caplog.records)
        assert told["store.unavailable"] == told["store.recovered"] == 2
        assert told["listener.lost"] == told["listener.recovered"] == 2


@pytest.mark.parametrize("name", SCENARIOS)
async def test_process_hears_of_revocations_wherever_it_serves_now(name: str, database: Database) -> None:
    async with open_pool(database.runtime) as pool:
        minted = await Keys(Store(pool), actor="tester").create("laptop", bind=[KEYED])
    settings = {"database_url": database.runtime, "routes": "bot /bots/{ref}", "failed_attempts": ""}
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-X", "dev", "-W", "error", "-m", "tests.process_scenarios", name],
        env=environment(**settings) | {"TOKEN": minted.token.reveal(), "KEY_ID": str(minted.key.key_id)},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
async def wire(server: Postgres) -> AsyncIterator[Proxy]:
    async with Proxy(server.socket) as started:
        yield started


class TestWire:
    """What becomes of the network between a worker and its database."""

    @pytest.fixture
    async def listening(self, wire: Proxy, database: Database, opening: Opening) -> AsyncIterator[Site]:
        """A site whose listening connection alone goes over the wire."""
        async with opening(listen_url=wire.url(database.runtime)) as opened:
            await opened.settles()
            yield opened

    @pytest.fixture
    async def distant(self, wire: Proxy, database: Database, opening: Opening) -> AsyncIterator[Site]:
        """A site all of whose connections go over the wire."""
        async with opening(database_url=wire.url(database.runtime)) as opened:
            await opened.settles()
            yield opened

    async def test_revoked_key_is_refused_within_the_bound_by_a_worker_that_hears_nothing(
        self, wire: Proxy, listening: Site
    ) -> None:
        wire.swallows = True
        await listening.revoke("valid")
        await listening.refuses(listening.valid, time.monotonic())
        wire.swallows = False
        await listening.is_well_again()

    async def test_silent_cut_is_noticed_and_mended(self, wire: Proxy, listening: Site) -> None:
        wire.cut_silently()
        await listening.revoke("valid")
        await listening.refuses(listening.valid, time.monotonic())
        await listening.is_well_again()

    async def test_cut_is_mended_and_what_was_missed_is_caught_up(self, wire: Proxy, listening: Site) -> None:
        for _ in range(5):
            wire.cut()
            await beaten(listening.worker)
        await listening.revoke("valid")
        wire.cut()
        await listening.refuses(listening.valid, time.monotonic())
        await listening.is_well_again()

    async def test_network_that_swallows_everything_is_survived(
        self, wire: Proxy, distant: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("smarter_auth_mw.wire.CONNECT_TIMEOUT_S", 0.2)
        wire.swallows = True
        await distant.comes_to(UNKNOWN)
        wire.swallows = False
        await distant.comes_to(HEALTHY)
        await beaten(distant.worker)

    async def test_cut_of_all_connections_is_survived(self, wire: Proxy, distant: Site) -> None:
        for cut in (wire.cut, wire.cut_silently) * 2:
            cut()
            forget(distant.worker.app)
            await distant.comes_to(HEALTHY)
            await beaten(distant.worker)

    async def test_garbage_on_the_wire_is_survived(self, wire: Proxy, distant: Site) -> None:
        for garbage in (b"garbage" * 1000, b"D\x7f\xff\xff\xff", b"E\0\0\0\4"):
            wire.insert(garbage)
            forget(distant.worker.app)
            await distant.comes_to(HEALTHY)
            await beaten(distant.worker)


class TestValkey:
    """What becomes of requests while the shared tier fails: nothing."""

    @pytest.fixture
    def valkey(self) -> Iterator[Valkey]:
        with Valkey() as started:
            yield started

    @pytest.fixture
    async def sharing(self, valkey: Valkey, opening: Opening) -> AsyncIterator[Site]:
        async with opening(cache_url=valkey.url, max_staleness_s=30) as opened:
            await opened.settles()
            yield opened

    async def test_tier_that_cannot_be_opened_is_done_without_until_it_can(
        self, valkey: Valkey, opening: Opening, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        secret, refusals = Store.secret, [1, 2, 3]

        async def refused(store: Store) -> bytes:
            if refusals:
                refusals.pop()
                raise UnavailableError
            return await secret(store)

        monkeypatch.setattr(Store, "secret", refused)
        async with opening(cache_url=valkey.url) as site:
            await site.comes_to(HEALTHY)
            await site.revoke("valid")
            await site.refuses(site.valid, time.monotonic())
            await site.is_well_again()
            assert not refusals
            assert site.worker.cache.shared is not None

    @pytest.mark.parametrize("fault", ["killed", "frozen", "restarted empty", "holding garbage"])
    async def test_every_request_is_answered_as_ever(self, fault: str, valkey: Valkey, sharing: Site) -> None:
        await break_it(fault, valkey, sharing)
        for _ in range(5):
            forget(sharing.worker.app)
            assert await sharing.answers() == HEALTHY
        print(f"\nValkey {fault}: slowest answer {sharing.slowest_s:.3f} s")
        await sharing.revoke("valid")
        await sharing.refuses(sharing.valid, time.monotonic())
        await mend(fault, valkey)
        hits = sharing.worker.shared.hits
        async with asyncio.timeout(PATIENCE_S):
            while sharing.worker.shared.hits == hits:
                forget(sharing.worker.app)
                await sharing.answers()


async def break_it(fault: str, valkey: Valkey, site: Site) -> None:
    if fault == "frozen":
        valkey.freeze()
    elif fault == "holding garbage":
        async with Redis.from_url(valkey.url) as client:
            keys = await client.keys("smarter_auth:*")
            assert keys
            for key in keys:
                await client.set(key, b"garbage")
    else:
        valkey.kill()
        if fault == "restarted empty":
            valkey.start()


async def mend(fault: str, valkey: Valkey) -> None:
    if fault == "killed":
        valkey.start()
    elif fault == "frozen":
        valkey.thaw()
