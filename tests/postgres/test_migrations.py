"""Migrations on a real PostgreSQL: there, back and there again, printed and run, by people with few rights."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import asyncpg
import pytest

from smarter_auth_mw.errors import NotFoundError, SchemaError, UnavailableError
from smarter_auth_mw.postgres import migrations
from smarter_auth_mw.postgres.embedded.cluster import Cluster
from smarter_auth_mw.postgres.notifications import open_wire
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.queries import SCHEMA
from tests.support.catalog import catalog
from tests.support.database import Database, named
from tests.support.embedded import removed_afterwards

NEWEST = f"{SCHEMA:04}"


@pytest.fixture
async def empty(empty_database: Database) -> AsyncIterator[asyncpg.Connection]:
    """A plain connection to a database with nothing in it."""
    connection = await asyncpg.connect(empty_database.owner)
    try:
        yield connection
    finally:
        await connection.close()


async def test_database_that_is_not_ours_yet_has_everything_pending(empty_database: Database) -> None:
    status = await migrations.status(empty_database.owner)
    assert (status.schema, status.pending[0], status.pending[-1]) == (None, "0001", NEWEST)


async def test_a_lock_keeps_no_command_waiting_without_end(
    database: Database, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert migrations.LOCK_TIMEOUT == "SET LOCAL lock_timeout = '30s'"
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT", "SET LOCAL lock_timeout = '50ms'")
    async with owner.transaction():
        await owner.execute("LOCK TABLE smarter_auth.schema_version")
        for waiting in (migrations.status, migrations.migrate, migrations.restored):
            with pytest.raises(UnavailableError, match="another session has locked"):
                async with asyncio.timeout(60):
                    await waiting(database.owner)


async def test_migrating_runs_what_is_pending_and_tells_of_each(empty_database: Database) -> None:
    told: list[str] = []
    status = await migrations.migrate(empty_database.owner, progress=told.append)
    assert (status.schema, status.pending) == (NEWEST, [])
    assert [line.partition(" ")[0] for line in told][-1] == NEWEST
    assert await migrations.migrate(empty_database.owner, progress=told.append) == status
    assert len(told) == int(NEWEST)


async def test_there_and_back_and_there_again_is_the_same_schema(
    empty_database: Database, empty: asyncpg.Connection
) -> None:
    await migrations.migrate(empty_database.owner, empty_database.runtime_role)
    first = await catalog(empty)
    assert len(first) > 50
    assert (await migrations.downgrade(empty_database.owner)).schema is None
    left = [line for line in await catalog(empty) if not line.startswith("schema ")]
    assert all("schema_version" in line for line in left)
    await migrations.migrate(empty_database.owner, empty_database.runtime_role)
    assert await catalog(empty) == first


async def test_printed_script_does_what_migrate_does(
    empty_database: Database, empty: asyncpg.Connection, database: Database, owner: asyncpg.Connection
) -> None:
    await empty.execute(
        await migrations.sql(empty_database.owner, database.runtime_role, manager_role=database.manager_role)
    )
    assert await catalog(empty) == await catalog(owner)
    assert (await migrations.status(empty_database.owner)).pending == []


async def test_printed_script_holds_what_is_pending_only(database: Database) -> None:
    assert "CREATE TABLE" in await migrations.sql()
    assert "CREATE TABLE" not in await migrations.sql(database.owner)


async def test_two_migrations_at_once_are_harmless(empty_database: Database) -> None:
    told: list[str] = []
    await asyncio.gather(*(migrations.migrate(empty_database.owner, progress=told.append) for _ in range(3)))
    assert len(told) == int(NEWEST)


async def test_two_processes_that_migrate_at_once_are_harmless(empty_database: Database) -> None:
    program = (
        "import asyncio, sys; from smarter_auth_mw.postgres.migrations import migrate as m; asyncio.run(m(sys.argv[1]))"
    )
    command = (sys.executable, "-W", "error", "-c", program, empty_database.owner)
    processes = [await asyncio.create_subprocess_exec(*command) for _ in range(2)]
    assert [await process.wait() for process in processes] == [0, 0]
    assert (await migrations.status(empty_database.owner)).pending == []


async def _epoch(connection: asyncpg.Connection) -> tuple[object, ...]:
    (row,) = await connection.fetch("SELECT epoch, secret FROM smarter_auth.meta")
    return tuple(row)


async def test_epoch_is_renewed_where_the_database_has_moved_and_only_there(
    empty_database: Database, empty: asyncpg.Connection
) -> None:
    await migrations.migrate(empty_database.owner)
    first = await _epoch(empty)
    await migrations.migrate(empty_database.owner)
    assert await _epoch(empty) == first
    await empty.execute("UPDATE smarter_auth.meta SET home = 'elsewhere'")
    await migrations.migrate(empty_database.owner)
    moved = await _epoch(empty)
    assert not set(moved) & set(first)
    await migrations.restored(empty_database.owner)
    assert not set(await _epoch(empty)) & set(moved)


async def test_runtime_role_gets_what_a_later_migration_brings(empty_database: Database) -> None:
    await migrations.migrate(empty_database.owner, empty_database.runtime_role)
    await migrations.downgrade(empty_database.owner, "0001")
    await migrations.migrate(empty_database.owner)
    async with open_wire(empty_database.runtime, print) as wire:
        assert (await wire.beat(None)).is_coherent


async def test_times_outside_the_calendar_become_its_ends_and_cannot_be_written_again(
    empty_database: Database, empty: asyncpg.Connection
) -> None:
    await migrations.migrate(empty_database.owner)
    await migrations.downgrade(empty_database.owner, "0010")
    await empty.execute(
        "INSERT INTO smarter_auth.key (name, expires_at, revoked_at, created_at) VALUES"
        " ('past', '-infinity', NULL, '0044-03-15 BC'), ('far', 'infinity', NULL, 'infinity'),"
        " ('gone', '20000-01-01', 'infinity', now()), ('usual', '2030-01-01 00:00 UTC', NULL, now())"
    )
    await empty.execute(
        "INSERT INTO smarter_auth.audit_event (actor, action, account, at) VALUES ('a', 'key.create', 'b', 'infinity')"
    )
    await migrations.migrate(empty_database.owner)
    first, last = "0001-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00"
    await empty.execute("SET timezone = 'UTC'")
    rows = await empty.fetch("SELECT name, expires_at::text, revoked_at::text FROM smarter_auth.key ORDER BY name")
    assert [tuple(row) for row in rows] == [
        ("far", last, None), ("gone", last, last), ("past", first, None), ("usual", "2030-01-01 00:00:00+00", None)
    ]  # fmt: skip
    for table, column in (("key", "created_at"), ("audit_event", "at")):
        assert not await empty.fetch(f"SELECT FROM smarter_auth.{table} WHERE NOT isfinite({column})")
    for time in ("infinity", "-infinity", "10000-01-01 00:00 UTC", "0001-12-31 BC"):
        with pytest.raises(asyncpg.CheckViolationError, match="in_calendar"):
            await empty.execute(f"UPDATE smarter_auth.key SET expires_at = '{time}' WHERE name = 'usual'")


async def test_migration_that_fails_leaves_nothing_behind(empty_database: Database) -> None:
    with pytest.raises(NotFoundError, match=r'role "no such \'role\'"'):
        await migrations.migrate(empty_database.owner, "no such 'role'")
    assert (await migrations.status(empty_database.owner)).schema is None


async def test_schema_of_a_later_release_is_refused_with_what_to_do(
    database: Database, owner: asyncpg.Connection
) -> None:
    await owner.execute("UPDATE smarter_auth.schema_version SET version_num = '9999'")
    await owner.execute("UPDATE smarter_auth.meta SET serves_from = 9999")
    for act in (migrations.status(database.owner), migrations.migrate(database.owner)):
        with pytest.raises(SchemaError, match="9999, too new") as refused:
            await act
        assert "pip install -U" in refused.value.hint
    with pytest.raises(SchemaError, match="9999, too new"):
        async with open_pool(database.runtime):
            pass


async def test_schema_one_step_ahead_serves_where_it_says_so(database: Database, owner: asyncpg.Connection) -> None:
    await owner.execute("UPDATE smarter_auth.schema_version SET version_num = '9999'")
    async with open_pool(database.runtime):
        pass


async def test_database_that_is_not_migrated_is_refused_with_what_to_do(empty_database: Database) -> None:
    with pytest.raises(SchemaError) as refused:
        async with open_pool(empty_database.owner):
            pass
    assert "smarter-auth db migrate" in refused.value.hint


async def test_url_of_several_hosts_finds_the_server(empty_database: Database) -> None:
    url = f"{empty_database.owner}".replace("host=", "host=/nowhere,").replace("port=5432", "port=5432,5432")
    assert (await migrations.migrate(url)).schema == NEWEST


async def test_server_that_is_not_there_is_said_to_be_unreachable() -> None:
    with pytest.raises(UnavailableError, match="cannot be reached") as refused:
        await migrations.status("postgresql://somebody:secret@/nothing?host=/nowhere")
    assert "secret" not in f"{refused.value}{refused.value.hint}"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A server that has never seen us."""
    with (
        removed_afterwards(tmp_path_factory.mktemp("fresh") / "pg") as directory,
        Cluster.start(directory) as started,
    ):
        yield started


