"""A reader who follows a page: each of its blocks of code is run, in order, in one shell."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml

from tests.support.documents import ROOT, Block, blocks, commands, conversations, matches
from tests.support.warm import programs

BIN = Path(sys.executable).parent
PATIENCE_S = 120.0
BOUND_S = 5.0
"""Within which every worker knows of a change: what a request shows may become true only then."""

SHELL, OUTPUT, PROSE = {"sh", "bash"}, {"console"}, {"text", "mermaid"}
PARSERS: Mapping[str, Callable[[str], Any]] = {
    "python": ast.parse,
    "toml": tomllib.loads,
    "json": json.loads,
    "yaml": lambda text: list(yaml.safe_load_all(text)),
}
SERVERS = (
    ["smarter-auth", "serve"],
    ["smarter-auth", "gate"],
    ["smarter-auth", "admin"],
    ["uvicorn"],
    ["hypercorn"],
    ["granian"],
    ["gunicorn"],
)

_PORT = re.compile(r"(?<=localhost:)\d{4}\b|(?<=127\.0\.0\.1:)\d{4}\b|(?<=0\.0\.0\.0:)\d{4}\b|(?<=--port )\d{4}\b")
_STATUS = re.compile(r"\A(\d{3})\b")
_TOKEN = re.compile(r"\b[0-9a-f]{64}\b|\bsm_\w{20,}\b")
_KEY_ID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b")


_ANNOUNCES = re.compile(r"smarter-auth (serve|gate|admin)\b")


@dataclass
class Terminal:
    """One shell, in a directory of the reader's own, with a database that is empty or migrated.

    What differs from one reader to the next is put in: the database, ports, and what was printed for them to copy
    (``KEY_ID``, ``$TOKEN``, ``TOKEN=…``).
    """

    directory: Path
    database_url: str
    environment: dict[str, str]
    ports: dict[str, str] = field(default_factory=dict)
    token: str = ""
    key_id: str = ""
    servers: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.state = self.directory / ".state"
        self.state.write_text("")
        (self.directory / ".curlrc").write_text("silent\nshow-error\n")  # as where it writes to a terminal
        (self.directory / "examples").symlink_to(ROOT / "examples")
        self.write(next(block for block in blocks(ROOT / "README.md") if block.file == "app.py"))
        return self

    def __exit__(self, *_: object) -> None:
        for port in list(self.servers):
            self._stop(port)

    def run(self, command: str) -> tuple[int, str]:
        """The exit code of a command, and what it printed; a server goes on in the background."""
        command = self._own(command)
        words = shlex.split(command, comments=True)
        if any(words[: len(server)] == server for server in SERVERS):
            code, printed = self._serve(command, words)
            return code, self._foreign(printed)
        script = f". {self.state}\n{command}\n__code=$?\n(export -p; declare -p PWD) > {self.state}\nexit $__code\n"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_S,
        )
        self._copy(done.stdout)
        return done.returncode, self._foreign(done.stdout)

    def write(self, block: Block) -> None:
        """Write down the file that a block is."""
        assert block.file is not None
        path = self.directory / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, "utf-8")

    def _serve(self, command: str, words: list[str]) -> tuple[int, str]:
        if "--port" not in words and "--bind" not in words:
            command = f"{command.partition(' #')[0]} --port {self._port('8000')}"
        port = int(next(port for port in self.ports.values() if port in command))
        self._stop(port)
        log = self.directory / f".server-{port}"
        with log.open("wb") as output:
            server = self.servers[port] = subprocess.Popen(
                ["bash", "-c", f". {self.state}\nexec {command}"],
                cwd=self.directory,
                env=self.environment | {"PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline_s = time.monotonic() + PATIENCE_S
        while server.poll() is None and time.monotonic() < deadline_s:
            with socket.socket() as client:
                # A socket of ours listens before the server does; what it prints once it is ready counts then.
                is_ready = not _ANNOUNCES.search(command) or "running on" in log.read_text()
                if is_ready and client.connect_ex(("127.0.0.1", port)) == 0:
                    return 0, log.read_text()
            time.sleep(0.05)
        return server.poll() or 1, log.read_text()

    def _stop(self, port: int) -> None:
        """End the server there, as a reader does who starts another one."""
        if (server := self.servers.pop(port, None)) is not None:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGTERM)
            server.wait(PATIENCE_S)

    def _own(self, command: str) -> str:
        command = re.sub(r"(SMARTER_AUTH_DATABASE_URL=)\S+", rf"\g<1>{shlex.quote(self.database_url)}", command)
        command = re.sub(r"\bTOKEN=…", f"TOKEN={self.token}", command)
        command = re.sub(r"\bKEY_ID=…", f"KEY_ID={self.key_id}", command)
        command = re.sub(r"(?<![$\w])KEY_ID(?!\w|=)", self.key_id, command)
        return _PORT.sub(lambda found: self._port(found[0]), command)

    def _foreign(self, printed: str) -> str:
        for documented, real in self.ports.items():
            printed = printed.replace(f":{real}", f":{documented}")
        return printed

    def _port(self, documented: str) -> str:
        if documented not in self.ports:
            with socket.socket() as reserved:
                reserved.bind(("127.0.0.1", 0))
                self.ports[documented] = str(reserved.getsockname()[1])
        return self.ports[documented]

    def _copy(self, printed: str) -> None:
        if token := _TOKEN.search(printed):
            self.token = self.environment["TOKEN"] = token[0]
            with self.state.open("a") as state:
                state.write(f"export TOKEN={token[0]}\n")
        if key_id := _KEY_ID.search(printed):
            self.key_id = key_id[0]


class Reader:
    """Follows a page from its first block to its last, and tells where it does not do what it says."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._files: list[Block] = []

    def follow(self, page: Path) -> list[str]:
        """What went wrong, by page and line."""
        found = blocks(page)
        told = [f"{block}: {fault}" for block in found if block.reason is None for fault in self._faults(block)]
        used = "\n".join(block.text for block in found if block.language in SHELL | OUTPUT)
        for block in self._files:
            if block.language == "python" and not _is_named(Path(block.file or "").stem, used):
                code, printed = self._terminal.run(f"python {block.file}")
                if code:
                    told.append(f"{block}: {printed}")
        return told

    def _faults(self, block: Block) -> Iterator[str]:
        if block.language in SHELL:
            for command in commands(block.text):
                yield from self._shell(command)
        elif block.language in OUTPUT:
            for command, expected in conversations(block.text):
                yield from self._console(command, expected)
        elif block.language not in PROSE:
            yield from self._file(block)

    def _file(self, block: Block) -> Iterator[str]:
        if block.file is not None:
            self._terminal.write(block)
            self._files.append(block)
        elif block.language == "python":
            (self._terminal.directory / "snippet.py").write_text(block.text)
            code, printed = self._terminal.run("python snippet.py")
            if code:
                yield printed
        elif block.language not in PARSERS:
            yield f"nobody runs a block of {block.language!r}: say <!-- not run: WHY --> before it, or name its file"
        if parse := PARSERS.get(block.language):
            try:
                parse(block.text)
            except Exception as error:
                yield f"cannot be read: {error}"

    def _shell(self, command: str) -> Iterator[str]:
        if (instead := _checked(command)) is not None:
            yield from instead
            return
        comment = command.rpartition(" # ")[2].strip() if " # " in command else ""
        status, exits = _STATUS.match(comment), re.search(r"\bexits (\d+)", comment)
        wanted = int(exits[1]) if exits else 0

        def is_right(code: int, printed: str) -> bool:
            return code == wanted and (
                status is None or re.search(rf"^HTTP/\S+ {status[1]}\b", printed, re.MULTILINE) is not None
            )

        yield from self._until(command, is_right, f"{comment or 'exit 0'}")

    def _console(self, command: str, expected: str) -> Iterator[str]:
        if (instead := _checked(command)) is not None:
            yield from instead
            return
        yield from self._until(command, lambda _, printed: matches(expected, printed), expected)

    def _until(self, command: str, is_right: Callable[[int, str], bool], expected: str) -> Iterator[str]:
        """Run it; what asks a server may ask again within the bound."""
        deadline_s = time.monotonic() + (BOUND_S if command.startswith("curl ") else 0)
        while True:
            code, printed = self._terminal.run(command)
            if is_right(code, printed):
                return
            if time.monotonic() > deadline_s:
                yield f"$ {command}\nexit code {code}, printed:\n{printed}\nexpected:\n{expected}\n"
                return


