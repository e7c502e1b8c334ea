"""`smarter-auth admin` as people run it: the real program, on a socket of its own."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import httpx
import pytest

from tests.support.cli import PROGRAM, ROUTES, Commands, environment, program, serving
from tests.support.database import Database

PATIENCE_S = 120.0
BOTS = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

app = Starlette(routes=[Route("/bots/{ref}", lambda request: PlainTextResponse("hello"))])
"""


@pytest.fixture
def token(database: Database) -> str:
    """The token of an admin."""
    env = environment(database_url=database.owner)
    made = program("operator", "create", "--name", "ada", "--role", "admin", "--json", env=env)
    return str(made.json["token"])


@pytest.mark.parametrize("workers", [1, 2])
def test_key_of_the_api_opens_its_bot_and_once_revoked_no_worker_takes_it(
    database: Database, token: str, workers: int, tmp_path: Path
) -> None:
    (tmp_path / "bots.py").write_text(BOTS)
    env = environment(database_url=database.manager, routes=ROUTES)
    admin = [*PROGRAM, "admin", "--port", "0", "--workers", f"{workers}"]
    bots = [*PROGRAM, "serve", "bots:app", "--port", "0", "--workers", "2"]
    headers = {"Authorization": f"Bearer {token}"}
    with serving(admin, env) as api, serving(bots, env, cwd=tmp_path) as app:
        with httpx.Client(base_url=f"{api.url}/api/v1", headers=headers, timeout=PATIENCE_S) as client:
            _until(client, "/me", 200)
            minted = client.post("/keys", json={"name": "customer", "bind": ["bot:1"]}).json()
            _all_workers(app.url, 200, minted["token"])
            _all_workers(app.url, 401)
            assert client.post(f"/keys/{minted['key_id']}/revoke").json()["state"] == "revoked"
        _all_workers(app.url, 401, minted["token"])
        _, said = api.stop(signal.SIGTERM)
    assert "Traceback" not in said
    assert minted["token"] not in said + api.said
    assert token not in said + api.said


def _until(client: httpx.Client, path: str, status: int) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while client.get(path).status_code != status:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def _all_workers(url: str, status: int, token: str = "") -> None:
    """Wait until many new connections, which the kernel spreads over the workers, get this status in a row."""
    headers = {"Authorization": f"Token {token}"} if token else {}
    deadline_s, in_a_row = time.monotonic() + PATIENCE_S, 0
    while in_a_row < 30:
        in_a_row = (
            in_a_row + 1 if httpx.get(f"{url}/bots/1", headers=headers, timeout=PATIENCE_S).status_code == status else 0
        )
        assert time.monotonic() < deadline_s


def test_it_says_where_it_is_and_how_to_make_the_first_operator(database: Database) -> None:
    env = environment(database_url=database.manager, routes=ROUTES)
    with serving([*PROGRAM, "admin", "--port", "0"], env) as api:
        assert "smarter-auth operator create --name NAME --role admin" in api.said
        assert "/api/v1" in api.said
        assert not re.search("sma_[0-9A-Za-z]{20}", api.said)
        assert api.stop()[0] == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com"])
def test_other_machines_need_an_origin(run: Commands, host: str) -> None:
    ran = run("admin", "--host", host, "--port", "0")
    assert ran.exit_code == 2
    assert "SMARTER_AUTH_ADMIN_ORIGIN=https://" in ran.error


def test_mistakes_are_reported_before_anything_is_served(run: Commands) -> None:
    run.set(routes="nonsense", admin_origin="http://example.com")
    ran = run("admin", "--port", "0")
    assert ran.exit_code == 2
    assert "ADMIN_ORIGIN" in ran.err


def test_settings_and_routes_of_an_app_count(database: Database, token: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from smarter_auth_mw import Settings, SmarterAuthMiddleware\n"
        f"settings = Settings(database_url={database.manager!r}, routes=['cat /cats/{{ref:int}}'])\n"
        "app = SmarterAuthMiddleware(None, settings=settings)\n"
    )
    with serving([*PROGRAM, "--app", "own:app", "admin", "--port", "0"], environment(), cwd=tmp_path) as api:
        headers = {"Authorization": f"Bearer {token}"}
        made = httpx.post(
            f"{api.url}/api/v1/resources", json={"kind": "cat", "ref": "1"}, headers=headers, timeout=PATIENCE_S
        )
        assert made.status_code == 201, made.text


def test_embedded_database_serves_it_too(embedded_directory: Path) -> None:
    env = environment(database_url=f"embedded://{embedded_directory}", routes=ROUTES)
    assert program("db", "migrate", env=env).exit_code == 0
    made = program("operator", "create", "--name", "ada", "--role", "admin", "--json", env=env).json
    with serving([*PROGRAM, "admin", "--port", "0"], env) as api:
        headers = {"Authorization": f"Bearer {made['token']}"}
        minted = httpx.post(f"{api.url}/api/v1/keys", json={"name": "one", "bind": ["bot:1"]}, headers=headers)
        assert minted.status_code == 201, minted.text


def test_workers_add_up_their_metrics(database: Database, token: str) -> None:
    env = environment(database_url=database.manager, routes=ROUTES, metrics_path="/metrics")
    with serving([*PROGRAM, "admin", "--port", "0", "--workers", "2"], env) as api:
        for _ in range(20):
            headers = {"Authorization": f"Bearer {token}", "Connection": "close"}
            assert httpx.get(f"{api.url}/api/v1/me", headers=headers, timeout=PATIENCE_S).status_code == 200
        line = 'smarter_auth_admin_requests_total{operation="show_me",status="200"} 20.0'
        deadline_s = time.monotonic() + PATIENCE_S
        while line not in httpx.get(f"{api.url}/metrics", timeout=PATIENCE_S).text:
            assert time.monotonic() < deadline_s
            time.sleep(0.2)
