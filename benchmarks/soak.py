"""Run everything at once for ten minutes: workers, writers, revocations, faults and floods. Print a verdict.

    python -m benchmarks.soak [--duration 600]

Starts four uvicorn processes on a PostgreSQL and a Valkey, each with a listening connection that can be cut. Every
answer is compared with what was committed. These are errors: a grant by a key that was revoked longer ago than
MAX_STALENESS_S, or than two heartbeats without a fault; an open answer for a protected resource; a refusal of a valid
token; and a 503 without a fault. Exits with 1 if one of them occurs.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from benchmarks.database import fill
from benchmarks.fleet import Answer, Client, Server, quantile, workers
from benchmarks.measuring import Row, bound, show
from tests.support.database import Database
from tests.support.postgres import Postgres, Proxy
from tests.support.valkey import Valkey

WORKERS = 4
HEARTBEAT_S, MAX_STALENESS_S = 1.0, 5.0
CALM_S, LASTS_S = 8.0, 3.0
"""The quiet time before each fault, and the duration of faults that do not end by themselves."""
GRACE_S = 30.0
"""The time that workers have to recover after a fault."""
PACE_S = 0.02
VALID, REVOKED, OPEN, OTHERS = 1, 2, 9, range(10, 60)
"""A resource with a valid token, one whose only key is revoked, an open one, and those that writers change."""
FIRST = 100
"""From here on, each resource's key is revoked in turn; tokens are the numbers of their resources."""
KEYS = 20_000
LOST = (OSError, EOFError, TimeoutError)
DOWN = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

WRITES = (
    "UPDATE key SET is_active = NOT is_active WHERE key_id = md5($1::text)::uuid",
    "UPDATE key SET is_active = NOT is_active"
    " WHERE key_id IN (SELECT md5(n::text)::uuid FROM generate_series(10, 59) AS n)",
    "UPDATE resource SET name = 'bot-' || $1 || (random() * 1e6)::int WHERE ref = $1::text",
    "DELETE FROM binding WHERE resource_id = (SELECT id FROM resource WHERE ref = $1::text)",
    "INSERT INTO binding (resource_id, key_id, account) SELECT id, md5($1::text)::uuid, account FROM resource"
    " WHERE ref = $1::text ON CONFLICT DO NOTHING",
    "UPDATE token SET valid_until = now() + interval '1 hour' WHERE key_id = md5($1::text)::uuid",
    "UPDATE resource SET on_error = CASE on_error WHEN 'deny' THEN 'stale' ELSE 'deny' END WHERE ref = $1::text",
)


