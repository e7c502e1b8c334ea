"""What the database itself sees to, tried with plain SQL: the latch, one account, and who may do what."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

KEPT = asyncpg.ObjectInUseError

Connection = asyncpg.Connection


@pytest.fixture
async def bound(owner: Connection) -> Connection:
    """A connection to a database where one key opens bot:42."""
    await owner.execute("INSERT INTO smarter_auth.resource (id, kind, ref) VALUES (1, 'bot', '42')")
    await owner.execute("INSERT INTO smarter_auth.key (name) VALUES ('one')")
    await _bind(owner)
    return owner


async def _bind(connection: Connection) -> None:
    await connection.execute(
        "INSERT INTO smarter_auth.binding (resource_id, key_id, account)"
        " SELECT 1, key_id, account FROM smarter_auth.key"
    )


async def _protection(connection: Connection) -> str:
    protection: str = await connection.fetchval("SELECT protection FROM smarter_auth.resource WHERE id = 1")
    return protection


async def test_first_binding_closes_the_latch(bound: Connection) -> None:
    assert await _protection(bound) == "bound"


async def test_binding_moved_to_another_resource_protects_that_one_too(bound: Connection) -> None:
    await bound.execute("INSERT INTO smarter_auth.resource (id, kind, ref) VALUES (2, 'bot', '43')")
    await bound.execute("UPDATE smarter_auth.binding SET resource_id = 2")
    protections = await bound.fetch("SELECT protection FROM smarter_auth.resource")
    assert [row["protection"] for row in protections] == ["bound", "bound"]


@pytest.mark.parametrize(
    "loss",
    [
        "DELETE FROM smarter_auth.binding",
        "TRUNCATE smarter_auth.binding",
        "TRUNCATE smarter_auth.key CASCADE",
        "DELETE FROM smarter_auth.binding; DELETE FROM smarter_auth.key",
        "UPDATE smarter_auth.key SET revoked_at = now()",
        "ALTER TABLE smarter_auth.binding DROP CONSTRAINT binding_key_id_fkey,"
        " DROP CONSTRAINT binding_same_account_as_key,"
        " ADD FOREIGN KEY (key_id) REFERENCES smarter_auth.key ON DELETE CASCADE; DELETE FROM smarter_auth.key",
    ],
)
async def test_losing_the_last_binding_leaves_the_resource_protected(bound: Connection, loss: str) -> None:
    await bound.execute(loss)
    assert await _protection(bound) == "bound"


@pytest.mark.parametrize(
    "opening",
    [
        "UPDATE smarter_auth.resource SET protection = 'open'",
        "UPDATE smarter_auth.resource SET ref = '43'",
        "UPDATE smarter_auth.resource SET kind = 'cat'",
        "DELETE FROM smarter_auth.resource",
        "TRUNCATE smarter_auth.resource CASCADE",
        "INSERT INTO smarter_auth.resource (id, kind, ref) VALUES (1, 'bot', '42')"
        " ON CONFLICT (id) DO UPDATE SET protection = 'open'",
        "SET session_replication_role = replica; DELETE FROM smarter_auth.resource",
    ],
)
async def test_protected_resource_is_not_opened_by_plain_sql(bound: Connection, opening: str) -> None:
    await bound.execute("DELETE FROM smarter_auth.binding")
    with pytest.raises(KEPT):
        await bound.execute(opening)
    assert await _protection(bound) == "bound"


async def test_open_resource_may_be_renamed_and_deleted(owner: Connection) -> None:
    await owner.execute("INSERT INTO smarter_auth.resource (kind, ref) VALUES ('bot', '42')")
    await owner.execute("UPDATE smarter_auth.resource SET ref = '43'")
    await owner.execute("DELETE FROM smarter_auth.resource")
    await owner.execute("TRUNCATE smarter_auth.resource CASCADE")


async def test_release_opens_the_latch_and_writes_it_down(bound: Connection) -> None:
    await bound.execute("DELETE FROM smarter_auth.binding")
    await bound.execute("SELECT smarter_auth.release(1, 'somebody', 'because')")
    assert await _protection(bound) == "open"
    (event,) = await bound.fetch("SELECT actor, action, kind, ref, reason, before, after FROM smarter_auth.audit_event")
    assert tuple(event) == (
        "somebody",
        "resource.unprotect",
        "bot",
        "42",
        "because",
        '{"protection": "bound"}',
        '{"protection": "open"}',
    )


async def test_release_refuses_while_there_is_a_binding(bound: Connection) -> None:
    with pytest.raises(KEPT):
        await bound.execute("SELECT smarter_auth.release(1, 'somebody', '')")
    assert await _protection(bound) == "bound"


async def test_release_refuses_a_transaction_that_may_not_see_the_newest_binding(bound: Connection) -> None:
    with pytest.raises(asyncpg.ActiveSQLTransactionError):
        async with bound.transaction(isolation="repeatable_read"):
            await bound.execute("SELECT smarter_auth.release(1, 'somebody', '')")


async def test_release_waits_for_a_binding_that_is_not_committed_yet(bound: Connection, manager: Connection) -> None:
    await bound.execute("DELETE FROM smarter_auth.binding")
    async with bound.transaction():
        await _bind(bound)
        release = asyncio.create_task(manager.execute("SELECT smarter_auth.release(1, 'somebody', '')"))
        await _is_waiting(release, bound, manager)
    with pytest.raises(KEPT):
        await release
    assert await _protection(bound) == "bound"


@pytest.mark.parametrize("isolation", ["read_committed", "repeatable_read", "serializable"])
async def test_binding_that_waits_for_a_release_closes_the_latch_again_or_fails(
    bound: Connection, manager: Connection, isolation: str
) -> None:
    await bound.execute("DELETE FROM smarter_auth.binding")
    other = manager.transaction(isolation=isolation)  # type: ignore[arg-type]
    await other.start()
    await manager.fetchval("SELECT count(*) FROM smarter_auth.resource")  # The snapshot is taken here.
    async with bound.transaction():
        await bound.execute("SELECT smarter_auth.release(1, 'somebody', '')")
        binding = asyncio.create_task(_bind(manager))
        await _is_waiting(binding, bound, manager)
    try:
        await binding
        await other.commit()
    except asyncpg.SerializationError:
        await other.rollback()
    is_bound = await bound.fetchval("SELECT EXISTS (SELECT FROM smarter_auth.binding)")
    assert await _protection(bound) == ("bound" if is_bound else "open")
    assert is_bound is (isolation == "read_committed")


async def _is_waiting(task: asyncio.Task[Any], observer: Connection, other: Connection) -> None:
    """Until the task, on the other connection, waits for a lock."""
    pid = other.get_server_pid()
    while not await observer.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", pid):
        assert not task.done()


async def test_two_bulk_bindings_in_opposite_order_do_not_wait_for_each_other_forever(
    owner: Connection, manager: Connection
) -> None:
    await owner.execute(
        "INSERT INTO smarter_auth.resource (id, kind, ref) SELECT i, 'bot', i FROM generate_series(1, 300) i"
    )
    await owner.execute("INSERT INTO smarter_auth.key (name) VALUES ('up'), ('down')")
    insert = (
        "INSERT INTO smarter_auth.binding (resource_id, key_id, account)"
        " SELECT id, key_id, 'default' FROM smarter_auth.resource, smarter_auth.key WHERE key.name = $1"
        " ORDER BY CASE $1 WHEN 'up' THEN id ELSE -id END"
    )
    await asyncio.gather(owner.execute(insert, "up"), manager.execute(insert, "down"))
    assert await owner.fetchval("SELECT count(*) FROM smarter_auth.resource WHERE protection = 'bound'") == 300


@pytest.mark.parametrize("account", ["default", "other"])
async def test_key_of_another_account_is_not_bound_whatever_the_row_says(owner: Connection, account: str) -> None:
    await owner.execute("INSERT INTO smarter_auth.resource (id, kind, ref) VALUES (1, 'bot', '42')")
    await owner.execute("INSERT INTO smarter_auth.key (name, account) VALUES ('one', 'other')")
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await owner.execute(
            "INSERT INTO smarter_auth.binding (resource_id, key_id, account)"
            " SELECT 1, key_id, $1 FROM smarter_auth.key",
            account,
        )


@pytest.mark.parametrize("table", ["resource", "key"])
async def test_account_of_what_is_bound_cannot_change(bound: Connection, table: str) -> None:
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await bound.execute(f"UPDATE smarter_auth.{table} SET account = 'other'")


@pytest.mark.parametrize("table", ["resource", "key", "token", "binding"])
async def test_nothing_is_without_account(owner: Connection, table: str) -> None:
    nullable = await owner.fetchval(
        "SELECT is_nullable FROM information_schema.columns"
        " WHERE table_schema = 'smarter_auth' AND table_name = $1 AND column_name = 'account'",
        table,
    )
    assert nullable == "NO"


async def test_key_that_is_bound_is_not_deleted(bound: Connection) -> None:
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await bound.execute("DELETE FROM smarter_auth.key")


async def test_slugs_that_differ_in_dash_and_underscore_are_one_resource(owner: Connection) -> None:
    await owner.execute("INSERT INTO smarter_auth.resource (kind, ref) VALUES ('bot', 'my-bot')")
    with pytest.raises(asyncpg.UniqueViolationError):
        await owner.execute("INSERT INTO smarter_auth.resource (kind, ref) VALUES ('bot', 'my_bot')")


@pytest.mark.parametrize("octets", [0, 63, 65])
async def test_digest_has_64_octets(bound: Connection, octets: int) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await bound.execute(
            "INSERT INTO smarter_auth.token (digest, token_key, key_id, account)"
            " SELECT $1, 'abc', key_id, account FROM smarter_auth.key",
            b"x" * octets,
        )


async def test_functions_of_ours_are_nobodys_but_their_owners(owner: Connection) -> None:
    functions = await owner.fetch(
        "SELECT proname, prosecdef, proconfig, provolatile, proowner::regrole::text AS owner,"
        " has_function_privilege('public', oid, 'EXECUTE') AS is_public"
        " FROM pg_proc WHERE pronamespace = 'smarter_auth'::regnamespace"
    )
    assert {row["owner"] for row in functions} == {"smarter_auth"}
    assert {row["proconfig"] and tuple(row["proconfig"]) for row in functions} == {
        ("search_path=pg_catalog, smarter_auth, pg_temp",),
        None,
    }
    # What is planned as a part of the statement that calls it changes nothing, and has its caller's rights.
    assert not any(row["prosecdef"] or row["provolatile"] == b"v" for row in functions if not row["proconfig"])
    assert not any(row["is_public"] for row in functions)


async def test_triggers_of_ours_fire_always(owner: Connection) -> None:
    triggers = await owner.fetch(
        "SELECT tgname, tgenabled FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid"
        " WHERE relnamespace = 'smarter_auth'::regnamespace AND NOT tgisinternal"
    )
    assert {row["tgenabled"] for row in triggers} == {b"A"}


async def test_directory_follows_names_and_domains(owner: Connection) -> None:
    await owner.execute("INSERT INTO smarter_auth.resource (kind, ref, name) VALUES ('bot', '1', 'My_LLMClient_2025')")
    await owner.execute("UPDATE smarter_auth.resource SET domain = 'bot.example.com'")
    assert await _directory(owner) == [
        ("domain", "", "bot.example.com"),
        ("label", "default", "my-llmclient-2025"),
        ("name", "default", "My-LLMClient-2025"),
    ]
    await owner.execute("UPDATE smarter_auth.resource SET name = 'other', domain = NULL, account = 'acme'")
    assert await _directory(owner) == [("label", "acme", "other"), ("name", "acme", "other")]
    await owner.execute("DELETE FROM smarter_auth.resource")
    assert await _directory(owner) == []


async def _directory(connection: Connection) -> list[tuple[str, ...]]:
    rows = await connection.fetch("SELECT form, account, value FROM smarter_auth.alias ORDER BY form")
    return [tuple(row) for row in rows]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("example", "example"),
        ("stackademy_sql", "stackademy-sql"),
        ("My_LLMClient_2025", "my-llmclient-2025"),
        ("My@Bot!_Name", "mybot-name"),
        ("__x__", "x"),
        ("hr bot", "hrbot"),
        ("a" * 70, "a" * 63),
        ("é", ""),
    ],
)
async def test_host_label_of_a_name(owner: Connection, name: str, label: str) -> None:
    assert await owner.fetchval("SELECT smarter_auth.host_label($1)", name) == label


WRITTEN_BY_FUNCTIONS = {
    "change.at", "operator_session.created_at", "operator_session.seen_at",
    "usage_batch.at", "usage_day.at", "usage_hour.at", "usage_minute.at",
}  # fmt: skip
"""Times that nobody reads, or that only our functions write, from the clock."""


async def test_each_time_that_is_read_is_within_the_calendar(owner: Connection) -> None:
    times = await owner.fetch(
        "SELECT relname || '.' || attname AS name, coalesce(bool_or(conname LIKE '%in_calendar'), false) AS is_bounded"
        "  FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid AND relkind IN ('r', 'p') AND NOT relispartition"
        "  LEFT JOIN pg_constraint ON conrelid = attrelid AND attnum = ANY (conkey)"
        " WHERE relnamespace = 'smarter_auth'::regnamespace AND atttypid = 'timestamptz'::regtype AND NOT attisdropped"
        " GROUP BY 1"
    )
    assert {row["name"] for row in times if not row["is_bounded"]} == WRITTEN_BY_FUNCTIONS
