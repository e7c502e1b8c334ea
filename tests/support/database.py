"""A real PostgreSQL for the tests: one server and one migrated template a session, one copy of it a test.

``python -m tests.support.database`` makes both for sessions to share, prints where, and ends when its stdin is closed:
a session uses them if the variable ``TESTS_CLUSTER`` names the place.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import psycopg2
import pytest

from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.postgres.embedded.cluster import Cluster
from smarter_auth_mw.postgres.embedded.place import programs
from smarter_auth_mw.postgres.migrations import migrate
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from tests.support.memory import FSYNC, fast_directory

TEMPLATE = "template_migrated"
EMPTY = "template1"
COPIES = "copies"
"""The tablespace of the tests' databases."""
COPIED = "STRATEGY FILE_COPY"
"""As files, at a quarter of what it costs the server to log each page of a copy."""
MANAGER = "smarter_auth_manager"
SHARED = "TESTS_CLUSTER"
"""The variable that names the directory of a server that is there already."""

_numbers = count(1)


OUTSIDE_THE_CALENDAR = (
    "ALTER TABLE smarter_auth.key DROP CONSTRAINT key_expires_at_in_calendar",
    "UPDATE smarter_auth.key SET expires_at = CASE name WHEN 'never' THEN 'infinity' WHEN 'far' THEN '20000-01-01'"
    " WHEN 'long ago' THEN '-infinity'::timestamptz END",
)
"""Expiries that programs cannot hold, of keys of these names."""


@dataclass(frozen=True, slots=True)
class Database:
    """One database of the test's own: as the role that migrates it, one that serves, and one that writes keys too."""

    owner: str
    runtime: str
    manager: str

    @property
    def runtime_role(self) -> str:
        return urlsplit(self.runtime).username or ""

    @property
    def manager_role(self) -> str:
        return urlsplit(self.manager).username or ""


def named(url: str, database: str) -> str:
    """The same server, another database."""
    return urlsplit(url)._replace(path=f"/{database}").geturl()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if SHARED in os.environ:
        with Cluster.start(Path(os.environ[SHARED])) as started:
            yield started
        return
    with own_cluster(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@contextmanager
def own_cluster(directory: Path) -> Iterator[Cluster]:
    """A server that nobody else uses, with a place for copies."""
    copies = fast_directory()
    with Cluster.start(directory) as started:
        server = started.home / "data"
        shutil.chown(copies, server.owner())
        settings = (f"ALTER SYSTEM SET fsync = {FSYNC}", "SELECT pg_reload_conf()", f"CREATE ROLE {MANAGER} LOGIN")
        asyncio.run(_execute(started.url("owner"), *settings, f"CREATE TABLESPACE {COPIES} LOCATION '{copies}'"))
        (copies / "elsewhere").symlink_to(started.home)
        yield started
    shutil.rmtree(started.home)  # for root that is no directory of pytest's
    shutil.rmtree(copies)


@pytest.fixture(scope="session")
def template(cluster: Cluster) -> str:
    """The name of a migrated database that nobody connects to."""
    if SHARED not in os.environ:
        make_template(cluster)
    return TEMPLATE


def make_template(cluster: Cluster) -> None:
    server, role = cluster.url("owner"), urlsplit(cluster.url("runtime")).username
    asyncio.run(_execute(server, f"CREATE DATABASE {TEMPLATE} TABLESPACE {COPIES}"))
    asyncio.run(migrate(named(server, TEMPLATE), role, manager_role=MANAGER))


@pytest.fixture
def database(cluster: Cluster, template: str) -> Iterator[Database]:
    """A migrated database."""
    yield from copied(cluster, template)


@pytest.fixture
def other_database(cluster: Cluster, template: str) -> Iterator[Database]:
    """Another migrated database, a copy of the same."""
    yield from copied(cluster, template)


@pytest.fixture
def empty_database(cluster: Cluster) -> Iterator[Database]:
    """A database with nothing in it."""
    yield from copied(cluster, EMPTY)


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    """The store of whoever writes keys."""
    async with open_pool(database.manager) as pool:
        yield Store(pool)


@pytest.fixture
def keys(store: Store) -> Management:
    return Management(store, actor="tester")


@pytest.fixture
async def owner(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """A plain connection of the role that migrates: for SQL that nobody foresaw."""
    async for connection in _connection(database.owner):
        yield connection


@pytest.fixture
async def runtime(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """A plain connection of the role that serves."""
    async for connection in _connection(database.runtime):
        yield connection


@pytest.fixture
async def manager(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """A plain connection of the role that writes keys."""
    async for connection in _connection(database.manager):
        yield connection


def copied(cluster: Cluster, template: str) -> Iterator[Database]:
    """A fixture's whole life: a copy of the template, dropped in the end."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    administer = _administrator(cluster.url("owner")).cursor().execute
    administer(f"CREATE DATABASE {name} TEMPLATE {template} {COPIED} TABLESPACE {COPIES}")
    yield on(cluster, name)
    administer(f"DROP DATABASE {name} WITH (FORCE)")


@cache
def _administrator(url: str) -> Any:
    """The connection that makes and drops databases: one for all tests, since opening one costs as much as a drop."""
    connection = psycopg2.connect(url)
    connection.autocommit = True
    return connection


def on(cluster: Cluster, name: str) -> Database:
    """The database of this name."""
    runtime = named(cluster.url("runtime"), name)
    role = urlsplit(runtime).username or ""
    return Database(named(cluster.url("owner"), name), runtime, runtime.replace(f"{role}@", f"{MANAGER}@"))


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def _connection(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def dumped(url: str) -> str:
    """Return the whole database as `pg_dump` writes it."""
    dumping = await asyncio.create_subprocess_exec(
        programs() / "bin" / "pg_dump", "--inserts", url, stdout=asyncio.subprocess.PIPE
    )
    dump = (await dumping.communicate())[0].decode()
    assert dumping.returncode == 0
    return dump


def main() -> None:
    """Keep a server for others."""
    with tempfile.TemporaryDirectory() as directory, own_cluster(Path(directory)) as started:
        make_template(started)
        print(directory, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
