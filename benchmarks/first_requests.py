"""Measure the first requests after a start: 200 clients request 1,000 resources that are in no cache.

    python -m benchmarks.first_requests [--rounds 10]

The other side is an app that sends the bare query once per request, on a pool of as many connections. Each client
requests twenty resources, one after the other, so that four clients request each resource.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence

import asyncpg

from benchmarks.apps import app
from benchmarks.cold import QUERY
from benchmarks.database import fill, migrated
from benchmarks.fleet import quantile
from benchmarks.in_process import HEADERS, receive, scope, send
from benchmarks.measuring import Row, row, show
from smarter_auth_mw import Settings, SmarterAuthMiddleware
from smarter_auth_mw.postgres.connections.sessions import SESSION
from tests.support.asgi import lifespan

RESOURCES, CLIENTS, EACH = 1_000, 200, 20
BINDINGS = 10
CONNECTIONS = 8
"""POOL_MAX, unless it is set."""
TARGET = 5

Ask = Callable[[int], Awaitable[object]]


def asked(seed: int) -> list[list[int]]:
    """Return what each client asks for; over all of them, each resource comes as often as the others."""
    refs = [*range(1, RESOURCES + 1)] * (CLIENTS * EACH // RESOURCES)
    random.Random(seed).shuffle(refs)
    return [refs[first : first + EACH] for first in range(0, len(refs), EACH)]


async def latencies_us(ask: Ask, clients: Sequence[Sequence[int]]) -> list[float]:
    taken: list[float] = []

    async def client(refs: Sequence[int]) -> None:
        for ref in refs:
            began = time.perf_counter()
            await ask(ref)
            taken.append((time.perf_counter() - began) * 1e6)

    await asyncio.gather(*map(client, clients))
    return taken


async def ours(url: str, clients: Sequence[Sequence[int]]) -> tuple[list[float], int]:
    """Return the latencies, and the number of queries."""
    patience = {"query_timeout_s": 30, "max_staleness_s": 60}  # What a busy machine must not turn into a refusal.
    settings = Settings(database_url=url, routes=["bot /bots/{ref:int}"], failed_attempts="", **patience)
    middleware = SmarterAuthMiddleware(app(), settings)

    async def ask(ref: int) -> None:
        token = str(ref * BINDINGS).encode()
        await middleware(scope(f"/bots/{ref}", [*HEADERS, (b"x-api-key", token)]), receive, send)

    async with lifespan(middleware):
        taken = await latencies_us(ask, clients)
        engine = middleware._engines.last.value  # type: ignore[union-attr]
        assert engine is not None
        return taken, engine.cache.counts.fills


async def bare(url: str, clients: Sequence[Sequence[int]]) -> list[float]:
    answer = app()
    async with asyncpg.create_pool(url, min_size=CONNECTIONS, max_size=CONNECTIONS, server_settings=SESSION) as pool:

        async def ask(ref: int) -> None:
            await pool.fetch(QUERY, "bot", str(ref))
            await answer(scope(f"/bots/{ref}", HEADERS), receive, send)

        return await latencies_us(ask, clients)


async def measure(rounds: int) -> list[Row]:
    ratios, queries, p99s = [], [], []
    async with migrated() as database:
        await fill(database.owner, RESOURCES, BINDINGS)
        for number in range(rounds):
            clients = asked(number)
            taken, sent = await ours(database.runtime, clients)
            theirs = await bare(database.runtime, clients)
            queries.append(sent / RESOURCES)
            p99s.append((quantile(taken, 0.99) / 1e3, quantile(theirs, 0.99) / 1e3))
            ratios.append(quantile(taken, 0.99) / quantile(theirs, 0.99))
    note = " over ".join(f"{statistics.median(side):.1f} ms" for side in zip(*p99s, strict=True))
    return [
        row("first requests after a start, 200 clients at once: p99, over a bare query's", ratios, TARGET, note=note),
        row("first requests after a start: queries a resource", queries, 1),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    show(asyncio.run(measure(parser.parse_args().rounds)))


if __name__ == "__main__":
    main()
