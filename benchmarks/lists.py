"""Measure a page of each list with a thousand keys and with a million, nine in ten of them revoked.

    python -m benchmarks.lists [--rounds 400] [--mode MODE] [--only TEXT] [--kept DIR] [--json FILE]

The databases are on one server, and their pages are read in turn, so that other work on the machine affects all alike.
Both plan modes are measured unless ``--mode`` selects one. A page is what an operator gets: fifty items, each with at
most ten entries of its inner lists. With a thousand keys, many lists are shorter than that; the ratio compares pages of
equal length, and the full page with a million keys is printed next to it. A list with few or no matches reads as many
candidates as it may; it is compared with the page with ten thousand keys, of which a thousand are not revoked.
``again`` shows the noise: it compares every other page of the smaller side with the rest. The databases are filled with
the released schema 0005 and then migrated; the time that writers wait is printed too. With ``--kept``, the server's
data stay in a directory for the next run. Exits with 1 if the p99 of a page with a million keys is more than 1.5 times
that of the page it is compared with. ``python -m benchmarks lists`` publishes the ratios under generic plans.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import asyncpg
from alembic import command

from benchmarks import measuring
from benchmarks.database import Database, server
from benchmarks.fleet import quantile
from benchmarks.measuring import Row
from smarter_auth_mw.management.listings import AuditFilters, KeyFilters, Listings, ResourceFilters
from smarter_auth_mw.postgres import migrations
from smarter_auth_mw.postgres.connections.sessions import SESSION
from smarter_auth_mw.postgres.embedded.cluster import Cluster
from tests.support.many_keys import AUDIT_LISTS, FILL, FILL_LABELS, KEY_LISTS, RARE_LISTS, RESOURCE_LISTS, Plans

PAGE, INNER = 50, 10
TARGET = 1.5
RELEASED = "0005"
MODES = ("force_generic_plan", "force_custom_plan")
FEW, SOME, MANY = 1_000, 10_000, 1_000_000
KEPT = Path(__file__).parent.parent / "build" / "keys"
"""Where the databases stay between the runs that are published."""

Ask = Callable[[Listings, int], Awaitable[Any]]


class Cost(NamedTuple):
    """The times of one list's pages in one database; ``again`` compares one half of them with the other half."""

    items: int
    buffers: int
    p50_ms: float
    p99_ms: float
    again: float


