"""Load a server, and measure what that costs it: a few persistent connections with one request after the other."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CONNECTIONS = 16
PATIENCE_S = 120
_LENGTH = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)


class Connection(asyncio.Protocol):
    """Sends its request until none is left to be sent, and opens itself again where the server closes it."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or (length and len(body) < int(length[1])):
            return
        self._received = b""
        self._load.answered(head)
        self._next()

    def connection_lost(self, _: Exception | None) -> None:
        if self._load.left > 0:
            self._load.open()

    def _next(self) -> None:
        if self._transport and self._load.left > 0 and not self._transport.is_closing():
            self._load.left -= 1
            self._transport.write(self._load.request)


class Load:
    """Requests for ``path`` on a port of this host; each must be answered with ``status``."""

    def __init__(self, port: int, path: str, headers: str, status: int = 200) -> None:
        self.request = f"GET {path} HTTP/1.1\r\nhost: bots.example\r\n{headers}\r\n\r\n".encode()
        self.left = 0
        self.failed = b""
        self.port = port
        self._status = f" {status} ".encode()
        self._unanswered = 0
        self._done = asyncio.Event()
        self._opening: set[asyncio.Task[tuple[asyncio.BaseTransport, object]]] = set()

    async def run(self, requests: int) -> float:
        """Return the seconds that this number of requests takes."""
        self.left = self._unanswered = requests
        self._done.clear()
        began = time.perf_counter()
        for _ in range(CONNECTIONS):
            self.open()
        async with asyncio.timeout(PATIENCE_S):
            await self._done.wait()
        assert not self.failed, self.failed
        taken_s = time.perf_counter() - began
        for opened in await asyncio.gather(*self._opening):
            opened[0].close()
        self._opening.clear()
        return taken_s

    def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._opening.add(loop.create_task(loop.create_connection(lambda: Connection(self), "127.0.0.1", self.port)))

    def answered(self, head: bytes) -> None:
        self._unanswered -= 1
        if self._status not in head.partition(b"\r\n")[0] + b" ":
            self.left, self._unanswered = 0, 0
            self.failed = head
        if not self._unanswered:
            self._done.set()


@contextmanager
def apart(servers: Iterable[int]) -> Iterator[None]:
    """Pin these processes to one processor and this one to another, if there are two, while the block runs.

    What moves from one to the other finds its caches cold, which costs as much as what is to be measured.
    """
    everywhere = os.sched_getaffinity(0)
    one, *others = everywhere
    threads = [
        int(task.name) for pid in servers for each in _family(pid) for task in Path(f"/proc/{each}/task").iterdir()
    ]
    _keep(threads, {one})
    _keep([0], set(others[:1]) or everywhere)
    try:
        yield
    finally:
        _keep([0, *threads], everywhere)


def _keep(threads: Iterable[int], processors: set[int]) -> None:
    for thread in threads:
        with suppress(ProcessLookupError):  # A pool's thread may have ended.
            os.sched_setaffinity(thread, processors)


def cpu_s(pid: int) -> float:
    """Return the processor time of this process and its children, from Linux, in nanoseconds."""
    return sum(_own_s(one) for one in _family(pid))


def _own_s(pid: int) -> float:
    return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def _family(pid: int) -> list[int]:
    parents = {int(stat.parent.name): int(_parent_of(stat)) for stat in Path("/proc").glob("[0-9]*/stat")}
    family = [pid]
    for one in family:
        family += [child for child, parent in parents.items() if parent == one]
    return family


def _parent_of(stat: Path) -> str:
    try:
        return stat.read_text().rpartition(")")[2].split()[1]
    except OSError:  # It has ended meanwhile.
        return "0"
