"""Behind the parts that people have: poolers, every PostgreSQL from 13 on, standbys, a cache with a password."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from tests.support.asgi import KEYED, OTHER
from tests.support.pgbouncer import pgbouncer, shipped_pgbouncer, through
from tests.support.plain_postgres import PlainPostgres, all_of, installed
from tests.support.valkey import Valkey
from tests.support.worker import PATIENCE_S, until, worker, workers

SERVERS = installed()
SETTINGS: dict[str, Any] = {"query_timeout_s": 10, "failed_attempts": ""}
NO_HEARTBEAT = {"heartbeat_s": 3600, "max_staleness_s": 7200}
"""What is known of changes is known by notification."""


@pytest.fixture(scope="module")
def newest() -> Iterator[PlainPostgres]:
    with PlainPostgres([*SERVERS.values()][-1]).made() as server:
        yield server


@asynccontextmanager
async def keys_on(url: str) -> AsyncIterator[Management]:
    async with open_pool(url) as pool:
        yield Management(Store(pool), actor="tester")


async def goes_round(direct_url: str, url: str, **settings: Any) -> None:
    """What any deployment must do: bound tokens open, others do not, changes count, and usage is written."""
    async with keys_on(direct_url) as keys:
        async with worker(url, **SETTINGS | settings) as started:
            assert await started.ask(KEYED) == 200
            minted = await keys.create("laptop", bind=[KEYED])
            assert await started.comes_to(401, KEYED) <= {200}
            assert await started.warm(KEYED, minted.token) == 200
            assert await started.ask(OTHER, minted.token) == 200
            await keys.revoke(minted.key.key_id)
            assert await started.comes_to(401, KEYED, minted.token) <= {200}
        assert (await keys.key(minted.key.key_id)).last_used_at is not None


@pytest.mark.parametrize("version", SERVERS)
async def test_postgresql(version: str) -> None:
    with PlainPostgres(SERVERS[version]).made() as server:
        url = await server.database()
        await goes_round(url, url, **NO_HEARTBEAT)


async def test_pgbouncer_by_transaction_with_notifications_from_the_primary(newest: PlainPostgres) -> None:
    url = await newest.database()
    with pgbouncer(newest, "transaction") as port:
        await goes_round(url, through(url, port), statement_cache_size=0, listen_url=url, **NO_HEARTBEAT)


async def test_pgbouncer_as_we_ship_its_configuration(newest: PlainPostgres) -> None:
    url = await newest.database()
    with shipped_pgbouncer(newest, url) as port:
        await goes_round(url, through(url, port), statement_cache_size=0, listen_url=url, **NO_HEARTBEAT)


async def test_pgbouncer_by_transaction_with_the_heartbeat_alone(newest: PlainPostgres) -> None:
    url = await newest.database()
    with pgbouncer(newest, "transaction") as port:
        await goes_round(url, through(url, port), statement_cache_size=0, heartbeat_s=0.05)


IGNORING = (
    "ignore_startup_parameters = jit, plan_cache_mode, random_page_cost, default_transaction_isolation,"
    " statement_timeout, lock_timeout"
)
SESSIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "as behind any pooler": ("", {"statement_cache_size": 0, "heartbeat_s": 0.05}),
    "with sessions of our own, which may listen too": (IGNORING, NO_HEARTBEAT),
}


@pytest.mark.parametrize("way", SESSIONS)
async def test_pgbouncer_by_session(newest: PlainPostgres, way: str) -> None:
    url = await newest.database()
    more, settings = SESSIONS[way]
    with pgbouncer(newest, "session", size=20, more=more) as port:
        await goes_round(url, through(url, port), **settings)


async def test_settings_that_do_not_fit_pgbouncer_are_told_with_what_to_set(
    newest: PlainPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    url = await newest.database()
    with pgbouncer(newest, "session") as port:
        async with worker(through(url, port), **SETTINGS) as started:
            assert await started.ask(KEYED) == 503
    assert "SMARTER_AUTH_STATEMENT_CACHE_SIZE=0" in caplog.text


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[PlainPostgres, PlainPostgres]]:
    """A primary, which commits nothing that its standby does not have, and that standby."""
    with PlainPostgres(
        [*SERVERS.values()][-1], synchronous_standby_names="*", synchronous_commit="remote_apply"
    ).made() as primary:
        primary.stop()
        standby = primary.standby()
        primary.start()
        with standby:
            yield primary, standby


async def test_a_promoted_standby_is_found_by_the_same_url_and_knows_what_was_revoked(
    pair: tuple[PlainPostgres, PlainPostgres],
) -> None:
    primary, standby = pair
    url = all_of([standby, primary], await primary.database())
    async with worker(url, heartbeat_s=0.1, max_staleness_s=0.5, **SETTINGS) as started:
        async with keys_on(url) as keys:
            kept, revoked = [await keys.create(name, bind=[KEYED]) for name in ("kept", "revoked")]
            await keys.revoke(revoked.key.key_id)
        assert await started.comes_to(200, KEYED, kept.token) <= {401}
        primary.stop("immediate")
        assert await started.comes_to(503, KEYED, kept.token) <= {200}
        standby.promote()
        assert await started.comes_to(200, KEYED, kept.token) <= {503}
        assert await started.ask(KEYED, revoked.token) == 401
        async with keys_on(url) as keys:
            await keys.revoke(kept.key.key_id)
        assert await started.comes_to(401, KEYED, kept.token) <= {200, 503}


async def test_workers_share_what_they_read_in_a_valkey_that_asks_for_a_password(newest: PlainPostgres) -> None:
    url = await newest.database()
    async with keys_on(url) as keys:
        minted = await keys.create("laptop", bind=[KEYED])
    with Valkey(password="p@ss/w:rd", has_port=True) as valkey:
        settings = {"cache_url": valkey.tcp_url, **SETTINGS}
        async with workers(1, url, **settings) as (first,):
            assert await first.warm(KEYED, minted.token) == 200
            await until(lambda: not first.cache._writes)
            async with workers(1, url, **settings) as (second,):
                async with asyncio.timeout(PATIENCE_S):
                    while not second.counts.shared_hits:  # On a busy machine a call may take too long.
                        second.cache._known.empty()
                        assert await second.ask(KEYED, minted.token) == 200
