"""One PostgreSQL server in one directory: its locks, start and stop, and the process that keeps it running.

Three files are locked with `flock`, which the kernel releases however a process ends:

* `users.lock`, shared by every process that uses the server; the process that holds it exclusively may stop the server.
* `server.lock`, inherited by the postmaster and all its children: while it is held, some process of the server is
  left. (A pid in a file does not prove that: pids are reused, most quickly in a restarted container.)
* `keeper.lock`, held by the keeper: the detached process that stops a server whose users are gone, and restarts one
  that died before. A keeper that was killed is replaced at once by its relief, a waiting shell, or by the next
  `Cluster.start`; `Cluster.stop` does not need it.

The keeper runs this file by its path (`python -I -S embedded_keeper.py SERVER`), whatever the user's import path is,
so this module uses only the standard library.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from socket import AF_UNIX, socket
from typing import BinaryIO

PORT = 5432
START_S = 120.0
"""The deadline of a start, which includes creating the data directory or recovery after a crash."""
_TICK_S = 0.02
_KEEPER_TICK_S = 0.25
_TAKE_OVER_S = 5.0
"""How long a relief tries to lock what the last keeper had locked."""
_LONGEST_PAUSE_S = 30.0
"""The longest pause between two attempts to restart a server that does not start."""
_LOG_BYTES = 10_000_000
_TAIL_LINES = 8
_LITTLE_ROOM = 100_000_000
_ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/bin:/bin"}
"""The environment of the server's programs: neither PG* variables nor secrets of the process that starts them."""
_STOPPING = (("INT", 30.0), ("QUIT", 10.0), ("KILL", 10.0))
"""The signals to stop with: PostgreSQL's fast and immediate shutdown, then KILL; each with its timeout in seconds."""


