"""Measure what a flood, a large account and a large resource cost one worker: queries, memory, time of warm requests.

    python -m benchmarks.bounds [--references 200000] [--resources 100000] [--bindings 10000]

Starts a uvicorn and a PostgreSQL, which share the machine with the clients. Timed requests go in turn to the worker and
to a twin without the load, so that other work on the machine affects both alike. Exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import asyncpg

from benchmarks.database import Database, fill, migrated
from benchmarks.fleet import Client, Server, clients, comes_to, quantile, workers
from benchmarks.measuring import Found, Row

WARM, GREAT = 1, 2
"""A resource that is always warm, and one with very many bindings; their tokens are their numbers."""
COLD_FROM = 10
WINDOW_S, WINDOWS = 1.0, 9
PACE_S = 0.003
COLD = 1_000
FLOODERS = 8
GROWN_MB = 64
"""The memory that a flood may leave behind: negative entries (a tenth of MAX_ENTRIES), memoised paths, allocator."""

_GREAT_RESOURCE = """
SET search_path = smarter_auth;
INSERT INTO key (key_id, name) SELECT md5('great' || n)::uuid, 'great ' || n FROM generate_series(1, {count}) AS n;
INSERT INTO token (key_id, account, digest, token_key)
SELECT key_id, account, sha512(name::bytea), left(md5(name), 15) FROM key WHERE name LIKE 'great %';
INSERT INTO binding (resource_id, key_id, account)
SELECT (SELECT id FROM resource WHERE ref = '2'), key_id, account FROM key WHERE name LIKE 'great %';
"""
_GREAT_ACCOUNT = """
SET search_path = smarter_auth;
INSERT INTO resource (kind, ref, account, protection)
SELECT 'bot', n, 'acme', 'bound' FROM generate_series(1000000, 999999 + {count}) AS n;
INSERT INTO key (key_id, account, name)
SELECT md5(n::text)::uuid, 'acme', 'key ' || n FROM generate_series(1000000, 999999 + {count}) AS n;
INSERT INTO token (key_id, account, digest, token_key)
SELECT md5(n::text)::uuid, 'acme', sha512(n::text::bytea), left(md5(n::text), 15)
  FROM generate_series(1000000, 999999 + {count}) AS n;
