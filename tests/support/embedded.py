"""Real processes that use the embedded PostgreSQL, run as root, as an ordinary user and as nobody."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import asyncpg
import pytest

import smarter_auth_mw
from smarter_auth_mw.postgres.embedded import place as embedded_place
from smarter_auth_mw.postgres.embedded.keeper import Server, attempts, try_lock

PATIENCE_S = 30.0
USER_PROGRAM = Path(__file__).with_name("embedded_user.py")


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """Ask until the answer is true, and return it."""
    for _ in attempts(PATIENCE_S):
        if found := condition():
            return found
    raise AssertionError(f"still waiting for: {what}")


def query(url: str, sql: str) -> Any:
    """One value, over a connection of its own."""

    async def ask() -> Any:
        connection = await asyncpg.connect(url, timeout=10)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    return asyncio.run(ask())


def answers(url: str) -> bool:
    """Whether a server is there."""
    try:
        return bool(query(url, "SELECT true"))
    except (OSError, asyncpg.PostgresError):
        return False


def names() -> list[str]:
    """As whom everything is tried: root can be all of them, others only themselves."""
    own = pwd.getpwuid(os.geteuid()).pw_name
    return [own, "daemon", "nobody"] if os.geteuid() == 0 else [own]


@dataclass
class Outfit:
    """A user with a private home (mode 0700), and in it an interpreter, this package and PostgreSQL's programs."""

    name: str
    home: Path

    @property
    def entry(self) -> pwd.struct_passwd:
        return pwd.getpwnam(self.name)

    @property
    def is_somebody_else(self) -> bool:
        return self.entry.pw_uid != os.geteuid()

    @cached_property
    def python(self) -> str:
        # The running interpreter may lie where only root can read.
        return str(_linked_python(self.home / "python")) if self.is_somebody_else else sys.executable

    @cached_property
    def environment(self) -> dict[str, str]:
        _link_packages(self.home / "packages")
        return {
            "HOME": str(self.home),
            "PATH": os.defpath,
            "PYTHONPATH": str(self.home / "packages"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LD_LIBRARY_PATH": str(self.home / "python" / "lib") if self.is_somebody_else else "",
        }

    def popen(self, *arguments: str, env: dict[str, str] | None = None, shell: str = "") -> subprocess.Popen[str]:
        """The interpreter with these arguments, as this user and in this user's home, after these shell commands."""
        return subprocess.Popen(
            ["/bin/sh", "-c", f'{shell or ":"}; exec "$0" "$@"', self.python, *arguments],
            env=self.environment | (env or {}),
            cwd="/",
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            user=self.entry.pw_uid if self.is_somebody_else else None,
            group=self.entry.pw_gid if self.is_somebody_else else None,
            extra_groups=[] if self.is_somebody_else else None,
        )


@contextmanager
def outfitted(name: str) -> Iterator[Outfit]:
    """A fresh outfit, removed at the end."""
    home = Path(tempfile.mkdtemp(prefix=f"embedded-{name}-")).resolve()
    outfit = Outfit(name, home)
    os.chown(home, outfit.entry.pw_uid, outfit.entry.pw_gid)
    try:
        yield outfit
    finally:
        shutil.rmtree(home)


def _linked_python(target: Path) -> Path:
    """A copy of this interpreter and its standard library, by hard links where they can be made."""
    base, version = Path(sys.base_prefix), f"python{sys.version_info.major}.{sys.version_info.minor}"
    _link(base / "lib" / version, target / "lib" / version, "site-packages", "test", "idlelib", "tkinter", "config-*")
    _link(base / "lib", target / "lib", *_all_but("libpython*", base / "lib"))
    (target / "bin").mkdir()
    return Path(_linked(str((base / "bin" / version).resolve()), str(target / "bin" / version)))


def _all_but(pattern: str, directory: Path) -> list[str]:
    wanted = {path.name for path in directory.glob(pattern)} if sysconfig.get_config_var("Py_ENABLE_SHARED") else set()
    return [path.name for path in directory.iterdir() if path.name not in wanted]


def _link_packages(target: Path) -> None:
    """PostgreSQL's programs, and of this package what they are run by: nothing else is imported for them."""
    (target / "smarter_auth_mw" / "postgres" / "embedded").mkdir(parents=True)
    (target / "smarter_auth_mw" / "__init__.py").touch()
    ours = Path(smarter_auth_mw.__file__).parent
    for module in (*ours.glob("postgres/embedded/*.py"), ours / "postgres" / "__init__.py", ours / "errors.py"):
        _linked(str(module), str(target / "smarter_auth_mw" / module.relative_to(ours)))
    source = embedded_place.programs()
    for tree in (source, *source.parents[1].glob(f"{source.parent.name}[.-]*")):
        _link(tree, target / tree.relative_to(source.parents[1]), "include", "*.a")


def _link(source: Path, target: Path, *ignored: str) -> None:
    ignore = shutil.ignore_patterns(*ignored)
    shutil.copytree(source, target, ignore=ignore, copy_function=_linked, symlinks=True, dirs_exist_ok=True)


def _linked(source: str, target: str) -> str:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target)
    return target


