"""A gate that is restarted behind nginx, while clients go on asking: nobody is refused meanwhile."""

from __future__ import annotations

import os
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event

import httpx
import pytest

from tests.programs import find, libraries
from tests.support.cli import PROGRAM
from tests.support.database import Database
from tests.support.proxy import (
    COMMANDS,
    PATIENCE_S,
    Ports,
    running,
    service,
    wait_for,
    write_configuration,
)
from tests.support.sloppy_app import SERVED
from tests.support.valkey import free_port

CLIENTS = 4
PAUSE_S = 0.01
"""Between an answer and the next request while the gate starts, which needs the processor too."""
AFTERWARDS = 50
"""How many requests each client sends at least once the gate is up again."""


@pytest.fixture
def environment(database: Database) -> dict[str, str]:
    find("nginx")
    return {
        **os.environ,
        "SMARTER_AUTH_DATABASE_URL": database.runtime,
        "SMARTER_AUTH_ROUTES": "bot /bots/{ref:int}",
        "SMARTER_AUTH_TRUSTED_PROXIES": "127.0.0.1",
    }


class Gate:
    """A gate that can be restarted as a service manager does it: it ends, and another one begins."""

    def __init__(self, port: int, environment: Mapping[str, str], fd: int | None = None) -> None:
        self._port, self._environment, self._fd = port, environment, fd
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        where = ["--port", str(self._port)] if self._fd is None else ["--fd", str(self._fd)]
        kept = [] if self._fd is None else [self._fd]
        gate = subprocess.Popen([*PROGRAM, "gate", *where], env=self._environment, pass_fds=kept)
        wait_for(gate, self._port, speaks_http=True)
        return gate

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE_S)

    def restart(self) -> None:
        self.stop()
        self._process = self._start()


def restart_in_turn(gates: Sequence[Gate]) -> None:
    for gate in gates:
        gate.restart()


@contextmanager
def behind_nginx(directory: Path, ports: Ports, changes: list[tuple[str, str]]) -> Iterator[str]:
    """The shipped configuration of nginx in front of a service; gives the URL of an open resource."""
    write_configuration("nginx", directory, ports, changes)
    (directory / "served").touch()
    with (
        running(service(ports.service), ports.service, {SERVED: str(directory / "served")}),
        running(COMMANDS["nginx"](directory), ports.proxy, libraries("nginx"), directory),
    ):
        yield f"http://127.0.0.1:{ports.proxy}/bots/2"


def statuses_during(url: str, restart: Callable[[], None]) -> Counter[int]:
    """What clients are answered that ask one request after another until the restart is well over."""
    is_over = Event()

    def ask() -> Counter[int]:
        seen: Counter[int] = Counter()
        left = AFTERWARDS
        with httpx.Client(timeout=PATIENCE_S) as client:
            while left:
                left -= is_over.is_set()
                seen[client.get(url).status_code] += 1
                is_over.wait(PAUSE_S)
        return seen

    with ThreadPoolExecutor(CLIENTS) as pool:
        asked = [pool.submit(ask) for _ in range(CLIENTS)]
        try:
            restart()
        finally:
            is_over.set()
        return sum((one.result() for one in asked), Counter[int]())


def test_a_gate_on_a_socket_of_its_manager_is_restarted_without_a_gap(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as kept, ExitStack() as stack:
        ports = Ports(free_port(), kept.getsockname()[1], free_port())
        gate = Gate(ports.gate, environment, kept.fileno())
        stack.callback(gate.stop)
        with behind_nginx(tmp_path, ports, []) as url:
            seen = statuses_during(url, gate.restart)
    assert set(seen) == {200}, seen
    assert seen.total() > CLIENTS * AFTERWARDS


def test_two_gates_are_restarted_in_turn_without_a_gap(environment: dict[str, str], tmp_path: Path) -> None:
    ports, second = Ports(free_port(), free_port(), free_port()), free_port()
    one = f"server 127.0.0.1:{ports.gate};"
    with ExitStack() as stack:
        gates = [Gate(port, environment) for port in (ports.gate, second)]
        for gate in gates:
            stack.callback(gate.stop)
        both = " ".join(f"server 127.0.0.1:{port} max_fails=0;" for port in (ports.gate, second))
        with behind_nginx(tmp_path, ports, [(one, both)]) as url:
            seen = statuses_during(url, lambda: restart_in_turn(gates))
    assert set(seen) == {200}, seen
    assert seen.total() > CLIENTS * AFTERWARDS
