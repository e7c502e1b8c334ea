"""The test kit: people's own apps behind the real middleware, without a database and without an environment."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from flask import Flask

from smarter_auth_mw import Settings, SmarterAuthMiddleware
from smarter_auth_mw.errors import ConfigurationError, InvalidReferenceError, RefusedError, UnknownKindError, UsageError
from smarter_auth_mw.models import ChatBot, ChatBotAPIKey
from smarter_auth_mw.postgres.transaction import Transaction
from smarter_auth_mw.testing import AuthKit
from smarter_auth_mw.testing.store import MemoryStore, MemoryTransaction
from smarter_auth_mw.wsgi import SmarterAuthWSGIMiddleware

HOUR = timedelta(hours=1)


@pytest.fixture
def smarter_auth_routes() -> Sequence[str]:
    return ["bot /bots/{ref:int}", "bot /named/{name}"]


@pytest.fixture
def http(smarter_auth: AuthKit) -> httpx.AsyncClient:
    app = FastAPI()
    app.add_middleware(SmarterAuthMiddleware)

    @app.get("/{path:path}")
    def answer(path: str) -> str:
        return path

    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver")


async def test_bot_answers_to_its_own_key_only(smarter_auth: AuthKit, http: httpx.AsyncClient) -> None:
    key, other = smarter_auth.mint("bot:1"), smarter_auth.mint("bot:2")
    assert (await http.get("/bots/1", headers=key.headers)).status_code == 200
    smarter_auth.assert_granted(key)
    assert (await http.get("/bots/1", headers=other.headers)).status_code == 401
    smarter_auth.assert_denied("unknown_token")
    assert (await http.get("/bots/1")).status_code == 401
    smarter_auth.assert_denied("missing_credentials")
    assert (await http.get("/bots/3")).status_code == 200
    smarter_auth.assert_anonymous()
    assert (await http.get("/elsewhere")).status_code == 200
    assert len(smarter_auth.decisions) == 4


async def test_what_is_done_to_a_key_counts_for_the_next_request(
    smarter_auth: AuthKit, http: httpx.AsyncClient
) -> None:
    key = smarter_auth.mint("bot:1", expires_in=3 * HOUR)

    async def status() -> int:
        return (await http.get("/bots/1", headers=key.headers)).status_code

    assert await status() == 200
    smarter_auth.deactivate(key)
    assert await status() == 401
    smarter_auth.assert_denied("inactive")
    smarter_auth.activate(key)
    assert await status() == 200
    rotated = smarter_auth.rotate(key, HOUR)
    smarter_auth.advance(HOUR)
    assert await status() == 200
    smarter_auth.advance(timedelta(seconds=1))
    assert await status() == 401
    smarter_auth.assert_denied("expired")
    key = rotated
    assert await status() == 200
    smarter_auth.revoke(key)
    assert await status() == 401
    smarter_auth.assert_denied("revoked")


async def test_last_key_leaves_the_bot_open_only_where_that_is_meant(
    smarter_auth: AuthKit, http: httpx.AsyncClient
) -> None:
    key = smarter_auth.mint("bot:1")
    smarter_auth.bind(key, "bot:2")
    with pytest.raises(RefusedError, match="to anyone"):
        smarter_auth.unbind(key, "bot:1")
    smarter_auth.unbind(key, "bot:1", allow_anonymous=True)
    assert [(await http.get(f"/bots/{bot}")).status_code for bot in (1, 2)] == [200, 401]
    smarter_auth.protect("bot:1")
    assert (await http.get("/bots/1")).status_code == 401
    smarter_auth.unprotect("bot:1")
    assert (await http.get("/bots/1")).status_code == 200


async def test_names_lead_to_the_bot(smarter_auth: AuthKit, http: httpx.AsyncClient) -> None:
    smarter_auth.add("bot:1", name="my_sales", protect=True)
    assert (await http.get("/named/my-sales")).status_code == 401
    assert (await http.get("/named/nobody")).status_code == 404


async def test_outage_is_an_outage(smarter_auth: AuthKit, http: httpx.AsyncClient) -> None:
    key = smarter_auth.mint("bot:1")
    with smarter_auth.outage():
        assert (await http.get("/bots/1", headers=key.headers)).status_code == 503
    assert (await http.get("/bots/1", headers=key.headers)).status_code == 200


async def test_too_many_guesses_are_throttled_until_time_has_gone_by(
    smarter_auth: AuthKit, http: httpx.AsyncClient
) -> None:
    smarter_auth.mint("bot:1")
    bad = {"Authorization": "Token nonsense"}
    statuses = [(await http.get("/bots/1", headers=bad)).status_code for _ in range(31)]
    assert statuses == [401] * 30 + [429]
    smarter_auth.advance(timedelta(minutes=1))
    assert (await http.get("/bots/1", headers=bad)).status_code == 401


@pytest.mark.parametrize("time", [1, 2])
def test_each_test_begins_with_nothing_under_one_wsgi_app(smarter_auth: AuthKit, time: int) -> None:
    client = FLASK.test_client()
    assert client.get("/bots/1").status_code == 200
    key = smarter_auth.mint("bot:1")
    assert client.get("/bots/1").status_code == 401
    assert client.get("/bots/1", headers=key.headers).status_code == 200
    smarter_auth.assert_granted(key)


FLASK = Flask(__name__)
FLASK.add_url_rule("/bots/<int:bot>", view_func=lambda bot: str(bot), endpoint="bot")
_SETTINGS = Settings(database_url="postgresql://nobody@nowhere.invalid/none", routes=["bot /bots/{ref:int}"])


_WSGI = SmarterAuthWSGIMiddleware(FLASK.wsgi_app, _SETTINGS)
FLASK.wsgi_app = _WSGI  # type: ignore[method-assign]


@pytest.fixture(scope="module", autouse=True)
def closing() -> Iterator[None]:
    yield
    _WSGI.close()


def test_starlettes_own_test_client_works_too(smarter_auth: AuthKit) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It deprecates the httpx that it runs on.
        from starlette.testclient import TestClient
    app = FastAPI()
    app.add_middleware(SmarterAuthMiddleware, settings=_SETTINGS)
    app.add_api_route("/bots/{bot}", lambda bot: bot)
    key = smarter_auth.mint("bot:1")
    with TestClient(app) as client:
        assert client.get("/bots/1").status_code == 401
        assert client.get("/bots/1", headers=key.headers).status_code == 200


def test_assertions_say_what_was_decided(smarter_auth: AuthKit) -> None:
    with pytest.raises(AssertionError, match="No request"):
        smarter_auth.assert_granted()


def test_there_is_one_kit_at_a_time(smarter_auth: AuthKit) -> None:
    with pytest.raises(UsageError, match="Another AuthKit"), AuthKit():
        pass


def test_token_of_a_test_hides_itself(smarter_auth: AuthKit) -> None:
    key = smarter_auth.mint("bot:1")
    assert str(key.token) not in repr(key)


def test_everything_that_keys_are_written_by_is_there_in_memory() -> None:
    of_models = {name for name in vars(Transaction) if name.endswith(("_ids", "_id", "_by_id"))} | {"bindings"}
    of_models |= {"prune_audit", "bound_keys"}
    public = {name for name in vars(Transaction) if not name.startswith("_")} - of_models
    assert public <= set(vars(MemoryTransaction))
    assert {"read", "read_token", "transaction"} <= set(vars(MemoryStore))


@pytest.mark.parametrize(
    "ask",
    [
        lambda: ChatBot.objects.all().count(),
        lambda: ChatBot.objects.filter(name="x").exists(),
        lambda: ChatBotAPIKey.objects.first(),
        lambda: ChatBot.objects.get(id=1),
    ],
)
async def test_a_model_that_needs_a_database_says_so(smarter_auth: AuthKit, ask: Callable[[], Awaitable[Any]]) -> None:
    another = SmarterAuthMiddleware(
        FastAPI(), settings=Settings(database_url="postgresql://elsewhere/", routes=["bot /bots/{ref}"])
    )
    app = FastAPI()
    app.add_middleware(SmarterAuthMiddleware)
    said: list[str] = []

    @app.get("/elsewhere")
    async def answer() -> None:
        try:
            await ask()
        except UsageError as error:
            said.append(f"{error} {error.hint}")

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as http:
        await http.get("/elsewhere")
    assert len(said) == 1
    assert "needs" in said[0]
    assert "embedded:" in said[0]
    del another  # Held until here, as another test's app may be.


def test_plugin_is_found_by_pytest_and_testing_does_not_need_it(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text("def test_own(smarter_auth):\n    assert smarter_auth.mint('bot:1').token\n")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("SMARTER_AUTH_", "PYTEST_"))}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-W",
        "error",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:asyncio",
        "test_own.py",
    ]
    ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout
    program = "import sys, smarter_auth_mw.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], env=env).returncode == 0


async def test_hosts_and_domains_lead_to_what_they_are_called() -> None:
    with AuthKit(["bot /bots/{ref:int}", "bot host:{label}.bots.example"]) as kit:
        app = SmarterAuthMiddleware(FastAPI())
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http:
            assert (await http.get("http://sales.example.net/")).status_code == 404  # FastAPI's own.
            kit.add("bot:1", name="sales_bot", domain="sales.example.net", protect=True)
            for host in ("sales-bot.bots.example", "sales.example.net"):
                assert (await http.get(f"http://{host}/")).status_code == 401
                assert str(kit.assert_denied("missing_credentials").resource) == "bot:1"


def test_mistyped_settings_are_told_at_once() -> None:
    with pytest.raises(ConfigurationError, match="requier"):
        AuthKit(["bot /bots/{ref:int}"], requier="active")
    with pytest.raises(ConfigurationError, match="sometimes"):
        AuthKit(require="sometimes")
    with pytest.raises(ConfigurationError, match=r"\{id\}"):
        AuthKit(["bot /bots/{id}"])


def test_resources_are_those_that_requests_reach(smarter_auth: AuthKit) -> None:
    with pytest.raises(InvalidReferenceError, match="'042'"):
        smarter_auth.mint("bot:042")
    with pytest.raises(UnknownKindError, match="'agent'"):
        smarter_auth.mint("agent:1")
    assert smarter_auth._memory.tables.keys == {}


def test_a_test_client_ends_where_the_configuration_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from starlette.testclient import TestClient
    monkeypatch.setenv("SMARTER_AUTH_ROUTES", "bot /bots/{id}")
    with pytest.raises(ConfigurationError), TestClient(SmarterAuthMiddleware(FastAPI())):
        pass
