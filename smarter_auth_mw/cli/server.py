"""uvicorn on a listener of our own: in this process, in several, or restarted whenever a file changes."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import uvicorn
from uvicorn.supervisors import ChangeReload, Multiprocess

from smarter_auth_mw.cli.ports import address
from smarter_auth_mw.metrics import multiprocess


def run(config: uvicorn.Config, listening: socket.socket) -> None:
    """Serve until a signal ends it. The socket is closed at once then, so that a proxy tries another server."""
    with listening, suppress(KeyboardInterrupt):
        if config.should_reload:
            _announce(listening)
            ChangeReload(config, uvicorn.Server(config).run, [listening]).run()
        elif config.workers > 1:
            _announce(listening)
            with multiprocess.own_directory():
                _Workers(config, [listening]).run()
        else:
            _Server(config).run([listening])


@asynccontextmanager
async def beside(config: uvicorn.Config, listening: socket.socket) -> AsyncIterator[None]:
    """Serve while the block lasts, on the loop of another server, which the signals are left to."""
    server = _Beside(config)
    serving = asyncio.create_task(server.serve([listening]))
    await asyncio.wait([asyncio.create_task(server.is_up.wait()), serving], return_when=asyncio.FIRST_COMPLETED)
    try:
        yield
    finally:
        server.should_exit = True
        server.is_up.set()
        await serving


class _Beside(uvicorn.Server):
    """A server that does not listen to signals; ``is_up`` once it serves."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Server(uvicorn.Server):
    """One process, which says where it listens once it is ready."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or ():
            _announce(listening)


class _Workers(Multiprocess):
    """Several processes, which share the socket."""

    def terminate_all(self) -> None:
        # uvicorn keeps it until the last worker has ended: who connects meanwhile would wait, and never be answered.
        for listening in self.sockets:
            listening.close()
        super().terminate_all()


def _announce(listening: socket.socket) -> None:
    """Log the line that uvicorn logs for sockets of its own."""
    logging.getLogger("uvicorn.error").info("Uvicorn running on %s (Press CTRL+C to quit)", address(listening))
