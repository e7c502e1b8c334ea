"""A real PgBouncer in front of a PostgreSQL."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.plain_postgres import PASSWORD, RUNTIME, PlainPostgres, hand_over, server_user
from tests.programs import find, libraries
from tests.proxy_support import running
from tests.valkey_support import free_port

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
def pgbouncer(server: PlainPostgres, mode: str, *, size: int = 4, more: str = "") -> Iterator[int]:
    """Its port, for as long as the block lasts; it has at most ``size`` connections to a database."""
    program = find("pgbouncer")
    with tempfile.TemporaryDirectory(prefix="pgbouncer") as place:
        directory, port = Path(place), free_port()
        users, configuration = directory / "users.txt", directory / "pgbouncer.ini"
        users.write_text(f'"{RUNTIME}" "{PASSWORD}"\n')
        configuration.write_text(
            CONFIGURATION.format(server=server.port, port=port, users=users, mode=mode, size=size, more=more)
        )
        for path in (directory, users, configuration):
            hand_over(path)
        with running(
            [program, "--quiet", configuration],
            port,
            libraries("pgbouncer"),
            directory,
            user=server_user(),
            speaks_http=False,
        ):
            yield port


def through(url: str, port: int) -> str:
    """The same database through PgBouncer."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}").geturl()
