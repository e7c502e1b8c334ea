"""uvicorn on a listener of our own: in this process, in several, or restarted whenever a file changes."""

from __future__ import annotations

import logging
import socket
from contextlib import suppress

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
