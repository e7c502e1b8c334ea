"""What can be known before anything is opened fails the start, with every other mistake, however the app is run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from smarter_auth_mw import Settings, SmarterAuthMiddleware
from smarter_auth_mw.configured import compile_routes
from smarter_auth_mw.engine.requirements import mistakes_of
from smarter_auth_mw.errors import ConfigurationError
from smarter_auth_mw.gate.dialects import DIALECTS
from smarter_auth_mw.gate.forward_auth import ForwardAuth
from smarter_auth_mw.postgres.embedded import place
from tests.support.cli import PATIENCE_S, PROGRAM, ROUTES, Commands, environment

APP = """
from starlette.applications import Starlette
from smarter_auth_mw import SmarterAuthMiddleware
app = SmarterAuthMiddleware(Starlette())
bare = Starlette()
"""
WAYS = {
    "uvicorn": [sys.executable, "-m", "uvicorn", "written:app", "--port", "0"],
    "serve": [*PROGRAM, "serve", "written:bare", "--port", "0"],
    "gate": [*PROGRAM, "gate", "--port", "0"],
}


def settings_of(**others: Any) -> Settings:
    return Settings(**{"database_url": "postgresql://x/y", "routes": ["bot /bots/{ref}"]} | others)


def without_client(client: str, directory: Path) -> None:
    """Hide an installed library from processes that have the directory on their path."""
    directory.joinpath(f"{client}.py").write_text("raise ModuleNotFoundError('There is no such module.')")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("client", "url", "said"),
    [
        ("redis", "redis://cache", "pip install 'smarter_auth_mw[redis]'"),
        ("aiomcache", "memcached://cache", "pip install 'smarter_auth_mw[memcached]'"),
        ("", "rediss://cache?ssl_cert_reqs=CERT_NONE", "ssl_cert_reqs of this rediss:// URL: none, optional or"),
    ],
)
def test_start_fails_and_says_what_to_do(way: str, client: str, url: str, said: str, tmp_path: Path) -> None:
    tmp_path.joinpath("written.py").write_text(APP)
    if client:
        without_client(client, tmp_path)
    env = environment(database_url="postgresql://127.0.0.1:1/y", routes=ROUTES, cache_url=url)
    env["PYTHONPATH"] = str(tmp_path)
    done = subprocess.run(WAYS[way], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode not in (0, -9)
    assert "SMARTER_AUTH_CACHE_URL: " in done.stderr
    assert said in done.stderr
    assert "startup complete" not in done.stderr


@pytest.mark.parametrize("shell", [SmarterAuthMiddleware, lambda _, settings: ForwardAuth(DIALECTS["nginx"], settings)])
async def test_lifespan_reports_it_with_all_other_mistakes(shell: Any) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(*_: Any) -> None:
        pytest.fail("The app is started.")

    settings = settings_of(cache_url="rediss://cache?ssl_ca_certs=/no/such.pem", live_path="/a//b", routes=["bot {x}"])
    with pytest.raises(ConfigurationError):
        await shell(app, settings)({"type": "lifespan"}, receive, send)
    (message,) = sent
    assert message["type"] == "lifespan.startup.failed"
    assert "SMARTER_AUTH_CACHE_URL" in message["message"]
    assert "SMARTER_AUTH_ROUTES" in message["message"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("embedded:postgres", "SMARTER_AUTH_DATABASE_URL='embedded:postgres': An embedded: URL names one directory"),
        ("embedded:", "SMARTER_AUTH_DATABASE_URL='embedded:': The embedded PostgreSQL is not installed"),
    ],
)
def test_an_embedded_database_that_cannot_be_is_a_mistake(url: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError) as caught:
        compile_routes(settings_of(database_url=url))
    assert said in str(caught.value)


def test_config_tells_them_too(bare: Commands) -> None:
    bare.set(database_url="postgresql://x/y", routes=ROUTES, cache_url="redis://cache?ssl_cert_reqs=none")
    ran = bare("config")
    assert ran.exit_code == 2
    assert "redis-py does not accept the option ssl_cert_reqs of this redis:// URL" in ran.error


@pytest.mark.parametrize(
    "url",
    [
        "memory://",
        "redis://cache",
        "rediss://:sesame@cache:6380/1?ssl_cert_reqs=none",
        "unix:///run/redis?db=1",
        "memcached://cache:11211",
    ],
)
def test_what_can_be_used_is_no_mistake_though_nobody_answers_there(url: str) -> None:
    assert list(mistakes_of(settings_of(cache_url=url))) == []


@pytest.mark.parametrize("setting", ["database_url", "listen_url"])
def test_a_certificate_of_the_database_that_cannot_be_read_is_named(setting: str) -> None:
    url = "postgresql://me:sesame@db/app?sslmode=verify-full&sslrootcert=/no/such.pem"
    (mistake,) = mistakes_of(settings_of(**{setting: url}))
    assert mistake.variable == f"SMARTER_AUTH_{setting.upper()}"
    assert "sslrootcert=/no/such.pem cannot be read: No such file or directory" in mistake.rule
    assert "sesame" not in str(mistake)
