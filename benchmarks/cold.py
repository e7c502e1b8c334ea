"""The first request for a resource: what it costs over the bare query, and what a million bindings add to it.

    python -m benchmarks.cold [--rounds 60] [--bindings 1000000] [--parts]

Each call is for a resource that the cache does not hold. The bare query is what a careful person would write, on a
connection that is held, prepared: one round trip as well, and its rows are not even looked at. ``--parts`` tells what
each floor of the house adds to it; steadier on one processor (``taskset --cpu-list 0 python …``).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import asyncpg

from benchmarks.database import fill, make, server
from benchmarks.measuring import Block, Row, in_turn, medians, row, show
from smarter_auth_mw.authentication.authenticator import Authenticator
from smarter_auth_mw.cache.changes import Changes
from smarter_auth_mw.cache.entries import Cache, Limits
from smarter_auth_mw.domain import Resource, Target
from smarter_auth_mw.postgres.connections.sessions import SESSION
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store, statements
from smarter_auth_mw.tokens import Token

CALLS = 100
EACH = 10
FEW = 1_000
BUFFERS = "1GB"
"""What a server has for itself that holds a million keys; the bundled one is content with 64 MB."""
QUERY = """
SELECT resource.ref, key.key_id, key.name, key.is_active, key.expires_at, token.digest
  FROM smarter_auth.resource
  JOIN smarter_auth.binding ON binding.resource_id = resource.id
  JOIN smarter_auth.key ON key.key_id = binding.key_id
  JOIN smarter_auth.token ON token.key_id = key.key_id
 WHERE resource.kind = $1 AND replace(resource.ref, '_', '-') = $2
"""


Asking = Callable[[str], Awaitable[Any]]
"""One call for the resource of this reference."""


def asking(ask: Asking, resources: int) -> Block:
    async def run() -> float:
        taken = []
        for ref in refs(resources):
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


def refs(resources: int) -> list[str]:
    """As if at random, and never the same one in a hurry."""
    return [str(next(numbers) * 7919 % resources + 1) for _ in range(CALLS)]


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
        async with opened(few.runtime) as (_, of_few, _), opened(many.runtime) as (_, of_many, connection):
            sides = {
                "bare": asking(await bare(connection), bindings // EACH),
                "many": asking(deciding(of_many), bindings // EACH),
                "few": asking(deciding(of_few), FEW // EACH),
            }
            taken = await in_turn(sides, rounds)
    over = [one / other for one, other in zip(taken["many"], taken["bare"], strict=True)]
    grown = [one / other for one, other in zip(taken["many"], taken["few"], strict=True)]
    note = f"{statistics.median(taken['many']):.0f} µs at {bindings:,} bindings"
    return [
        row("cold miss, over a bare prepared query (p50)", over, 1.3, note=note),
        row(f"cold miss at {bindings:,} bindings, over {FEW:,} (p50)", grown, 1.3),
    ]


async def tell_parts(rounds: int) -> None:
    """Print what each floor adds to the one below, at few bindings."""
    async with server() as cluster:
        database = await make(cluster, "few")
        await fill(database.owner, FEW // EACH, EACH)
        async with opened(database.runtime) as (store, cache, connection):
            ours = await connection.prepare(statements()[0])
            floors: dict[str, Asking] = {
                "the bare query": await bare(connection),
                "our statement": lambda ref: ours.fetch("bot", ref),
                "the loan of a connection, a time limit": lambda ref: store._fetch(statements()[0], "bot", ref),
                "facts made of ten rows": lambda ref: store.read(target(ref)),
                "the flight, and an entry": lambda ref: cache.get(target(ref)),
                "the decision": deciding(cache),
            }
            taken = await in_turn({name: asking(ask, FEW // EACH) for name, ask in floors.items()}, rounds)
    below = 0.0
    for name, figure in medians(taken).items():
        print(f"{figure:7.1f} µs  {figure - below:+7.1f}  {name}")
        below = figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--bindings", type=int, default=1_000_000)
    parser.add_argument("--parts", action="store_true")
    arguments = parser.parse_args()
    if arguments.parts:
        asyncio.run(tell_parts(arguments.rounds))
    else:
        show(asyncio.run(measure(arguments.rounds, arguments.bindings)))


if __name__ == "__main__":
    main()
