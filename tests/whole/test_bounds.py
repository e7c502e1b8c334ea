"""What many requests cost: one query, a bounded memory, and nothing for those who ask for something else."""

from __future__ import annotations

import asyncio
import os
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from smarter_auth_mw import SmarterAuthMiddleware
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.tokens import Token
from tests.support.asgi import KEYED, Conversation, raw, scope
from tests.support.database import Database
from tests.support.worker import FOREVER_S, Worker, until, worker, workers

RESOURCES = int(os.environ.get("PROOF_RESOURCES", "3000"))
"""In one account; ``PROOF_RESOURCES=100000`` makes the large run."""


async def status(app: SmarterAuthMiddleware, ref: object, token: Token | None = None, peer: str = "10.0.0.1") -> int:
    """What a request gets, without a client's own costs."""
    headers = () if token is None else (raw(token),)
    conversation = Conversation({"type": "http.request", "body": b"", "more_body": False})
    await app(scope(f"/bots/{ref}", *headers, client=(peer, 1)), conversation.receive, conversation.send)
    told: int = conversation.sent[0]["status"]
    return told


@asynccontextmanager
async def one_worker(database: Database, **settings: Any) -> AsyncIterator[Worker]:
    async with workers(1, database.runtime, **settings) as (started,):
        yield started


async def test_a_thousand_cold_requests_for_one_resource_make_one_query(database: Database, keys: Management) -> None:
    minted = await keys.create("laptop", bind=[KEYED])
    async with one_worker(database) as started:
        told = await asyncio.gather(*(status(started.app, KEYED.ref, minted.token) for _ in range(1000)))
        assert set(told) == {200}
        assert started.counts.fills == 1


class TestFlood:
    """Of references that nobody has registered."""

    async def test_evicts_nothing_but_itself(self, database: Database, keys: Management) -> None:
        known = [Resource("bot", str(number)) for number in range(50)]
        await keys.create("laptop", bind=known)
        async with one_worker(database, max_entries=100) as started:
            for resource in known:
                await started.warm(resource)
            await flood(started.app, 0, 500)
            assert len(started.cache._unknown) <= 10
            assert all(map(started.has, known))

    async def test_leaves_little_behind(self, database: Database) -> None:
        """What paths name is remembered, in a bounded memory of its own; nothing else may grow."""
        async with one_worker(database, max_entries=100) as started:
            await flood(started.app, 0, 500)
            tracemalloc.start()
            try:
                await flood(started.app, 1000, 2000)
                grown = tracemalloc.get_traced_memory()[0]
            finally:
                tracemalloc.stop()
        assert grown / 2000 < 1024


async def flood(app: SmarterAuthMiddleware, first: int, count: int) -> None:
    """So many references, each another, a hundred at a time."""
    for start in range(first, first + count, 100):
        told = await asyncio.gather(*(status(app, f"guess-{number}") for number in range(start, start + 100)))
        assert set(told) == {200}


class TestManyResources:
    """In one account, one key of which opens each of them."""

    @pytest.fixture
    async def tokens(self, database: Database, keys: Management, owner: asyncpg.Connection) -> list[Token]:
        """What opens the first ones of the account, and ``KEYED`` of another one at last."""
        mine = [
            await keys.create(f"mine {n}", account="acme", bind=[Resource("bot", f"{1000 + n}")]) for n in range(20)
        ]
        other = await keys.create("other", bind=[KEYED])
        await owner.execute(
            f"""
            SET search_path = smarter_auth;
            INSERT INTO resource (kind, ref, account)
            SELECT 'bot', n, 'acme' FROM generate_series(2000, {2000 + RESOURCES}) AS n;
            INSERT INTO key (account, name) SELECT 'acme', n FROM generate_series(2000, {2000 + RESOURCES}) AS n;
            INSERT INTO binding (resource_id, key_id, account)
            SELECT resource.id, key_id, 'acme' FROM resource JOIN key ON key.name = ref AND key.account = 'acme';
            """
        )
        return [*(minted.token for minted in mine), other.token]

    async def test_change_of_all_under_load_costs_no_503_and_no_flush(
        self, database: Database, tokens: list[Token], owner: asyncpg.Connection
    ) -> None:
        refs = [*range(1000, 1020), KEYED.ref]
        async with one_worker(database) as started:
            for ref in refs:
                await started.warm(Resource("bot", str(ref)))
            floor, told = started.cache.changes.floor, Counter[tuple[Any, int]]()
            changing = asyncio.create_task(owner.execute("UPDATE smarter_auth.key SET is_active = account <> 'acme'"))
            while not (changing.done() and told[1000, 401]):
                told.update(zip(refs, await ask_all(started, refs, tokens), strict=True))
                assert {number for _, number in told} <= {200, 401}
            await changing
            assert told[KEYED.ref, 401] == 0
            assert started.cache.changes.floor is floor
            assert await ask_all(started, refs, tokens) == [401] * 20 + [200]


async def ask_all(worker: Worker, refs: list[Any], tokens: list[Token]) -> list[int]:
    return await asyncio.gather(*(status(worker.app, ref, token) for ref, token in zip(refs, tokens, strict=True)))


