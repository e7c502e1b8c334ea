"""The same tests on two stores: PostgreSQL and the one in memory; those that speak SQL have PostgreSQL alone."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from smarter_auth_mw.testing.store import MemoryStore
from tests.support.database import Database


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "store_kind" in metafunc.fixturenames:
        speaks_sql = {"owner", "runtime", "manager", "database"} & set(metafunc.fixturenames)
        metafunc.parametrize("store_kind", ["postgresql"] if speaks_sql else ["postgresql", "memory"])


@pytest.fixture
def store_url(store_kind: str, request: pytest.FixtureRequest) -> str | None:
    """The database that the store is in, if any."""
    if store_kind == "memory":
        return None
    database: Database = request.getfixturevalue("database")
    return database.manager


@pytest.fixture
async def store(store_url: str | None) -> AsyncIterator[Store]:
    if store_url is None:
        yield MemoryStore().as_store
        return
    async with open_pool(store_url) as pool:
        yield Store(pool)
