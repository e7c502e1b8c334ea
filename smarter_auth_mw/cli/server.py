"""Runs uvicorn on an open listener: in this process, in several, or restarted when a file changes."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.supervisors import ChangeReload, Multiprocess
from uvicorn.supervisors.multiprocess import Process

from smarter_auth_mw.cli import descriptors
from smarter_auth_mw.cli.ports import address
from smarter_auth_mw.metrics import multiprocess

FIRST_REQUEST_S = 0.5
"""How long a connection without a request stays open after a server is asked to end."""

WORKER_START_S = 60
"""How long a worker may take to start. With uvicorn's 5 s, a slow machine would replace each worker while it starts."""
WORKER_SILENCE_S = 5
"""How long a worker that has started may be silent before it is replaced. Signals are only handled afterwards."""


def run(config: uvicorn.Config, listening: socket.socket) -> None:
    """Serve until a signal. The socket is then closed at once, so that a proxy tries another server.

    Raises UsageError if the process may open too few files.
    """
    descriptors.raise_limit()
    config.http = _Protocol
    config.callback_notify, config.timeout_notify = descriptors.ExhaustionReport(), descriptors.CHECK_EVERY_S
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
    """Serve while the block runs, on the loop of another server, which handles the signals."""
    config.http = _Protocol
    server = _Beside(config)
    serving = asyncio.create_task(server.serve([listening]))
    await asyncio.wait([asyncio.create_task(server.is_up.wait()), serving], return_when=asyncio.FIRST_COMPLETED)
    try:
        yield
    finally:
        server.should_exit = True
        server.is_up.set()
        await serving


class _Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # Which one it is depends on what is installed.
    """A connection whose first request may be on its way when the server is asked to end.

    uvicorn closes such a connection at once, and the client is reset. A proxy cannot know whether the request was
    handled, so it answers 502.
    """

    def shutdown(self) -> None:
        if self.cycle is None:
            self.loop.call_later(FIRST_REQUEST_S, self._end)
        else:
            super().shutdown()

    def _end(self) -> None:
        if not self.transport.is_closing():
            super().shutdown()


class _Beside(uvicorn.Server):
    """A server that ignores signals; ``is_up`` once it serves."""

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
    """A single process, which logs its address once it is ready."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or ():
            _announce(listening)


class _Workers(Multiprocess):
    """Several processes that share the socket."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self._answered: set[Process] = set()
        config.timeout_worker_healthcheck = WORKER_START_S

    def keep_subprocess_alive(self) -> None:
        asked = set(self.processes)
        if asked <= self._answered:
            self.config.timeout_worker_healthcheck = WORKER_SILENCE_S
        super().keep_subprocess_alive()
        self.config.timeout_worker_healthcheck = WORKER_START_S
        self._answered = asked & set(self.processes)  # The others have been replaced.

    def terminate_all(self) -> None:
        # uvicorn keeps it until the last worker has ended: clients that connect meanwhile would never get a response.
        for listening in self.sockets:
            listening.close()
        super().terminate_all()


def _announce(listening: socket.socket) -> None:
    """Log the line that uvicorn logs for sockets of its own."""
    logging.getLogger("uvicorn.error").info("Uvicorn running on %s (Press CTRL+C to quit)", address(listening))