@dataclass
class Report:
    """The results so far."""

    answers: Counter[str] = field(default_factory=Counter)
    calm_lags_ms: list[float] = field(default_factory=list)
    fault_lags_ms: list[float] = field(default_factory=list)
    recoveries_s: dict[str, list[float]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    written: int = 0
    fault: str = ""
    """The current fault, or the last one if some worker has not recovered from it."""
    faulty_at_s: float = 0.0
    """The time when the last fault ended."""

    @contextmanager
    def during(self, fault: str) -> Iterator[None]:
        self.fault = fault
        try:
            yield
        finally:
            self.fault, self.faulty_at_s = "", time.monotonic()

    def was_calm(self, since_s: float) -> bool:
        """Return whether no fault has been on since then."""
        return not self.fault and self.faulty_at_s < since_s


class Visitor:
    """A client of one worker, which reconnects when the worker is back."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._client: Client | None = None

    async def ask(self, ref: object, token: object = None) -> Answer | None:
        """Return the answer; None if the worker is down."""
        try:
            async with asyncio.timeout(GRACE_S):
                self._client = self._client or await Client.connect(self._server.port)
                return await self._client.ask(ref, None if token is None else str(token))
        except LOST:
            self._client = None
            await asyncio.sleep(0.05)
            return None


class Soak:
    """The parts of the test, with the tasks that use and break them."""

    def __init__(
        self, postgres: Postgres, database: Database, valkey: Valkey, wires: list[Proxy], servers: list[Server]
    ) -> None:
        self.report = Report()
        self._postgres = postgres
        self._database = database
        self._valkey = valkey
        self._wires = wires
        self._servers = servers

    # Those who ask

    async def visit(self, server: Server) -> None:
        """Send requests with a valid token, a revoked one, and none, to a protected resource and to an open one."""
        visitor = Visitor(server)
        who = (
            ("valid", VALID, VALID, {200}),
            ("revoked", REVOKED, REVOKED, {401}),
            ("anonymous", VALID, None, {401}),
            ("open", OPEN, None, {200}),
        )
        while True:
            for name, ref, token, right in who:
                began_s = time.monotonic()
                answer = await visitor.ask(ref, token)
                if answer is not None:
                    self._judge(name, answer, right, began_s)
                await asyncio.sleep(PACE_S)

    def _judge(self, name: str, answer: Answer, right: set[int], began_s: float) -> None:
        is_unknown = answer.status == 503
        self.report.answers[f"{name} {answer.status}"] += 1
        if answer.status not in right and not is_unknown:
            self.report.wrong.append(f"{name} got {answer.status}, {self.report.fault or 'all was well'}")
        if is_unknown and self.report.was_calm(began_s):
            self.report.wrong.append(f"{name} got 503 while all was well")

    async def flood(self, server: Server) -> None:
        """Request unregistered references from time to time."""
        visitor = Visitor(server)
        while True:
            await asyncio.sleep(random.uniform(0, 10))
            for _ in range(500):
                if answer := await visitor.ask(f"guess-{random.randrange(10**12)}"):
                    self.report.answers[f"flood {answer.status}"] += 1

    # Those who write

    async def write(self) -> None:
        """Return what other administrators do to other keys."""
        while True:
            try:
                connection = await asyncpg.connect(
                    self._database.owner, server_settings={"search_path": "smarter_auth"}, timeout=2, command_timeout=2
                )
            except DOWN:
                await asyncio.sleep(0.1)
                continue
            with suppress(*DOWN):
                while True:
                    statement = random.choice(WRITES).replace("$1", str(random.choice(OTHERS)))
                    await connection.execute(statement)
                    self.report.written += 1
                    await asyncio.sleep(random.uniform(0, 0.1))
            connection.terminate()

    async def revoke(self) -> None:
        """Revoke one key after the other, each of which every worker has cached."""
        visitors = [Visitor(server) for server in self._servers]
        for number in range(FIRST, FIRST + KEYS):
            began_s = time.monotonic()
            await asyncio.gather(*(visitor.ask(number, number) for visitor in visitors))
            committed: asyncio.Future[float] = asyncio.get_running_loop().create_future()
            polls = [asyncio.create_task(self._last_grant(visitor, number, committed)) for visitor in visitors]
            await self._revoke(number)
            committed.set_result(time.monotonic())
            lag_ms = 1000 * max(0.0, max(await asyncio.gather(*polls)) - committed.result())
            is_calm = self.report.was_calm(began_s)
            (self.report.calm_lags_ms if is_calm else self.report.fault_lags_ms).append(lag_ms)
            if lag_ms > 1000 * (2 * HEARTBEAT_S if is_calm else MAX_STALENESS_S):
                self.report.wrong.append(f"bot {number} was granted {lag_ms:.0f} ms after its COMMIT")

    async def _revoke(self, number: int) -> None:
        """Wait until the database confirms it."""
        while True:
            with suppress(*DOWN):
                connection = await asyncpg.connect(self._database.owner, timeout=2, command_timeout=2)
                try:
                    await connection.execute(
                        "UPDATE smarter_auth.key SET revoked_at = now() WHERE key_id = md5($1::text)::uuid", str(number)
                    )
                    return
                finally:
                    connection.terminate()
            await asyncio.sleep(0.05)

    async def _last_grant(self, visitor: Visitor, number: int, committed: asyncio.Future[float]) -> float:
        """Return when the last granted request was sent; after one refusal, no grant may follow."""
        last_s, refused = 0.0, 0
        while refused < 10:
            is_over = committed.done()
            answer = await visitor.ask(number, number)
            if answer is not None and answer.status == 200:
                last_s = answer.sent_s
                if refused:
                    self.report.wrong.append(f"bot {number} was granted again after a refusal")
            refused += is_over and answer is not None and answer.status == 401
            await asyncio.sleep(0.005)
        return last_s

    # Those who break

    async def restart_postgres(self) -> None:
        await asyncio.to_thread(self._postgres.restart)

    async def kill_postgres(self) -> None:
        await asyncio.to_thread(self._postgres.kill)
        await asyncio.sleep(LASTS_S)
        await asyncio.to_thread(self._postgres.start)

    async def freeze_postgres(self) -> None:
        async with self._postgres.frozen():
            await asyncio.sleep(2 * LASTS_S)

    async def exhaust_postgres(self) -> None:
        """Allow the workers' role no further connection."""
        role = self._database.runtime_role
        await self._postgres.execute(f"ALTER ROLE {role} CONNECTION LIMIT 0")
        await self._postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'")
        await asyncio.sleep(LASTS_S)
        await self._postgres.execute(f"ALTER ROLE {role} CONNECTION LIMIT -1")

    async def cut_wires_silently(self) -> None:
        for wire in self._wires:
            wire.swallows = True
        await asyncio.sleep(2 * LASTS_S)
        for wire in self._wires:
            wire.cut()
            wire.swallows = False

    async def cut_wires(self) -> None:
        for wire in self._wires:
            wire.cut()

    async def kill_valkey(self) -> None:
        """Restart the shared cache empty."""
        self._valkey.kill()
        await asyncio.sleep(LASTS_S)
        await asyncio.to_thread(self._valkey.start)

    async def freeze_valkey(self) -> None:
        self._valkey.freeze()
        await asyncio.sleep(LASTS_S)
        self._valkey.thaw()

    async def kill_worker(self) -> None:
        server = random.choice(self._servers)
        await asyncio.to_thread(server.kill)
        server.start()

    @property
    def faults(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        return {
            "PostgreSQL restarted": self.restart_postgres,
            "listening wires cut silently": self.cut_wires_silently,
            "Valkey killed": self.kill_valkey,
            "PostgreSQL killed": self.kill_postgres,
            "a worker killed": self.kill_worker,
            "PostgreSQL frozen": self.freeze_postgres,
            "Valkey frozen": self.freeze_valkey,
            "PostgreSQL out of connections": self.exhaust_postgres,
            "listening wires cut": self.cut_wires,
        }

    async def break_things(self, until_s: float) -> None:
        while True:
            for name, fault in self.faults.items():
                if time.monotonic() + CALM_S + GRACE_S > until_s:
                    return
                await asyncio.sleep(CALM_S)
                with self.report.during(name):
                    await fault()
                    over_s = time.monotonic()
                    await self.is_well()
                    self.report.recoveries_s.setdefault(name, []).append(time.monotonic() - over_s)

    async def is_well(self) -> None:
        """Wait until every worker answers from current data and receives changes."""
        async with asyncio.timeout(GRACE_S):
            for visitor in [Visitor(server) for server in self._servers]:
                while [await self._status(visitor, *asked) for asked in ((VALID, VALID), (OPEN, None))] != [200, 200]:
                    await asyncio.sleep(0.02)
                while await self._status(visitor, f"new-{random.randrange(10**12)}", None) != 200:
                    await asyncio.sleep(0.02)
            for server in self._servers:
                while await self._silent_s(server) > 1.5 * HEARTBEAT_S:
                    await asyncio.sleep(0.02)

    async def _silent_s(self, server: Server) -> float:
        """Return the age of the worker's last heartbeat."""
        with suppress(*LOST):
            return (await asyncio.to_thread(server.metrics))["heartbeat_age_seconds"]
        return float("inf")

    async def _status(self, visitor: Visitor, ref: object, token: object) -> int:
        answer = await visitor.ask(ref, token)
        return 0 if answer is None else answer.status

    # All together

    async def run(self, duration_s: float) -> None:
        until_s = time.monotonic() + duration_s
        await self.is_well()
        print(f"{WORKERS} workers are up; {duration_s:.0f} s to go", file=sys.stderr, flush=True)
        self.report.faulty_at_s = time.monotonic()
        rss_mb = [server.rss_mb for server in self._servers]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.visit(server)) for server in self._servers for _ in range(2)]
            tasks += [group.create_task(self.flood(server)) for server in self._servers]
            tasks += [group.create_task(self.write()) for _ in range(2)]
            tasks += [group.create_task(self.revoke()), group.create_task(self._show_progress(until_s))]
            breaking = group.create_task(self.break_things(until_s))
            await asyncio.sleep(until_s - time.monotonic())
            await breaking
            for task in tasks:
                task.cancel()
        grown = [server.rss_mb - before for server, before in zip(self._servers, rss_mb, strict=True)]
        self.grown_mb = max(grown)

    async def _show_progress(self, until_s: float) -> None:
        while True:
            await asyncio.sleep(10)
            report = self.report
            print(
                f"{until_s - time.monotonic():5.0f} s left: {report.answers.total():,} answers,"
                f" {len(report.calm_lags_ms) + len(report.fault_lags_ms)} revoked, {report.written:,} written,"
                f" {len(report.wrong)} wrong; {report.fault or 'calm'}",
                file=sys.stderr,
                flush=True,
            )


