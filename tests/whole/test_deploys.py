"""What happens to requests while people deploy: servers that are asked to end, and a schema that is one step ahead."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from smarter_auth_mw.postgres.queries import SCHEMA
from tests.programs import libraries
from tests.support.cli import EXAMPLES, PROGRAM, Commands, environment, program, serving
from tests.support.database import Database
from tests.support.embedded import wait_for
from tests.support.load import PATIENCE_S, Load
from tests.support.proxy import COMMANDS, Ports, running, service, write_configuration
from tests.support.server import ROOT
from tests.support.sloppy_app import SERVED
from tests.support.valkey import free_port

SERVE = [*PROGRAM, "serve", "existing_service:app", "--port"]


@pytest.fixture
def env(database: Database) -> dict[str, str]:
    return environment(database_url=database.runtime, routes="bot /bots/{ref:int}", failed_attempts="")


@pytest.fixture
def created(run: Commands) -> Any:
    return run.json("key", "create", "--name", "laptop", "--bind", "bot:1")


def granted(run: Commands) -> int:
    """How often the key was used, as has been written."""
    return sum(row["granted"] for row in run.json("usage"))


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a server to end as every supervisor does, and wait until it has."""
    process.terminate()
    assert process.wait(PATIENCE_S) in (0, -signal.SIGTERM)  # uvicorn passes it on to itself in the end


def comes_to(status: int, url: str, headers: Mapping[str, str]) -> None:
    """Ask until this is the answer."""
    until_s = time.monotonic() + PATIENCE_S
    while (answer := httpx.get(url, headers=headers).status_code) != status:
        assert time.monotonic() < until_s, answer
        time.sleep(0.01)


FRONT = """
upstream servers {{ server 127.0.0.1:{0}; server 127.0.0.1:{1}; }}
server {{ listen 127.0.0.1:{2}; location / {{ proxy_pass http://servers; }} }}
"""


def test_a_server_that_is_asked_to_end_loses_no_request_and_no_usage(
    env: dict[str, str], run: Commands, created: Any, tmp_path: Path
) -> None:
    one, other, front = free_port(), free_port(), free_port()
    tmp_path.joinpath("smarter_auth.conf").write_text(FRONT.format(one, other, front))
    with (
        running([*SERVE, str(one), "--workers", "2"], one, env, EXAMPLES) as first,
        running([*SERVE, str(other)], other, env, EXAMPLES) as second,
        running(COMMANDS["nginx"](tmp_path), front, libraries("nginx"), tmp_path),
    ):
        with Load(f"http://127.0.0.1:{front}/bots/1", {"X-API-Key": created["token"]}) as load:
            load.go_on()
            end(first)
            load.go_on()
        end(second)
    assert set(load.answers) == {200}
    assert granted(run) == load.answers.total()


def test_a_gate_that_is_asked_to_end_loses_no_request_and_no_usage(
    env: dict[str, str], run: Commands, created: Any, tmp_path: Path
) -> None:
    ports, other = Ports(free_port(), free_port(), free_port()), free_port()
    both = f"server 127.0.0.1:{ports.gate}; server 127.0.0.1:{other};"
    write_configuration("nginx", tmp_path, ports, [(f"server 127.0.0.1:{ports.gate};", both)])
    gate = [*PROGRAM, "gate", "--port"]
    with (
        running(service(ports.service), ports.service, {SERVED: str(tmp_path / "served")}),
        running([*gate, str(ports.gate), "--workers", "2"], ports.gate, env) as first,
        running([*gate, str(other)], other, env) as second,
        running(COMMANDS["nginx"](tmp_path), ports.proxy, libraries("nginx"), tmp_path),
    ):
        with Load(f"http://127.0.0.1:{ports.proxy}/bots/1", {"X-API-Key": created["token"]}) as load:
            load.go_on()
            end(first)
            load.go_on()
        end(second)
    assert set(load.answers) == {200}
    assert granted(run) == load.answers.total()


