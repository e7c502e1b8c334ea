"""Measure what a flood of notifications costs a worker, and how long a key revoked during the flood still works.

    python -m benchmarks.notifications [--seconds 15] [--only TEXT]

Anyone who can connect to a database can notify on any of its channels. One uvicorn listens as usual, and its twin does
not (as behind a transaction pooler), so that the flood's cost to the machine and PostgreSQL affects both alike. Both
get requests in turn, for a resource that both have cached. Exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import asyncpg

from benchmarks.database import Database, fill, migrated
from benchmarks.fleet import Client, clients, comes_to, quantile, workers
from benchmarks.measuring import Found, Row

WARM = 1
PACE_S = 0.002
REVOCATIONS = 3
"""Run the phases, one after the other."""
MOST_MS = 1_250.0
"""HEARTBEAT_S, and what a heartbeat and a request may take on a machine that is flooded."""

_EACH = "SELECT count(pg_notify('smarter_auth', {payload})) FROM generate_series(1, {count}) AS n"
_TO_COME = "(pg_snapshot_xmax(pg_current_snapshot())::text::bigint + {ahead})"
FLOODS = {
    "different changes": _EACH.format(payload="'key:' || n || ':' || n", count=500_000),
    "changes to everything": _EACH.format(payload=f"'*:' || {_TO_COME.format(ahead='n')}", count=20_000),
    "one change, again and again": "SELECT pg_notify('smarter_auth', 'key:1:1')",
    "long texts": _EACH.format(payload="n || repeat('x', 7900)", count=20_000),
    "changes to everything, with pauses of 5 ms": "SELECT pg_notify('smarter_auth', '*:' || "
    f"{_TO_COME.format(ahead='(random() * 1e6)::int')}), pg_sleep(0.005)",
}


class Watch:
    """A worker that listens and one that does not, asked in turn; and a third connection, for keys to be revoked."""

    def __init__(self, owner: asyncpg.Connection, listening: Client, deaf: Client, other: Client) -> None:
        self._owner = owner
        self._clients = {"listens": listening, "does not": deaf}
        self._other = other
        self._numbers = count(2)
        self.found = Found()
        self.tell = self.found.tell

    async def during(self, what: str, seconds: float) -> None:
        """Ask for so long, and revoke now and then."""
        revoking, refused = asyncio.create_task(self._revoke(seconds)), Counter[int]()
        taken = await self._asked_while(revoking, refused)
        mine, twins = (sorted(taken[name]) for name in ("listens", "does not"))
        p99_ms, twins_ms = quantile(mine, 0.99), quantile(twins, 0.99)
        p99s = f"{p99_ms:.3g} ms over {twins_ms:.3g} ms"
        self.tell(f"{what}: p99 of warm requests over the twin's", p99_ms / twins_ms, "times", 2, note=p99s)
        self.tell(f"{what}: slowest of them", mine[-1], "ms", note=f"the twin's: {twins[-1]:.3g} ms")
        self.tell(f"{what}: requests that were refused", refused.total(), target=0, note=f"of {len(mine):,}")
        self.tell(f"{what}: last grant of a revoked key after COMMIT", max(await revoking), "ms", MOST_MS)

    async def _asked_while(self, work: asyncio.Task[list[float]], refused: Counter[int]) -> dict[str, list[float]]:
        taken: dict[str, list[float]] = {name: [] for name in self._clients}
        while not work.done():
            for name, client in self._clients.items():
                answer = await client.ask(WARM, str(WARM))
                refused[answer.status] += answer.status != 200
                taken[name].append(1000 * (answer.came_s - answer.sent_s))
            await asyncio.sleep(PACE_S)
        return taken

    async def _revoke(self, seconds: float) -> list[float]:
        lags = []
        for _ in range(REVOCATIONS):
            number = str(next(self._numbers))
            await comes_to(self._other, 200, number, number)
            await asyncio.sleep(seconds / REVOCATIONS)
            await self._owner.execute(
                "UPDATE smarter_auth.key SET revoked_at = now() WHERE key_id = md5($1::text)::uuid", number
            )
            committed_s = time.monotonic()
            await comes_to(self._other, 401, number, number)
            lags.append(1000 * (time.monotonic() - committed_s))
        return lags


@asynccontextmanager
async def flooding(url: str, statement: str) -> AsyncIterator[None]:
    """Send notifications from two sessions, as fast as the server takes them."""

    async def flood() -> None:
        connection = await asyncpg.connect(url)
        try:
            while True:
                await connection.execute(statement)
        finally:
            connection.terminate()

    tasks = [asyncio.create_task(flood()) for _ in range(2)]
    await asyncio.sleep(0.2)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def measure(seconds: float = 15, which: str = "") -> list[Row]:
    async with migrated() as database:
        await fill(database.owner, 200, 1)
        owner = await asyncpg.connect(database.owner)
        try:
            environments = [_settings(database), _settings(database) | {"statement_cache_size": "0"}]
            with workers(environments) as servers:
                async with clients(servers, 2) as ((listening, other), (deaf, _)):
                    for client in (listening, deaf):
                        await comes_to(client, 200, WARM, str(WARM))
                    await asyncio.sleep(2)
                    watch = Watch(owner, listening, deaf, other)
                    await watch.during("no flood", seconds / 3)
                    for what, statement in FLOODS.items():
                        if which in what:
                            async with flooding(database.runtime, statement):
                                await watch.during(what, seconds)
                    return watch.found
        finally:
            await owner.close()


def _settings(database: Database) -> dict[str, str]:
    return {"database_url": database.runtime, "routes": "bot /bots/{ref}"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15, help="duration of each flood, in seconds")
    parser.add_argument("--only", default="", metavar="TEXT", help="floods whose name contains it")
    options = parser.parse_args()
    found = asyncio.run(measure(options.seconds, options.only))
    return 0 if all(one.is_met for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