class ServerError(Exception):
    """A program of the server failed; `tail` holds the last lines that it wrote to the log."""

    def __init__(self, message: str, tail: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.tail = tuple(tail)


def attempts(seconds: float) -> Iterator[None]:
    """Yield at once, then again and again until the time is over."""
    deadline = time.monotonic() + seconds
    yield
    while time.monotonic() < deadline:
        time.sleep(_TICK_S)
        yield


def try_lock(path: Path, how: int = fcntl.LOCK_EX) -> int | None:
    """Lock the file and return its descriptor, or None if another process holds it.

    The file must exist: a keeper that created it would interfere with a process that removes the directory. The lock
    ends when the last copy of the descriptor is closed, never by LOCK_UN: a process forked without exec shares it, and
    counts as a holder of its own until it ends or closes its copy. An exec closes it (PEP 446).
    """
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def lock(path: Path, how: int, seconds: float) -> int:
    """Lock the file, waiting for others; raise ServerError when they take too long."""
    for _ in attempts(seconds):
        if (descriptor := try_lock(path, how)) is not None:
            return descriptor
    raise ServerError(f"{path} is still locked by another process after {seconds:.0f} s")


@dataclass(frozen=True)
class Server:
    """The directories and the owner of a server; `uid` and `gid` are set only if root runs it as another user."""

    directory: str
    socket_directory: str
    programs: str
    uid: int | None = None
    gid: int | None = None

    @property
    def home(self) -> Path:
        return Path(self.directory)

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def socket(self) -> Path:
        return Path(self.socket_directory, f".s.PGSQL.{PORT}")

    @property
    def log(self) -> Path:
        return self.home / "server.log"

    def make_locks(self) -> None:
        """Create the lock files, the users' first, which marks the directory as ours."""
        for path in (self.users_lock, self.server_lock, self.keeper_lock):
            path.touch(mode=0o600)

    @property
    def users_lock(self) -> Path:
        return self.home / "users.lock"

    @property
    def server_lock(self) -> Path:
        return self.home / "server.lock"

    @property
    def keeper_lock(self) -> Path:
        return self.home / "keeper.lock"

    def program(self, name: str) -> str:
        return str(Path(self.programs) / name)

    def open_log(self) -> BinaryIO:
        """Open the log for appending; programs that inherit the descriptor append too."""
        return os.fdopen(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")

    def run(self, *command: str, text: str = "", inherit: Sequence[int] = ()) -> None:
        """Run a program as the server's user, its output to the log; raise ServerError when it fails."""
        with self.open_log() as log:
            written = log.tell()
            done = subprocess.run(  # noqa: S603
                command,
                input=text.encode(),
                stdout=log,
                stderr=log,
                env=_ENVIRONMENT,
                cwd="/",
                user=self.uid,
                group=self.gid,
                extra_groups=None if self.uid is None else [],
                start_new_session=True,  # Ctrl-C in a terminal is for the user's process, not for the server
                pass_fds=inherit,
                check=False,
            )
        if done.returncode:
            raise ServerError(f"{Path(command[0]).name} failed", self.tail(written))

    def tail(self, start: int) -> list[str]:
        """Return the last lines of the log, from this byte on, and what a full disk may have kept out of it."""
        with self.log.open("rb") as log:
            log.seek(start)
            lines = log.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
        free = shutil.disk_usage(self.home).free
        return lines if free > _LITTLE_ROOM else [*lines, f"{self.home} has only {free} bytes of free space"]

    def start(self, held: int) -> None:
        """Start the postmaster and wait until it answers; `held`, the server's lock, passes into its hands.

        Raises ServerError.
        """
        try:
            written = self.log.stat().st_size if self.log.exists() else 0
            # The lock was free, so no process of an earlier server is left, whatever these files say.
            for stale in (self.data / "postmaster.pid", self.socket, Path(f"{self.socket}.lock")):
                stale.unlink(missing_ok=True)
            postmaster = (self.program("postgres"), "-D", self.directory)
            self.run("/bin/sh", "-c", '"$0" "$@" &', *postmaster, inherit=(held,))
        finally:
            os.close(held)
        self._await(written)

    def _await(self, written: int) -> None:
        for _ in attempts(START_S):
            if self.is_ready():
                return
            if (descriptor := try_lock(self.server_lock)) is not None:
                os.close(descriptor)
                raise ServerError("PostgreSQL did not start", self.tail(written))
        raise ServerError(f"PostgreSQL is not ready after {START_S:.0f} s", self.tail(written))

    def is_ready(self) -> bool:
        """Return whether it accepts connections: its status file says so, and a connection succeeds."""
        with suppress(OSError), socket(AF_UNIX) as client:
            if self._pid_file()[7:8] == ["ready"]:
                client.connect(str(self.socket))
                return True
        return False

    def _pid_file(self) -> list[str]:
        try:
            text = (self.data / "postmaster.pid").read_text(errors="replace")
        except FileNotFoundError:
            return []
        return [line.strip() for line in text.splitlines()]

    def stop(self) -> None:
        """Stop the server, wait until its last process is gone, and leave nothing behind; raise ServerError."""
        if not any(self._is_gone_after(signal, patience_s) for signal, patience_s in _STOPPING):
            raise ServerError("PostgreSQL does not stop")
        if self.socket.parent.parent != self.home:
            with suppress(OSError):
                self.socket.parent.rmdir()

    def _is_gone_after(self, signal: str, patience_s: float) -> bool:
        signalled = None
        for _ in attempts(patience_s):
            if (descriptor := try_lock(self.server_lock)) is not None:
                os.close(descriptor)
                return True
            pid = next(iter(self._pid_file()), None)
            if pid != signalled:
                self._signal(signal, pid)
                signalled = pid
        return False

    def _signal(self, signal: str, pid: str | None) -> None:
        # Drop root's rights first: the pid in the server's file must not be trusted with them.
        with suppress(ServerError):
            self.run("/bin/sh", "-c", 'kill -s "$0" "$1"', signal, str(pid))


def spawn(server: Server, python: str) -> None:
    """Start the keeper of this server, unless there is one; raise ServerError."""
    if (keeper := try_lock(server.keeper_lock)) is None:
        return
    with server.open_log() as log:
        written = log.tell()
        try:
            done = subprocess.run(  # noqa: S603
                [python, "-I", "-S", __file__, json.dumps(asdict(server)), str(keeper)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_ENVIRONMENT | {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
                cwd="/",
                start_new_session=True,
                pass_fds=(keeper,),
                check=False,
            )
        finally:
            os.close(keeper)
    if done.returncode:
        raise ServerError("the keeper of PostgreSQL did not start", server.tail(written))


class Relief:
    """A shell that becomes the next keeper when this one dies unexpectedly."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._shell: subprocess.Popen[bytes] | None = None

    def post(self) -> None:
        """Start it unless it is running."""
        if self._shell is None or self._shell.poll() is not None:
            relieve = [sys.executable, "-I", "-S", __file__, json.dumps(asdict(self._server))]
            # The kernel closes our end of the pipe however this process ends: then read fails.
            self._shell = subprocess.Popen(  # noqa: S603
                ["/bin/sh", "-c", 'read -r goodbye || exec "$0" "$@"', *relieve], stdin=subprocess.PIPE
            )

    def dismiss(self) -> None:
        """Let it end."""
        if self._shell is not None:
            with suppress(OSError):
                self._shell.communicate(b"goodbye\n")


def keep(server: Server, keeper: int) -> None:
    """Stop the server when its last user is gone, start it again when it dies before; then return."""
    relief = Relief(server)
    pause_s = due = 0.0
    while (alone := try_lock(server.users_lock)) is None:
        if time.monotonic() >= due:
            pause_s = 0.0 if _revive(server) else min(2 * pause_s + _KEEPER_TICK_S, _LONGEST_PAUSE_S)
            due = time.monotonic() + pause_s
        with suppress(OSError):
            _rotate(server.log)
        relief.post()
        time.sleep(_KEEPER_TICK_S)
    server.stop()
    relief.dismiss()
    os.close(keeper)  # before the users' lock: its next holder must not find a keeper that is about to end
    os.close(alone)


def _revive(server: Server) -> bool:
    """Start the server if it is dead and has users; return whether all is in order now."""
    if not server.data.exists() or (held := try_lock(server.server_lock)) is None:
        return True
    if not _is_used(server):
        os.close(held)
        return True
    try:
        server.start(held)
    except (ServerError, OSError) as error:
        print(f"keeper: {error}", file=sys.stderr, flush=True)  # noqa: T201
        return False
    return True


def _is_used(server: Server) -> bool:
    """Return whether the server has users, none of which is stopping it.

    It must be called with the server's lock held: then no user can have stopped the server since. The locks are closed
    at once: who leaves while a dead server starts must find out that nobody else uses it, and stop it.
    """
    for how in (fcntl.LOCK_EX, fcntl.LOCK_SH):
        if (descriptor := try_lock(server.users_lock, how)) is not None:
            os.close(descriptor)
            return how == fcntl.LOCK_SH
    return False


def _rotate(log: Path) -> None:
    # The postmaster has the file open for appending, so it is truncated, not renamed.
    if log.stat().st_size > _LOG_BYTES:
        shutil.copyfile(log, log.with_suffix(".log.1"))
        os.truncate(log, 0)


def _take_over(server: Server) -> int | None:
    """Lock what the last keeper had locked; return None if there is a new keeper already.

    For a moment the lock may still be the dead keeper's, or be held by a process that only looks whether it is free.
    """
    with suppress(ServerError):
        return lock(server.keeper_lock, fcntl.LOCK_EX, _TAKE_OVER_S)
    return None


def main() -> None:
    """Become the keeper, detached, so that the started process ends at once.

    The lock is inherited from the starting process; a relief starts without it.
    """
    server, inherited = Server(**json.loads(sys.argv[1])), sys.argv[2:]
    with suppress(FileNotFoundError):  # the directory was removed; PostgreSQL finds out within a minute, and ends
        keeper = int(inherited[0]) if inherited else _take_over(server)
        if keeper is None:
            return
        os.set_inheritable(keeper, False)
        if pid := os.fork():
            # Not by the new process: the pid must be in the file when this one ends.
            os.ftruncate(keeper, 0)
            os.write(keeper, f"{pid}\n".encode())
        else:
            keep(server, keeper)


if __name__ == "__main__":
    main()
