"""Measure the database's limits: look-ups, heartbeats and revocations a second, and the cost of each listener.

    python -m benchmarks.capacity [--seconds 3] [--listeners 10 50 100]

PostgreSQL shares the machine with its clients; on a machine of its own it does more.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from itertools import count
from typing import Any

import asyncpg

from benchmarks.database import fill, make, server
from benchmarks.measuring import Found, Row
from smarter_auth_mw.domain import Resource, Target
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.postgres.notifications import open_wire
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store

CALLERS = 8
LISTENERS = (10, 50, 100)
RESOURCES, EACH = 10_000, 10


async def rate(call: Callable[[], Awaitable[Any]], seconds: float) -> float:
    """Return how many calls a second this number of callers completes."""
    until, done = time.perf_counter() + seconds, 0

    async def go_on() -> None:
        nonlocal done
        while time.perf_counter() < until:
            await call()
            done += 1

    await asyncio.gather(*(go_on() for _ in range(CALLERS)))
    return done / seconds


async def measure(seconds: float = 3, listeners: Sequence[int] = LISTENERS) -> list[Row]:
    found = Found()

    def tell(what: str, figure: float) -> None:
        found.tell(what, figure, "a second")

    async with server() as cluster, AsyncExitStack() as stack:
        database = await make(cluster, "fleet")
        await fill(database.owner, RESOURCES, EACH)
        pool = await stack.enter_async_context(open_pool(database.runtime, pool_min=CALLERS, pool_max=CALLERS))
        store, numbers = Store(pool), count(1)
        keys = Management(store, actor="benchmark")

        async def look_up() -> None:
            await store.read(Target(Resource("bot", str(next(numbers) * 7919 % RESOURCES + 1))))

        tell(f"look-ups of {EACH} bindings, {CALLERS} callers", await rate(look_up, seconds))
        async with open_wire(database.runtime, lambda _: None, listens=False, timeout_s=5) as wire:
            tell("heartbeats, one after the other", await rate_of_one(wire, seconds))
        owner = await asyncpg.connect(database.owner)
        ids = iter(await owner.fetch("SELECT key_id FROM smarter_auth.key ORDER BY random()"))

        async def revoke() -> None:
            await keys.revoke(next(ids)["key_id"])

        open_listeners = 0
        for wanted in (0, *listeners):
            for _ in range(wanted - open_listeners):
                connection = await asyncpg.connect(database.runtime)
                stack.push_async_callback(connection.close)
                await connection.add_listener("smarter_auth", lambda *_: None)
            open_listeners = wanted
            tell(f"revocations, {wanted or 'no'} listeners", await rate(revoke, seconds))
        await owner.close()
    return found


async def rate_of_one(wire: Any, seconds: float) -> float:
    until, done, snapshot = time.perf_counter() + seconds, 0, None
    while time.perf_counter() < until:
        snapshot = (await wire.beat(snapshot)).snapshot
        done += 1
    return done / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--listeners", type=int, nargs="*", default=LISTENERS)
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.seconds, arguments.listeners))


if __name__ == "__main__":
    main()