@pytest.fixture
async def administrator(fresh: Cluster) -> AsyncIterator[asyncpg.Connection]:
    """A connection to that server, which has not seen us afterwards either."""
    connection = await asyncpg.connect(fresh.url("owner"))
    try:
        yield connection
        await connection.execute("DROP DATABASE theirs WITH (FORCE)")
        await connection.execute("DROP ROLE smarter_auth")
    finally:
        await connection.close()


async def test_role_with_few_rights_is_told_what_an_administrator_has_to_run(
    fresh: Cluster, administrator: asyncpg.Connection
) -> None:
    poor = urlsplit(fresh.url("runtime")).username
    await administrator.execute(f"CREATE DATABASE theirs OWNER {poor}")
    url = named(fresh.url("runtime"), "theirs")
    for missing in ("CREATE ROLE smarter_auth NOLOGIN", f"GRANT smarter_auth TO {poor}"):
        with pytest.raises(UnavailableError) as refused:
            await migrations.migrate(url)
        assert missing in refused.value.hint
        await administrator.execute(missing)
    assert (await migrations.migrate(url)).schema == NEWEST
    async with open_pool(url):  # As the owner of the schema, and no superuser.
        pass


async def test_role_that_may_create_roles_needs_nobody(fresh: Cluster, administrator: asyncpg.Connection) -> None:
    role = urlsplit(fresh.url("runtime")).username
    await administrator.execute(f"ALTER ROLE {role} CREATEROLE")
    await administrator.execute(f"CREATE DATABASE theirs OWNER {role}")
    url = named(fresh.url("runtime"), "theirs")
    try:
        assert (await migrations.migrate(url)).schema == NEWEST
        async with open_pool(url):
            pass
    finally:
        await administrator.execute(f"ALTER ROLE {role} NOCREATEROLE")


async def test_schema_of_somebody_else_is_left_alone(empty_database: Database, empty: asyncpg.Connection) -> None:
    await empty.execute(f"CREATE SCHEMA smarter_auth AUTHORIZATION {empty_database.runtime_role}")
    with pytest.raises(UnavailableError, match=empty_database.runtime_role) as refused:
        await migrations.migrate(empty_database.owner)
    assert "ALTER SCHEMA smarter_auth OWNER TO" in refused.value.hint


def test_serving_needs_neither_sqlalchemy_nor_alembic() -> None:
    program = (
        "import sys, smarter_auth_mw.postgres.store, smarter_auth_mw.management.keys;"
        " assert not {'alembic', 'sqlalchemy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
