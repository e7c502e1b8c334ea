"""Listening sockets: bound to an address, or inherited from the parent process."""

from __future__ import annotations

import socket
from contextlib import suppress
from itertools import chain

from smarter_auth_mw.errors import UnavailableError, UsageError

ALTERNATIVES = 20
INTERNET = (socket.AF_INET, socket.AF_INET6)


def listener(host: str, port: int, fd: int | None = None) -> socket.socket:
    """Return the listening socket that the descriptor names, or one that is bound to the address."""
    return bound(host, port) if fd is None else inherited(fd)


def bound(host: str, port: int) -> socket.socket:
    """Return a listening socket at the address; raises UnavailableError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio leaves Nagle's algorithm on if the protocol number is missing, which delays each request by 40 ms.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen()  # Only this detects every conflict: several sockets may bind an address, only one may listen.
    except OSError as error:
        made.close()
        raise UnavailableError(
            f"Cannot listen on {host}:{port}: {error.strerror}.", hint="Choose another: --port, --host."
        ) from None
    return _without_delay(made)


def bound_nearby(host: str, port: int) -> socket.socket:
    """Return a listening socket at the port, or at one of the next ports, or at any free port."""
    for candidate in chain(range(port, min(port + ALTERNATIVES, 65536)), [0]):
        try:
            return bound(host, candidate)
        except UnavailableError as error:
            last = error
    raise last


def inherited(fd: int) -> socket.socket:
    """Return the listening socket of a file descriptor, as systemd passes it; raises UsageError."""
    hint = "A service manager passes a listening socket: with systemd it is --fd 3, and Accept=no in the socket unit."
    try:
        # A duplicate, which can be closed independently of the descriptor.
        given = socket.socket(fileno=socket.dup(fd))
    except OSError as error:
        raise UsageError(f"--fd {fd} is not a socket: {error.strerror}.", hint=hint) from None
    if given.type != socket.SOCK_STREAM or _is_connected(given):
        given.close()
        raise UsageError(f"--fd {fd} is not a listening socket.", hint=hint)
    return _without_delay(given)


def address(listening: socket.socket) -> str:
    """Return the URL of a listening socket, or its path in the file system."""
    name = listening.getsockname()
    if listening.family not in INTERNET:
        return f"unix socket {name if isinstance(name, str) else name.decode(errors='replace')}"
    host = f"[{name[0]}]" if listening.family == socket.AF_INET6 else name[0]
    return f"http://{host}:{name[1]}"


def _is_connected(given: socket.socket) -> bool:
    with suppress(OSError):
        given.getpeername()
        return True
    return False


def _without_delay(listening: socket.socket) -> socket.socket:
    """Set TCP_NODELAY, which accepted connections inherit, whatever the server does."""
    if listening.family in INTERNET:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
