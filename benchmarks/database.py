"""A PostgreSQL for the benchmarks, with the schema, and functions that fill it."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import asyncpg

from smarter_auth_mw.postgres.embedded.cluster import Cluster
from smarter_auth_mw.postgres.migrations import migrate


class Database(NamedTuple):
    """The URLs of one database: for its owner, and for the role of a web process."""

    owner: str
    runtime: str


@asynccontextmanager
async def server(kept: Path | None = None, **settings: str) -> AsyncIterator[Cluster]:
    """Run a separate server while the block runs; ``settings`` are PostgreSQL's.

    ``kept``: a directory where its data stay.
    """
    with nullcontext(kept) if kept else tempfile.TemporaryDirectory() as directory:
        place = Path(directory) / "pg"
        if settings:
            with Cluster.start(place) as cluster:
                owner = await asyncpg.connect(cluster.url("owner"))
                for name, value in settings.items():
                    await owner.execute(f"ALTER SYSTEM SET {name} = '{value}'")
                await owner.close()
        with Cluster.start(place) as cluster:
            yield cluster


@asynccontextmanager
async def migrated() -> AsyncIterator[Database]:
    """Yield a migrated database on a server of its own."""
    async with server() as cluster:
        yield await make(cluster)


async def make(cluster: Cluster, name: str = "smarter_auth") -> Database:
    """Return a migrated database on this server; create it if it does not exist."""
    owner, runtime = cluster.url("owner"), cluster.url("runtime")
    if urlsplit(owner).path != f"/{name}":
        connection = await asyncpg.connect(owner)
        await connection.execute(f'CREATE DATABASE "{name}"')
        await connection.close()
        owner, runtime = (urlsplit(url)._replace(path=f"/{name}").geturl() for url in (owner, runtime))
    await migrate(owner, manager_role=urlsplit(runtime).username)
    return Database(owner, runtime)


_RESOURCES = """
INSERT INTO smarter_auth.resource (kind, ref, protection) SELECT 'bot', n, 'bound' FROM generate_series(1, $1::int) AS n
"""
_KEYS = """
INSERT INTO smarter_auth.key (key_id, name) SELECT md5(n::text)::uuid, 'key ' || n FROM generate_series(1, $1::int) AS n
"""
_TOKENS = """
INSERT INTO smarter_auth.token (key_id, account, digest, token_key)
SELECT md5(n::text)::uuid, 'default', sha512(n::text::bytea), left(md5(n::text), 15)
  FROM generate_series(1, $1::int) AS n
"""
_BINDINGS = """
INSERT INTO smarter_auth.binding (resource_id, key_id, account)
SELECT resource.id, md5(((ref::int - 1) * $1::int + n)::text)::uuid, account
  FROM smarter_auth.resource, generate_series(1, $1::int) AS n
"""


async def fill(url: str, resources: int, bindings_each: int) -> None:
    """Create resources ``bot:1``, ``bot:2`` …, each with keys of its own; the token of the n-th key is the number n."""
    owner = await asyncpg.connect(url)
    try:
        await owner.execute("SET synchronous_commit = off")
        async with owner.transaction():
            await owner.execute(_RESOURCES, resources)
            await owner.execute(_KEYS, resources * bindings_each)
            await owner.execute(_TOKENS, resources * bindings_each)
            await owner.execute(_BINDINGS, bindings_each)
        await owner.execute("VACUUM ANALYZE")
    finally:
        await owner.close()