class Side:
    """One of the databases, and the times of its pages."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.plans = Plans(connection)
        self._listings = Listings(self.plans)

    async def ask(self, ask: Ask, limit: int, taken_ms: list[float]) -> int:
        """Read a page, and return how many items it has."""
        began = time.perf_counter()
        page = await ask(self._listings, limit)
        taken_ms.append((time.perf_counter() - began) * 1e3)
        return len(page.items)

    async def cost(self, ask: Ask, limit: int, taken_ms: list[float]) -> Cost:
        items = await self.ask(ask, limit, [])
        buffers = await self.plans.buffers()
        halves = quantile(taken_ms[::2], 0.99), quantile(taken_ms[1::2], 0.99)
        return Cost(items, buffers, quantile(taken_ms, 0.5), quantile(taken_ms, 0.99), max(halves) / min(halves))


def lists() -> Iterator[tuple[str, Ask, int]]:
    """Return every list by its name, and the number of keys that it is compared with."""
    for name, keys in {**KEY_LISTS, **RARE_LISTS}.items():
        yield f"keys: {name}", _keys(keys), SOME if name in RARE_LISTS else FEW
    for name, resources in RESOURCE_LISTS.items():
        yield name, _resources(resources), FEW
    for name, events in AUDIT_LISTS.items():
        yield name, _events(events), FEW


def _keys(filters: KeyFilters) -> Ask:
    return lambda listings, limit: listings.keys(filters, limit=limit, inner=INNER)


def _resources(filters: ResourceFilters) -> Ask:
    return lambda listings, limit: listings.resources(filters, limit=limit, inner=INNER)


def _events(filters: AuditFilters) -> Ask:
    return lambda listings, limit: listings.audit(filters, limit=limit)


@asynccontextmanager
async def filled(cluster: Cluster, keys: int) -> AsyncIterator[str]:
    """Return the URL of a database with that many keys, filled with the released schema and then migrated."""
    name = f"keys_{keys}"
    owner, runtime = (
        urlsplit(url)._replace(path=f"/{name}").geturl() for url in (cluster.url("owner"), cluster.url("runtime"))
    )
    administrator = await asyncpg.connect(cluster.url("owner"))
    is_filled = await administrator.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name)
    if not is_filled:
        await _fill(administrator, name, Database(owner, runtime), keys)
    await administrator.close()
    await migrations.migrate(owner, manager_role=urlsplit(runtime).username)  # A kept one may be older.
    yield runtime


async def _fill(administrator: asyncpg.Connection, name: str, database: Database, keys: int) -> None:
    """Create the database under another name first, so that a database with this name is always complete."""
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


async def measure(rounds: int, modes: Sequence[str], only: str, kept: Path | None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    async with server(kept, shared_buffers="512MB") as cluster, AsyncExitStack() as stack:
        urls = {keys: await stack.enter_async_context(filled(cluster, keys)) for keys in (FEW, SOME, MANY)}
        for mode in modes:
            async with AsyncExitStack() as connections:
                sides = {keys: await connections.enter_async_context(opened(url, mode)) for keys, url in urls.items()}
                rows += await compared(mode, sides, rounds, only)
    return rows


async def compared(mode: str, sides: Mapping[int, Side], rounds: int, only: str) -> list[dict[str, Any]]:
    columns = f"{mode:32} {'items':>8} {'buffers':>12} {'p50 ms':>13} {'p99 ms':>13}"
    print(f"{columns}  p99 again  full page: buffers, p50 ms, p99 ms")
    rows = []
    for name, ask, like in (one for one in lists() if only in one[0]):
        row = {"what": name, "mode": mode, "like": like, **await measured(sides[like], sides[MANY], ask, rounds)}
        show(name, like, *(Cost(**row[side]) for side in ("few", "many", "full")))
        rows.append(row)
    return rows


async def measured(one: Side, other: Side, ask: Ask, rounds: int) -> dict[str, Any]:
    """Read pages of the smaller database, as long ones of the larger one, and its full ones, in turn."""
    shorter = max(await one.ask(ask, PAGE, []), 1)
    sides = {"few": (one, PAGE), "many": (other, shorter), "full": (other, PAGE)}
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 3):
        for name, (side, limit) in sides.items():
            await side.ask(ask, limit, taken[name] if number >= 3 else [])
    return {name: (await side.cost(ask, limit, taken[name]))._asdict() for name, (side, limit) in sides.items()}


def is_met(row: Mapping[str, Any]) -> bool:
    return bool(row["many"]["p99_ms"] <= TARGET * row["few"]["p99_ms"])


async def ratios(rounds: int) -> list[Row]:
    """Return what is published: the ratio of each list, and the buffers that its pages read."""
    measured = await measure(rounds, MODES[:1], "", KEPT)
    most = max(row[side]["buffers"] for row in measured for side in ("few", "many", "full"))
    noted = [one.noted(_buffers(row)) for row, one in zip(measured, by_p99(measured), strict=True)]
    return [*noted, by_p50(measured), measuring.bound("most buffers of a page", most)]


def by_p99(measured: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Return for each page its p99 with a million keys as a multiple of the p99 of the page it is compared with."""
    return [measuring.row(one["what"], [_ratio(one, "p99_ms")], TARGET) for one in measured]


def by_p50(measured: Iterable[Mapping[str, Any]]) -> Row:
    ratio = statistics.median(_ratio(one, "p50_ms") for one in measured)
    return measuring.row("median of these ratios, by p50", [ratio], None)


def _ratio(measured: Mapping[str, Any], quantile: str) -> float:
    return float(measured["many"][quantile] / measured["few"][quantile])


def _buffers(measured: Mapping[str, Any]) -> str:
    few, many, full = (Cost(**measured[side]) for side in ("few", "many", "full"))
    longer = f"; {full.items}: {full.buffers:,}" if full.items > many.items else ""
    return f"{many.items}: {few.buffers:,}, {many.buffers:,}{longer}"


def show(name: str, like: int, few: Cost, many: Cost, full: Cost) -> None:
    ratio = many.p99_ms / few.p99_ms
    print(
        f"{name:32} {few.items:4}{many.items:4} {few.buffers:6}{many.buffers:6} {few.p50_ms:6.2f} {many.p50_ms:6.2f}"
        f" {few.p99_ms:6.2f} {many.p99_ms:6.2f} {ratio:5.2f} {few.again:5.2f}"
        f"   {full.items:3}: {full.buffers:6} {full.p50_ms:6.2f} {full.p99_ms:6.2f}"
        f" {'' if ratio <= TARGET else 'MISSED '}{'' if like == FEW else f'(like {like:,} keys)'}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--mode", choices=MODES)
    parser.add_argument("--only", default="", help="the lists whose names contain this")
    parser.add_argument("--kept", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = asyncio.run(measure(given.rounds, (given.mode,) if given.mode else MODES, given.only, given.kept))
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))
    return 0 if all(map(is_met, rows)) else 1


if __name__ == "__main__":
    sys.exit(main())
