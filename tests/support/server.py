"""Real servers, each in a process of its own, with one app behind the middleware."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from smarter_auth_mw.cli.attack.cases import ResourceUrl
from tests.support.sloppy_app import SERVED
from tests.support.warm import PYTHON

APP = "tests.support.sloppy_app:application"
ROOT = Path(__file__).parents[2]
UVICORN = ("uvicorn", "--factory", "--no-proxy-headers", "--fd", "FD", "--log-level", "critical")

COMMANDS: Mapping[str, Sequence[str]] = {
    "uvicorn h11": (*UVICORN, "--http", "h11"),
    "uvicorn httptools": (*UVICORN, "--http", "httptools"),
    "hypercorn": ("hypercorn", "--bind", "fd://FD", "--log-level", "CRITICAL", "--graceful-timeout", "0"),
    "granian": ("granian", "--factory", "--interface", "asgi", "--port", "PORT", "--workers-kill-timeout", "5"),
}
"""Each as its users start it. FD is a socket that listens already; PORT one that is kept free for it."""


@dataclass(frozen=True, slots=True)
class Serving:
    """A running server, and the file that its app writes down whom it served."""

    site: ResourceUrl
    served: Path

    def whom(self) -> set[str]:
        """Whom the app has served until now."""
        return set(self.served.read_text().split())


@contextmanager
def serving(server: str, directory: Path, environment: Mapping[str, str]) -> Iterator[Serving]:
    """The server as long as the block lasts; ``environment`` holds the settings."""
    served = directory / "served"
    served.touch()
    command = COMMANDS[server]
    with _reserved(listens="FD" in " ".join(command)) as reserved:
        port = reserved.getsockname()[1]
        words = [word.replace("FD", str(reserved.fileno())).replace("PORT", str(port)) for word in command]
        app = f"{APP}()" if server == "hypercorn" else APP
        process = subprocess.Popen(
            [*PYTHON, "-m", *words, app],
            cwd=ROOT,
            env={**os.environ, **environment, SERVED: str(served)},
            pass_fds=[reserved.fileno()],
        )
        try:
            if server == "granian":
                _wait_for(process, port)
            yield Serving(ResourceUrl("127.0.0.1", port, "/"), served)
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def _reserved(*, listens: bool) -> Iterator[socket.socket]:
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        if listens:
            reserved.listen(256)
        yield reserved


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    """Until somebody listens: that server takes no socket that is open already, and does not say when its own is."""
    while process.poll() is None:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        os.sched_yield()
    raise AssertionError("The server did not start; its output stands above.")
