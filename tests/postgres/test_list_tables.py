"""The tables that lists are read from: filled by the upgrade of a released schema, and kept by triggers since then."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from alembic import command

from smarter_auth_mw.management.listings import AuditFilters, KeyFilters, Listings
from smarter_auth_mw.postgres import migrations
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from tests.support.database import Database
from tests.support.many_keys import FILL

KEYS = 2_000
LIVING = "SELECT count(*) FROM smarter_auth.key WHERE revoked_at IS NULL"
KEPT = "SELECT count(*) FROM smarter_auth.key_use"


@pytest.fixture
async def released(empty_database: Database) -> Database:
    """A database of the schema as it was released, with data."""
    await migrations._run(empty_database.owner, lambda config: command.upgrade(config, "0005"), is_upgrade=True)
    connection = await asyncpg.connect(empty_database.owner)
    try:
        await connection.execute(FILL.format(keys=KEYS))
    finally:
        await connection.close()
    return empty_database


async def test_upgrade_of_a_released_schema_lists_what_was_there(released: Database) -> None:
    await migrations.migrate(released.owner, released.runtime_role)
    connection = await asyncpg.connect(released.owner)
    try:
        assert await connection.fetchval(KEPT) == await connection.fetchval(LIVING) == KEYS // 10
        used = await connection.fetchval("SELECT count(*) FROM smarter_auth.key_use WHERE is_used")
        assert 0 < used < KEYS // 10
    finally:
        await connection.close()
    async with open_pool(released.runtime) as pool:
        lists = Listings(Store(pool))
        assert len([key async for key in lists.every_key()]) == KEYS // 10
        assert len([key async for key in lists.every_key(KeyFilters(state="revoked"))]) == KEYS * 9 // 10
        never = [key async for key in lists.every_key(KeyFilters(never_used=True))]
        assert len(never) == KEYS // 10 - used
        assert len([event async for event in lists.every_event(AuditFilters(acts=True))]) == KEYS // 1000


async def test_upgrade_is_taken_back_with_data_and_done_again(released: Database) -> None:
    await migrations.migrate(released.owner, released.runtime_role)
    assert (await migrations.downgrade(released.owner, "0005")).schema == "0005"
    await migrations.migrate(released.owner, released.runtime_role)
    async with open_pool(released.runtime) as pool:
        assert len((await Listings(Store(pool)).keys(limit=1000)).items) == KEYS // 10


async def _use(connection: asyncpg.Connection) -> list[dict[str, Any]]:
    rows = await connection.fetch("SELECT account, is_used, now() - idle_since AS idle FROM smarter_auth.key_use")
    return [dict(row) for row in rows]


@pytest.fixture
async def key_id(owner: asyncpg.Connection) -> UUID:
    made: UUID = await owner.fetchval(
        "INSERT INTO smarter_auth.key (name, created_at) VALUES ('one', now() - interval '9 days') RETURNING key_id"
    )
    await owner.execute(
        "INSERT INTO smarter_auth.token (digest, token_key, key_id, account)"
        " VALUES (sha512('one'), 'one', $1, 'default')",
        made,
    )
    await owner.execute("INSERT INTO smarter_auth.key_label (key_id, name, value) VALUES ($1, 'team', 'sales')", made)
    return made


async def test_use_follows_the_life_of_a_key(owner: asyncpg.Connection, key_id: UUID) -> None:
    (new,) = await _use(owner)
    assert (new["is_used"], new["idle"] > timedelta(days=8)) == (False, True)
    await owner.execute("INSERT INTO smarter_auth.token_use (digest, last_used_at) VALUES (sha512('one'), now())")
    (used,) = await _use(owner)
    assert (used["is_used"], used["idle"] < timedelta(hours=1)) == (True, True)
    await owner.execute("UPDATE smarter_auth.key SET revoked_at = now()")
    assert await _use(owner) == []
    assert await owner.fetchval("SELECT is_living FROM smarter_auth.key_label") is False


async def test_use_is_written_at_most_once_an_hour(owner: asyncpg.Connection, key_id: UUID) -> None:
    use = (
        "INSERT INTO smarter_auth.token_use (digest, last_used_at) VALUES (sha512('one'), now() + $1::interval)"
        " ON CONFLICT (digest) DO UPDATE SET last_used_at = excluded.last_used_at"
    )
    places = []
    for minutes in (0, 30, 59, 61):
        await owner.execute(use, timedelta(minutes=minutes))
        places.append(await owner.fetchval("SELECT ctid::text FROM smarter_auth.key_use"))
    assert places[0] == places[1] == places[2] != places[3]


async def test_use_waits_for_nobody_and_is_left_to_the_next_time(
    owner: asyncpg.Connection, runtime: asyncpg.Connection, key_id: UUID
) -> None:
    use = (
        "SELECT smarter_auth.write_usage(gen_random_uuid(), interval '0', '{bot}', '{1}', '{NULL}', '{x}', '{grant}',"
        " '{1}', ARRAY[sha512('one')])"
    )
    await runtime.execute("SET lock_timeout = '30s'")
    async with owner.transaction():
        await owner.execute("SELECT FROM smarter_auth.key_use FOR UPDATE")
        await runtime.execute(use)  # It would wait for the other transaction, which waits for it.
    assert (await _use(owner))[0]["is_used"] is False
    await runtime.execute(use)
    assert (await _use(owner))[0]["is_used"] is True


@pytest.mark.parametrize("end", ["DELETE FROM smarter_auth.key", "TRUNCATE smarter_auth.key CASCADE"])
async def test_deleted_key_leaves_nothing_in_the_lists(owner: asyncpg.Connection, key_id: UUID, end: str) -> None:
    await owner.execute(f"DELETE FROM smarter_auth.token; {end}")
    assert await _use(owner) == []
    assert await owner.fetchval("SELECT count(*) FROM smarter_auth.key_label") == 0


@pytest.mark.parametrize("label", [("Team", "a"), ("team", "A"), ("", "a"), ("a", ""), ("a" * 64, "a"), ("a b", "c")])
async def test_database_takes_no_label_that_is_none(owner: asyncpg.Connection, key_id: UUID, label: Any) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await owner.execute(
            "INSERT INTO smarter_auth.key_label (key_id, name, value) VALUES ($1, $2, $3)", key_id, *label
        )


async def test_label_is_of_its_keys_account_whatever_the_row_says(owner: asyncpg.Connection, key_id: UUID) -> None:
    await owner.execute(
        "INSERT INTO smarter_auth.key_label (key_id, name, value, account, is_living)"
        " VALUES ($1, 'a', 'b', 'other', false)",
        key_id,
    )
    rows = await owner.fetch("SELECT account, is_living FROM smarter_auth.key_label WHERE name = 'a'")
    assert [tuple(row) for row in rows] == [("default", True)]
