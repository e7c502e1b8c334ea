"""Measure real servers under load: processor time and requests a second, compared with alternatives.

    python -m benchmarks.served [--rounds 15]

Each server has one worker and persistent connections, and the sides take turns. Rates and response times vary with
other load on the machine; the processor time of the server's processes varies less.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import NamedTuple

from benchmarks.apps import DATABASE, TOKEN
from benchmarks.database import make, server
from benchmarks.load import Load, apart, cpu_s
from benchmarks.measuring import Row, in_turn, row, show
from benchmarks.processes import ROOT, free_port, running
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store

SERVERS: Mapping[str, Sequence[str]] = {
    "uvicorn": ("uvicorn", "--factory", "--no-proxy-headers", "--no-access-log", "--log-level", "critical", "--port"),
    "granian": ("granian", "--factory", "--interface", "asgi", "--log-level", "critical", "--port"),
    "gunicorn": ("gunicorn", "--worker-class", "gthread", "--threads", "4", "--log-level", "critical", "--bind"),
}
DJANGO, KEPT = "BENCHMARK_DJANGO_URL", "BENCHMARK_DJANGO_KEEPS_CONNECTIONS"
SIDES = ("app", "with_authentication_middleware", "with_floor", "guarded")
REQUESTS = 2_000
WARM = {
    "bare app": "app",
    "AuthenticationMiddleware": "with_authentication_middleware",
    "hand-written floor": "with_floor",
    "smarter_auth_mw": "guarded",
}
PEERS = {"query": "FastAPI with a query", "knox": "django-rest-knox"}
"""The labels of the chart, and the name of the app or peer."""


class Side(NamedTuple):
    """A server process, and load for it."""

    pid: int
    load: Load

    async def cpu_us(self, requests: int = REQUESTS) -> float:
        """Return what a request costs its processes, in µs on a processor."""
        before = cpu_s(self.pid)
        await self.load.run(requests)
        return (cpu_s(self.pid) - before) / requests * 1e6

    async def rate(self, requests: int) -> float:
        return requests / await self.load.run(requests)


async def measure(rounds: int) -> list[Row]:
    async with server() as cluster, AsyncExitStack() as stack:
        database, beside = await make(cluster, "guarded"), await make(cluster, "django")
        token = await bound_token(database.runtime)
        environment = {
            "SMARTER_AUTH_DATABASE_URL": database.runtime,
            "SMARTER_AUTH_ROUTES": "bot /bots/{ref:int}",
            DATABASE: database.runtime,
            TOKEN: token,
            DJANGO: beside.owner,
        }
        headers = json.loads(run("-m", "benchmarks.django_peers", **environment))

        def started(which: str, app: str) -> Side:
            load = Load(0, "/bots/1", f"authorization: Token {token}")
            return stack.enter_context(serving(which, app, load, environment))

        def django(path: str, **more: str) -> Side:
            load = Load(0, f"/{path}/", headers[path])
            return stack.enter_context(serving("gunicorn", "benchmarks.django_peers", load, environment | more))

        served = {(on, side): started(on, f"benchmarks.apps:{side}") for on in ("uvicorn", "granian") for side in SIDES}
        with apart(one.pid for one in served.values()):
            taken = await in_turn({f"{on} {side}": one.cpu_us for (on, side), one in served.items()}, rounds)
        rows = [over for on in ("uvicorn", "granian") for over in cpu_rows(on, taken)]
        peers = {
            "guarded": (served["uvicorn", "guarded"], 1_000),
            "bare": (served["uvicorn", "app"], 1_000),
            "query": (started("uvicorn", "benchmarks.apps:with_query"), 400),
            "knox": (django("knox"), 60),
            "knox, kept": (django("knox", **{KEPT: "yes"}), 200),
            "api-key": (django("api-key"), 60),
        }
        rates = await in_turn({name: partial(one.rate, n) for name, (one, n) in peers.items()}, rounds)
        costs = await in_turn({name: partial(peers[name][0].cpu_us, peers[name][1]) for name in PEERS}, rounds // 2)
        costs |= {name: taken[f"uvicorn {side}"] for name, side in WARM.items()}
        return rows + rate_rows(rates) + [cost_row(name, costs[name]) for name in (*WARM, *PEERS)]


def cpu_rows(on: str, taken: Mapping[str, Sequence[float]]) -> list[Row]:
    bare = taken[f"{on} app"]

    def over(side: str, target: float | None, what: str) -> Row:
        ratios = [one / other for one, other in zip(taken[f"{on} {side}"], bare, strict=True)]
        note = f"{statistics.median(taken[f'{on} {side}']):.1f} µs over {statistics.median(bare):.1f}"
        return row(f"{on}: processor time of a request, {what}, over the bare app", ratios, target, note=note)

    return [
        over("guarded", {"uvicorn": 1.08, "granian": 1.06}[on], "guarded"),
        over("with_authentication_middleware", None, "with AuthenticationMiddleware"),
        over("with_floor", None, "with the floor"),
    ]


def rate_rows(rates: Mapping[str, Sequence[float]]) -> list[Row]:
    def beside(peer: str, target: float | None, what: str) -> Row:
        ratios = [one / other for one, other in zip(rates["guarded"], rates[peer], strict=True)]
        note = f"{statistics.median(rates['guarded']):,.0f}/s beside {statistics.median(rates[peer]):,.0f}/s"
        return row(f"requests a second, beside {what}", ratios, target, is_at_least=True, note=note)

    return [
        beside("query", 5, "FastAPI with one asyncpg query a request"),
        beside("knox", 50, "django-rest-knox on Django"),
        beside("knox, kept", None, "the same with connections that Django keeps"),
        beside("api-key", None, "djangorestframework-api-key on Django"),
        beside("bare", None, "the bare app"),
    ]


def cost_row(name: str, costs_us: list[float]) -> Row:
    """Return a bar of the chart: the processes of the server, without those of the database."""
    what = f"processor time of a request, in µs: {PEERS.get(name, name)}"
    return row(what, costs_us, None, note="uvicorn" if name != "knox" else "gunicorn")


async def bound_token(url: str) -> str:
    async with open_pool(url) as pool:
        return (
            await Management(Store(pool), actor="benchmark").create("laptop", bind=[Resource("bot", "1")])
        ).token.reveal()


def run(*command: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


@contextmanager
def serving(which: str, app: str, load: Load, environment: Mapping[str, str]) -> Iterator[Side]:
    """Run the app on a server of its own while the block runs."""
    load.port = free_port()
    address = f"127.0.0.1:{load.port}" if which == "gunicorn" else str(load.port)
    with running([sys.executable, "-m", *SERVERS[which], address, app], load.port, environment) as pid:
        yield Side(pid, load)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    show(asyncio.run(measure(parser.parse_args().rounds)))


if __name__ == "__main__":
    main()
