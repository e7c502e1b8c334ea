"""A program in place of ``python``: ``python -IS warm_start.py [-m MODULE | FILE] …`` is forked where that is possible.

It passes its arguments, environment, folder and open descriptors on to the interpreter of :mod:`tests.support.warm`,
and signals to the process that this forks. It ends as the process ends, and the process ends with it. What needs an
interpreter of its own gets one. It imports next to nothing, to start in a few milliseconds.
"""

from __future__ import annotations

import _socket
import array
import marshal
import os
import signal
import sys

SOCKET = "TESTS_WARM"
"""The variable that names the interpreter's socket."""
PASSED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def main() -> None:
    """Run the arguments."""
    early: list[int] = []
    before = {number: signal.signal(number, lambda got, _: early.append(got)) for number in PASSED}
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    child = _forked(connection)
    if not child:
        connection.close()
        for number, handler in before.items():
            signal.signal(number, handler)
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
    for number in PASSED:
        signal.signal(number, lambda got, _: os.kill(child, got))
    for missed in early:
        os.kill(child, missed)
    _end_as(int.from_bytes(connection.recv(4), "big"))


def _forked(connection: _socket.socket) -> int:
    """Return the pid of the process, or 0 if it needs an interpreter of its own."""
    descriptors = [number for number in map(int, os.listdir("/proc/self/fd")) if _is_inherited(number, connection)]
    order = marshal.dumps((sys.argv[1:], dict(os.environ), os.getcwd(), descriptors))
    try:
        connection.connect(os.environ.get(SOCKET, ""))
        ours = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", descriptors))]
        connection.sendmsg([len(order).to_bytes(4, "big")], ours)
        connection.sendall(order)
        return int.from_bytes(connection.recv(4), "big")
    except OSError:  # Nobody is there, or it belongs to somebody else.
        return 0


def _is_inherited(number: int, connection: _socket.socket) -> bool:
    try:
        os.fstat(number)
    except OSError:  # The one that the folder was listed by.
        return False
    return number != connection.fileno()


def _end_as(status: int) -> None:
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
