"""Processes of Python that begin warm: forked from an interpreter that has imported what they need.

A fresh ``smarter-auth`` imports for half a second before it does anything, and the suite starts hundreds of them. A
fork of one that has imported it takes a few milliseconds, and is a process like any other: with arguments, environment,
folder, descriptors, signals and an exit code of its own. Where the start itself is tested (what is imported, options of
the interpreter), use ``sys.executable``.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from tests.support.warm_start import SOCKET

PYTHON = [sys.executable, "-IS", str(Path(__file__).with_name("warm_start.py"))]
"""In place of ``sys.executable``."""
if sys.platform != "linux":
    PYTHON = [sys.executable]


PROGRAMS = {"smarter-auth": "-m smarter_auth_mw", "uvicorn": "-m uvicorn", "python": ""}
"""What people type, and what starts it."""


def programs() -> Path:
    """Return the folder of these programs."""
    return Path(os.environ[SOCKET]).parent


def _write_program(path: Path, module: str) -> None:
    path.write_text(f'#!/bin/sh\nexec {shlex.join(PYTHON)} {module} "$@"\n')
    path.chmod(0o755)


@contextmanager
def interpreter(folder: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the interpreter, with options of its own, and with its socket in the folder, as long as the block lasts."""
    command = [sys.executable, *options, "-m", "tests.support.warm_server"]
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket"))
        listening.listen()
        server = subprocess.Popen(command, stdin=listening.fileno(), cwd=Path(__file__).parents[2])
    # It alone listens: if it ends, nobody does, and processes start cold.
    with server:
        yield server
        server.terminate()


STRICT = ["-X", "dev", "-W", "error", "-W", "ignore:Using `httpx`"]
"""Options with which an interpreter reports whatever nobody closes or awaits."""


@pytest.fixture(scope="module")
def strict_python() -> Iterator[list[str]]:
    """In place of ``sys.executable`` with these options: forked from an interpreter that has them."""
    if sys.platform != "linux":
        yield [sys.executable, *STRICT]
        return
    with tempfile.TemporaryDirectory() as directory, interpreter(Path(directory), *STRICT):
        yield ["env", f"{SOCKET}={directory}/socket", *PYTHON]


@pytest.fixture(scope="session", autouse=True)
def warm() -> Iterator[None]:
    """The interpreter of this session."""
    with tempfile.TemporaryDirectory() as directory:
        os.environ[SOCKET] = f"{directory}/socket"
        for name, module in PROGRAMS.items():
            _write_program(Path(directory, name), module)
        with interpreter(Path(directory)) if sys.platform == "linux" else nullcontext():
            yield
