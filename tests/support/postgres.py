"""A PostgreSQL of the tests' own, to be stopped, killed and frozen: nobody else uses it, and nobody restarts it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self
from urllib.parse import quote

import asyncpg

from smarter_auth_mw.postgres.embedded import setup as embedded_setup
from smarter_auth_mw.postgres.embedded.keeper import PORT, try_lock
from smarter_auth_mw.postgres.embedded.place import make_socket_directory, place
from smarter_auth_mw.postgres.migrations import migrate
from tests.support.database import COPIED, MANAGER, Database
from tests.support.embedded import wait_for
from tests.support.memory import FSYNC, reminder

TEMPLATE = "template_migrated"


class Postgres:
    """One server in a directory of its own; ``settings`` go to its configuration."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self._server = place(directory, _silent)
        self._reminder = reminder(self._server.home)
        self._server.make_locks()
        self._made = 0
        make_socket_directory(self._server)
        held = self._lock()
        embedded_setup._make_data(self._server, held, _silent)
        os.close(held)
        embedded_setup._configure(self._server)
        with (self._server.home / "postgresql.conf").open("a") as configuration:
            configuration.writelines(f"{name} = '{value}'\n" for name, value in ({"fsync": FSYNC} | settings).items())

    @classmethod
    def standby_of(cls, primary: Postgres, directory: Path) -> Self:
        """A standby that has all that the primary had, which is stopped; it hears of nothing that comes after."""
        standby = cls(directory)
        shutil.rmtree(standby._server.data)
        subprocess.run(["cp", "-a", str(primary._server.data), str(standby._server.data)], check=True)
        (standby._server.data / "standby.signal").touch()
        return standby

    @property
    def socket(self) -> Path:
        return self._server.socket

    def url(self, role: str, database: str) -> str:
        host = quote(self._server.socket_directory)
        return f"postgresql://smarter_auth_{role}@/{database}?host={host}&port={PORT}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._server.start(self._lock())

    def stop(self) -> None:
        """As an administrator would: who is connected is told."""
        self._server.stop()

    def restart(self) -> None:
        self.stop()
        self.start()

    def kill(self) -> None:
        """kill -9, and wait until all of its processes are gone."""
        os.kill(self._postmaster, signal.SIGKILL)
        wait_for(self._is_gone, "the end of the server's processes")

    @asynccontextmanager
    async def frozen(self) -> AsyncIterator[None]:
        """Let all of its processes hang: the kernel accepts connections, and nobody answers."""
        postmaster = self._postmaster
        _signal([postmaster], signal.SIGSTOP)
        wait_for(lambda: _is_stopped(postmaster), "the end of new processes")
        children = _children(postmaster)  # Those too that no view of the server's lists yet.
        try:
            _signal(children, signal.SIGSTOP)
            wait_for(lambda: all(_is_stopped(pid) for pid in children), "the end of answers")
            yield
        finally:
            _signal([*children, postmaster], signal.SIGCONT)

    async def promote(self) -> None:
        """Make a primary of a standby."""
        await self.execute("SELECT pg_promote()")

    async def database(self) -> Database:
        """A migrated database that nobody else uses."""
        if not self._made:
            await self.execute(f"CREATE DATABASE {TEMPLATE}")
            await self.execute(f"CREATE ROLE {MANAGER} LOGIN")
            await migrate(self.url("owner", TEMPLATE), "smarter_auth_runtime", manager_role=MANAGER)
        self._made += 1
        name = f"test_{self._made}"
        await self.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} {COPIED}")
        return Database(*(self.url(role, name) for role in ("owner", "runtime", "manager")))

    def run(self, program: str, *arguments: str, text: str = "") -> str:
        """What one of PostgreSQL's own programs says."""
        command = [self._server.program(program), *arguments]
        return subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, check=True).stdout

    async def execute(self, statement: str) -> None:
        """As its administrator, in a database that nobody else uses."""
        connection = await asyncpg.connect(self.url("owner", "postgres"))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    @property
    def _postmaster(self) -> int:
        return int((self._server.data / "postmaster.pid").read_text().splitlines()[0])

    def _lock(self) -> int:
        held = try_lock(self._server.server_lock)
        assert held is not None, "It runs already."
        return held

    def _is_gone(self) -> bool:
        if (held := try_lock(self._server.server_lock)) is None:
            return False
        os.close(held)
        return True

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_gone():
            self.stop()
        shutil.rmtree(self._server.home)
        shutil.rmtree(self._reminder)


class Proxy:
    """A wire to a server's socket that can be cut, loudly or so that nobody notices."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._links: list[Link] = []
        self.swallows = False
        """Whether whatever is sent from now on is lost, on old and new connections."""
        self.asked = 0
        """How often clients have sent something: that many round trips, where each waits for its answer."""

    @property
    def port(self) -> int:
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def url(self, database: str) -> str:
        """The same database through this wire."""
        role, name = database.removeprefix("postgresql://").split("?")[0].split("@/")
        return f"postgresql://{role}@127.0.0.1:{self.port}/{name}?sslmode=disable"

    def cut(self) -> None:
        """Close what is open; new connections are let through."""
        for link in self._links:
            link.cut()
        self._links.clear()

    def cut_silently(self) -> None:
        """Lose whatever is sent on what is open, without closing it; new connections are let through."""
        for link in self._links:
            link.swallows = True

    def insert(self, garbage: bytes) -> None:
        """Have the clients on what is open hear this."""
        for link in self._links:
            link.insert(garbage)
        self._links.clear()

    def lead_to(self, target: Path) -> None:
        """Let new connections through to another server."""
        self._target = target

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            ends = await asyncio.open_unix_connection(str(self._target))
        except OSError:
            writer.close()
            return
        link = Link(self, (reader, writer), ends)
        self._links.append(link)
        await link.run()


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Link:
    """One connection through a proxy."""

    def __init__(self, proxy: Proxy, client: Ends, server: Ends) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self.swallows = False

    async def run(self) -> None:
        await asyncio.gather(
            self._pass(self._client[0], self._server[1], counts=1), self._pass(self._server[0], self._client[1])
        )

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counts: int = 0) -> None:
        with suppress(OSError):
            while sent := await reader.read(65536):
                self._proxy.asked += counts
                if not (self.swallows or self._proxy.swallows):
                    writer.write(sent)
                    await writer.drain()
        writer.close()

    def insert(self, garbage: bytes) -> None:
        self._client[1].write(garbage)

    def cut(self) -> None:
        for _, writer in (self._client, self._server):
            writer.transport.abort()


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_stopped(pid: int) -> bool:
    """Whether it hangs, or is no more."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "TZX"


def _silent(message: str) -> None:
    """Report to nobody."""
