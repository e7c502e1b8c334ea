"""The interpreter that processes are forked from: ``python -m tests.support.warm_server``, with a socket as its stdin.

It imports what they need when the first one is asked for, and ends when the process that started it is gone.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import io
import marshal
import os
import runpy
import select
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODULES = (
    *("smarter_auth_mw.cli", "smarter_auth_mw.engine.assembly", "smarter_auth_mw.postgres.pool"),
    *("smarter_auth_mw.postgres.store", "smarter_auth_mw.gate.forward_auth", "uvicorn", "uvicorn.main"),
    *("uvicorn.protocols.http.httptools_impl", "uvicorn.protocols.http.h11_impl"),
    *("uvicorn.supervisors", "uvloop", "websockets", "fastapi", "starlette.routing"),
)
"""What most of the processes import."""
OF_THE_INTERPRETER = ("PYTHON", "LC_", "LANG")
"""Variables that an interpreter reads when it starts: one with other values is needed if they are others."""
ROOT = str(Path(__file__).parents[2])
FREELY = {"PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}
HIGH = 512
"""Descriptors from here on are nobody's."""


def _read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(OF_THE_INTERPRETER) and name not in FREELY and (name, value) != ("PYTHONPATH", ROOT)
    }


_OURS = _read_at_start(os.environ)


@dataclass(frozen=True, slots=True)
class Order:
    """What to run, and in what; ``descriptors`` by the numbers that the process has them under."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str
    descriptors: dict[int, int]

    @property
    def can_be_forked(self) -> bool:
        """Whether an interpreter that has started already can do it."""
        first = self.arguments[0] if self.arguments else ""
        return (first == "-m" or first.endswith(".py")) and _read_at_start(self.environment) == _OURS


def main() -> None:
    """Fork until the parent is gone; in the processes that are forked, run what was asked for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests.
    listening, parent = socket.socket(fileno=os.dup(0)), os.pidfd_open(os.getppid())
    while listening.fileno() in _ready(listening.fileno(), parent):
        connection, _ = listening.accept()
        _import()
        _reap()
        if os.fork() == 0:
            order = _received(connection)
            _fork(connection, order)
            for one in (connection, listening):
                one.detach()  # Their descriptors will be others'.
            return _run(order)
        connection.close()
    return None


def _received(connection: socket.socket) -> Order:
    size, descriptors, _, _ = socket.recv_fds(connection, 4, HIGH)
    with connection.makefile("rb") as stream:
        arguments, environment, folder, numbers = marshal.loads(stream.read(int.from_bytes(size, "big")))
    return Order(arguments, environment, folder, dict(zip(numbers, descriptors, strict=True)))


def _fork(connection: socket.socket, order: Order) -> None:
    """Return in a process for the order; the one that it is forked from says how it ends, and never returns."""
    if not order.can_be_forked:
        connection.sendall(bytes(4))
        os._exit(0)
    child = os.fork()
    if child == 0:
        return
    for descriptor in order.descriptors.values():
        os.close(descriptor)
    with suppress(OSError):
        connection.sendall(child.to_bytes(4, "big"))
    ended = os.pidfd_open(child)
    if ended not in _ready(ended, connection.fileno()):
        os.kill(child, signal.SIGKILL)  # Who asked was killed.
    _, status = os.waitpid(child, 0)
    with suppress(OSError):
        connection.sendall(status.to_bytes(4, "big"))
    os._exit(0)


def _import() -> None:
    if MODULES[-1] not in sys.modules:
        for name in MODULES:
            importlib.import_module(name)
        gc.collect()
        gc.freeze()


def _ready(*descriptors: int) -> list[int]:
    """Wait until one of them can be read from, and return those that can."""
    return select.select(descriptors, [], [])[0]


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _run(order: Order) -> None:
    """Be as a process is that was started like this, and run what was asked for."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(order.folder)
    os.environ.clear()
    os.environ.update(order.environment)
    sys.dont_write_bytecode = bool(order.environment.get("PYTHONDONTWRITEBYTECODE"))
    aside = {number: fcntl.fcntl(old, fcntl.F_DUPFD_CLOEXEC, HIGH) for number, old in order.descriptors.items()}
    os.closerange(0, HIGH)
    for number, descriptor in aside.items():
        os.dup2(descriptor, number)
        os.close(descriptor)
    is_unbuffered = bool(order.environment.get("PYTHONUNBUFFERED"))
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        vars(sys)[name] = vars(sys)[f"__{name}__"] = (
            _stream(number, is_unbuffered=is_unbuffered) if number in aside else None
        )
    if "PYTHONPATH" in order.environment:
        sys.path.insert(1, ROOT)
    first, *rest = order.arguments
    if first == "-m":
        sys.argv, sys.path[0] = rest, order.folder
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = order.arguments, str(Path(first).resolve().parent)
        runpy.run_path(first, run_name="__main__")


def _stream(number: int, *, is_unbuffered: bool) -> io.TextIOWrapper:
    """Return a standard stream as the interpreter makes it."""
    old = (sys.__stdin__, sys.__stdout__, sys.__stderr__)[number]
    assert old is not None
    if number == 0:
        return io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), old.encoding, old.errors)
    raw: Any = io.FileIO(number, "w", closefd=False)
    if is_unbuffered:
        return io.TextIOWrapper(raw, old.encoding, old.errors, write_through=True)
    is_line_buffered = number == 2 or raw.isatty()
    return io.TextIOWrapper(io.BufferedWriter(raw), old.encoding, old.errors, line_buffering=is_line_buffered)


if __name__ == "__main__":
    main()
