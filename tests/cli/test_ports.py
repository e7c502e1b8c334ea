"""Listening sockets: whatever accepts on them, answers go out without delay."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from smarter_auth_mw.cli.ports import address, bound, bound_nearby, inherited
from smarter_auth_mw.errors import UsageError


def handed_over() -> socket.socket:
    """A socket as systemd makes it."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        return inherited(made.fileno())


@pytest.mark.parametrize("make", [lambda: bound("127.0.0.1", 0), lambda: bound_nearby("127.0.0.1", 0), handed_over])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_what_is_accepted_sends_at_once(make: Callable[[], socket.socket], family: int) -> None:
    """Servers take an inherited socket for one in the file system, whose connections asyncio leaves as they are."""
    with make() as made, socket.socket(family, fileno=os.dup(made.fileno())) as same, accepted(same) as connection:
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@contextmanager
def accepted(listening: socket.socket) -> Iterator[socket.socket]:
    with socket.create_connection(listening.getsockname()), listening.accept()[0] as connection:
        yield connection


def test_a_bound_socket_says_that_it_is_tcp() -> None:
    """asyncio switches the delay off for a socket with this protocol number, and for no other."""
    with bound("127.0.0.1", 0) as listening, accepted(listening) as connection:
        assert (listening.proto, connection.proto) == (socket.IPPROTO_TCP, socket.IPPROTO_TCP)


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_an_address_is_shown_as_a_url(host: str, shown: str) -> None:
    with bound(host, 0) as listening:
        assert address(listening) == f"http://{shown}:{listening.getsockname()[1]}"


def test_a_socket_in_the_file_system_is_taken_and_shown_by_its_path(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "gate.sock"))
        made.listen()
        with inherited(made.fileno()) as listening:
            assert address(listening) == f"unix socket {tmp_path}/gate.sock"


def test_a_descriptor_that_is_no_listening_socket_is_refused_with_what_to_do() -> None:
    with open(os.devnull) as file, pytest.raises(UsageError, match=f"--fd {file.fileno()} is not a socket"):
        inherited(file.fileno())
    with pytest.raises(UsageError, match="--fd 4000 is not a socket: Bad file descriptor"):
        inherited(4000)
    one, other = socket.socketpair()
    with one, other, pytest.raises(UsageError, match="is not a listening socket") as refused:
        inherited(one.fileno())
    assert "--fd 3" in refused.value.hint
