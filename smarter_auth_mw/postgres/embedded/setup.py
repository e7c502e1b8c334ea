"""Sets up the embedded PostgreSQL: creates its data once and completely, configures it, starts it and its keeper."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smarter_auth_mw.errors import UnavailableError, UsageError
from smarter_auth_mw.postgres.embedded.keeper import PORT, START_S, Server, ServerError, attempts, lock, spawn, try_lock
from smarter_auth_mw.postgres.embedded.place import (
    ANOTHER_DATABASE,
    ANOTHER_DIRECTORY,
    Progress,
    check_socket_directory,
    hand_over,
    major,
    make_socket_directory,
    name_of,
    place,
)

DATABASE = "smarter_auth"
OWNER = "smarter_auth_owner"
"""The superuser of the embedded server, which migrates."""
RUNTIME = "smarter_auth_runtime"
"""The role of the running app: it may log in, and do what `db migrate --runtime-role` grants."""

_SQL = (f"CREATE ROLE {RUNTIME} LOGIN", f"CREATE DATABASE {DATABASE}")
_MAP = "smarter_auth"
_SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "huge_pages": "off",
    "io_method": "sync",  # no worker processes for a server as small as this
    "max_logical_replication_workers": "0",
    "fsync": "on",
    "min_wal_size": "32MB",
    "max_wal_size": "256MB",
    "cluster_name": "smarter_auth",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_checkpoints": "off",
    "log_min_error_statement": "panic",  # no text of a statement in the log, whatever it holds
    "timezone": "UTC",
    "log_timezone": "UTC",
}


def use(directory: Path | None, progress: Progress) -> tuple[Server, int]:
    """Start the server of this directory and return it with the lock that marks this process as a user.

    Raises UsageError, UnavailableError.
    """
    with _explained():
        server = place(directory, progress)
        server.make_locks()
        users = lock(server.users_lock, fcntl.LOCK_SH, START_S)
        try:
            _bring_up(server, progress)
        except BaseException:
            leave(server, users)
            raise
        return server, users


def leave(server: Server, users: int) -> None:
    """Release the lock, and stop the server if it was the last one; raises UnavailableError."""
    with _explained():
        os.close(users)
        for _ in attempts(START_S):
            if (alone := try_lock(server.users_lock)) is not None:
                _stop(server, alone)
                return
            if (shared := try_lock(server.users_lock, fcntl.LOCK_SH)) is not None:
                os.close(shared)
                return
            # Neither: the keeper, or another user that left, is stopping the server.


def _stop(server: Server, alone: int) -> None:
    try:
        server.stop()
    finally:
        os.close(alone)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except ServerError as error:
        raise UnavailableError("\n  ".join((error.message, *error.tail)), hint=ANOTHER_DATABASE) from error
    except OSError as error:
        what = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        raise UnavailableError(
            f"The embedded PostgreSQL cannot be used: {what}", hint=f"{ANOTHER_DIRECTORY}. Or: {ANOTHER_DATABASE}"
        ) from error


def _bring_up(server: Server, progress: Progress) -> None:
    for _ in attempts(START_S):
        if server.is_ready():
            check_socket_directory(server)
            return spawn(server, _python())  # the keeper has ended
        if (held := try_lock(server.server_lock)) is not None:
            return _start(server, held, progress)
    raise ServerError(f"PostgreSQL is not ready after {START_S:.0f} s")


def _start(server: Server, held: int, progress: Progress) -> None:
    try:
        make_socket_directory(server)
        _make_data(server, held, progress)
        _configure(server)
        # Before the server, so that the end of this process cannot leave a server without a keeper.
        spawn(server, _python())
    except BaseException:
        os.close(held)
        raise
    progress(f"Starting PostgreSQL in {server.home}")
    server.start(held)


def _python() -> str:
    """Return an interpreter for the keeper: this one, unless it is embedded in another program (uWSGI, mod_wsgi)."""
    own, prefix = Path(sys.executable or ""), Path(sys.base_prefix, "bin", "python3")
    found = str(own) if "python" in own.name else shutil.which(prefix) or shutil.which("python3")
    if found is None:
        raise UnavailableError("There is no python3 to run the embedded PostgreSQL", hint=ANOTHER_DATABASE)
    return found


def _make_data(server: Server, held: int, progress: Progress) -> None:
    """Create the data directory, with the roles and the database in it, unless it exists.

    It is created elsewhere and renamed, so it is either complete or missing. Raises ServerError.
    """
    if server.data.exists():
        _check_version(server)
        return
    progress(f"Creating a PostgreSQL of your own in {server.home}")
    fresh = server.home / "data.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    hand_over(fresh, server)
    locale = ("--encoding=UTF8", "--locale=C", "--no-instructions")
    server.run(server.program("initdb"), "-D", str(fresh), "-U", OWNER, "--auth=reject", *locale, inherit=(held,))
    single = ("--single", "-c", "exit_on_error=on", "-c", "log_checkpoints=off", "-D", str(fresh), "template1")
    server.run(server.program("postgres"), *single, text="\n".join((*_SQL, "")), inherit=(held,))
    fresh.rename(server.data)


def _check_version(server: Server) -> None:
    found, ours = _version(server.data), major(Path(server.programs).parent)
    if found != ours:
        raise UnavailableError(
            f"The data in {server.home} are PostgreSQL {found}'s, and the installed programs are PostgreSQL {ours}'s",
            hint=f"Move them with PostgreSQL {found}'s pg_dumpall, install the release that brings PostgreSQL {found}, "
            "or name a new directory: SMARTER_AUTH_DATABASE_URL=embedded:///DIR",
        )


def _version(data: Path) -> str:
    try:
        return (data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        raise UsageError(
            f"{data} is not a PostgreSQL data directory", hint=f"Restore it. Or: {ANOTHER_DIRECTORY}"
        ) from None


def _configure(server: Server) -> None:
    """Write the server's configuration, access rules and map of OS users, replacing the existing ones."""
    settings = _SETTINGS | {
        "data_directory": str(server.data),
        "hba_file": str(server.home / "pg_hba.conf"),
        "ident_file": str(server.home / "pg_ident.conf"),
        "unix_socket_directories": f'"{server.socket_directory}"',
    }
    _write(server.home / "postgresql.conf", "".join(f"{name} = {_quoted(value)}\n" for name, value in settings.items()))
    _write(server.home / "pg_hba.conf", f"local all all peer map={_MAP}\n")
    _write(server.home / "pg_ident.conf", "".join(f'{_MAP} "{name}" all\n' for name in _system_users(server)))


def _system_users(server: Server) -> list[str]:
    """Return the OS users that may connect, as any role: root, the directory's owner, and the server's user."""
    users = {0, server.home.stat().st_uid, os.geteuid() if server.uid is None else server.uid}
    return sorted(name_of(uid) for uid in users)


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o644)  # root's are read by the server's user
