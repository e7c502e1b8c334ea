"""The README does what it says: its app, its commands and its requests, as a newcomer types them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from smarter_auth_mw import Settings
from smarter_auth_mw.domain import Target
from smarter_auth_mw.routing import Routes
from tests.database_support import Database

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]
SHELL = [text for language, text in BLOCKS if language == "sh"]
BIN = Path(sys.executable).parent


def commands(block: str) -> list[str]:
    return [line.partition(" # ")[0].strip() for line in block.splitlines() if line and not line.startswith("#")]


def test_the_app_is_ten_lines() -> None:
    lines = [line for line in PYTHON[0].splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= 10


def test_the_two_commands_are_there() -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text("utf-8")
    for command in commands(SHELL[0]):
        program, target = command.split()
        assert program == "make"
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


@pytest.mark.usefixtures("cluster")
def test_the_first_screen_protects_an_app(tmp_path: Path, empty_database: Database) -> None:
    (tmp_path / "app.py").write_text(PYTHON[0])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SMARTER_AUTH_")}
    environment |= {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    setup = commands(SHELL[1])
    assert [command.split()[0] for command in setup] == [
        "pip",
        "export",
        "export",
        "smarter-auth",
        "smarter-auth",
        "smarter-auth",
    ]
    for command in setup[1:3]:
        name, _, value = shlex.split(command)[1].partition("=")
        environment[name] = value
    environment["SMARTER_AUTH_DATABASE_URL"] = empty_database.owner  # instead of one in the reader's home

    def run(command: str) -> str:
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(setup[3])
    found = re.search(r"\b[0-9a-f]{64}\b", run(setup[4]))
    assert found, "key create prints the token"
    server = subprocess.Popen(
        [*shlex.split(setup[5]), "--port", "0"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stderr is not None
        address = next(match[1] for line in server.stderr if (match := re.search(r"http://([\w.:]+)", line)))
        answers = [
            run(request.replace("localhost:8000", address).replace("$TOKEN", found[0]))
            for request in commands(SHELL[2])
        ]
        promised = [int(status) for status in re.findall(r"# (\d{3})", SHELL[2])]
        assert [int(answer.split()[1]) for answer in answers] == promised == [401, 200, 200]
        assert "www-authenticate: Token" in answers[0]
        assert answers[1].endswith('{"bot":1}')
    finally:
        server.terminate()
        server.communicate(timeout=20)


@pytest.mark.usefixtures("cluster")
def test_the_commands_about_keys_run_as_printed(tmp_path: Path, database: Database) -> None:
    environment = os.environ | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "SMARTER_AUTH_DATABASE_URL": database.owner,
        "SMARTER_AUTH_ROUTES": "bot /bots/{ref:int}",
    }
    expected = {"check": 1}
    key_id, token = "", ""
    for command in commands(next(block for block in SHELL if "key deactivate" in block)):
        done = subprocess.run(
            command.replace("KEY_ID", key_id).replace("…", token),
            shell=True,
            env=environment,
            capture_output=True,
            text=True,
        )
        verb = command.split()[2] if command.split()[1] in {"key", "resource"} else command.split()[1]
        assert done.returncode == expected.get(verb, 0), (command, done.stdout, done.stderr)
        if verb == "create":
            key_id = re.findall(r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b", done.stdout + done.stderr)[0]
            token = re.findall(r"\b[0-9a-f]{64}\b", done.stdout)[0]


@pytest.mark.usefixtures("cluster")
def test_the_models_run_as_printed(tmp_path: Path, database: Database) -> None:
    (tmp_path / "keys.py").write_text(PYTHON[1])
    environment = os.environ | {
        "SMARTER_AUTH_DATABASE_URL": database.owner,
        "SMARTER_AUTH_ROUTES": "chatbot /bots/{ref}",
    }
    done = subprocess.run([sys.executable, "keys.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"chatbot:\d+ answers to [0-9a-f]{64} only\n", done.stdout)


@pytest.mark.usefixtures("cluster")
def test_the_platforms_bots_are_found_as_printed(tmp_path: Path, database: Database) -> None:
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "SMARTER_AUTH_DATABASE_URL": database.owner}
    script = "set -e\n" + next(block for block in SHELL if "preset:smarter" in block)
    done = subprocess.run(script, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"resource +llm_client:42\ndecision +anonymous", done.stdout)


def test_the_routes_compile_as_printed() -> None:
    (text,) = [text for language, text in BLOCKS if language == "text"]
    routes = Routes.parse(text.splitlines())
    assert routes.kinds == ("bot", "agent")
    for path, found in (("/bots/42/chat", "bot:42"), ("/bots/help", None), ("/orgs/acme/agents/x", "agent:x")):
        target = routes.resolve({"type": "http", "method": "GET", "path": path, "headers": []})
        assert (str(target.names) if isinstance(target, Target) else target) == found


def test_every_setting_that_is_named_exists() -> None:
    known = {name.upper() for name in Settings.model_fields}
    quoted = re.findall(r"`([A-Z]+(?:_[A-Z]+)+)(?:=[^`]*)?`", README)
    named = {name.removeprefix("SMARTER_AUTH_") for name in quoted}
    assert named
    assert named <= known
