"""Measure a request on a persistent connection with several workers, relative to one worker.

    python -m benchmarks.kept [--rounds 15]

Runs `serve` and `gate` as users start them, on asyncio's event loop and on uvloop. Requests are sent one after the
other, and the figure is the time that the client waits, so that Nagle's algorithm (40 ms a request) would show.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

from benchmarks.database import migrated
from benchmarks.measuring import Block, Row, in_turn, row, show
from benchmarks.processes import free_port, running
from benchmarks.served import bound_token

COMMANDS: Mapping[str, Sequence[str]] = {"serve": ("serve", "benchmarks.apps:app", "--factory"), "gate": ("gate",)}
REQUEST = "GET /bots/1 HTTP/1.1\r\nHost: bots.example\r\n"
ASKED = "X-Original-URI: /bots/1\r\nX-Original-Method: GET\r\n"
LOOPS = ("asyncio", "uvloop")
WORKERS = (1, 2, 4)
REQUESTS = 50
TARGET = 1.5


async def measure(rounds: int) -> list[Row]:
    async with migrated() as database:
        token = await bound_token(database.runtime)
        requests = {"serve": f"{REQUEST}X-API-Key: {token}\r\n\r\n", "gate": f"{REQUEST}{ASKED}\r\n"}
        environment = {
            "SMARTER_AUTH_DATABASE_URL": database.runtime,
            "SMARTER_AUTH_ROUTES": "bot /bots/{ref:int}",
        }
        return [
            over_one
            for command in COMMANDS
            for loop in LOOPS
            for over_one in await _rows(command, loop, requests[command], environment, rounds)
        ]


async def _rows(command: str, loop: str, request: str, environment: Mapping[str, str], rounds: int) -> list[Row]:
    with ExitStack() as stack:
        sides: dict[str, Block] = {}
        for workers in WORKERS:
            port = stack.enter_context(_serving(command, loop, workers, environment))
            sides[str(workers)] = partial(_latency_us, port, request)
        taken = await in_turn(sides, rounds)
    note = ", ".join(f"{side}: {statistics.median(figures):.0f} µs" for side, figures in taken.items())
    return [
        row(
            f"{command} on {loop}: latency on a kept connection, {workers} workers over one",
            [one / other for one, other in zip(taken[str(workers)], taken["1"], strict=True)],
            TARGET,
            note=note,
        )
        for workers in WORKERS[1:]
    ]


async def _latency_us(port: int, request: str) -> float:
    """Return the median of requests on one connection. Responses have a body, because a second packet would wait."""
    with closing(socket.create_connection(("127.0.0.1", port))) as client:
        moments = [time.perf_counter()]
        for _ in range(REQUESTS):
            client.sendall(request.encode())
            _receive(client)
            moments.append(time.perf_counter())
    return statistics.median(after - before for before, after in pairwise(moments)) * 1e6


def _receive(client: socket.socket) -> None:
    """One answer, which has a length."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += client.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 401 ")), head
    length = int(head.lower().partition(b"content-length: ")[2].split()[0])
    while len(body) < length:
        body += client.recv(65536)


@contextmanager
def _serving(command: str, loop: str, workers: int, environment: Mapping[str, str]) -> Iterator[int]:
    """Run the command on a port of its own while the block runs."""
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        if loop == "asyncio":  # uvicorn takes uvloop wherever it can be imported.
            Path(directory, "uvloop.py").write_text("raise ImportError")
        words = (*COMMANDS[command], "--port", str(port), "--workers", str(workers))
        line = [sys.executable, "-m", "smarter_auth_mw", *words]
        with running(line, port, {**environment, "PYTHONPATH": directory}, is_quiet=True):
            yield port


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    show(asyncio.run(measure(parser.parse_args().rounds)))


if __name__ == "__main__":
    main()
