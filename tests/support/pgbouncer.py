"""A real PgBouncer in front of a PostgreSQL."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.programs import find, libraries
from tests.support.cli import EXAMPLES
from tests.support.plain_postgres import OWNER, PASSWORD, RUNTIME, PlainPostgres, hand_over, server_user
from tests.support.proxy import running
from tests.support.valkey import free_port

CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = {mode}
default_pool_size = {size}
{more}
"""


@contextmanager
def shipped_pgbouncer(server: PlainPostgres, url: str) -> Iterator[int]:
    """The same with the configuration that we ship, for the database of that URL: its port."""
    port, shipped = free_port(), EXAMPLES.joinpath("pgbouncer", "pgbouncer.ini").read_text()
    with tempfile.TemporaryDirectory(prefix="pgbouncer") as place:
        users = Path(place, "users.txt")
        for old, new in (
            ("smarter_auth = host=postgres port=5432", f"{urlsplit(url).path[1:]} = host=127.0.0.1 port={server.port}"),
            ("0.0.0.0", "127.0.0.1"),
            ("6432", str(port)),
            ("/etc/pgbouncer/users.txt", str(users)),
        ):
            assert old in shipped
            shipped = shipped.replace(old, new)
        with _running(Path(place), users, shipped, port):
            yield port


@contextmanager
def _running(directory: Path, users: Path, text: str, port: int, program: str = "pgbouncer") -> Iterator[None]:
    users.write_text(f'"{RUNTIME}" "{PASSWORD}"\n"{OWNER}" "{PASSWORD}"\n')
    (configuration := directory / "pgbouncer.ini").write_text(text)
    for path in (directory, users, configuration):
        hand_over(path)
    with running(
        [find(program), "--quiet", configuration],
        port,
        libraries(program),
        directory,
        user=server_user(),
        speaks_http=False,
    ):
        yield


@contextmanager
def pgbouncer(
    server: PlainPostgres,
    mode: str,
    *,
    size: int = 4,
    more: str = "",
    port: int | None = None,
    program: str = "pgbouncer",
) -> Iterator[int]:
    """Its port, for as long as the block lasts; it has at most ``size`` connections to a database."""
    port = port or free_port()
    with tempfile.TemporaryDirectory(prefix="pgbouncer") as place:
        users = Path(place, "users.txt")
        text = CONFIGURATION.format(server=server.port, port=port, users=users, mode=mode, size=size, more=more)
        with _running(Path(place), users, text, port, program):
            yield port


def through(url: str, port: int) -> str:
    """The same database through PgBouncer."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}").geturl()