INSERT INTO binding (resource_id, key_id, account)
SELECT id, md5(ref)::uuid, account FROM resource WHERE account = 'acme';
ANALYZE;
"""


class Bounds:
    """One worker, and the requests to it."""

    def __init__(self, server: Server, owner: asyncpg.Connection, warm: Client, twin: Client) -> None:
        self._server = server
        self._owner = owner
        self._warm = warm
        self._twin = twin
        self.found = Found()
        self.tell = self.found.tell

    async def metric(self, name: str) -> float:
        return (await asyncio.to_thread(self._server.metrics))[name]

    async def calm(self) -> None:
        for client in (self._warm, self._twin):
            await comes_to(client, 200, WARM, str(WARM))
        p99_ms, _ = await self._p99s_ms_while(asyncio.sleep(WINDOW_S))
        self.tell("p99 of warm requests, calm", p99_ms, "ms")
        self.tell("the same over the twin's", await self._usual_ratio(), "times")

    async def cold(self) -> None:
        """Send all requests at once, on as many connections as may be open."""
        fills = await self.metric("cache_fills_total")
        async with clients([self._server], COLD) as (many,):
            told = Counter(
                [
                    answer.status
                    for answer in await asyncio.gather(*(one.ask(COLD_FROM, str(COLD_FROM)) for one in many))
                ]
            )
        self.tell(f"queries for {COLD:,} cold requests on one resource", await self._since(fills), target=1)
        self.tell("of these requests refused", COLD - told[200], target=0)

    async def _since(self, fills: float) -> float:
        return await self.metric("cache_fills_total") - fills

    async def flood(self, references: int) -> None:
        """Request unregistered references as fast as they are answered."""
        rss_mb, began = self._server.rss_mb, time.monotonic()
        left, told = iter(range(references)), Counter[int]()

        async def ask_away(client: Client) -> None:
            for number in left:
                told[(await client.ask(f"guess-{number}-{random.randrange(10**9)}", None)).status] += 1
                if number and number % 20_000 == 0:
                    print(f"  {number:,} of {references:,} references", file=sys.stderr, flush=True)

        async with clients([self._server], FLOODERS) as (many,):
            during_ms, twin_ms = await self._p99s_ms_while(asyncio.gather(*map(ask_away, many)))
        rate = references / (time.monotonic() - began)
        self.tell("random references a second", rate)
        self.tell(f"of {references:,} random references answered otherwise than open", references - told[200], target=0)
        self.tell("memory that the flood leaves behind", self._server.rss_mb - rss_mb, "MB", GROWN_MB)
        self.tell("negative entries", await self.metric('cache_entries{of="unknown"}'), target=10_000)
        self.tell("p99 of warm requests during the flood", during_ms, "ms")
        self.tell("the same over the p99 of the twin, which is not flooded", during_ms / twin_ms, "times")
        self.tell("p99 of warm requests after the flood, over the twin's", await self._usual_ratio(), "times", 2)

    async def account(self, resources: int) -> None:
        """Change every key of an account with one statement, while a part of them is warm and in use."""
        await self._owner.execute(_GREAT_ACCOUNT.format(count=resources), timeout=300)
        mine = range(1_000_000, 1_000_000 + min(resources, 2_000))
        async with clients([self._server], 8) as (many,):
            for number in mine:
                await many[0].ask(number, str(number))
            flushes, told = await self.metric("flushes_total"), Counter[int]()
            asking = [asyncio.create_task(_ask_on(client, mine, told)) for client in many]
            began = time.monotonic()
            during_ms, _ = await self._p99s_ms_while(
                self._owner.execute("UPDATE smarter_auth.key SET is_active = false WHERE account = 'acme'", timeout=300)
            )
            taken_s, committed_s = time.monotonic() - began, time.monotonic()
            await comes_to(self._warm, 401, mine[0], str(mine[0]))
            lag_ms = 1000 * (time.monotonic() - committed_s)
            await asyncio.sleep(1)
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        self.tell(f"a statement that changes {resources:,} keys of an account", taken_s, "s")
        self.tell("answers 503 meanwhile", told.total() - told[200] - told[401], target=0)
        self.tell("flushes", await self.metric("flushes_total") - flushes, target=0)
        self.tell("until they are refused", lag_ms, "ms", 1000)
        self.tell("p99 of warm requests of another account meanwhile", during_ms, "ms")

    async def resource(self, bindings: int) -> None:
        await self._owner.execute(_GREAT_RESOURCE.format(count=bindings), timeout=300)
        await asyncio.sleep(1.5)  # Wait for a heartbeat, so that the change arrives before the first request.
        first = await self._warm.ask(GREAT, str(GREAT))
        self.tell(
            f"first request for a resource with {bindings:,} bindings", 1000 * (first.came_s - first.sent_s), "ms"
        )
        taken = [await self._warm.ask(GREAT, str(GREAT)) for _ in range(200)]
        self.tell("of 200 warm ones refused", sum(answer.status != 200 for answer in taken), target=0)
        self.tell("median of the warm ones", quantile([1000 * (one.came_s - one.sent_s) for one in taken], 0.5), "ms")
        await self._owner.execute("UPDATE smarter_auth.key SET revoked_at = now() WHERE key_id = md5('2')::uuid")
        committed_s = time.monotonic()
        await comes_to(self._warm, 401, GREAT, str(GREAT))
        self.tell("until one of them that is revoked is refused", 1000 * (time.monotonic() - committed_s), "ms", 1000)

    async def _usual_ratio(self) -> float:
        """Return the median of the p99 divided by the twin's p99, over several windows."""
        windows = [await self._p99s_ms_while(asyncio.sleep(WINDOW_S)) for _ in range(WINDOWS)]
        return statistics.median(mine / twins for mine, twins in windows)

    async def _p99s_ms_while(self, work: Awaitable[object]) -> tuple[float, float]:
        """Time warm requests to the worker and to its twin in turn, while the work runs."""
        working = asyncio.ensure_future(work)
        taken: dict[Client, list[float]] = {self._warm: [], self._twin: []}
        while not working.done():
            for client, times in taken.items():
                answer = await client.ask(WARM, str(WARM))
                assert answer.status == 200, answer
                times.append(1000 * (answer.came_s - answer.sent_s))
            await asyncio.sleep(PACE_S)
        await working
        return quantile(taken[self._warm], 0.99), quantile(taken[self._twin], 0.99)


async def _ask_on(client: Client, numbers: range, told: Counter[int]) -> None:
    while True:
        number = random.choice(numbers)
        told[(await client.ask(number, str(number))).status] += 1
        await asyncio.sleep(PACE_S)


async def measure(references: int = 200_000, resources: int = 100_000, bindings: int = 10_000) -> list[Row]:
    async with migrated() as database:
        await fill(database.owner, COLD_FROM, 1)
        owner = await asyncpg.connect(database.owner)
        try:
            with workers([_settings(database)] * 2) as servers:
                async with clients(servers) as ((warm,), (twin,)):
                    bounds = Bounds(servers[0], owner, warm, twin)
                    steps: tuple[Callable[[], Awaitable[None]], ...] = (
                        bounds.calm,
                        bounds.cold,
                        lambda: bounds.flood(references),
                        lambda: bounds.account(resources),
                        lambda: bounds.resource(bindings),
                    )
                    for step in steps:
                        await step()
                    return bounds.found
        finally:
            await owner.close()


def _settings(database: Database) -> dict[str, str]:
    return {"database_url": database.runtime, "routes": "bot /bots/{ref}", "metrics_path": "/metrics"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", type=int, default=200_000)
    parser.add_argument("--resources", type=int, default=100_000, help="of one account")
    parser.add_argument("--bindings", type=int, default=10_000, help="of one resource")
    options = parser.parse_args()
    found = asyncio.run(measure(options.references, options.resources, options.bindings))
    return 0 if all(one.is_met for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