def _checked(command: str) -> list[str] | None:
    """What is wrong with a command that is not run but looked at: what it installs, or makes, must be there."""
    words = shlex.split(command, comments=True)
    if words[:2] == ["pip", "install"]:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        extras = {
            extra
            for word in words
            for found in re.findall(r"smarter_auth_mw\[(.+?)\]", word)
            for extra in found.split(",")
        }
        return [f"there is no extra {extra!r}" for extra in extras - project["optional-dependencies"].keys()]
    if words[:1] == ["make"]:
        makefile = (ROOT / "Makefile").read_text()
        targets = [word for word in words[1:] if "=" not in word]
        return [
            f"there is no target {name!r}" for name in targets if not re.search(rf"^{name}:", makefile, re.MULTILINE)
        ]
    return None


def _is_named(module: str, text: str) -> bool:
    return re.search(rf"\b{re.escape(module)}\b", text) is not None


def environment(directory: Path, **settings: str) -> dict[str, str]:
    """That of a reader: this environment's programs, and settings of their own."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("SMARTER_AUTH_")}
    named = {f"SMARTER_AUTH_{name.upper()}": value for name, value in settings.items()}
    return (
        others | named | {"PATH": f"{programs()}:{BIN}:{os.environ['PATH']}", "HOME": str(directory), "COLUMNS": "100"}
    )
