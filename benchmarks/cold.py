"""Measure the first request for a resource relative to the bare query: near, far, and with a million keys.

    python -m benchmarks.cold [--rounds 60] [--bindings 1000000]

Each call is for a resource that is not in the cache. The bare query is what a careful person would write: one round
trip with a prepared statement on an open connection, whose rows are not read. ``python -m benchmarks cold_steps``
measures what each step adds; the figures are steadier on one processor (``taskset --cpu-list 0 python …``).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count, pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg

from benchmarks.database import fill, make, server
from benchmarks.distance import away
from benchmarks.measuring import Block, Row, in_turn, less, medians, row, show
from smarter_auth_mw.authentication.authenticator import Authenticator
from smarter_auth_mw.cache.changes import Changes
from smarter_auth_mw.cache.entries import Cache, Limits
from smarter_auth_mw.domain import Resource, Target
from smarter_auth_mw.management.listings import Listings
from smarter_auth_mw.postgres.connections.sessions import SESSION
from smarter_auth_mw.postgres.notifications import PostgresWire, open_wire
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store, statements
from smarter_auth_mw.tokens import Token

CALLS = 100
EACH = 10
PAGE, INNER = 50, 10
ROUND_TRIP_US = 500
FEW = 1_000
BUFFERS = "1GB"
"""The settings of a server with a million keys; the bundled one uses 64 MB."""
QUERY = """
SELECT resource.ref, key.key_id, key.name, key.is_active, key.expires_at, token.digest
  FROM smarter_auth.resource
  JOIN smarter_auth.binding ON binding.resource_id = resource.id
  JOIN smarter_auth.key ON key.key_id = binding.key_id
  JOIN smarter_auth.token ON token.key_id = key.key_id
 WHERE resource.kind = $1 AND replace(resource.ref, '_', '-') = $2
