"""Simulate a distant server: a TCP proxy in a process of its own that delays everything it forwards.

    python -m benchmarks.distance SOCKET ONE_WAY_US

Prints its port, and serves until its input ends. It uses threads that sleep, because an event loop's timers are too
coarse: epoll counts in milliseconds.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def away(server: Path, one_way_us: int) -> Iterator[int]:
    """Yield a port that leads to the server on a Unix socket with that delay, while the block runs."""
    command = [sys.executable, "-m", "benchmarks.distance", str(server), str(one_way_us)]
    with subprocess.Popen(command, cwd=Path(__file__).parent.parent, stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def serve(server: str, one_way_s: float) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        while True:
            near, _ = listening.accept()
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            far = socket.socket(socket.AF_UNIX)
            far.connect(server)
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=pump, args=(source, target, one_way_s), daemon=True).start()


def pump(source: socket.socket, target: socket.socket, one_way_s: float) -> None:
    """Forward each piece of data after the delay, and then the end of the stream."""
    with suppress(OSError):
        while piece := source.recv(65536):
            time.sleep(one_way_s)
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    threading.Thread(target=serve, args=(sys.argv[1], int(sys.argv[2]) / 1e6), daemon=True).start()
    sys.stdin.read()
