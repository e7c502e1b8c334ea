"""The two commands of Memcached that the shared tier needs, on a real socket, with the faults of a real server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Memcached:
    """Keeps what it is given and forgets nothing; ``expiries`` holds the times to live as they were sent."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.expiries: dict[bytes, int] = {}
        self.hangs_up = False
        self.answers = asyncio.Event()
        self.answers.set()
        self.port = 0
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"memcached://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while command := (await reader.readline()).split():
                answer = await self._execute(command, reader)
                if self.hangs_up:
                    break
                await self.answers.wait()
                writer.write(answer)
        except (asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()
            self._connections.discard(task)

    async def _execute(self, command: list[bytes], reader: asyncio.StreamReader) -> bytes:
        match command:
            case [b"get", key] if re.fullmatch(rb"[!-~]{1,250}", key):
                value = self.values.get(key)
                return b"END\r\n" if value is None else b"VALUE %b 0 %d\r\n%b\r\nEND\r\n" % (key, len(value), value)
            case [b"set", key, b"0", expiry, length] if re.fullmatch(rb"[!-~]{1,250}", key):
                self.values[key] = (await reader.readexactly(int(length) + 2))[:-2]
                self.expiries[key] = int(expiry)
                return b"STORED\r\n"
        return b"ERROR\r\n"

    async def stop(self) -> None:
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)


@asynccontextmanager
async def memcached() -> AsyncIterator[Memcached]:
    """A server on a port of the loopback."""
    server = Memcached()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield server
        await server.stop()
