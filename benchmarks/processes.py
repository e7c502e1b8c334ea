"""Server processes of the benchmarks, each on a port of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parent.parent
END_S = 60
"""The time within which a server must end."""


@contextmanager
def running(
    command: Sequence[str], port: int, environment: Mapping[str, str], *, cwd: Path = ROOT, is_quiet: bool = False
) -> Iterator[int]:
    """Run a server while the block runs; yields its process id as soon as it accepts connections on this port."""
    output = subprocess.DEVNULL if is_quiet else None
    process = subprocess.Popen(command, cwd=cwd, env=os.environ | environment, stdout=output, stderr=output)
    try:
        _wait_for(process, port)
        yield process.pid
    finally:
        process.terminate()
        process.wait(END_S)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    while process.poll() is None:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.02)
    raise SystemExit(f"{process.args!r} did not start; what it said stands above.")
