"""Which sources the triggers tell of what is changed, with plain SQL: one by one, in bulk, and not at all."""

from __future__ import annotations

import asyncpg
import pytest

from smarter_auth_mw.domain import Resource, Target
from smarter_auth_mw.postgres.store import Store
from tests.support.change import KEY, KEY_ID

Connection = asyncpg.Connection


async def _told(connection: Connection) -> set[str]:
    return {row[0] for row in await connection.fetch("SELECT source FROM smarter_auth.change")}


@pytest.mark.parametrize(
    ("statement", "sources"),
    [
        (
            "INSERT INTO resource (kind, ref) VALUES ('bot', '43'), ('cat', 'a_b')",
            {"resource:bot:43", "resource:cat:a-b"},
        ),
        ("INSERT INTO resource (kind, ref, name) VALUES ('bot', '43', 'two')", {"resource:bot:43", "directory:bot"}),
        ("UPDATE resource SET protection = 'declared'", {"resource:bot:my-bot"}),
        ("UPDATE resource SET on_error = 'deny'", {"resource:bot:my-bot"}),
        ("UPDATE resource SET name = 'two'", {"directory:bot"}),
        ("UPDATE resource SET domain = 'bot.example.com'", {"directory:bot"}),
        ("UPDATE resource SET name = name, on_error = on_error, updated_at = now()", set()),
        ("DELETE FROM binding", {"bindings:1"}),
        ("UPDATE binding SET updated_at = now()", set()),
        ("TRUNCATE binding", {"*"}),
        ("UPDATE key SET is_active = false", {KEY}),
        ("UPDATE key SET expires_at = now()", {KEY}),
        ("UPDATE key SET revoked_at = now()", {KEY}),
        ("UPDATE key SET name = 'two'", {KEY}),
        ("UPDATE key SET description = 'two', is_active = is_active, updated_at = now()", set()),
        ("INSERT INTO key (name) VALUES ('two')", set()),
        ("TRUNCATE key CASCADE", {"*"}),
        ("UPDATE token SET valid_until = now()", {KEY}),
        ("UPDATE token SET digest = digest, created_at = now()", set()),
        ("DELETE FROM token", {KEY}),
        ("TRUNCATE token", {"*"}),
        ("INSERT INTO token_use VALUES (sha512('one'), now())", set()),
        ("DELETE FROM alias", {"directory:bot"}),
        ("TRUNCATE alias", {"*"}),
        ("SET session_replication_role = replica; UPDATE key SET is_active = false", {KEY}),
    ],
)
async def test_change_tells_its_sources(sql: Connection, statement: str, sources: set[str]) -> None:
    await sql.execute(f"SET search_path = smarter_auth; {statement}")
    assert await _told(sql) == sources


@pytest.mark.parametrize(
    ("statement", "sources"),
    [
        ("UPDATE resource SET ref = '43'", {"resource:bot:x", "resource:bot:43"}),
        ("UPDATE resource SET account = 'acme'", {"resource:bot:x"}),
        ("DELETE FROM resource", {"resource:bot:x"}),
        ("TRUNCATE resource CASCADE", {"*"}),
    ],
)
async def test_open_resource_tells_what_it_was_and_what_it_is(
    owner: Connection, statement: str, sources: set[str]
) -> None:
    await owner.execute("INSERT INTO smarter_auth.resource (kind, ref) VALUES ('bot', 'x')")
    await owner.execute("DELETE FROM smarter_auth.change")
    await owner.execute(f"SET search_path = smarter_auth; {statement}")
    assert await _told(owner) == sources


async def test_first_binding_tells_of_the_binding_and_of_the_latch(owner: Connection) -> None:
    await owner.execute(f"""
        INSERT INTO smarter_auth.resource (id, kind, ref) VALUES (1, 'bot', '42');
        INSERT INTO smarter_auth.key (key_id, name) VALUES ('{KEY_ID}', 'one');
        DELETE FROM smarter_auth.change;
        INSERT INTO smarter_auth.binding (resource_id, key_id, account) VALUES (1, '{KEY_ID}', 'default');
    """)
    assert await _told(owner) == {"bindings:1", "resource:bot:42"}


@pytest.mark.parametrize(
    ("statement", "sources"),
    [
        ("INSERT INTO resource (kind, ref) SELECT 'cat', n FROM generate_series(1, 500) AS n", {"kind:cat"}),
        ("UPDATE resource SET on_error = 'deny'", {"account:default", "account:acme"}),
        ("DELETE FROM resource WHERE account = 'acme'", {"account:acme"}),
        (
            "INSERT INTO binding (resource_id, key_id, account)"
            " SELECT resource.id, key_id, 'acme' FROM resource JOIN key USING (account) WHERE key.name = 'key 1'",
            {"account:acme"},
        ),
        ("UPDATE key SET is_active = false WHERE account = 'acme'", {"account:acme"}),
        ("UPDATE token SET valid_until = now()", {"account:acme"}),
        ("DELETE FROM token", {"account:acme"}),
        ("UPDATE resource SET ref = 'x' || ref WHERE account = 'acme'", {"account:acme", "kind:bot"}),
        ("UPDATE resource SET account = 'account ' || id", {"*"}),
    ],
)
async def test_statement_that_changes_very_many_tells_one_coarse_source(
    owner: Connection, statement: str, sources: set[str]
) -> None:
    await owner.execute("""
        SET search_path = smarter_auth;
        INSERT INTO resource (kind, ref, account)
        SELECT 'bot', n, CASE WHEN n % 2 = 0 THEN 'acme' ELSE 'default' END FROM generate_series(1, 1000) AS n;
        INSERT INTO key (account, name) SELECT 'acme', 'key ' || n FROM generate_series(1, 300) AS n;
        INSERT INTO token (digest, token_key, key_id, account)
        SELECT sha512(name::bytea), left(name, 15), key_id, account FROM key;
        DELETE FROM change;
    """)
    await owner.execute(statement)
    assert await _told(owner) == sources


@pytest.mark.parametrize(("keys", "sources"), [(100, 100), (101, 1)])
async def test_hundred_sources_of_a_statement_are_told_one_by_one(owner: Connection, keys: int, sources: int) -> None:
    await owner.execute("INSERT INTO smarter_auth.key (name) SELECT 'key ' || n FROM generate_series(1, $1) AS n", keys)
    await owner.execute("UPDATE smarter_auth.key SET is_active = false")
    assert len(await _told(owner)) == sources


async def test_reader_depends_on_all_that_is_told_of_it(sql: Connection, store: Store) -> None:
    """Whatever changes a resource, one by one or in bulk, a read of it names one of the sources told."""
    known = Target(Resource("bot", "my_bot"))
    for statement in (
        "UPDATE smarter_auth.resource SET on_error = 'deny'",
        "UPDATE smarter_auth.key SET is_active = false",
        "UPDATE smarter_auth.token SET valid_until = now()",
        "DELETE FROM smarter_auth.token",
        "DELETE FROM smarter_auth.binding",
    ):
        sources = set((await store.read(known)).sources)
        await sql.execute("DELETE FROM smarter_auth.change")
        await sql.execute(statement)
        assert sources & await _told(sql), statement


async def test_running_role_neither_writes_changes_nor_renews_the_epoch(runtime: Connection) -> None:
    for statement in (
        "INSERT INTO smarter_auth.change (source) VALUES ('*')",
        "DELETE FROM smarter_auth.change",
        "SELECT smarter_auth.renew_epoch()",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await runtime.execute(statement)
