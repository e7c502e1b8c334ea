"""The PostgreSQL from a wheel: started for its first user process, stopped after the last one.

`DATABASE_URL=embedded:` or `embedded:///DIR`. Any number of processes may use one directory at once.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import quote, unquote

from smarter_auth_mw.errors import UsageError

if TYPE_CHECKING:
    from smarter_auth_mw.postgres.embedded.keeper import Server


def is_embedded(url: str) -> bool:
    """Return whether the URL asks for the embedded PostgreSQL."""
    return url.lower().startswith("embedded:")


def directory_of(url: str) -> Path | None:
    """Return the directory that an `embedded:` URL names, percent-decoded; None: the default one. Raises UsageError."""
    named = url.partition(":")[2]
    if is_embedded(url) and not named:
        return None
    directory = Path("/", unquote(named).lstrip("/"))
    if not (is_embedded(url) and named.startswith("///") and directory.name) or set("?#") & set(named):
        raise UsageError(
            "An embedded: URL names one directory, by its absolute path, or none",
            hint="Write embedded: for a directory of your own, or embedded:///DIR",
        )
    return directory


def place_of(url: str) -> Path:
    """Return the directory that holds the data of an `embedded:` URL's server. Raises UsageError."""
    _check_platform()
    from smarter_auth_mw.postgres.embedded.place import home_of

    return home_of(directory_of(url))


def check(url: str) -> None:
    """Raise UsageError or UnavailableError if this `embedded:` URL cannot work here, whatever its directory holds."""
    directory_of(url)
    _check_platform()
    from smarter_auth_mw.postgres.embedded.place import programs

    programs()


class Cluster:
    """This process's use of an embedded PostgreSQL; it ends with `stop`, or with the process.

    A process forked without exec uses it too, until it ends or calls `stop` itself. Safe to call from any thread.
    """

    def __init__(self, server: Server, users: int) -> None:
        self.home = server.home
        """The directory of all files; for root it differs from the requested directory."""
        self._socket_directory = server.socket_directory
        self._held = [(server, users)]

    @classmethod
    def start(cls, directory: Path | None = None, *, progress: Callable[[str], None] | None = None) -> Self:
        """Use the server of this directory (None: the default one), creating and starting it if necessary; blocks.

        Raises UsageError for a directory that cannot be used, UnavailableError if PostgreSQL does not start.
        """
        _check_platform()
        # Imported late, here and below: it needs fcntl and pwd, which some platforms lack.
        from smarter_auth_mw.postgres.embedded.setup import use

        return cls(*use(directory, progress or _silent))

    def stop(self) -> None:
        """Stop using the server; the last user's call returns when the server has stopped. Idempotent."""
        from smarter_auth_mw.postgres.embedded.setup import leave

        try:
            server, users = self._held.pop()
        except IndexError:
            return
        leave(server, users)

    def url(self, role: Literal["owner", "runtime"]) -> str:
        """Return the URL for asyncpg: over the UNIX socket, as the role that migrates or the one that serves."""
        host = quote(self._socket_directory)
        return f"postgresql://smarter_auth_{role}@/smarter_auth?host={host}&port=5432"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def _silent(message: str) -> None:
    """Report nothing."""


def _check_platform() -> None:
    if not (sys.platform == "darwin" or platform.libc_ver()[0] == "glibc"):
        raise UsageError(
            "The embedded PostgreSQL runs on Linux with glibc and on macOS",
            hint="Elsewhere use one of your own: SMARTER_AUTH_DATABASE_URL=postgresql://…",
        )
