"""Measure how long any of four workers still grants a revoked key: from its COMMIT to the last grant.

    python -m benchmarks.revocation [--count 200] [--load 800]

Starts four uvicorn processes, a PostgreSQL and a Valkey, and sends other requests all the time. Each worker has cached
the key's resource and gets a request for it every other millisecond; then the key is revoked. The figure is the time
from the answer to COMMIT until the last grant arrived from any worker, on one clock. A second run has no notifications,
as behind a transaction pooler, so that only the heartbeat reports changes.

Everything runs on one machine, the workers' clients too, and the figures include other load on it. How much there was
shows in the slowest heartbeat and request, and in the longest time that this process was held up. Exits with 1 if a
target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import asyncpg

from benchmarks.database import fill, migrated
from benchmarks.fleet import Client, clients, comes_to, quantile, workers
from benchmarks.measuring import Row, bound, show
from smarter_auth_mw.postgres.queries import QUERIES
from tests.support.valkey import Valkey

WORKERS = 4
HEARTBEAT_S = 1.0
OTHERS = 50
"""The resources of the other requests; their keys never change."""
AFTER_S = 0.1
"""The time for which a worker is still asked after its first refusal: a revoked key must not work again."""
REVOKE = "UPDATE smarter_auth.key SET revoked_at = now() WHERE key_id = md5($1::text)::uuid"


@dataclass
class Figures:
    """The result of one run: lags in milliseconds, one for each revocation."""

    lags_ms: list[float] = field(default_factory=list)
    revived: int = 0
    load: Counter[int] = field(default_factory=Counter)
    slowest_beat_s: float = 0.0
    slowest_request_s: float = 0.0
    held_up_s: float = 0.0


class Run:
    """Revocations in one fleet of workers."""

    def __init__(self, plan: Plan, figures: Figures, owner: asyncpg.Connection, others: range) -> None:
        self.figures = figures
        self._owner = owner
        self._others = others
        self._lock = asyncio.Lock()
        self._pace_s = plan.pace_s
        self._spread_s = plan.spread_s

    async def revoke(self, number: int, asking: Sequence[Client]) -> None:
        """Let each worker grant the key, revoke it, and return the time of the last grant."""
        for client in asking:
            await comes_to(client, 200, number, str(number))
        committed = asyncio.get_running_loop().create_future()
        polling = [asyncio.create_task(self._poll(client, number, committed)) for client in asking]
        await asyncio.sleep(0.01 + random.uniform(0, self._spread_s))
        async with self._lock:  # One connection, one transaction at a time.
            await self.commit(number)
            committed.set_result(time.monotonic())
        last_s = max(await asyncio.gather(*polling))
        self.figures.lags_ms.append(max(last_s - committed.result(), 0) * 1000)

    async def commit(self, number: int) -> None:
        """Revoke the key; it is committed when this returns."""
        await self._owner.execute("BEGIN")
        await self._owner.execute(REVOKE, str(number))
        await self._owner.execute("COMMIT")

    async def _poll(self, client: Client, number: int, committed: asyncio.Future[float]) -> float:
        """Return when the last grant arrived; keep asking for a while after the first refusal."""
        last_s, until_s = 0.0, None
        while until_s is None or time.monotonic() < until_s:
            answer = await client.ask(number, str(number))
            self.figures.slowest_request_s = max(self.figures.slowest_request_s, answer.came_s - answer.sent_s)
            if answer.status == 200:
                last_s = answer.came_s
                self.figures.revived += until_s is not None
            elif until_s is None and committed.done():
                until_s = answer.came_s + AFTER_S
            await asyncio.sleep(self._pace_s)
        return last_s

    @asynccontextmanager
    async def around(self, loaded: list[list[Client]], load: float, beating: asyncpg.Connection) -> AsyncIterator[None]:
        """Send other requests, measure a heartbeat and this process's own delays, while the block runs."""
        flat = [client for group in loaded for client in group]
        pause_s = len(flat) / load
        tasks = [asyncio.create_task(self._ask_others(client, pause_s)) for client in flat]
        tasks += [asyncio.create_task(self._beat(beating)), asyncio.create_task(self._watch())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task

    async def _ask_others(self, client: Client, pause_s: float) -> None:
        while True:
            number = random.choice(self._others)
            self.figures.load[(await client.ask(number, str(number))).status] += 1
            await asyncio.sleep(random.uniform(0, 2 * pause_s))

    async def _beat(self, connection: asyncpg.Connection) -> None:
        previous: str | None = None
        while True:
            began = time.monotonic()
            row = await connection.fetchrow(QUERIES.beat.sql, previous)
            assert row is not None
            previous = row["snapshot"]
            self.figures.slowest_beat_s = max(self.figures.slowest_beat_s, time.monotonic() - began)
            await asyncio.sleep(0.2)

    async def _watch(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.001)
            self.figures.held_up_s = max(self.figures.held_up_s, time.monotonic() - began - 0.001)


@dataclass(frozen=True)
class Plan:
    """The parameters of one run: the keys to revoke, how many at a time, the request interval, and the target."""

    what: str
    numbers: range
    settings: dict[str, str]
    at_once: int
    pace_s: float
    spread_s: float
    """A batch is revoked within this time, out of step with the heartbeats."""
    p99_ms: float | None
    max_ms: float


async def measure(
    plan: Plan, environment: dict[str, str], owner_url: str, others: range, load: float, make: Callable[..., Run] = Run
) -> list[Row]:
    figures = Figures()
    owner, beating = await asyncpg.connect(owner_url), await asyncpg.connect(owner_url)
    try:
        with workers([environment | plan.settings] * WORKERS) as servers:
            async with clients(servers, plan.at_once) as asking, clients(servers, 2) as loaded:
                for group in loaded:
                    await comes_to(group[0], 200, others[0], str(others[0]))
                run = make(plan, figures, owner, others)
                async with run.around(loaded, load, beating):
                    for start in range(0, len(plan.numbers), plan.at_once):
                        await asyncio.gather(
                            *(
                                run.revoke(number, [group[which] for group in asking])
                                for which, number in enumerate(plan.numbers[start : start + plan.at_once])
                            )
                        )
                        _show_progress(plan, figures)
    finally:
        await owner.close()
        await beating.close()
    return rows(plan, figures)


def _show_progress(plan: Plan, figures: Figures) -> None:
    done, count = len(figures.lags_ms), len(plan.numbers)
    if done % 10 == 0 or done == count:
        print(
            f"\r{plan.what}: {done} of {count} revoked",
            end="\n" if done == count else "",
            file=sys.stderr,
            flush=True,
        )


def rows(plan: Plan, figures: Figures) -> list[Row]:
    """Return what was measured: the lags, and whether anything that was refused once was granted again."""
    lags = figures.lags_ms
    round_trip_ms = 1000 * (figures.slowest_beat_s + figures.slowest_request_s)
    requests = figures.load.total()
    held_up = f"this process was held up for {1000 * figures.held_up_s:.1f} ms"
    slowest = [bound("slowest", max(lags), "ms", plan.max_ms)]
    if plan.p99_ms is None:  # By the heartbeat alone, the round trip is allowed on top of max_ms.
        less = bound("slowest, less the round trip", max(lags) - round_trip_ms, "ms", plan.max_ms)
        slowest = [bound("slowest", max(lags), "ms"), less]
    found = (
        bound("median", statistics.median(lags), "ms"),
        bound("p99", quantile(lags, 0.99), "ms", plan.p99_ms),
        *slowest,
        bound("round trip (slowest heartbeat plus slowest request)", round_trip_ms, "ms").noted(held_up),
        bound("granted again after a refusal", figures.revived, target=0),
        bound("other requests that were refused", requests - figures.load[200], target=0).noted(f"of {requests:,}"),
    )
    return [one.renamed(f"{plan.what}: {one.what}") for one in found]


async def run(count: int = 200, load: float = 800) -> list[Row]:
    heartbeat = {"heartbeat_s": str(HEARTBEAT_S)}
    plans = (
        Plan("with notifications", range(1, count + 1), heartbeat, 1, 0.002, 0.02, 50, 1000),
        Plan(
            "by the heartbeat alone",
            range(count + 1, 2 * count + 1),
            heartbeat | {"statement_cache_size": "0"},  # As behind a transaction pooler: nobody listens.
            10,
            0.02,
            HEARTBEAT_S,
            None,
            1e3 * HEARTBEAT_S,
        ),
    )
    async with migrated() as database:
        others = range(2 * count + 1, 2 * count + 1 + OTHERS)
        await fill(database.owner, others.stop - 1, 1)
        with Valkey() as valkey:
            usual = {"database_url": database.runtime, "routes": "bot /bots/{ref:int}", "cache_url": valkey.url}
            return [row for plan in plans for row in await measure(plan, usual, database.owner, others, load)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="revocations in each run")
    parser.add_argument("--load", type=float, default=800, help="other requests a second, over all workers")
    options = parser.parse_args()
    found = asyncio.run(run(options.count, options.load))
    show(found)
    return 0 if all(row.is_met for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
