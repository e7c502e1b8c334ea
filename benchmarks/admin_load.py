"""Measure what the management API does in a second, what workers notice of it, and how soon they refuse a revoked key.

    python -m benchmarks.admin_load [--rounds 10] [--seconds 2] [--revocations 100] [--json FILE]

Two uvicorn processes get requests for warm resources at a steady rate, in turn while the API is idle, while it answers
two or twenty requests of each kind a second, and while two clients create keys or read pages of lists as fast as it
answers. The clients of the API are a process of their own. A figure is the median over the rounds of what workers take
then over what they take in the calm phase of the same round. It is measured twice. With processors apart, the workers
and their client have one processor, and the API, its clients and PostgreSQL have another one: what is left is what the
API does to workers by its changes. With shared processors it also takes time that the workers would have; "a busy
process" is what any other program costs them that keeps one processor busy and touches nothing of theirs. Afterwards
keys are revoked through the API, under the load and by the targets of ``benchmarks.revocation``; a lag begins when the
API has answered. Exits with 1 if a revocation missed its target, or if the API answered anything but 200 and 201.
``python -m benchmarks admin_load`` publishes the ratios, whose target is 1.1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from hashlib import md5
from pathlib import Path
from typing import Any, Self
from uuid import UUID, uuid4

from benchmarks import measuring, revocation
from benchmarks.database import Database, fill, migrated
from benchmarks.fleet import PATIENCE_S, ROOT, Client, Server, clients, comes_to, quantile, workers
from benchmarks.measuring import Row
from smarter_auth_mw.management.operators import Operators, Role
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store

BOTS, EACH = 200, 10
WARM = range(1, 51)
REQUESTS_PER_S = 400
SECONDS, REVOCATIONS, TARGET = 2, 100, 1.1
PROCESSORS = {"processors apart": True, "shared processors": False}
PLATFORM_PER_S = 2
"""Creates and pages per second on a platform where a customer signs up every half second."""
FEW_PER_S = 20
"""Creates and pages per second in a phase that does not use the API to its limit."""
ROUTES = "bot /bots/{ref:int}"
TOKEN = "_SMARTER_AUTH_BENCHMARK_TOKEN"
"""The variable that passes the operator's token to the clients of the API."""


