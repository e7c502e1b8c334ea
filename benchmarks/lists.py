"""What a page of each list costs with a thousand keys and with a million, nine in ten of them revoked.

    python -m benchmarks.lists [--keys 1000000] [--few 1000] [--rounds 200] [--only TEXT] [--kept DIR] [--json FILE]

Both databases are on one server of their own, and their pages are read in turn, so that what the machine does meanwhile
hits both alike, under the plans of both modes. Each page is what an operator gets: fifty items, each with at most ten
entries of its inner lists. The databases are filled as the released schema 0005 has them, and then migrated: how long
writers wait is printed too. With ``--kept`` the server's data stay in a directory, and the next run finds them filled.
Exits 1 where the p99 of a page with a million keys is more than 1.5 times that with a thousand.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import asyncpg
from alembic import command

from benchmarks.database import Database, server
from benchmarks.fleet import quantile
from smarter_auth_mw.management.listings import Listings
from smarter_auth_mw.postgres import migrations
from smarter_auth_mw.postgres.connections.sessions import SESSION
from smarter_auth_mw.postgres.embedded.cluster import Cluster
from tests.support.many_keys import AUDIT_LISTS, FILL, FILL_LABELS, KEY_LISTS, RARE_LISTS, RESOURCE_LISTS, Plans

PAGE, INNER = 50, 10
TARGET = 1.5
RELEASED = "0005"
MODES = ("force_generic_plan", "force_custom_plan")

Ask = Callable[[Listings], Awaitable[Any]]


class Cost(NamedTuple):
    """Of one list in one database."""

    items: int
    buffers: int
    p50_ms: float
    p99_ms: float


class Side:
    """One of the databases, and what its pages took."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.plans = Plans(connection)
        self._listings = Listings(self.plans)
        self._taken: list[float] = []
        self._items = 0

    async def ask(self, ask: Ask) -> None:
        began = time.perf_counter()
        page = await ask(self._listings)
        self._taken.append((time.perf_counter() - began) * 1e3)
        self._items = len(page.items)

    async def cost(self) -> Cost:
        taken, self._taken = self._taken[3:], []  # Without the warm-up.
        return Cost(self._items, await self.plans.buffers(), quantile(taken, 0.5), quantile(taken, 0.99))


def lists() -> Iterator[tuple[str, Ask]]:
    """Every list by its name."""
    for name, keys in {**KEY_LISTS, **RARE_LISTS}.items():
        yield f"keys: {name}", lambda listings, keys=keys: listings.keys(keys, limit=PAGE, inner=INNER)
    for name, resources in RESOURCE_LISTS.items():
        yield name, lambda listings, one=resources: listings.resources(one, limit=PAGE, inner=INNER)
    for name, events in AUDIT_LISTS.items():
        yield name, lambda listings, events=events: listings.audit(events, limit=PAGE)


@asynccontextmanager
async def filled(cluster: Cluster, keys: int) -> AsyncIterator[str]:
    """The URL of a database with so many keys, filled at the released schema and migrated then."""
    name = f"keys_{keys}"
    owner, runtime = (
        urlsplit(url)._replace(path=f"/{name}").geturl() for url in (cluster.url("owner"), cluster.url("runtime"))
    )
    administrator = await asyncpg.connect(cluster.url("owner"))
    is_filled = await administrator.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name)
    if not is_filled:
        await _fill(administrator, name, Database(owner, runtime), keys)
    await administrator.close()
    yield runtime


async def _fill(administrator: asyncpg.Connection, name: str, database: Database, keys: int) -> None:
    """Make the database under another name, so that one with this name is complete."""
    await administrator.execute("DROP DATABASE IF EXISTS filling")
    await administrator.execute("CREATE DATABASE filling")
    owner = urlsplit(database.owner)._replace(path="/filling").geturl()
    role = urlsplit(database.runtime).username
    await migrations._run(owner, lambda config: command.upgrade(config, RELEASED), is_upgrade=True)
    connection = await asyncpg.connect(owner)
    await connection.execute(FILL.format(keys=keys))
    await connection.execute("VACUUM ANALYZE")
    began = time.monotonic()
    await migrations.migrate(owner, manager_role=role)
    print(f"{time.monotonic() - began:9.1f} s  migration of {keys:,} keys and as many audit events", flush=True)
    await connection.execute(f"SET session_replication_role = replica; {FILL_LABELS}")
    await connection.execute("VACUUM ANALYZE")
    await connection.close()
    await administrator.execute(f"ALTER DATABASE filling RENAME TO {name}")


@asynccontextmanager
async def opened(url: str, mode: str) -> AsyncIterator[Side]:
    reader = await asyncpg.connect(url, server_settings=SESSION | {"plan_cache_mode": mode})
    yield Side(reader)
    await reader.close()


async def measure(few: int, many: int, rounds: int, only: str, kept: Path | None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    async with (
        server(kept, shared_buffers="512MB") as cluster,
        filled(cluster, few) as one,
        filled(cluster, many) as other,
    ):
        for mode in MODES:
            async with opened(one, mode) as smaller, opened(other, mode) as larger:
                rows += await compared(mode, smaller, larger, rounds, only)
    return rows


async def compared(mode: str, one: Side, other: Side, rounds: int, only: str) -> list[dict[str, Any]]:
    rows = []
    print(f"{mode:44} {'items':>9} {'buffers':>13} {'p50 ms':>13} {'p99 ms':>13}  p99")
    for name, ask in ((name, ask) for name, ask in lists() if only in name):
        for _ in range(rounds + 3):
            await one.ask(ask)
            await other.ask(ask)
        costs = await one.cost(), await other.cost()
        rows.append({"list": name, "mode": mode, "few": costs[0]._asdict(), "many": costs[1]._asdict()})
        show(name, *costs)
    return rows


def show(name: str, few: Cost, many: Cost) -> None:
    ratio = many.p99_ms / few.p99_ms
    print(
        f"{name:44} {few.items:4} {many.items:4} {few.buffers:6} {many.buffers:6} {few.p50_ms:6.2f} {many.p50_ms:6.2f}"
        f" {few.p99_ms:6.2f} {many.p99_ms:6.2f} {ratio:5.2f} {'' if ratio <= TARGET else 'MISSED'}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--few", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--only", default="", help="the lists whose names contain this")
    parser.add_argument("--kept", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = asyncio.run(measure(arguments.few, arguments.keys, arguments.rounds, arguments.only, arguments.kept))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))
    return 0 if all(row["many"]["p99_ms"] <= TARGET * row["few"]["p99_ms"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
