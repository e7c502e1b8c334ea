"""A server far away: a proxy that delays whatever goes through it, and one that speaks TLS in front of a server."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import trustme

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial = Callable[[], Awaitable[Streams]]


class Authority:
    """Who signs the certificate of a server on the loopback; ``file`` is for clients that trust it."""

    def __init__(self, directory: Path) -> None:
        self._own = trustme.CA()
        self.file = directory / "authority.pem"
        self._own.cert_pem.write_to_path(str(self.file))

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._own.issue_cert("127.0.0.1", "localhost").configure_cert(context)
        return context


@asynccontextmanager
async def away(socket: Path, one_way_s: float, authority: Authority | None = None) -> AsyncIterator[int]:
    """The port of a server on a unix socket, that much time away in each direction, with TLS where one signs."""
    async with AsyncExitStack() as stack:
        dial: Dial = lambda: asyncio.open_unix_connection(socket)  # noqa: E731
        if authority is not None:
            port = await stack.enter_async_context(_forwarding(dial, 0, authority.context()))
            dial = lambda: asyncio.open_connection("127.0.0.1", port)  # noqa: E731
        yield await stack.enter_async_context(_forwarding(dial, one_way_s))


@asynccontextmanager
async def _forwarding(dial: Dial, one_way_s: float, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    served: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        served.add(task)
        writers = [writer]
        try:
            await asyncio.sleep(2 * one_way_s)  # The kernel has answered the TCP handshake already.
            far_reader, far_writer = await dial()
            writers.append(far_writer)
            with suppress(OSError):
                await asyncio.gather(_pump(reader, far_writer, one_way_s), _pump(far_reader, writer, one_way_s))
        except asyncio.CancelledError:
            pass
        finally:
            for each in writers:
                each.transport.abort()
            served.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(served):
            task.cancel()
        await asyncio.gather(*served, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, one_way_s: float) -> None:
    """Hand on what comes, each piece after the delay, and then the end."""
    loop = asyncio.get_running_loop()
    while piece := await reader.read(65536):
        loop.call_later(one_way_s, _write, writer, piece)
    await asyncio.sleep(one_way_s)
    writer.close()


def _write(writer: asyncio.StreamWriter, piece: bytes) -> None:
    if not writer.is_closing():
        writer.write(piece)
