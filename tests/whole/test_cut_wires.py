"""What requests get while the network to database or shared cache fails, and that all is well again after it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from smarter_auth_mw.errors import UnavailableError
from smarter_auth_mw.postgres.store import Store
from tests.support.asgi import forget
from tests.support.database import Database
from tests.support.faults import HEALTHY, UNKNOWN, Opening, Site
from tests.support.postgres import Postgres, Proxy
from tests.support.valkey import Valkey
from tests.support.worker import PATIENCE_S, beaten


@pytest.fixture
async def wire(own_server: Postgres) -> AsyncIterator[Proxy]:
    async with Proxy(own_server.socket) as started:
        yield started


class TestWire:
    """What becomes of the network between a worker and its database."""

    @pytest.fixture
    async def listening(self, wire: Proxy, own_database: Database, opening: Opening) -> AsyncIterator[Site]:
        """A site whose listening connection alone goes over the wire."""
        async with opening(listen_url=wire.url(own_database.runtime)) as opened:
            await opened.settles()
            yield opened

    @pytest.fixture
    async def distant(self, wire: Proxy, own_database: Database, opening: Opening) -> AsyncIterator[Site]:
        """A site all of whose connections go over the wire."""
        async with opening(database_url=wire.url(own_database.runtime)) as opened:
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
        with monkeypatch.context() as impatient:
            impatient.setattr("smarter_auth_mw.postgres.connections.connector.CONNECT_TIMEOUT_S", 0.2)
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