@pytest.mark.parametrize("command", [["gate"], ["serve", "existing_service:app"]], ids=["gate", "serve"])
def test_a_request_that_is_on_its_way_when_a_server_is_asked_to_end_is_answered(
    env: dict[str, str], command: list[str]
) -> None:
    with serving([*PROGRAM, *command, "--port", "0"], env) as server:
        address = urlsplit(server.url)
        with socket.create_connection((str(address.hostname), address.port or 0), PATIENCE_S) as early:
            assert httpx.get(f"{server.url}/bots/2").status_code < 500  # By then, the earlier connection is accepted.
            server.process.terminate()
            assert server.process.stdout is not None
            assert any("Shutting down" in line for line in server.process.stdout)
            early.sendall(b"GET /bots/2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert early.recv(65536).startswith(b"HTTP/1.1 ")
        assert server.process.wait(PATIENCE_S) in (0, -signal.SIGTERM)


SLOW = """
import asyncio, os
from pathlib import Path

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    Path("began").touch()
    while not Path("may_end").exists() and scope["path"] != "/":
        await asyncio.sleep(0.01)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})
"""


def test_what_is_under_way_when_a_server_is_asked_to_end_is_answered_and_counted(
    env: dict[str, str], run: Commands, created: Any, tmp_path: Path
) -> None:
    tmp_path.joinpath("slow.py").write_text(SLOW)
    began, may_end, port = tmp_path / "began", tmp_path / "may_end", free_port()
    with (
        running([*PROGRAM, "serve", "slow:app", "--port", str(port)], port, env, tmp_path) as server,
        ThreadPoolExecutor() as threads,
    ):
        began.unlink()
        url, token = f"http://127.0.0.1:{port}/bots/1", {"X-API-Key": created["token"]}
        answer = threads.submit(lambda: httpx.get(url, headers=token, timeout=PATIENCE_S))
        wait_for(began.exists, "the request")
        server.terminate()
        wait_for(lambda: is_closed(port), "the end of its listening")
        may_end.touch()
        assert answer.result().text == "done"
        end(server)
    assert granted(run) == 1


def is_closed(port: int) -> bool:
    """Whether nobody listens there any more."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def next_release(place: Path) -> dict[str, str]:
    """A copy of the package whose schema is one step ahead, and the environment in which it is the one that runs."""
    package = place / "smarter_auth_mw"
    shutil.copytree(ROOT / "smarter_auth_mw", package)  # With its byte code, which would be made again by each process.
    last, following = f"{SCHEMA:04}", f"{SCHEMA + 1:04}"
    database, versions = package / "postgres" / "queries.py", package / "postgres" / "sql" / "migrations" / "versions"
    database.write_text(database.read_text().replace(f"SCHEMA = {SCHEMA}\n", f"SCHEMA = {SCHEMA + 1}\n"))
    (newest,) = versions.glob(f"{last}_*.py")
    step = newest.read_text().replace(newest.stem, f"{following}_next").replace(f'"{last}"', f'"{following}"')
    step = re.sub(r'down_revision = "\d+"', f'down_revision = "{last}"', step)
    (versions / f"{following}_next.py").write_text(step)
    (versions / f"{following}_next.up.sql").write_text(NEXT)
    return {"PYTHONPATH": str(place)}


NEXT = """-- A compatible step: columns that nobody knew of, and every function replaced under whoever calls it.

ALTER TABLE smarter_auth.resource ADD COLUMN note text;

ALTER TABLE smarter_auth.key ADD COLUMN note text;

ALTER TABLE smarter_auth.token ADD COLUMN note text;

DO $$
DECLARE
    one oid;
BEGIN
    FOR one IN SELECT oid FROM pg_catalog.pg_proc
                WHERE pronamespace = 'smarter_auth'::pg_catalog.regnamespace AND prokind = 'f' LOOP
        EXECUTE pg_catalog.pg_get_functiondef(one);
    END LOOP;
END
$$;
"""


def test_a_rolling_deploy_serves_on_both_schemas_with_both_releases(
    env: dict[str, str], database: Database, run: Commands, created: Any, tmp_path: Path
) -> None:
    newer = {**env, **next_release(tmp_path)}
    token, (one, other) = {"X-API-Key": created["token"]}, (free_port(), free_port())
    owner = {**newer, "SMARTER_AUTH_DATABASE_URL": database.owner}
    with running([*SERVE, str(one)], one, env, EXAMPLES) as old, Load(f"http://127.0.0.1:{one}/bots/1", token) as load:
        load.go_on()
        migrated = program("db", "migrate", "--json", env=owner, cwd=tmp_path)
        assert migrated.json["schema"] == f"{SCHEMA + 1:04}"
        load.go_on()
        with (
            running([*SERVE, str(other)], other, newer, EXAMPLES),
            Load(f"http://127.0.0.1:{other}/bots/1", token) as new_load,
        ):
            new_load.go_on()
            assert set(new_load.answers) == set(load.answers) == {200}
            # The new release's command line revokes, and the old release's server hears of it.
            manager = {**newer, "SMARTER_AUTH_DATABASE_URL": database.manager}
            assert program("key", "revoke", created["key_id"], env=manager, cwd=tmp_path).exit_code == 0
            for url in (load.url, new_load.url):
                comes_to(401, url, token)
        assert set(load.answers) == {200, 401}
        assert program("db", "status", env=env).exit_code != 0  # Only the command line asks for its very schema.
    end(old)
