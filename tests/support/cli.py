"""The command line as people have it: in this process, as the real program, and as servers on sockets of their own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from smarter_auth_mw.cli import main
from tests.support.database import Database
from tests.support.warm import PYTHON

PROGRAM = [*PYTHON, "-m", "smarter_auth_mw"]
EXAMPLES = Path(__file__).parents[2] / "examples"
ROUTES = "bot /bots/{ref:int}"
PATIENCE_S = 60
"""How long a process may take before the test says that it hangs."""

_modules = count(1)
_LISTENING = re.compile(r"running on (http://[^ ]+)")


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended, and what it printed."""

    exit_code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line that it says on stderr."""
        (line,) = self.err.splitlines()
        return line


class Commands:
    """``smarter-auth`` in this process, with an environment of the test's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        for name in [name for name in os.environ if name.startswith("SMARTER_AUTH_")]:
            monkeypatch.delenv(name)

    def set(self, **settings: str) -> None:
        """Set ``SMARTER_AUTH_*``, by the names of the settings."""
        for name, value in settings.items():
            self._monkeypatch.setenv(f"SMARTER_AUTH_{name.upper()}", value)

    def __call__(self, *arguments: str) -> Ran:
        self._capsys.readouterr()
        exit_code = main(arguments)
        out, err = self._capsys.readouterr()
        return Ran(exit_code, out, err)

    def json(self, *arguments: str) -> Any:
        """The JSON document of a command that is done."""
        ran = self(*arguments, "--json")
        assert ran.exit_code == 0, ran
        return ran.json


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    """The command line with nothing in its environment."""
    return Commands(monkeypatch, capsys)


@pytest.fixture
def run(bare: Commands, database: Database) -> Commands:
    """The command line on a migrated database, as whoever writes keys, with routes for bots."""
    bare.set(database_url=database.manager, routes=ROUTES)
    return bare


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a module into a working directory of the test's own; gives the name of its ``app``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(text: str) -> str:
        module = f"written_{next(_modules)}"
        tmp_path.joinpath(f"{module}.py").write_text(text)
        return f"{module}:app"

    return write


def environment(**settings: str) -> dict[str, str]:
    """An environment for a process: this one's, with these settings and no others."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("SMARTER_AUTH_")}
    return others | {f"SMARTER_AUTH_{name.upper()}": value for name, value in settings.items()}


def rows(url: str, query: str, script: str = "SELECT") -> list[asyncpg.Record]:
    """What a plain SQL query finds, after a script."""

    async def fetch() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(script)
            return await connection.fetch(query)
        finally:
            await connection.close()

    return asyncio.run(fetch())


def program(*arguments: str, env: Mapping[str, str], cwd: Path | None = None) -> Ran:
    """Run the real program to its end."""
    ran = subprocess.run([*PROGRAM, *arguments], env=env, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE_S)
    return Ran(ran.returncode, ran.stdout, ran.stderr)


@dataclass(frozen=True, slots=True)
class Server:
    """A server process; ``said`` is what it printed until it was listening."""

    process: subprocess.Popen[str]
    url: str
    said: str

    def stop(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """Ask it to end; returns its exit code and all else that it said."""
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out


@contextmanager
def serving(
    command: list[str],
    env: Mapping[str, str],
    listening: re.Pattern[str] = _LISTENING,
    cwd: Path = EXAMPLES,
    pass_fds: Sequence[int] = (),
) -> Iterator[Server]:
    """A server for as long as the block lasts; it chooses its port itself, and says which."""
    process = subprocess.Popen(
        command,
        env={**env, "PYTHONUNBUFFERED": "1"},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        pass_fds=pass_fds,
    )
    try:
        yield _listening(process, listening)
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()  # Nothing, if it has ended.


def _listening(process: subprocess.Popen[str], pattern: re.Pattern[str]) -> Server:
    assert process.stdout is not None
    said = ""
    hanging = threading.Timer(PATIENCE_S, process.kill)
    hanging.start()
    try:
        for line in process.stdout:
            said += line
            if found := pattern.search(said):
                return Server(process, found[1], said)
    finally:
        hanging.cancel()
    raise AssertionError(f"The server ended before it was listening:\n{said}")
