"""The first request for a resource: what it costs over the bare query, and what a million bindings add to it.

    python -m benchmarks.cold [--rounds 60] [--bindings 1000000]

Each call is for a resource that the cache does not hold. The bare query is what a careful person would write, on a
connection that is held, prepared: one round trip as well, and its rows are not even looked at.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import asyncpg

from benchmarks.database import fill, make, server
from benchmarks.measuring import Block, Row, in_turn, row, show
from smarter_auth_mw.authenticator import Authenticator
from smarter_auth_mw.cache import Cache, Limits
from smarter_auth_mw.changes import Changes
from smarter_auth_mw.domain import Resource, Target
from smarter_auth_mw.pool import open_pool
from smarter_auth_mw.store import Store
from smarter_auth_mw.tokens import Token

CALLS = 100
EACH = 10
FEW = 1_000
QUERY = """
SELECT resource.ref, key.key_id, key.name, key.is_active, key.expires_at, token.digest
  FROM smarter_auth.resource
  JOIN smarter_auth.binding ON binding.resource_id = resource.id
  JOIN smarter_auth.key ON key.key_id = binding.key_id
  JOIN smarter_auth.token ON token.key_id = key.key_id
 WHERE resource.kind = $1 AND replace(resource.ref, '_', '-') = $2
"""


def bare(connection: Any, resources: int) -> Block:
    async def run() -> float:
        statement = await connection.prepare(QUERY)
        taken = []
        for ref in refs(resources):
            began = time.perf_counter()
            await statement.fetch("bot", ref)
            taken.append(time.perf_counter() - began)
        return statistics.median(taken) * 1e6

    return run


def cold(authenticator: Authenticator, resources: int) -> Block:
    async def run() -> float:
        taken = []
        for ref in refs(resources):
            target, token = Target(Resource("bot", ref)), Token(str(int(ref) * EACH).encode())
            began = time.perf_counter()
            decision = await authenticator.authenticate(target, token)
            taken.append(time.perf_counter() - began)
            assert decision.key_id, decision
        return statistics.median(taken) * 1e6

    return run


numbers = count()


def refs(resources: int) -> list[str]:
    """As if at random, and never the same one in a hurry."""
    return [str(next(numbers) * 7919 % resources + 1) for _ in range(CALLS)]


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[tuple[Authenticator, Any]]:
    connection = await asyncpg.connect(url, server_settings={"jit": "off", "plan_cache_mode": "force_generic_plan"})
    async with open_pool(url) as pool:
        yield Authenticator(Cache(Store(pool), Limits(max_entries=1), Changes())), connection
    await connection.close()


async def measure(rounds: int, bindings: int) -> list[Row]:
    async with server() as cluster:
        few, many = await make(cluster, "few"), await make(cluster, "many")
        await fill(few.owner, FEW // EACH, EACH)
        await fill(many.owner, bindings // EACH, EACH)
        async with opened(few.runtime) as (of_few, _), opened(many.runtime) as (of_many, connection):
            sides = {
                "bare": bare(connection, bindings // EACH),
                "many": cold(of_many, bindings // EACH),
                "few": cold(of_few, FEW // EACH),
            }
            taken = await in_turn(sides, rounds)
    over = [one / other for one, other in zip(taken["many"], taken["bare"], strict=True)]
    grown = [one / other for one, other in zip(taken["many"], taken["few"], strict=True)]
    note = f"{statistics.median(taken['many']):.0f} µs at {bindings:,} bindings"
    return [
        row("cold miss, over a bare prepared query (p50)", over, 1.3, note=note),
        row(f"cold miss at {bindings:,} bindings, over {FEW:,} (p50)", grown, 1.3),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--bindings", type=int, default=1_000_000)
    arguments = parser.parse_args()
    show(asyncio.run(measure(arguments.rounds, arguments.bindings)))


if __name__ == "__main__":
    main()
