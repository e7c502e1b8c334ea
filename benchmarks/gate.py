"""Measure the gate under load: its throughput relative to a bare app, and what it adds to a request through nginx.

    python -m benchmarks.gate [--rounds 15]

Compares the gate's process with uvicorn and an app that answers 200; both get the same requests of a proxy. Through
nginx, one client sends requests on one connection, once with the configuration in examples/nginx and once with that of
the service alone. Without nginx (make programs), these rows are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from benchmarks.database import migrated
from benchmarks.fleet import Client, quantile
from benchmarks.load import Load, apart
from benchmarks.measuring import Block, Row, in_turn, row, show
from benchmarks.processes import free_port, running
from benchmarks.served import Side, bound_token, serving
from tests.programs import find, libraries
from tests.support.proxy import COMMANDS, Changes, Ports, write_configuration

TARGET = 1.15
ANSWERS = 1_000
THROUGH_NGINX = 300
WITHOUT_GATE: Changes = [("auth_request /_smarter_auth;", "")]


async def measure(rounds: int) -> list[Row]:
    async with migrated() as database, AsyncExitStack() as stack:
        token = await bound_token(database.runtime)
        environment = {
            "SMARTER_AUTH_DATABASE_URL": database.runtime,
            "SMARTER_AUTH_ROUTES": "bot /bots/{ref:int}",
        }
        headers = f"x-original-uri: /bots/1\r\nx-original-method: GET\r\nauthorization: Token {token}"
        gate = stack.enter_context(gating(Load(0, "/_smarter_auth", headers), environment))
        bare = stack.enter_context(
            serving("uvicorn", "benchmarks.apps:answers", Load(0, "/_smarter_auth", headers), {})
        )
        with apart((gate.pid, bare.pid)):
            costs = await in_turn({"gate": gate.cpu_us, "bare": bare.cpu_us}, rounds)
            rates = await in_turn({"gate": partial(gate.rate, ANSWERS), "bare": partial(bare.rate, ANSWERS)}, rounds)
        note = " over ".join(f"{statistics.median(costs[side]):.1f} µs" for side in ("gate", "bare"))
        answers = " beside ".join(f"{statistics.median(rates[side]):,.0f}/s" for side in ("gate", "bare"))
        return [
            row("gate: processor time of an answer, over a bare app's", over(costs, "gate", "bare"), TARGET, note=note),
            row(
                "gate: a bare app's answers a second, over the gate's",
                over(rates, "bare", "gate"),
                TARGET,
                note=answers,
            ),
            *await through_nginx(gate.load.port, bare.load.port, token, rounds),
        ]


def over(taken: Mapping[str, list[float]], one: str, other: str) -> list[float]:
    return [top / base for top, base in zip(taken[one], taken[other], strict=True)]


async def through_nginx(gate: int, service: int, token: str, rounds: int) -> list[Row]:
    try:
        find("nginx")
    except (pytest.skip.Exception, pytest.fail.Exception) as missing:
        print(missing, file=sys.stderr)
        return []
    with nginx(gate, service) as guarded, nginx(gate, service, WITHOUT_GATE) as plain:
        p50, p99 = await quantiles_ms({"guarded": guarded, "plain": plain}, token, rounds)
    return [
        row(
            f"nginx with the gate: {name} that it adds to a request, in ms",
            [with_gate - without for with_gate, without in zip(taken["guarded"], taken["plain"], strict=True)],
            None,
            note=" over ".join(f"{statistics.median(taken[side]):.2f} ms" for side in ("guarded", "plain")),
        )
        for name, taken in (("p50", p50), ("p99", p99))
    ]


async def quantiles_ms(ports: Mapping[str, int], token: str, rounds: int) -> list[dict[str, list[float]]]:
    """Return the medians and the p99s of each side, one for each round."""
    p99s: dict[str, list[float]] = {side: [] for side in ports}

    def block(side: str) -> Block:
        async def run() -> float:
            client = await Client.connect(ports[side])  # Each time: nginx closes it after a thousand requests.
            answers = [await client.ask(1, token) for _ in range(THROUGH_NGINX)]
            client.close()
            assert {answer.status for answer in answers} == {200}
            taken = [(answer.came_s - answer.sent_s) * 1e3 for answer in answers]
            p99s[side].append(quantile(taken, 0.99))
            return statistics.median(taken)

        return run

    medians = await in_turn({side: block(side) for side in ports}, rounds, warm_up=1)
    return [medians, {side: taken[1:] for side, taken in p99s.items()}]


@contextmanager
def nginx(gate: int, service: int, changes: Changes = ()) -> Iterator[int]:
    """Yield the port of an nginx with the shipped configuration, while the block runs."""
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        write_configuration("nginx", place, Ports(port, gate, service), [*changes, *KEPT])
        with running([*map(str, COMMANDS["nginx"](place))], port, libraries("nginx"), cwd=place):
            yield port


KEPT: Changes = [("server 127.0.0.1:8000;", "server 127.0.0.1:8000;\n    keepalive 16;")]
"""Keep connections to the service open, because opening one costs as much as what is measured."""


@contextmanager
def gating(load: Load, environment: Mapping[str, str]) -> Iterator[Side]:
    """Run the gate as users start it, while the block runs."""
    load.port = free_port()
    command = [sys.executable, "-m", "smarter_auth_mw", "gate", "--port", str(load.port)]
    with running(command, load.port, environment, is_quiet=True) as pid:
        yield Side(pid, load)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    show(asyncio.run(measure(parser.parse_args().rounds)))


if __name__ == "__main__":
    main()
