"""Addresses to listen on."""

from __future__ import annotations

import socket
from itertools import chain

from smarter_auth_mw.errors import UnavailableError

ALTERNATIVES = 20


def bound(host: str, port: int) -> socket.socket:
    """A listening socket; raises UnavailableError."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()  # Only this tells for sure: two may bind one address, and one may listen.
    except OSError as error:
        listener.close()
        raise UnavailableError(
            f"{host}:{port} cannot be listened on: {error.strerror}.", hint="Take another one: --port, --host."
        ) from None
    return listener


def bound_nearby(host: str, port: int) -> socket.socket:
    """The same at one of the ports that follow where this one is taken, or at any that is free."""
    for candidate in chain(range(port, min(port + ALTERNATIVES, 65536)), [0]):
        try:
            return bound(host, candidate)
        except UnavailableError as error:
            last = error
    raise last