def rows(report: Report, grown_mb: float) -> list[Row]:
    asked = Counter[str]()
    for answer, count in report.answers.items():
        name, status = answer.split()
        if name != "flood":
            asked[status] += count
    calm, around, recoveries_s = report.calm_lags_ms, report.fault_lags_ms, report.recoveries_s.items()
    return [
        bound("wrong answers", len(report.wrong), target=0).noted(f"of {report.answers.total():,}"),
        bound("without a fault: last grant after COMMIT, median", statistics.median(calm), "ms").noted(
            f"{len(calm):,} revocations"
        ),
        bound("without a fault: p99", quantile(calm, 0.99), "ms"),
        bound("without a fault: slowest", max(calm), "ms", 2000 * HEARTBEAT_S),
        bound("around faults: slowest", max(around, default=0.0), "ms", 1000 * MAX_STALENESS_S).noted(
            f"{len(around):,} revocations"
        ),
        bound("around faults: requests answered 503", asked["503"]).noted(f"of {asked.total():,}"),
        *(bound(f"{name}: until every worker is current again", max(taken), "s") for name, taken in recoveries_s),
        bound("statements of other writers", report.written),
        bound("memory that a worker has grown by, at most", grown_mb, "MB"),
    ]


@asynccontextmanager
async def soaking() -> AsyncIterator[Soak]:
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        postgres = stack.enter_context(Postgres(directory / "pg"))
        valkey = stack.enter_context(Valkey())
        database = await postgres.database()
        await fill(database.owner, FIRST + KEYS, 1)
        owner = await asyncpg.connect(database.owner)
        await owner.execute(
            f"""
            UPDATE smarter_auth.key SET revoked_at = now() WHERE key_id = md5('{REVOKED}')::uuid;
            DELETE FROM smarter_auth.binding USING smarter_auth.resource
             WHERE resource.id = resource_id AND ref = '{OPEN}';
            SELECT smarter_auth.release(id, 'soak', 'open') FROM smarter_auth.resource WHERE ref = '{OPEN}';
            """
        )
        await owner.close()
        wires = [await stack.enter_async_context(Proxy(postgres.socket)) for _ in range(WORKERS)]
        usual = {
            "database_url": database.runtime,
            "routes": "bot /bots/{ref}",
            "cache_url": valkey.url,
            "heartbeat_s": str(HEARTBEAT_S),
            "max_staleness_s": str(MAX_STALENESS_S),
            "failed_attempts": "",
            "metrics_path": "/metrics",
        }
        servers = stack.enter_context(workers([usual | {"listen_url": wire.url(database.runtime)} for wire in wires]))
        yield Soak(postgres, database, valkey, wires, servers)


async def soak(duration_s: float = 600) -> list[Row]:
    async with soaking() as parts:
        await parts.run(duration_s)
    await asyncio.sleep(0.1)  # Until the ends of the wires have heard that they are cut.
    for what, count in Counter(parts.report.wrong).most_common(20):
        print(f"WRONG: {what} ({count} times)", file=sys.stderr)
    return rows(parts.report, parts.grown_mb)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration", type=float, default=600, metavar="SECONDS")
    found = asyncio.run(soak(parser.parse_args().duration))
    show(found)
    return 0 if all(row.is_met for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