class Api:
    """A persistent connection to the management API, for an operator of all accounts."""

    def __init__(self, token: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._head = f"Host: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        self._reader = reader
        self._writer = writer
        self.answered = 0

    @classmethod
    async def connect(cls, port: int, token: str) -> Self:
        return cls(token, *await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        """Return the document; raises SystemExit for an answer that is neither 200 nor 201."""
        sent = b"" if body is None else json.dumps(body).encode()
        head = f"{method} /api/v1{path} HTTP/1.1\r\n{self._head}Content-Length: {len(sent)}\r\n\r\n"
        self._writer.write(head.encode() + sent)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        text = await self._reader.readexactly(int(answer.partition(b"content-length:")[2].split(b"\r\n", 1)[0]))
        if answer[9:12] not in (b"200", b"201"):
            raise SystemExit(f"{method} {path}: {text.decode()}")
        self.answered += 1
        return json.loads(text)

    async def act(self, name: str) -> None:
        """Do what a phase repeats."""
        await {"create": self.create, "list": self.list, "spin": _spin}[name]()

    async def create(self) -> None:
        await self.ask("POST", "/keys", {"name": str(uuid4()), "bind": [f"bot:{BOTS}"]})

    async def list(self) -> None:
        await self.ask("GET", "/keys?limit=50")


@asynccontextmanager
async def served(database: Database) -> AsyncIterator[tuple[int, str]]:
    """Run ``smarter-auth admin``, and yield what connects an operator to it."""
    async with open_pool(database.owner) as pool:
        minted = await Operators(Store(pool), "benchmark").create("benchmark", Role.ADMIN)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        command = [sys.executable, "-m", "smarter_auth_mw", "admin", "--fd", str(listening.fileno())]
        settings = {"SMARTER_AUTH_DATABASE_URL": database.runtime, "SMARTER_AUTH_ROUTES": ROUTES}
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=ROOT,
            env={**os.environ, **settings},
            pass_fds=[listening.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield port, minted.token.reveal()
        finally:
            process.terminate()
            await asyncio.wait_for(process.wait(), PATIENCE_S)


class Load:
    """Warm requests to the workers at a steady rate, and the time of each."""

    def __init__(self) -> None:
        self.took_ms: list[float] = []

    async def run(self, group: Sequence[Client], pause_s: float) -> None:
        async def ask(client: Client) -> None:
            while True:
                for number in WARM:
                    answer = await client.ask(number, str((number - 1) * EACH + 1))
                    if answer.status != 200:
                        raise SystemExit(f"A warm request was answered with {answer.status}.")
                    self.took_ms.append((answer.came_s - answer.sent_s) * 1e3)
                    await asyncio.sleep(pause_s)

        await asyncio.gather(*map(ask, group))


async def generate(port: int) -> None:
    """Run phases for the process at the other end of the pipes: a line of acts begins one, an empty line ends it."""
    apis = [await Api.connect(port, os.environ[TOKEN]) for _ in range(2)]
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        before, end = sum(api.answered for api in apis), asyncio.Event()
        busy = [asyncio.create_task(_repeat(*pair, end)) for pair in zip(apis, json.loads(line), strict=False)]
        await lines.readline()
        print(sum(api.answered for api in apis) - before, flush=True)
        end.set()
        await asyncio.gather(*busy)
        print(flush=True)


async def _repeat(api: Api, act: tuple[str, float], end: asyncio.Event) -> None:
    """Act until the end has come, and finish: the connection is used again."""
    name, pause_s = act
    while not end.is_set():
        await api.act(name)
        await asyncio.sleep(pause_s)


class Generator:
    """The clients of the API, in a process of their own: what they compute disturbs nobody's measuring."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._input, self._output = process.stdin, process.stdout

    @classmethod
    @asynccontextmanager
    async def of(cls, port: int, token: str) -> AsyncIterator[Self]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.admin_load", "--generate", str(port)),
            cwd=ROOT,
            env={**os.environ, TOKEN: token},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        generator = cls(process)
        try:
            yield generator
        finally:
            generator._input.close()
            await asyncio.wait_for(process.wait(), PATIENCE_S)

    async def begin(self, acts: Sequence[tuple[str, float]]) -> None:
        self._input.write(json.dumps(acts).encode() + b"\n")
        await self._input.drain()

    async def end(self) -> int:
        """Return how many requests were answered since the phase began, once the last ones are."""
        self._input.write(b"\n")
        answered = int(await self._output.readline() or 0)
        await self._output.readline()
        return answered


async def _spin() -> None:
    """Keep one process busy that shares only the processors with the workers."""
    script = "import time; end = time.monotonic() + 0.5\nwhile time.monotonic() < end: pass"
    process = await asyncio.create_subprocess_exec(sys.executable, "-IS", "-c", script)
    await process.wait()


def phases() -> dict[str, list[tuple[str, float]]]:
    """The acts that run next to the requests in each phase, and the pauses between them."""
    seldom_s, pause_s = 1 / PLATFORM_PER_S, 1 / FEW_PER_S
    return {
        "calm": [],
        "a platform's": [("create", seldom_s), ("list", seldom_s)],
        "a few of both": [("create", pause_s), ("list", pause_s)],
        "a busy process": [("spin", 0)],
        "creates": [("create", 0), ("create", 0)],
        "pages of lists": [("list", 0), ("list", 0)],
    }


async def measure(generator: Generator, load: Load, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Run the phases in turn; return for each its rate, its p99, and both quantiles relative to the calm phase."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for number in range(rounds + 1):
        for name, acts in phases().items():
            await generator.begin(acts)
            load.took_ms.clear()
            began = time.monotonic()
            await asyncio.sleep(seconds)
            took_ms, lasted_s = list(load.took_ms), time.monotonic() - began
            answered = await generator.end()
            if number:  # The first round warms up.
                figures = answered / lasted_s, quantile(took_ms, 0.5), quantile(took_ms, 0.99)
                found.setdefault(name, []).append(figures)
    return [_row(name, figures, found["calm"]) for name, figures in found.items()]


def _row(
    name: str, figures: Sequence[tuple[float, float, float]], calm: Sequence[tuple[float, float, float]]
) -> dict[str, Any]:
    median = statistics.median
    return {
        "phase": name,
        "api_per_s": median(rate for rate, _, _ in figures),
        "p99_ms": median(p99 for _, _, p99 in figures),
        "p50_ratio": median(one[1] / other[1] for one, other in zip(figures, calm, strict=True)),
        "p99_ratio": median(one[2] / other[2] for one, other in zip(figures, calm, strict=True)),
    }


class ByApi(revocation.Run):
    """Revocations, through the API, of keys that ``fill`` created."""

    def __init__(self, api: Api, *run: Any) -> None:
        super().__init__(*run)
        self._api = api

    async def commit(self, number: int) -> None:
        key_id = UUID(md5(str(number).encode(), usedforsecurity=False).hexdigest())
        await self._api.ask("POST", f"/keys/{key_id}/revoke")


async def revoked(api: Api, database: Database, count: int) -> list[Row]:
    """Revoke keys through the API, and return when workers refuse them."""
    await fill(database.owner, count + len(WARM), 1)
    plan = revocation.Plan("through the API", range(1, count + 1), {"heartbeat_s": "1"}, 1, 0.002, 0.02, 50, 1000)
    settings = {"database_url": database.runtime, "routes": ROUTES}
    others = range(count + 1, count + 1 + len(WARM))
    return await revocation.measure(
        plan, settings, database.owner, others, REQUESTS_PER_S, lambda *run: ByApi(api, *run)
    )


async def loaded(rounds: int, seconds: float, *, are_apart: bool) -> list[dict[str, Any]]:
    """Measure all phases, with one processor for the workers and their client and another for the rest, or with all."""
    every = os.sched_getaffinity(0)
    own, others = {min(every)}, {max(every)}
    _use(others if are_apart else every)
    try:
        async with migrated() as database, served(database) as (port, token), Generator.of(port, token) as generator:
            await fill(database.owner, BOTS, EACH)
            _use(own if are_apart else every)
            with workers([{"database_url": database.runtime, "routes": ROUTES}] * 2) as servers:
                async with _asking(servers) as load:
                    return await measure(generator, load, rounds, seconds)
    finally:
        _use(every)


def _use(processors: set[int]) -> None:
    """Run on these processors, with all processes that are started from now on."""
    os.sched_setaffinity(0, processors)


@asynccontextmanager
async def _asking(servers: Sequence[Server]) -> AsyncIterator[Load]:
    async with clients(servers, 1) as connected:
        group = [client for one in connected for client in one]
        for client in group:
            for number in WARM:
                await comes_to(client, 200, number, str((number - 1) * EACH + 1))
        load = Load()
        asking = asyncio.create_task(load.run(group, len(group) / REQUESTS_PER_S))
        yield load
        asking.cancel()


def show(title: str, rows: Sequence[dict[str, Any]]) -> None:
    print(f"{title:20} {'API/s':>8} {'p99 ms':>8} {'p50 over calm':>14} {'p99 over calm':>14}")
    for row in rows:
        print(
            f"{row['phase']:20} {row['api_per_s']:8.0f} {row['p99_ms']:8.2f} {row['p50_ratio']:14.2f}"
            f" {row['p99_ratio']:14.2f}",
            flush=True,
        )


async def revocations(count: int) -> list[Row]:
    async with migrated() as database, served(database) as (port, token):
        return await revoked(await Api.connect(port, token), database, count)


async def ratios(rounds: int) -> list[Row]:
    """Return what is published: both quantiles over those of the calm phase, the API's rates, and the revocations."""
    rows = []
    for title, are_apart in PROCESSORS.items():
        for one in await loaded(rounds, SECONDS, are_apart=are_apart):
            rows += _published(f"{one['phase']}, {title}", one)
    return rows + await revocations(REVOCATIONS)


def _published(what: str, measured: Mapping[str, Any]) -> list[Row]:
    acts = phases()[measured["phase"]]
    uses_api = any(name != "spin" for name, _ in acts)
    target = TARGET if uses_api else None
    rates = [measuring.row(f"{what}: API answers a second", [measured["api_per_s"]], None)] if uses_api else []
    ratios = [measuring.row(f"{what}: {name}", [measured[f"{name}_ratio"]], target) for name in ("p50", "p99")]
    return rates + ratios if acts else []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--revocations", type=int, default=REVOCATIONS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--generate", type=int, metavar="PORT", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.generate:
        asyncio.run(generate(given.generate))
        return 0
    tables = {}
    for title, are_apart in PROCESSORS.items():
        tables[title] = asyncio.run(loaded(given.rounds, given.seconds, are_apart=are_apart))
        show(title, tables[title])
    if given.json:
        given.json.write_text(json.dumps(tables, indent=1))
    found = asyncio.run(revocations(given.revocations))
    measuring.show(found)
    return 0 if all(row.is_met for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
