"""Whatever is changed anywhere, by command or by plain SQL, changes the answers of every worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import asyncpg
import pytest

from smarter_auth_mw.cache.entries import CacheCounts
from smarter_auth_mw.cache.shared import SharedBackend
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.engine import assembly
from smarter_auth_mw.management.keys import Management, Minted
from tests.support.asgi import KEYED, OTHER
from tests.support.database import Database
from tests.support.valkey import Valkey
from tests.support.worker import FOREVER_S, PATIENCE_S, Worker, until, workers

Act = Callable[[Management, Minted], Awaitable[Any]]

NOTIFIED: dict[str, Any] = {"heartbeat_s": FOREVER_S, "max_staleness_s": 2 * FOREVER_S}
"""Nothing but a notification can tell in time."""
HEARTBEAT: dict[str, Any] = {"heartbeat_s": 0.05, "max_staleness_s": FOREVER_S, "statement_cache_size": 0}
"""As behind a transaction pooler: nothing but a heartbeat can tell."""

BY_COMMAND: dict[str, tuple[Resource, bool, int, int, Act]] = {
    "revoke": (KEYED, True, 200, 401, lambda keys, minted: keys.revoke(minted.key.key_id)),
    "deactivate": (KEYED, True, 200, 401, lambda keys, minted: keys.deactivate(minted.key.key_id)),
    "unbind": (
        KEYED,
        False,
        401,
        200,
        lambda keys, minted: keys.unbind(minted.key.key_id, KEYED, allow_anonymous=True),
    ),
    "first bind": (OTHER, False, 200, 401, lambda keys, minted: keys.bind(minted.key.key_id, OTHER)),
    "protect": (OTHER, False, 200, 401, lambda keys, minted: _protect(keys)),
}
"""The resource, whether the token is sent, the answer before and after, and what is done."""

BY_SQL = {
    "revoked": "UPDATE key SET revoked_at = now()",
    "inactive": "UPDATE key SET is_active = false",
    "expired": "UPDATE key SET expires_at = now() - interval '1 second'",
    "token expired": "UPDATE token SET valid_until = now() - interval '1 second'",
    "token deleted": "DELETE FROM token",
    "token replaced": "UPDATE token SET digest = sha512('another')",
    "unbound": "DELETE FROM binding",
    "bound elsewhere": "INSERT INTO resource (id, kind, ref) VALUES (99, 'bot', '99');"
    " UPDATE binding SET resource_id = 99",
    "token truncated": "TRUNCATE token",
    "bindings truncated": "TRUNCATE binding",
    "keys truncated": "TRUNCATE key CASCADE",
    "as a replica": "SET session_replication_role = replica; UPDATE key SET is_active = false",
    "in a savepoint": "BEGIN; SAVEPOINT one; UPDATE key SET is_active = false; RELEASE one; COMMIT",
    "after a savepoint": "BEGIN; SAVEPOINT one; UPDATE key SET name = 'x'; ROLLBACK TO one;"
    " UPDATE key SET is_active = false; COMMIT",
    "with many others": "INSERT INTO key (name) SELECT n FROM generate_series(1, 1000) AS n;"
    " UPDATE key SET is_active = false",
    "in a serializable transaction": "BEGIN ISOLATION LEVEL SERIALIZABLE; UPDATE key SET is_active = false; COMMIT",
}


async def _protect(keys: Management) -> None:
    await keys.add_resource(OTHER)
    await keys.protect(OTHER)


@pytest.fixture
async def minted(keys: Management) -> Minted:
    return await keys.create("laptop", bind=[KEYED])


@pytest.fixture(params=[NOTIFIED, HEARTBEAT], ids=["by notification", "by heartbeat alone"])
async def pair(request: pytest.FixtureRequest, database: Database) -> AsyncIterator[list[Worker]]:
    """Two workers that hear of changes in one way only, and whose entries do not grow too old in any test."""
    async with workers(2, database.runtime, **request.param) as started:
        yield started


@pytest.mark.parametrize("name", BY_COMMAND)
async def test_command_changes_the_answer_of_every_worker(
    name: str, pair: list[Worker], keys: Management, minted: Minted
) -> None:
    resource, has_token, before, after, act = BY_COMMAND[name]
    token = minted.token if has_token else None
    for each in pair:
        assert await each.warm(resource, token) == before
    await act(keys, minted)
    for each in pair:
        assert await each.comes_to(after, resource, token) <= {before}
        assert await each.warm(resource, token) == after


@pytest.mark.parametrize("name", BY_SQL)
async def test_plain_sql_takes_the_access_away_in_every_worker(
    name: str, pair: list[Worker], minted: Minted, owner: asyncpg.Connection
) -> None:
    for each in pair:
        assert await each.warm(KEYED, minted.token) == 200
    await owner.execute(f"SET search_path = smarter_auth; {BY_SQL[name]}")
    for each in pair:
        assert await each.comes_to(401, KEYED, minted.token) <= {200}
        assert await each.warm(KEYED) == 401


async def test_what_was_rolled_back_changes_nothing(
    pair: list[Worker], minted: Minted, owner: asyncpg.Connection
) -> None:
    for each in pair:
        assert await each.warm(KEYED, minted.token) == 200
    await owner.execute("BEGIN; UPDATE smarter_auth.key SET is_active = false; ROLLBACK")
    for each in pair:
        await _heard_all(each, owner)
        assert await each.warm(KEYED, minted.token) == 200


async def test_key_expires_in_every_worker_without_anybody_telling(pair: list[Worker], keys: Management) -> None:
    for lifetime_s in (1, 5, 25):  # A machine may be so busy that a key has expired before it is asked for.
        expires_at = datetime.now(UTC) + timedelta(seconds=lifetime_s)
        minted = await keys.create(f"for {lifetime_s} s", expires_at=expires_at, bind=[KEYED])
        if {await each.warm(KEYED, minted.token) for each in pair} == {200}:
            break
        assert datetime.now(UTC) > expires_at
    fills = [each.counts.fills for each in pair]
    for each in pair:
        assert await each.comes_to(401, KEYED, minted.token) <= {200}
    assert [each.counts.fills for each in pair] == fills


async def test_unrelated_changes_leave_warm_entries_warm(
    pair: list[Worker], keys: Management, owner: asyncpg.Connection
) -> None:
    resources = [Resource("bot", str(number)) for number in range(100, 120)]
    minted = [await keys.create(str(resource), bind=[resource]) for resource in resources]
    one = pair[1]
    for resource in (*resources, KEYED):
        await one.warm(resource)
    await keys.create("other account", account="acme", bind=[OTHER])
    await owner.execute("UPDATE smarter_auth.key SET description = 'x', is_active = is_active, updated_at = now()")
    await owner.execute("INSERT INTO smarter_auth.token_use SELECT digest, now() FROM smarter_auth.token")
    await keys.revoke(minted[0].key.key_id)
    await _heard_all(one, owner)
    assert [resource for resource in (*resources, KEYED) if not one.has(resource)] == resources[:1]
    assert await one.ask(resources[0], minted[0].token) == 401


async def test_change_of_all_keys_of_an_account_leaves_the_others_warm(
    pair: list[Worker], keys: Management, owner: asyncpg.Connection
) -> None:
    acme = [Resource("bot", str(number)) for number in range(100, 220)]
    for resource in acme:
        await keys.create(str(resource), account="acme", bind=[resource])
    mine = Resource("bot", "mine")
    minted = await keys.create("mine", bind=[mine])
    for resource in (*acme, mine, KEYED):
        await pair[1].warm(resource)
    await owner.execute("UPDATE smarter_auth.key SET is_active = false WHERE account = 'acme'")
    await _heard_all(pair[1], owner)
    assert not any(map(pair[1].has, acme))
    assert pair[1].has(mine)
    assert pair[1].has(KEYED)
    assert await pair[1].ask(mine, minted.token) == 200


async def _heard_all(worker: Worker, sql: asyncpg.Connection) -> None:
    """Wait until the worker has heard of everything that is committed by now."""
    last = Resource("bot", "last")
    await worker.warm(last)
    await sql.execute("INSERT INTO smarter_auth.resource (kind, ref) VALUES ('bot', 'last')")
    await until(lambda: not worker.has(last))
    await sql.execute("DELETE FROM smarter_auth.resource WHERE ref = 'last'")


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    with Valkey() as server:
        yield server


class TestSharedTier:
    """Workers that share what they have read, through a real Valkey."""

    @pytest.fixture
    def sharing(self, valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """A busy machine does not keep a deadline of 50 ms, and what is not shared in time is read."""
        monkeypatch.setattr(assembly, "SharedBackend", partial(SharedBackend, deadline_s=PATIENCE_S))
        return NOTIFIED | {"cache_url": valkey.url}

    async def test_later_worker_starts_warm(self, database: Database, sharing: dict[str, Any], minted: Minted) -> None:
        sharing["usage_flush_s"] = FOREVER_S
        async with AsyncExitStack() as running, asyncio.timeout(PATIENCE_S):
            counts = CacheCounts()
            while not counts.shared_hits:  # The second one starts warm, unless autovacuum has written something.
                (later,) = await running.enter_async_context(workers(1, database.runtime, **sharing))
                assert await later.ask(KEYED, minted.token) == 200
                counts = later.counts
                await _share(later, minted)
            assert counts.fills == 0

    async def test_worker_does_not_use_what_was_shared_before_the_last_transaction_before_its_start(
        self, database: Database, sharing: dict[str, Any], minted: Minted, owner: asyncpg.Connection
    ) -> None:
        async with workers(1, database.runtime, **sharing) as (first,):
            await _share(first, minted)
            await owner.execute("SELECT pg_current_xact_id()")
            async with workers(1, database.runtime, **sharing) as (second,):
                assert await second.ask(KEYED, minted.token) == 200
                assert (second.counts.fills, second.counts.shared_hits) == (1, 0)
                assert second.shared.hits == 1  # It was there.

    async def test_worker_hears_of_changes_to_what_it_has_from_others(
        self, database: Database, sharing: dict[str, Any], keys: Management, minted: Minted
    ) -> None:
        async with workers(2, database.runtime, **sharing) as (first, second):
            await _share(first, minted)
            assert await second.warm(KEYED, minted.token) == 200
            assert second.counts.shared_hits == 1
            await keys.revoke(minted.key.key_id)
            assert await second.comes_to(401, KEYED, minted.token) <= {200}
            assert await second.warm(KEYED, minted.token) == 401

    async def test_revoked_key_is_not_revived_by_what_was_shared_before(
        self, database: Database, sharing: dict[str, Any], keys: Management, minted: Minted
    ) -> None:
        async with workers(1, database.runtime, **sharing) as (first,):
            await _share(first, minted)
            await keys.revoke(minted.key.key_id)
            async with workers(1, database.runtime, **sharing) as (second,):
                assert await second.ask(KEYED, minted.token) == 401
                assert (second.counts.fills, second.counts.shared_hits) == (1, 0)
                assert second.shared.hits == 1  # It was there.


async def _share(worker: Worker, minted: Minted) -> None:
    assert await worker.warm(KEYED, minted.token) == 200
    await until(lambda: not worker.cache._writes)
