"""`smarter-auth gate`, as a real process."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import httpx
import pytest

from smarter_auth_mw.cli.commands.gate import DialectName
from smarter_auth_mw.gate.dialects import DIALECTS
from tests.support.cli import EXAMPLES, PROGRAM, ROUTES, Commands, environment, program, serving
from tests.support.database import Database

GATE = [*PROGRAM, "gate", "--port", "0"]


@pytest.fixture
def env(database: Database) -> dict[str, str]:
    return environment(database_url=database.runtime, routes=ROUTES, trusted_proxies="127.0.0.1")


def test_it_speaks_nginx_unless_told_otherwise(env: dict[str, str], run: Commands) -> None:
    token = run.json("key", "create", "--name", "first", "--bind", "bot:1")["token"]
    asked = {"X-Original-URI": "/bots/1", "X-Original-Method": "GET"}
    with serving(GATE, env) as server:
        assert httpx.get(server.url, headers=asked).status_code == 401
        granted = httpx.get(f"{server.url}/any/path", headers={**asked, "X-API-Key": token})
        exit_code, said = server.stop(signal.SIGINT)
    assert (granted.status_code, granted.headers["x-smarter-auth-key-name"]) == (200, "first")
    assert exit_code == 0
    assert "Traceback" not in said
    assert token not in said
    assert run.json("usage", "--key", run.json("key", "list")[0]["key_id"])


def test_it_speaks_the_dialect_that_is_asked_for_and_answers_handshakes_as_any_request(
    env: dict[str, str], run: Commands
) -> None:
    run.json("resource", "add", "bot:1", "--protect")
    handshake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "AA==",
        "Sec-WebSocket-Version": "13",
    }
    with serving([*GATE, "--dialect", "envoy"], env) as server:
        assert httpx.get(f"{server.url}/bots/1").status_code == 401
        assert httpx.get(f"{server.url}/bots/1", headers=handshake).status_code == 401
        assert httpx.get(f"{server.url}/bots/2", headers=handshake).status_code == 200


def test_every_dialect_can_be_asked_for() -> None:
    assert set(DialectName) == set(DIALECTS)


def test_an_unknown_dialect_and_mistakes_are_told_before_anything_is_served(bare: Commands) -> None:
    assert "nginx" in bare("gate", "--dialect", "apache").error
    bare.set(database_url="postgresql://localhost/db", routes="bot /bots/{id}")
    ran = bare("gate", "--port", "0")
    assert ran.exit_code == 2
    assert "SMARTER_AUTH_ROUTES" in ran.error


def test_a_port_in_use_is_one_clear_line(env: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = program("gate", "--port", str(taken.getsockname()[1]), env=env | {"SMARTER_AUTH_HIDE_CREDENTIALS": "1"})
    assert ran.exit_code == 3
    hidden, taken_port = ran.err.splitlines()
    assert "HIDE_CREDENTIALS" in hidden
    assert "--port" in taken_port


@pytest.mark.parametrize("command", [["gate"], ["serve", "existing_service:app"]])
def test_start_up_says_where_the_embedded_database_is(command: list[str], embedded_directory: Path) -> None:
    env = environment(database_url=f"embedded://{embedded_directory}", routes=ROUTES)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = program(*command, "--port", str(taken.getsockname()[1]), env=env, cwd=EXAMPLES)
    assert ran.exit_code == 3
    assert "The embedded PostgreSQL keeps its data in " in ran.err


@pytest.mark.parametrize("workers", ["1", "2"])
def test_each_line_of_the_log_is_json_if_that_is_asked_for(workers: str, env: dict[str, str]) -> None:
    with serving([*GATE, "--log-format", "json", "--workers", workers], env) as server:
        httpx.get(server.url, timeout=120)
        _, said = server.stop(signal.SIGINT)
    entries = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert len(entries) == len(said.splitlines())
    assert {"time", "level", "logger", "message"} <= entries[0].keys()
    assert any(entry["logger"] == "smarter_auth_mw" and entry["event"] == "gate.misread" for entry in entries)