class TestManyBindings:
    """Of one resource."""

    COUNT = 10_000

    @pytest.fixture
    async def token(self, keys: Management, owner: asyncpg.Connection) -> Token:
        minted = await keys.create("the last one", bind=[KEYED])
        await owner.execute(
            f"""
            SET search_path = smarter_auth;
            INSERT INTO key (key_id, name) SELECT md5(n::text)::uuid, n FROM generate_series(2, {self.COUNT}) AS n;
            INSERT INTO token (digest, token_key, key_id, account)
            SELECT sha512(name::bytea), name, key_id, account FROM key WHERE name <> 'the last one';
            INSERT INTO binding (resource_id, key_id, account)
            SELECT id, key_id, 'default' FROM resource CROSS JOIN key WHERE key.name <> 'the last one';
            """
        )
        return minted.token

    async def test_are_read_at_once_and_kept_within_the_bound(
        self, database: Database, keys: Management, token: Token
    ) -> None:
        others = [Resource("bot", str(number)) for number in range(100, 200)]
        await keys.create("others", bind=others)
        async with one_worker(database, max_bindings=self.COUNT + 50) as started:
            for resource in others:
                await started.warm(resource)
            assert await started.warm(KEYED, token) == 200
            assert started.cache._known.weight == self.COUNT + 50
            assert await started.warm(KEYED) == 401

    async def test_more_than_may_be_kept_are_still_read(self, database: Database, token: Token) -> None:
        async with one_worker(database, max_bindings=self.COUNT - 1) as started:
            assert await started.ask(KEYED, token) == 200
            assert await started.ask(KEYED) == 401
            assert started.cache._known.weight == 0

    async def test_one_of_them_is_revoked_like_any_other(
        self, database: Database, keys: Management, token: Token
    ) -> None:
        async with one_worker(database, heartbeat_s=FOREVER_S, max_staleness_s=2 * FOREVER_S) as started:
            assert await started.warm(KEYED, token) == 200
            (key,) = [key for key in await keys.keys() if key.name == "the last one"]
            await keys.revoke(key.key_id)
            assert await started.comes_to(401, KEYED, token) <= {200}


CAPS = {"max_lookups": 6, "max_lookups_per_peer": 4}


class TestShedding:
    """Of look-ups, where the database takes its time."""

    @pytest.fixture
    def no_places(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have nobody wait for a turn."""
        monkeypatch.setattr("smarter_auth_mw.cache.admission.PLACES", 0)

    async def test_a_herd_from_one_peer_is_served_in_turn(
        self, database: Database, owner: asyncpg.Connection, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with one_worker(database, query_timeout_s=60, **CAPS) as started:
            async with held_up(owner):
                herd = ask(started, range(100, 116), "10.0.0.1")
                await until(lambda: started.cache.admission._all_waiting == 12)
            assert await asyncio.gather(*herd) == [200] * 16
        assert "lookups.refused" not in caplog.text

    @pytest.mark.usefixtures("no_places")
    async def test_cold_requests_past_the_cap_get_503_and_warm_ones_what_they_always_get(
        self, database: Database, keys: Management, owner: asyncpg.Connection
    ) -> None:
        minted = await keys.create("laptop", bind=[KEYED])
        async with one_worker(database, query_timeout_s=60, **CAPS) as started:
            assert await started.warm(KEYED, minted.token) == 200
            async with held_up(owner):
                waiting = ask(started, range(100, 104), "10.0.0.1")
                await until(lambda: len(started.cache._flights) == 4)
                assert await status(started.app, 200, peer="10.0.0.1") == 503
                waiting += ask(started, range(300, 302), "10.0.0.2")
                await until(lambda: len(started.cache._flights) == 6)
                assert await status(started.app, 400, peer="10.0.0.3") == 503
                assert await status(started.app, KEYED.ref, minted.token) == 200
                assert started.cache.admission.refused == 2
            assert await asyncio.gather(*waiting) == [200] * 6
            assert await status(started.app, 200) == 200

    @pytest.mark.usefixtures("no_places")
    async def test_flood_is_no_outage_that_lengthens_grants(
        self, database: Database, keys: Management, owner: asyncpg.Connection
    ) -> None:
        minted = await keys.create("laptop", bind=[KEYED])
        settings = {"heartbeat_s": 0.05, "max_staleness_s": 0.2, "stale_if_error_s": FOREVER_S, "query_timeout_s": 60}
        settings |= CAPS
        # No heartbeat vouches for anything.
        await owner.execute("ALTER TABLE smarter_auth.token DISABLE TRIGGER note_delete")
        async with worker(database.runtime, **settings) as started:
            await until(lambda: started.cache.changes.floor)
            assert await started.ask(KEYED, minted.token) == 200
            async with held_up(owner):
                waiting = ask(started, range(100, 104), "10.0.0.1")
                await until(lambda: len(started.cache._flights) == 4 and not started.has(KEYED))
                assert await status(started.app, KEYED.ref, minted.token) == 503
            assert await asyncio.gather(*waiting) == [200] * 4
            assert await status(started.app, KEYED.ref, minted.token) == 200


def ask(worker: Worker, refs: Iterable[int], peer: str) -> list[asyncio.Task[int]]:
    """Requests under way."""
    return [asyncio.create_task(status(worker.app, ref, peer=peer)) for ref in refs]


@asynccontextmanager
async def held_up(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Nobody can read resources for as long as the block lasts."""
    await connection.execute("BEGIN; LOCK TABLE smarter_auth.resource IN ACCESS EXCLUSIVE MODE")
    try:
        yield
    finally:
        await connection.execute("ROLLBACK")
