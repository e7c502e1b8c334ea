"""Measure how long a revoked key works on a flooded WebSocket, on each server: from COMMIT to the last message.

    python -m benchmarks.flooded [--count 100]

A client sends messages as fast as the server accepts them, and the handler works half a millisecond on each, so that a
message is always waiting. Then the key is revoked. The figure is the time from the answer to COMMIT until the handler
got its last message, on one clock. A second figure compares the messages of an idle WebSocket with the same app without
the middleware.

A server parses up to 256 KiB at once, and nothing else runs in that time; the figures include this.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks.database import Database, fill, migrated
from benchmarks.fleet import quantile
from benchmarks.measuring import Block, Row, in_turn, row, show
from benchmarks.processes import free_port, running
from benchmarks.revocation import REVOKE
from smarter_auth_mw import SmarterAuthMiddleware
from smarter_auth_mw.http import websocket

QUIET = ("--log-level", "critical", "--ws-ping-interval", "3600")
"""Without pings, which an idle client would have to tell from its messages."""
UVICORN = ("uvicorn", "--factory", "--no-proxy-headers", *QUIET, "--port", "PORT")
APP = "benchmarks.flooded:application"
SERVERS: Mapping[str, Sequence[str]] = {
    "uvicorn": (*UVICORN, APP),
    "uvicorn on asyncio": (*UVICORN, "--loop", "asyncio", APP),
    "uvicorn --ws websockets": (*UVICORN, "--ws", "websockets", APP),
    "uvicorn --ws websockets-sansio": (*UVICORN, "--ws", "websockets-sansio", APP),
    "uvicorn --ws wsproto": (*UVICORN, "--ws", "wsproto", APP),
    "hypercorn": ("hypercorn", "--bind", "127.0.0.1:PORT", "--log-level", "CRITICAL", f"{APP}()"),
    "granian": ("granian", "--factory", "--interface", "asgi", "--log-level", "critical", "--port", "PORT", APP),
}
BOUND_MS = 50
WORK_S = 0.0005
FLOODED_S = (0.5, 1.5)
"""The time that a flood runs before the key is revoked, random so that it does not depend on the server."""
PATIENCE_S = 60
ATTEMPTS = 10
LAST = "BENCHMARK_LAST"
"""The environment variable that says in which file the handler writes when it had its last message."""
MESSAGES = 200


def application() -> Any:
    """The handler behind the middleware, by its environment."""
    return SmarterAuthMiddleware(handler)


async def handler(scope: Any, receive: Any, send: Any) -> None:
    """Work on each message, and write down when the last one came."""
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    last_s = 0.0
    while (await receive())["type"] == "websocket.receive":
        last_s = time.monotonic()
        while time.monotonic() < last_s + WORK_S:
            pass
    _write(last_s)


def _write(last_s: float) -> None:
    with Path(os.environ[LAST]).open("a") as written:
        written.write(f"{last_s}\n")


async def measure(count: int, which: Sequence[str] = tuple(SERVERS)) -> list[Row]:
    async with migrated() as database:
        await fill(database.owner, count * len(which) + 1, 1)
        owner = await asyncpg.connect(database.owner)
        try:
            rows: list[Row] = []
            for name in which:
                numbers = range(len(rows) * count + 2, (len(rows) + 1) * count + 2)
                rows.append(_row(name, await _lags_ms(SERVERS[name], database, owner, numbers)))
                print(rows[-1].note, file=sys.stderr)
            return [*rows, *await _idle_rows(database, count)]
        finally:
            await owner.close()


def _row(server: str, lags_ms: list[float]) -> Row:
    note = f"p50 {quantile(lags_ms, 0.5):.1f} ms, p99 {quantile(lags_ms, 0.99):.1f} ms, max {max(lags_ms):.1f} ms"
    p99 = [quantile(lags_ms, 0.99) / BOUND_MS]
    return row(f"{server}: p99 from COMMIT to the last message of a flood, over {BOUND_MS} ms", p99, 1.0, note=note)


async def _lags_ms(
    command: Sequence[str], database: Database, owner: asyncpg.Connection, numbers: range
) -> list[float]:
    with tempfile.TemporaryDirectory() as directory:
        last = Path(directory, "last")
        with _serving(command, database, last) as port:
            return [await _lag_ms(port, n, owner, last) for n in numbers]


async def _lag_ms(port: int, number: int, owner: asyncpg.Connection, last: Path) -> float:
    known = len(_written(last))
    with closing(_opened(port, number)) as client:
        flood = threading.Thread(target=_flood, args=(client,))
        flood.start()
        await asyncio.sleep(random.uniform(*FLOODED_S))
        await owner.execute(REVOKE, str(number))
        committed_s = time.monotonic()
        async with asyncio.timeout(PATIENCE_S):
            while len(written := _written(last)) == known:
                await asyncio.sleep(0.005)
        with suppress(OSError):  # It may be closed already.
            client.shutdown(socket.SHUT_RDWR)
        flood.join(PATIENCE_S)
    return max(0.0, written[-1] - committed_s) * 1e3


def _written(last: Path) -> list[float]:
    return [float(line) for line in last.read_text().splitlines()] if last.exists() else []


def _opened(port: int, number: int) -> socket.socket:
    """A WebSocket, after its handshake; the server may still be busy with the flood before."""
    for _ in range(ATTEMPTS):
        client, head = _asked(port, number)
        if head.startswith(b"HTTP/1.1 101 "):
            return client
        client.close()
        time.sleep(1)
    raise SystemExit(head.decode("latin-1"))


def _asked(port: int, number: int) -> tuple[socket.socket, bytes]:
    client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    client.sendall(
        f"GET /bots/{number} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        f"X-API-Key: {number}\r\n\r\n".encode()
    )
    return client, client.recv(65536)


def _flood(client: socket.socket) -> None:
    """Short masked text frames (RFC 6455 §5.2), as fast as they are taken."""
    frames = b"\x81\x98\x00\x00\x00\x00hello, is anybody there?" * 1_000
    with suppress(OSError):
        while True:
            client.sendall(frames)


@contextmanager
def _serving(command: Sequence[str], database: Database, last: Path) -> Iterator[int]:
    port = free_port()
    environment = {
        "SMARTER_AUTH_DATABASE_URL": database.runtime,
        "SMARTER_AUTH_ROUTES": "bot /bots/{ref:int}",
        LAST: str(last),
    }
    words = [word.replace("PORT", str(port)) for word in command]
    # hypercorn reports each connection that is cut under load.
    with running([sys.executable, "-m", *words], port, environment, is_quiet=True):
        yield port


async def _idle_rows(database: Database, rounds: int) -> list[Row]:
    """Round trips of messages that come one at a time."""
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        sides: dict[str, Block] = {}
        for app in ("bare_echo", "echo_without_turns", "guarded_echo"):
            port = stack.enter_context(_serving((*UVICORN, f"benchmarks.flooded:{app}"), database, Path(directory)))
            sides[app] = partial(_round_trip_us, stack.enter_context(closing(_opened(port, 1))))
        taken = await in_turn(sides, rounds)
    note = ", ".join(f"{name} {quantile(figures, 0.5):.0f} µs" for name, figures in taken.items())

    def over(side: str, target: float | None, what: str) -> Row:
        ratios = [one / other for one, other in zip(taken["guarded_echo"], taken[side], strict=True)]
        return row(f"uvicorn: round trip on an idle WebSocket, over {what}", ratios, target, note=note)

    return [over("echo_without_turns", 1.05, "the same without turns"), over("bare_echo", None, "the bare app")]


async def _round_trip_us(client: socket.socket) -> float:
    """The median over some messages, each sent when the one before has come back."""
    taken = []
    for _ in range(MESSAGES):
        began = time.perf_counter()
        client.sendall(b"\x81\x81\x00\x00\x00\x00x")
        assert client.recv(100) == b"\x81\x01x"
        taken.append(time.perf_counter() - began)
    return quantile(taken, 0.5) * 1e6


def bare_echo() -> Any:
    return echo


def guarded_echo() -> Any:
    return SmarterAuthMiddleware(echo)


def echo_without_turns() -> Any:
    websocket.TURN_S = float("inf")
    return guarded_echo()


async def echo(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", nargs="*", choices=[[], *SERVERS])
    parser.add_argument("--count", type=int, default=100)
    arguments = parser.parse_args()
    show(asyncio.run(measure(arguments.count, arguments.which or tuple(SERVERS))))


if __name__ == "__main__":
    main()
