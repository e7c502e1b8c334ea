"""Writers at every isolation level, readers between them: whatever was read and is wrong now, a change tells of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from itertools import chain

import asyncpg

from smarter_auth_mw.cache.changes import EVERYTHING, Snapshot
from smarter_auth_mw.domain import Bindings, Resource, Target
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Read, Store
from tests.support.database import Database

ROUNDS = 150
WRITERS, READERS = 4, 3
RESOURCES = [Resource("bot", str(number)) for number in range(4)]

_SETUP = """
SET search_path = smarter_auth;
INSERT INTO resource (id, kind, ref) SELECT n, 'bot', n FROM generate_series(0, 3) AS n;
INSERT INTO key (key_id, name) SELECT md5(n::text)::uuid, 'key ' || n FROM generate_series(0, 3) AS n;
INSERT INTO token (digest, token_key, key_id, account)
SELECT sha512(name::bytea), right(name, 1), key_id, account FROM key;
"""

# $1: a number from 0 to 3. Some fail, by a constraint or because somebody else was faster: then nothing is changed.
_ACTS = (
    "INSERT INTO binding (resource_id, key_id, account) SELECT $1, key_id, account FROM key ORDER BY random() LIMIT 1",
    "INSERT INTO binding (resource_id, key_id, account) SELECT id, md5($1::text)::uuid, account FROM resource",
    "DELETE FROM binding WHERE resource_id = $1",
    "UPDATE binding SET resource_id = $1 WHERE id = (SELECT min(id) FROM binding)",
    "UPDATE key SET is_active = NOT is_active WHERE key_id = md5($1::text)::uuid",
    "UPDATE key SET revoked_at = CASE WHEN revoked_at IS NULL THEN now() END WHERE name = 'key ' || $1",
    "UPDATE key SET description = 'for $1' || $1::int",
    "UPDATE token SET valid_until = now() WHERE token_key = $1::text",
    "DELETE FROM token WHERE token_key = $1::text",
    "INSERT INTO token (digest, token_key, key_id, account)"
    " SELECT sha512(gen_random_uuid()::text::bytea), $1::text, key_id, account FROM key WHERE name = 'key ' || $1",
    "UPDATE resource SET on_error = CASE on_error WHEN 'deny' THEN 'stale' ELSE 'deny' END WHERE id >= $1",
    "UPDATE resource SET protection = 'declared' WHERE ref = $1::text",
    "UPDATE resource SET ref = 'x' || ref WHERE ref = $1::text",
    "UPDATE resource SET ref = right(ref, 1) WHERE ref LIKE 'x%' AND id = $1",
    "DELETE FROM resource WHERE id = $1",
    "INSERT INTO resource (id, kind, ref) VALUES ($1, 'bot', $1::text)",
    "DELETE FROM binding WHERE resource_id = $1; SELECT release($1, 'writer', '')",
    "DELETE FROM binding WHERE resource_id = $1; SELECT release($1, 'writer', ''); DELETE FROM resource WHERE id = $1",
)
_OPEN_THOUGH_BOUND = "SELECT FROM resource WHERE protection = 'open' AND id IN (SELECT resource_id FROM binding)"


class _ChangedMyMindError(Exception):
    """The transaction is rolled back."""


_EXPECTED = (
    _ChangedMyMindError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ObjectInUseError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.ActiveSQLTransactionError,
)


@asynccontextmanager
async def _writer(database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database.owner, server_settings={"search_path": "smarter_auth"})
    try:
        yield connection
    finally:
        await connection.close()


async def _write(connection: asyncpg.Connection, dice: random.Random) -> None:
    isolation = dice.choice(("read_committed", "repeatable_read", "serializable"))
    try:
        async with connection.transaction(isolation=isolation):  # type: ignore[arg-type]
            await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
            for act in dice.choices(_ACTS, k=dice.randint(1, 3)):
                await connection.execute(act.replace("$1", str(dice.randrange(len(RESOURCES)))))
            if dice.random() < 0.02:
                await connection.execute("TRUNCATE binding")
            if dice.random() < 0.1:
                raise _ChangedMyMindError
    except _EXPECTED:
        pass


async def _read(store: Store, resources: list[Resource]) -> list[Read]:
    return [await store.read(Target(resource)) for resource in resources]


def _facts(bindings: Bindings) -> tuple[object, ...]:
    """Return what decisions depend on: the database returns rows in no order."""
    return replace(bindings, bindings=()), frozenset(bindings.bindings)


async def _is_marked(connection: asyncpg.Connection, read: Read) -> bool:
    changes = await connection.fetch("SELECT tx FROM change WHERE source = ANY ($1)", [EVERYTHING, *read.sources])
    snapshot = Snapshot.parse(read.snapshot)
    return not all(snapshot.sees(row["tx"]) for row in changes)


async def test_what_was_read_and_is_wrong_now_is_told_of(database: Database, owner: asyncpg.Connection) -> None:
    dice = random.Random(20250)
    wrong = 0
    await owner.execute(_SETUP)
    async with AsyncExitStack() as stack:
        store = Store(await stack.enter_async_context(open_pool(database.runtime, pool_max=READERS)))
        writers = [await stack.enter_async_context(_writer(database)) for _ in range(WRITERS)]
        for number in range(ROUNDS):
            if number % 5 == 0:  # Another plan finds the same rows in another order.
                await owner.execute("ANALYZE binding, key, token, resource")
            readers = [_read(store, dice.choices(RESOURCES, k=6)) for _ in range(READERS)]
            reading = asyncio.gather(*readers)
            await asyncio.gather(reading, *(_write(writer, dice) for writer in writers))
            now = {read.bindings.resource: read.bindings for read in await _read(store, RESOURCES)}
            for read in chain.from_iterable(await reading):
                if _facts(read.bindings) != _facts(now[read.bindings.resource]):
                    wrong += 1
                    assert await _is_marked(owner, read), read
            assert not await owner.fetch(_OPEN_THOUGH_BOUND)
    assert wrong > ROUNDS
