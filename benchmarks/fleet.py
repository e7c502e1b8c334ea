"""Real workers for the benchmarks: uvicorn in separate processes, and clients with little overhead."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.request import urlopen

ROOT = Path(__file__).parent.parent
PATIENCE_S = 30


def application() -> Any:
    """Return what uvicorn serves: the middleware, by its environment, in front of an app that answers at once."""
    from smarter_auth_mw import SmarterAuthMiddleware

    return SmarterAuthMiddleware(_answer)


async def _answer(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@contextmanager
def workers(environments: Sequence[dict[str, str]]) -> Iterator[list[Server]]:
    """Run one uvicorn for each of the environments while the block runs."""
    servers = [Server(environment) for environment in environments]
    try:
        for server in servers:
            server.start()
        yield servers
    finally:
        for server in servers:
            server.stop()


class Server:
    """One uvicorn with one worker, which keeps its port when it is restarted."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._socket = socket.socket()
        # uvicorn takes a socket that it is handed for one that is not TCP, and leaves Nagle's algorithm on.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(1024)
        self.port: int = self._socket.getsockname()[1]
        self._environment = {f"SMARTER_AUTH_{name.upper()}": value for name, value in environment.items()}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        fd = str(self._socket.fileno())
        quiet = ("--timeout-keep-alive", "3600", "--no-proxy-headers", "--no-access-log", "--log-level", "critical")
        command = [sys.executable, "-m", "uvicorn", "--factory", "benchmarks.fleet:application", "--fd", fd, *quiet]
        environment = {**os.environ, **self._environment}
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, pass_fds=[self._socket.fileno()])

    def kill(self) -> None:
        """Kill the process (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self._socket.close()

    def metrics(self) -> dict[str, float]:
        """Return what the worker has counted, by metric and labels, where ``METRICS_PATH`` is ``/metrics``; blocks."""
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=PATIENCE_S) as answer:
            lines = answer.read().decode().splitlines()
        told = (line.removeprefix("smarter_auth_").rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in told}

    @property
    def rss_mb(self) -> float:
        """Return the resident memory of the process."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS:"))


class Answer(NamedTuple):
    """A status, and the times of its request and its response, in seconds of one clock."""

    status: int
    sent_s: float
    came_s: float


class Client:
    """One persistent connection to one worker: one request at a time, without a library's overhead."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, ref: object, token: str | None = None) -> Answer:
        """Raises OSError or EOFError where the worker goes away."""
        credentials = "" if token is None else f"Authorization: Token {token}\r\n"
        sent_s = time.monotonic()
        self._writer.write(f"GET /bots/{ref} HTTP/1.1\r\nHost: localhost\r\n{credentials}\r\n".encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0] or 0)
        await self._reader.readexactly(length)
        return Answer(int(head[9:12]), sent_s, time.monotonic())

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def clients(servers: Sequence[Server], each: int = 1) -> AsyncIterator[list[list[Client]]]:
    """Open that many connections to each of the workers."""
    connected = [[await Client.connect(server.port) for _ in range(each)] for server in servers]
    try:
        yield connected
    finally:
        for client in (client for group in connected for client in group):
            client.close()


async def comes_to(client: Client, status: int, ref: object, token: str | None = None) -> None:
    """Ask until the answer is that one."""
    async with asyncio.timeout(PATIENCE_S):
        while (await client.ask(ref, token)).status != status:
            await asyncio.sleep(0.01)


def quantile(figures: Sequence[float], part: float) -> float:
    """Return the quantile: the smallest figure that this fraction of them does not exceed."""
    ordered = sorted(figures)
    return ordered[max(math.ceil(part * len(ordered)) - 1, 0)]
