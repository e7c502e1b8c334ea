"""What each database role may do with plain SQL: owner, runtime, manager; on fresh databases and upgraded ones."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from alembic import command

from smarter_auth_mw.errors import UnavailableError
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.postgres import migrations
from smarter_auth_mw.postgres.embedded.cluster import Cluster
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.queries import QUERIES
from smarter_auth_mw.postgres.store import Store
from tests.support.database import EMPTY, Database, copied

DENIED, HELD = asyncpg.InsufficientPrivilegeError, asyncpg.ObjectInUseError
BEFORE_ROLES = "0005"

_DATA = """
INSERT INTO smarter_auth.resource (id, kind, ref) VALUES (101, 'bot', '1'), (102, 'bot', '2');
INSERT INTO smarter_auth.key (name, revoked_at) VALUES ('living', NULL), ('revoked', now());
INSERT INTO smarter_auth.token (digest, token_key, key_id, account, valid_until)
SELECT sha512(name::bytea), name, key_id, account, NULL FROM smarter_auth.key
 UNION ALL SELECT sha512('old'), 'old', key_id, account, now() FROM smarter_auth.key WHERE name = 'living';
INSERT INTO smarter_auth.binding (resource_id, key_id, account)
SELECT 101, key_id, account FROM smarter_auth.key;
INSERT INTO smarter_auth.audit_event (actor, action) VALUES ('somebody', 'key.create');
"""


async def _to(url: str, schema: str) -> None:
    """Migrate as a release did that ended with this schema."""
    await migrations._run(url, lambda config: command.upgrade(config, schema))


async def _execute(url: str, script: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(script)
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def old_template(cluster: Cluster) -> Iterator[str]:
    """A database of the time before there were grades, with data, and with a role that all was granted to."""
    for made in copied(cluster, EMPTY):
        asyncio.run(_to(made.owner, BEFORE_ROLES))
        asyncio.run(_execute(made.owner, f"SELECT smarter_auth.grant_runtime('{made.runtime_role}'); {_DATA}"))
        yield urlsplit(made.owner).path[1:]


@pytest.fixture(scope="module")
def upgraded_template(cluster: Cluster, old_template: str) -> Iterator[str]:
    """The same, whose roles have been given their grades since."""
    for made in copied(cluster, old_template):
        asyncio.run(migrations.migrate(made.owner))
        asyncio.run(migrations.migrate(made.owner, made.runtime_role, manager_role=made.manager_role))
        yield urlsplit(made.owner).path[1:]


@pytest.fixture(scope="module")
def fresh_template(cluster: Cluster, template: str) -> Iterator[str]:
    """A database whose roles had their grades from the beginning, with the same data."""
    for made in copied(cluster, template):
        asyncio.run(_execute(made.owner, _DATA))
        yield urlsplit(made.owner).path[1:]


@pytest.fixture(params=["fresh", "upgraded"])
def roles(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Database]:
    yield from copied(cluster, request.getfixturevalue(f"{request.param}_template"))


@pytest.fixture
def old(cluster: Cluster, old_template: str) -> Iterator[Database]:
    yield from copied(cluster, old_template)


async def _done(url: str, statements: list[str], error: type[Exception]) -> list[str]:
    """Those of the statements that are not refused so, each tried by itself and rolled back."""
    connection = await asyncpg.connect(url)
    done = []
    for statement in statements:
        transaction = connection.transaction()
        await transaction.start()
        try:
            await connection.execute(statement)
            done.append(statement)
        except error:
            pass
        await transaction.rollback()
    await connection.close()
    return done


NOBODYS = [
    "UPDATE smarter_auth.audit_event SET actor = 'nobody'",
    "UPDATE smarter_auth.audit_event SET at = 'epoch', database_role = 'nobody'",
    "DELETE FROM smarter_auth.audit_event",
    "TRUNCATE smarter_auth.audit_event",
    "INSERT INTO smarter_auth.audit_event (actor, action) VALUES ('somebody', 'key.create')",
    "INSERT INTO smarter_auth.audit_event (at, actor, action) VALUES ('epoch', 'somebody', 'request.deny')",
    "INSERT INTO smarter_auth.usage_minute (series_id, at, count) VALUES (1, now(), 1)",
    "INSERT INTO smarter_auth.token_use (digest, last_used_at) SELECT digest, now() FROM smarter_auth.token",
    "INSERT INTO smarter_auth.change (source) VALUES ('*')",
    "DELETE FROM smarter_auth.change",
    "TRUNCATE smarter_auth.binding",
    "DELETE FROM smarter_auth.key",
    "DELETE FROM smarter_auth.token",
    "DELETE FROM smarter_auth.alias",
    "UPDATE smarter_auth.resource SET ref = '43'",
    "UPDATE smarter_auth.key SET key_id = gen_random_uuid()",
    "UPDATE smarter_auth.key SET account = 'other'",
    "UPDATE smarter_auth.token SET key_id = gen_random_uuid()",
    "UPDATE smarter_auth.token SET digest = sha512('x')",
    "UPDATE smarter_auth.binding SET key_id = gen_random_uuid()",
    "UPDATE smarter_auth.meta SET epoch = gen_random_uuid()",
    "UPDATE smarter_auth.schema_version SET version_num = '9999'",
    "UPDATE smarter_auth.database_role SET grade = 'manager'",
    "INSERT INTO smarter_auth.database_role (name, grade) VALUES ('me', 'manager')",
    "INSERT INTO smarter_auth.privilege (grade, privilege) VALUES ('runtime', 'ALL ON smarter_auth.key')",
    "SELECT smarter_auth.assign_grade(current_user, 'manager')",
    "SELECT smarter_auth.grant_grades()",
    "SELECT smarter_auth.renew_epoch()",
    "SELECT smarter_auth.make_usage_partition('day', 'epoch')",
    "ALTER TABLE smarter_auth.resource DISABLE TRIGGER ALL",
    "ALTER TABLE smarter_auth.key DISABLE TRIGGER hold_revocation_on_update",
    "SET session_replication_role = replica",
    "CREATE TABLE smarter_auth.mine ()",
    "SET ROLE smarter_auth",
    "SET SESSION AUTHORIZATION smarter_auth",
]
"""What neither may that serves nor that manages."""

MANAGERS = [
    "INSERT INTO smarter_auth.resource (kind, ref) VALUES ('bot', '3')",
    "INSERT INTO smarter_auth.key (name) VALUES ('mine')",
    "INSERT INTO smarter_auth.token (digest, token_key, key_id, account)"
    " SELECT sha512('mine'), 'mine', key_id, account FROM smarter_auth.key WHERE name = 'living'",
    "INSERT INTO smarter_auth.binding (resource_id, key_id, account)"
    " SELECT 102, key_id, account FROM smarter_auth.key WHERE name = 'living'",
    "UPDATE smarter_auth.resource SET protection = 'declared'",
    "UPDATE smarter_auth.resource SET domain = 'bot.example.com', on_error = 'deny' WHERE id = 101",
    "UPDATE smarter_auth.key SET is_active = true, expires_at = NULL WHERE name = 'living'",
    "UPDATE smarter_auth.key SET revoked_at = now() WHERE name = 'living'",
    "UPDATE smarter_auth.token SET valid_until = now() WHERE token_key = 'living'",
    "UPDATE smarter_auth.binding SET updated_at = now()",
    "DELETE FROM smarter_auth.binding",
    "DELETE FROM smarter_auth.resource WHERE id = 102 AND protection = 'open'",
    "SELECT id FROM smarter_auth.resource FOR UPDATE",
    "SELECT nextval('smarter_auth.resource_id_seq')",
    "SELECT smarter_auth.release(102, 'somebody', '')",
    "SELECT smarter_auth.release_platform('bot', '2', 'somebody', '')",
    "SELECT smarter_auth.write_event('somebody', 'key.create', NULL, NULL, NULL, NULL, '', NULL, NULL)",
]
"""What one may that manages, and not one that only serves."""

HELD_FROM_ALL = [
    "UPDATE smarter_auth.key SET revoked_at = NULL",
    "UPDATE smarter_auth.key SET revoked_at = now() + interval '1 year' WHERE name = 'revoked'",
    "INSERT INTO smarter_auth.key (key_id, name) SELECT key_id, name FROM smarter_auth.key WHERE name = 'revoked'"
    " ON CONFLICT (key_id) DO UPDATE SET revoked_at = NULL",
    "UPDATE smarter_auth.token SET valid_until = NULL WHERE token_key = 'old'",
    "UPDATE smarter_auth.token SET valid_until = now() + interval '1 day' WHERE token_key = 'old'",
    "UPDATE smarter_auth.resource SET protection = 'open'",
    "DELETE FROM smarter_auth.binding; DELETE FROM smarter_auth.resource",
]
"""What a latch holds, whoever asks."""


async def test_what_neither_role_may(roles: Database) -> None:
    assert await _done(roles.runtime, NOBODYS, DENIED) == []
    assert await _done(roles.manager, NOBODYS, DENIED) == []


async def test_what_only_a_manager_may(roles: Database) -> None:
    assert await _done(roles.runtime, MANAGERS, DENIED) == []
    assert await _done(roles.manager, MANAGERS, DENIED) == MANAGERS


async def test_what_is_held_from_all(roles: Database) -> None:
    assert await _done(roles.runtime, HELD_FROM_ALL, DENIED) == []
    assert await _done(roles.manager, HELD_FROM_ALL, HELD) == []
    assert await _done(roles.owner, HELD_FROM_ALL, HELD) == []
    replica = [f"SET session_replication_role = replica; {statement}" for statement in HELD_FROM_ALL]
    assert await _done(roles.owner, replica, HELD) == []


async def test_owner_takes_a_revocation_back_explicitly_and_only_so(roles: Database) -> None:
    await _execute(roles.owner, "SET ROLE smarter_auth; UPDATE smarter_auth.key SET revoked_at = NULL")
    connection = await asyncpg.connect(roles.owner)
    assert await connection.fetchval("SELECT count(*) FROM smarter_auth.key WHERE revoked_at IS NOT NULL") == 0
    await connection.close()


WRITING = {
    "declare_protected",
    "delete_binding",
    "delete_labels",
    "delete_resource",
    "expire_tokens",
    "insert_binding",
    "insert_key",
    "insert_labels",
    "insert_numbered_resource",
    "insert_resource",
    "insert_token",
    "lock_key",
    "lock_resource",
    "lock_resources_of",
    "release",
    "release_platform",
    "revoke_key",
    "set_active",
    "touch_binding",
    "touch_key",
    "unbind_all",
    "update_key",
    "update_resource",
    "write_event",
}
OWNERS = {"prune_audit"}


async def test_every_statement_as_every_role(roles: Database) -> None:
    assert await _denied(roles.runtime) == WRITING | OWNERS
    assert await _denied(roles.manager) == OWNERS
    assert await _denied(roles.owner) == set()


async def _denied(url: str) -> set[str]:
    connection = await asyncpg.connect(url)
    denied = set()
    for name in QUERIES.available_queries:
        if name.endswith("_cursor"):
            continue  # Another way to run the same statement.
        statement = getattr(QUERIES, name).sql
        count = max((int(number) for number in re.findall(r"\$(\d+)", statement)), default=0)
        await connection.execute(f"PREPARE asked AS {statement}")
        given = f"({', '.join(['NULL'] * count)})" if count else ""
        try:
            # Nothing is run, but who may run it is checked.
            await connection.execute(f"EXPLAIN EXECUTE asked{given}")
        except DENIED:
            denied.add(name)
        await connection.execute("DEALLOCATE asked")
    await connection.close()
    return denied


async def test_whoever_serves_and_whoever_manages_find_all_that_they_need(roles: Database) -> None:
    for url, grade in ((roles.runtime, "runtime"), (roles.manager, "manager")):
        async with open_pool(url) as pool:
            found = await Store(pool).standing()
        assert (found.grade, found.is_inherited, found.lacking) == (grade, False, [])


# The audit


@pytest.fixture
async def runtime(roles: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(roles.runtime)
    yield connection
    await connection.close()


@pytest.fixture
async def manager(roles: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(roles.manager)
    yield connection
    await connection.close()


_REQUESTS = (
    "SELECT smarter_auth.write_requests($1::uuid, ARRAY[$2::float8], '{10.0.0.0/24}', ARRAY[$3], '{bot}', '{1}',"
    " '{default}', '{NULL}', '{unknown_token}', '{NULL}')"
)
_BATCH = "00000000-0000-0000-0000-000000000001"


async def test_requests_are_written_once_with_the_databases_time_and_role(
    roles: Database, runtime: asyncpg.Connection
) -> None:
    for _ in range(2):
        await runtime.execute(_REQUESTS, _BATCH, 3600.0, "request.deny")
    (event,) = await runtime.fetch(
        "SELECT actor, database_role, round(extract(epoch FROM now() - at)) BETWEEN 3600 AND 3660 AS is_then"
        " FROM smarter_auth.audit_event WHERE action = 'request.deny'"
    )
    assert tuple(event) == ("10.0.0.0/24", roles.runtime_role, True)


NO_REQUESTS = ["key.create", "resource.unprotect", "operator.create", "audit.prune", "request", "request.\nkey.create"]


@pytest.mark.parametrize("action", NO_REQUESTS)
async def test_nothing_but_requests_is_written_as_one(runtime: asyncpg.Connection, action: str) -> None:
    with pytest.raises(DENIED):
        await runtime.execute(_REQUESTS, _BATCH, 0.0, action)


AGES_S = [-1.0, -900 * 365.25 * 86_400, 7.01 * 86_400, 1e9, float("inf"), float("nan"), None]


@pytest.mark.parametrize("age_s", AGES_S)
async def test_request_of_the_future_or_of_long_ago_is_done(runtime: asyncpg.Connection, age_s: Any) -> None:
    with pytest.raises(asyncpg.DataError):
        await runtime.execute(_REQUESTS, _BATCH, age_s, "request.deny")


@pytest.mark.parametrize("age_s", [age_s for age_s in AGES_S if age_s is None or abs(age_s) < float("inf")])
async def test_usage_of_the_future_or_of_long_ago_is_done(runtime: asyncpg.Connection, age_s: Any) -> None:
    with pytest.raises(asyncpg.DataError):
        await runtime.execute(
            "SELECT smarter_auth.write_usage($1::uuid, make_interval(secs => $2), '{bot}', '{1}', '{NULL}', '{\"\"}',"
            " '{grant}', '{1}', '{NULL}')",
            _BATCH,
            age_s,
        )
    assert await runtime.fetchval("SELECT count(*) FROM pg_class WHERE relname ~ '^usage_day_[0-9]'") == 0


@pytest.mark.parametrize("count", [2**63 - 1, 10**9 + 1, 0, -3])
async def test_a_count_that_would_stop_everybodys_usage_is_refused(runtime: asyncpg.Connection, count: int) -> None:
    usage = (
        "SELECT smarter_auth.write_usage(gen_random_uuid(), interval '0', '{bot}', '{1}', '{NULL}', '{\"\"}',"
        " '{grant}', $1::bigint[], '{NULL}')"
    )
    with pytest.raises(asyncpg.DataError):
        await runtime.execute(usage, [count])
    await runtime.execute(usage, [10**9])


_EVENT = "SELECT smarter_auth.write_event('somebody', $1, 'bot', '1', 'default', NULL, '', NULL, NULL)"


async def test_a_managers_acts_bear_its_role_whatever_actor_it_names(
    roles: Database, manager: asyncpg.Connection
) -> None:
    await manager.execute(_EVENT, "key.deactivate")
    await manager.execute("UPDATE smarter_auth.resource SET protection = 'declared' WHERE id = 102")
    await manager.execute("SELECT smarter_auth.release(102, 'somebody', 'because')")
    events = await manager.fetch(
        "SELECT actor, action, database_role, now() - at < interval '1 minute' AS is_now"
        " FROM smarter_auth.audit_event WHERE database_role = $1 ORDER BY id",
        roles.manager_role,
    )
    assert [tuple(event) for event in events] == [
        ("somebody", action, roles.manager_role, True) for action in ("key.deactivate", "resource.unprotect")
    ]


@pytest.mark.parametrize("action", ["request.deny", "operator.create", "audit.prune"])
async def test_a_manager_writes_nothing_down_that_others_do(manager: asyncpg.Connection, action: str) -> None:
    with pytest.raises(DENIED, match=action):
        await manager.execute(_EVENT, action)


async def test_what_was_written_before_has_no_role(old: Database) -> None:
    await migrations.migrate(old.owner)
    connection = await asyncpg.connect(old.owner)
    events = await connection.fetch("SELECT database_role FROM smarter_auth.audit_event")
    assert [event["database_role"] for event in events] == [None]
    await connection.close()


# Upgrades


async def test_an_upgrade_takes_nothing_from_a_role_and_says_what_to_decide(old: Database) -> None:
    said: list[str] = []
    await migrations.migrate(old.owner, progress=said.append)
    (advice,) = [line for line in said if old.runtime_role in line]
    assert f"--runtime-role {old.runtime_role}" in advice
    assert f"--manager-role {old.runtime_role}" in advice
    assert await _done(old.runtime, MANAGERS, DENIED) == MANAGERS
    async with open_pool(old.runtime) as pool:
        found = await Store(pool).standing()
        assert (found.grade, found.is_inherited, found.lacking) == ("manager", True, [])
        await Management(Store(pool), "tester").create("made by the older role")


async def test_a_worker_of_the_release_before_goes_on_and_cannot_forge_time_or_role(old: Database) -> None:
    await migrations.migrate(old.owner)
    await _execute(
        old.runtime,
        "INSERT INTO smarter_auth.audit_event (at, actor, action) VALUES"
        " (now() - interval '1 hour', '10.0.0.0/24', 'request.deny'), ('epoch', '10.0.0.0/24', 'request.deny'),"
        " ('2926-01-01', '10.0.0.0/24', 'request.deny');"
        "INSERT INTO smarter_auth.audit_event (at, actor, action, database_role) VALUES"
        " ('epoch', 'somebody', 'key.create', 'nobody')",
    )
    connection = await asyncpg.connect(old.owner)
    events = await connection.fetch(
        "SELECT round(extract(epoch FROM now() - at) / 3600) AS age_h, database_role FROM smarter_auth.audit_event"
        " WHERE database_role IS NOT NULL ORDER BY id"
    )
    assert [tuple(event) for event in events] == [(age_h, old.runtime_role) for age_h in (1, 0, 0, 0)]
    await connection.close()


async def test_a_role_that_is_named_loses_what_its_grade_does_not_need_and_is_told(old: Database) -> None:
    said: list[str] = []
    await migrations.migrate(old.owner, old.runtime_role, said.append)
    assert any(line.startswith(f"{old.runtime_role} serves from now on: it can no longer write keys") for line in said)
    assert await _done(old.runtime, MANAGERS + NOBODYS, DENIED) == []
    said.clear()
    await migrations.migrate(old.owner, progress=said.append)
    assert said == []
    await migrations.migrate(old.owner, manager_role=old.runtime_role, progress=said.append)
    assert said == []
    assert await _done(old.runtime, MANAGERS, DENIED) == MANAGERS


async def test_a_role_that_is_named_as_both_manages(old: Database) -> None:
    said: list[str] = []
    await migrations.migrate(old.owner, old.runtime_role, said.append, manager_role=old.runtime_role)
    assert not any(old.runtime_role in line for line in said)
    assert await _done(old.runtime, MANAGERS, DENIED) == MANAGERS


async def test_a_role_gets_what_is_new_with_each_migration_and_one_that_was_let_go_does_not(roles: Database) -> None:
    await _execute(roles.owner, f"REVOKE SELECT ON smarter_auth.key FROM {roles.runtime_role}")
    await migrations.migrate(roles.owner)
    assert await _done(roles.runtime, ["SELECT FROM smarter_auth.key"], DENIED) == []
    await _execute(
        roles.owner, f"DROP OWNED BY {roles.manager_role}; SET ROLE smarter_auth; SELECT smarter_auth.grant_grades()"
    )
    assert await _done(roles.manager, ["SELECT FROM smarter_auth.key"], DENIED) == []


async def test_the_owner_is_no_role_to_work_as(roles: Database) -> None:
    for runtime, manager in (("smarter_auth", None), (None, "smarter_auth")):
        with pytest.raises(UnavailableError, match="owns the schema"):
            await migrations.migrate(roles.owner, runtime, manager_role=manager)


async def test_back_to_one_grade_and_there_again_nobody_is_locked_out(roles: Database) -> None:
    await migrations.downgrade(roles.owner, BEFORE_ROLES)
    assert await _done(roles.runtime, MANAGERS[:-1], DENIED) == MANAGERS[:-1]
    await migrations.migrate(roles.owner, roles.runtime_role, manager_role=roles.manager_role)
    assert await _done(roles.runtime, MANAGERS, DENIED) == []


def _tables(connection: asyncpg.Connection) -> Any:
    return connection.fetch(
        "SELECT relname, has_table_privilege($1::name, oid, 'SELECT') AS is_read FROM pg_class"
        " WHERE relnamespace = 'smarter_auth'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition",
        "smarter_auth_runtime",
    )


async def test_a_table_is_read_by_those_who_serve_or_stands_in_a_list(owner: asyncpg.Connection) -> None:
    unread = {row["relname"] for row in await _tables(owner) if not row["is_read"]}
    assert unread == {"operator", "operator_session", "operator_token", "usage_batch"}