"""


Asking = Callable[[str], Awaitable[Any]]
"""A call that looks up the resource with this reference."""


def asking(ask: Asking, resources: int, calls: int = CALLS) -> Block:
    async def run() -> float:
        taken = []
        for ref in refs(resources, calls):
            began = time.perf_counter()
            await ask(ref)
            taken.append(time.perf_counter() - began)
        return statistics.median(taken) * 1e6

    return run


async def bare(connection: Any) -> Asking:
    statement = await connection.prepare(QUERY)
    return lambda ref: statement.fetch("bot", ref)


def deciding(cache: Cache) -> Asking:
    authenticator = Authenticator(cache)

    async def ask(ref: str) -> None:
        decision = await authenticator.authenticate(target(ref), Token(str(int(ref) * EACH).encode()))
        assert decision.key_id, decision

    return ask


def target(ref: str) -> Target:
    return Target(Resource("bot", ref))


numbers = count()


def refs(resources: int, calls: int) -> list[str]:
    """Yield references in an order that looks random and repeats none for a long time."""
    return [str(next(numbers) * 7919 % resources + 1) for _ in range(calls)]


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[tuple[Store, Cache, Any]]:
    connection = await asyncpg.connect(url, server_settings=SESSION)
    async with open_pool(url) as pool:
        store = Store(pool)
        yield store, Cache(store, Limits(max_entries=1), Changes()), connection
    await connection.close()


async def measure(rounds: int, bindings: int) -> list[Row]:
    async with server(shared_buffers=BUFFERS) as cluster:
        few, many = await make(cluster, "few"), await make(cluster, "many")
        await fill(few.owner, FEW // EACH, EACH)
        await fill(many.owner, bindings // EACH, EACH)
        return [
            *await over_bare(many.runtime, bindings // EACH, rounds, 1.5, "Unix socket"),
            *await far_away(many.runtime, bindings // EACH, rounds // 2),
            *await grown(few.runtime, many.runtime, bindings, rounds),
        ]


async def over_bare(url: str, resources: int, rounds: int, target: float, where: str) -> list[Row]:
    async with opened(url) as (_, cache, connection):
        sides = {
            "bare": asking(await bare(connection), resources),
            "ours": asking(deciding(cache), resources),
        }
        taken = await in_turn(sides, rounds)
    note = f"{statistics.median(taken['ours']):.0f} µs over {statistics.median(taken['bare']):.0f}"
    return [row(f"cold miss, over a bare prepared query: {where}", over(taken, "ours", "bare"), target, note=note)]


async def far_away(url: str, resources: int, rounds: int) -> list[Row]:
    """Measure a cold miss over TCP to a server that is half a millisecond away."""
    role, name = url.removeprefix("postgresql://").split("?")[0].split("@/")
    asked = parse_qs(urlsplit(url).query)
    with away(Path(asked["host"][0], f".s.PGSQL.{asked.get('port', ['5432'])[0]}"), ROUND_TRIP_US // 2) as port:
        far = f"postgresql://{role}@127.0.0.1:{port}/{name}?sslmode=disable"
        return await over_bare(far, resources, rounds, 1.15, f"TCP, {ROUND_TRIP_US / 1000:g} ms away")


async def grown(few: str, many: str, bindings: int, rounds: int) -> list[Row]:
    """Measure what a million keys add to a first request, a heartbeat, and the first page of the list of keys."""
    async with AsyncExitStack() as stack:
        sides: dict[str, Block] = {}
        for size, url, resources in (("few", few, FEW // EACH), ("many", many, bindings // EACH)):
            store, cache, _ = await stack.enter_async_context(opened(url))
            wire = await stack.enter_async_context(open_wire(url, lambda _: None, listens=False, timeout_s=30))
            sides[f"first request, {size}"] = asking(deciding(cache), resources)
            sides[f"heartbeat, {size}"] = asking(beating(wire), resources)
            sides[f"page of keys, {size}"] = asking(listing(store), resources, calls=5)
        taken = await in_turn(sides, rounds)
    found = medians(taken)
    return [
        row(
            f"{what} with {bindings:,} keys, over {FEW:,}",
            over(taken, f"{what}, many", f"{what}, few"),
            1.3,
            note=f"{found[f'{what}, many']:.0f} µs over {found[f'{what}, few']:.0f}",
        )
        for what in ("first request", "heartbeat", "page of keys")
    ]


def over(taken: Mapping[str, list[float]], one: str, other: str) -> list[float]:
    return [top / base for top, base in zip(taken[one], taken[other], strict=True)]


def beating(wire: PostgresWire) -> Asking:
    snapshots: list[str | None] = [None]

    async def beat(_: str) -> None:
        snapshots[0] = (await wire.beat(snapshots[0])).snapshot

    return beat


def listing(store: Store) -> Asking:
    """Read the first page, as the command line and the pages for operators show it."""
    listings = Listings(store)
    return lambda _: listings.keys(limit=PAGE, inner=INNER)


async def steps(rounds: int) -> list[Row]:
    """Return what each step adds to the ones before, in µs of elapsed time, for a resource with ten keys."""
    async with server() as cluster:
        database = await make(cluster, "few")
        await fill(database.owner, FEW // EACH, EACH)
        async with opened(database.runtime) as (store, cache, connection):
            ours = await connection.prepare(statements()[0])
            sides: dict[str, Asking] = {
                "the bare query": await bare(connection),
                "columns with the snapshot and the server": lambda ref: ours.fetch("bot", ref),
                "the pooled connection and its time limit": lambda ref: store._fetch(statements()[0], "bot", ref),
                "facts made of ten rows": lambda ref: store.read(target(ref)),
                "the look-up that goes on without its callers": lambda ref: cache.get(target(ref)),
                "the decision": deciding(cache),
            }
            taken = await in_turn({name: asking(ask, FEW // EACH) for name, ask in sides.items()}, rounds)
    first = next(iter(taken))
    added = [
        row(f"{name}: adds", less(taken[name], taken[before]), None, unit="µs") for before, name in pairwise(taken)
    ]
    return [row(first, taken[first], None, unit="µs"), *added]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--bindings", type=int, default=1_000_000)
    arguments = parser.parse_args()
    show(asyncio.run(measure(arguments.rounds, arguments.bindings)))


if __name__ == "__main__":
    main()