class User:
    """One process that uses the server; what it said when it had started stands in `told`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.children: list[int] = []

    @cached_property
    def told(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        return told

    def ask(self, word: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(word, file=self.process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def child(self, how: str) -> int:
        """Have it fork, or fork and exec; the pid."""
        self.children.append(self.ask(how)["pid"])
        return self.children[-1]

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Kill it and its children, whatever is left of them."""
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
        for pid in self.children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@dataclass
class Place:
    """A directory that one user's processes start the server in."""

    outfit: Outfit
    directory: Path
    is_named: bool = True
    """Whether the processes name the directory; otherwise it is their default."""
    users: list[User] = field(default_factory=list)

    @cached_property
    def home(self) -> Path:
        return self.directory if self.outfit.is_somebody_else else embedded_place.home_of(self.directory)

    def begin(self, **how: Any) -> User:
        """Start a process that starts the server, and wait for nothing."""
        directory = [str(self.directory)] if self.is_named else []
        user = User(self.outfit.popen("-c", USER_PROGRAM.read_text(), *directory, **how))
        self.users.append(user)
        return user

    def start(self, **how: Any) -> User:
        """Start a process that uses the server, and wait until it does."""
        user = self.begin(**how)
        assert "error" not in user.told, user.told
        return user

    def refusal(self, **how: Any) -> dict[str, str]:
        """What a process says that cannot use the server: `error`, `message` and `hint`."""
        user = self.begin(**how)
        assert "error" in user.told, user.told
        user.close()
        return user.told

    def postmaster(self) -> int:
        """The pid of a postmaster that is ready, or 0."""
        with suppress(OSError):
            lines = (self.home / "data" / "postmaster.pid").read_text().splitlines()
            if lines[7:8] and lines[7].strip() == "ready":
                return int(lines[0])
        return 0

    def keeper(self) -> int:
        """The pid of the keeper, or 0."""
        if not is_held(self.home / "keeper.lock"):
            return 0
        return int((self.home / "keeper.lock").read_text() or 0)

    def relief(self) -> int:
        """The pid of the shell that waits for the keeper's end, or 0."""
        return next(children_of(self.keeper(), {"sh", "dash", "bash"}), 0)

    def kill_keeper(self) -> int:
        """Leave the server without a keeper; the pid that it had."""
        relief, keeper = wait_for(self.relief, "the keeper's relief"), self.keeper()
        os.kill(keeper, signal.SIGSTOP)  # It would post another relief.
        for pid in (relief, keeper):
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not is_held(self.home / "keeper.lock"), f"the end of {keeper}")
        return keeper

    def dismiss(self) -> None:
        """Kill the users that are left."""
        while self.users:
            self.users.pop().close()

    def end(self) -> None:
        """Kill the users that are left, see that everything ends with them, and end what does not."""
        self.dismiss()
        try:
            if self.keeper():
                wait_until_quiet(self.home)
        finally:
            if self.keeper():
                self.kill_keeper()
            if (self.home / "server.lock").exists():
                Server(str(self.home), str(self.home / "socket"), "").stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        shutil.rmtree(self.home, ignore_errors=not self.home.exists())


def children_of(parent: int, names: set[str]) -> Iterator[int]:
    """The processes with these names that a process has started."""
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            facts = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            if int(facts["PPid"]) == parent and facts["Name"] in names:
                yield int(facts["Pid"])


def is_held(path: Path) -> bool:
    """Whether a process holds this lock."""
    if not path.exists():
        return False
    if (descriptor := try_lock(path)) is None:
        return True
    os.close(descriptor)
    return False


def is_quiet(home: Path) -> bool:
    """No process uses the server, is of the server, or keeps it."""
    return not any(is_held(home / f"{name}.lock") for name in ("users", "server", "keeper"))


def wait_until_quiet(home: Path) -> None:
    wait_for(lambda: is_quiet(home), f"the end of all processes in {home}")


@contextmanager
def removed_afterwards(directory: Path) -> Iterator[Path]:
    """A directory to start a server in, whose data are removed at the end; for root they do not lie in it."""
    try:
        yield directory
    finally:
        home = embedded_place.home_of(directory)
        wait_until_quiet(home)
        shutil.rmtree(home, ignore_errors=not home.exists())


@pytest.fixture
def embedded_directory(tmp_path: Path) -> Iterator[Path]:
    """A directory to start a server in; `embedded://` with this path is its URL."""
    with removed_afterwards(tmp_path / "embedded") as directory:
        yield directory
