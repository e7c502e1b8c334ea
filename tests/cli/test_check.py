"""`smarter-auth check`: what the middleware would do, and why; the middleware itself is the witness."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.responses import Response

from tests.support.asgi import client, guarded
from tests.support.cli import ROUTES, Commands
from tests.support.database import Database


def checked(run: Commands, *arguments: str) -> dict[str, Any]:
    ran = run("check", *arguments, "--json")
    document: dict[str, Any] = ran.json
    assert ran.exit_code == (1 if document["decision"] == "deny" else 0), ran
    return document


def test_no_resource_passes(run: Commands) -> None:
    found = checked(run, "http://localhost/health")
    assert (found["resource"], found["decision"], found["status"]) == (None, "pass", 200)
    assert found["routes_from"] == "environment"


def test_an_open_resource_is_anonymous(run: Commands) -> None:
    found = checked(run, "http://localhost/bots/1/chat?x=/bots/2")
    assert (found["resource"], found["decision"], found["status"]) == ("bot:1", "anonymous", 200)


@pytest.mark.parametrize("header", ["Authorization: Token {}", "authorization:Bearer {}", "X-API-Key: {}"])
def test_a_bound_token_is_granted(run: Commands, header: str) -> None:
    token = run.json("key", "create", "--name", "first", "--bind", "bot:1")["token"]
    found = checked(run, "/bots/1", "--header", header.format(token))
    assert (found["resource"], found["decision"], found["status"]) == ("bot:1", "grant", 200)


def test_a_protected_resource_without_token_is_denied_with_the_reason(run: Commands) -> None:
    run.json("resource", "add", "bot:1", "--protect")
    found = checked(run, "/bots/1")
    assert (found["decision"], found["reason"], found["status"]) == ("deny", "missing_credentials", 401)
    assert found["route"] == "bot /bots/{ref:int}"


def test_the_token_of_another_resource_is_told_from_one_that_nobody_has(run: Commands) -> None:
    run.json("resource", "add", "bot:1", "--protect")
    token = run.json("key", "create", "--name", "elsewhere", "--bind", "bot:2")["token"]
    found = checked(run, "/bots/1", "--header", f"Authorization: Token {token}")
    assert (found["reason"], found["status"]) == ("unknown_token", 401)
    assert "elsewhere" in found["detail"]
    assert "bot:2" in found["detail"]
    unknown = checked(run, "/bots/1", "--header", "Authorization: Token abc")
    assert unknown["detail"] == "No key has a token with this beginning."


@pytest.mark.parametrize("verb", ["revoke", "deactivate"])
def test_a_token_that_is_no_longer_valid_is_told_by_its_reason(run: Commands, verb: str) -> None:
    created = run.json("key", "create", "--name", "first", "--bind", "bot:1")
    state = run.json("key", verb, created["key_id"])["state"]
    found = checked(run, "/bots/1", "--header", f"Authorization: Token {created['token']}")
    assert (found["decision"], found["reason"]) == ("deny", state)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("/bots/042", "not_canonical"),
        ("http://localhost/bots/%31/../2", "not_canonical"),
        ("//bots/1", "not_canonical"),
    ],
)
def test_what_can_be_read_in_two_ways_is_denied_with_400(run: Commands, url: str, reason: str) -> None:
    found = checked(run, url)
    assert (found["decision"], found["reason"], found["status"]) == ("deny", reason, 400)


def test_malformed_credentials_are_400(run: Commands) -> None:
    run.json("resource", "add", "bot:1", "--protect")
    found = checked(run, "/bots/1", "--header", "Authorization: Token a b")
    assert (found["reason"], found["status"]) == ("malformed_credentials", 400)


def test_a_preflight_passes_where_the_settings_let_it(run: Commands) -> None:
    run.json("resource", "add", "bot:1", "--protect")
    preflight = ["-X", "OPTIONS", "-H", "Origin: http://a.example", "-H", "Access-Control-Request-Method: POST"]
    assert checked(run, "/bots/1", *preflight)["status"] == 401
    run.set(preflight="pass")
    assert checked(run, "/bots/1", *preflight)["decision"] == "pass"


def test_a_browsers_websocket_brings_its_token_as_a_subprotocol(run: Commands) -> None:
    token = run.json("key", "create", "--name", "first", "--bind", "bot:1")["token"]
    offer = f"Sec-WebSocket-Protocol: chat, smarter-auth, {token}"
    assert checked(run, "ws://localhost/bots/1", "-H", offer)["decision"] == "grant"
    assert checked(run, "http://localhost/bots/1", "-H", offer)["decision"] == "deny"


def test_people_are_told_the_same(run: Commands) -> None:
    run.json("resource", "add", "bot:1", "--protect")
    ran = run("check", "/bots/1")
    assert ran.exit_code == 1
    assert "missing_credentials" in ran.out
    assert ran.err == ""


@pytest.mark.parametrize("url", ["bots/1", "ftp://localhost/bots/1", "http://", ""])
def test_what_is_no_url_of_a_request_is_wrong_usage(run: Commands, url: str) -> None:
    ran = run("check", url)
    assert ran.exit_code == 2
    assert "http://localhost:8000/bots/1" in ran.error


@pytest.mark.parametrize("header", ["Authorization", "Authorization Token abc", ": x", "A b: c", "A: b\nC: d"])
def test_what_is_no_header_is_wrong_usage_and_not_repeated(run: Commands, header: str) -> None:
    ran = run("check", "/bots/1", "--header", header)
    assert ran.exit_code == 2
    assert "Token abc" not in ran.error
    assert "Name: value" in ran.error


def test_the_middleware_itself_answers_with_that_status(run: Commands, database: Database) -> None:
    token = run.json("key", "create", "--name", "first", "--bind", "bot:1")["token"]
    other = run.json("key", "create", "--name", "second", "--bind", "bot:2")["token"]
    requests = [
        (path, {"Authorization": f"Token {credentials}"} if credentials else {})
        for path in ("/bots/1", "/bots/2", "/bots/3", "/bots/042", "/bots", "/BOTS/1", "/bots/1%2F2", "/x")
        for credentials in ("", token, other, "a b")
    ]

    async def witness() -> list[int]:
        app = guarded(database.runtime, Response(), routes=[ROUTES])
        async with client(app) as http:
            return [(await http.get(path, headers=headers)).status_code for path, headers in requests]

    said = [
        checked(run, path, *(f"--header={name}: {value}" for name, value in headers.items()))["status"]
        for path, headers in requests
    ]
    assert said == asyncio.run(witness())


APPS = {
    "added": "app = FastAPI(); app.root_path = '/api'; app.add_middleware(SmarterAuthMiddleware, settings=settings)",
    "wrapped": "app = SmarterAuthMiddleware(Starlette(), settings)",
    "wrapped_twice": "app = CORSMiddleware(SmarterAuthMiddleware(Starlette(), settings))",
    "attribute": "class app: inner = SmarterAuthMiddleware(Starlette(), settings)",
}


@pytest.mark.parametrize("way", APPS)
def test_settings_and_routes_of_an_app_count_instead_of_the_environment(
    bare: Commands, database: Database, written: Callable[[str], str], way: str
) -> None:
    app = written(
        "from fastapi import FastAPI\n"
        "from starlette.applications import Starlette\n"
        "from starlette.middleware.cors import CORSMiddleware\n"
        "from smarter_auth_mw import Settings, SmarterAuthMiddleware\n"
        "print('noise at import')\n"
        f"settings = Settings(database_url={database.manager!r}, routes=['tool /tools/{{ref}}'])\n" + APPS[way]
    )
    name = f"{app}.inner" if way == "attribute" else app
    bare.json("--app", name, "resource", "add", "tool:hammer", "--protect")
    found = checked(bare, "/tools/hammer", "--app", name)
    assert (found["resource"], found["status"], found["routes_from"]) == ("tool:hammer", 401, name)


def test_the_environment_counts_where_the_app_leaves_it_to_it(run: Commands, written: Callable[[str], str]) -> None:
    app = written(
        "from starlette.applications import Starlette\n"
        "from starlette.middleware import Middleware\n"
        "from smarter_auth_mw import SmarterAuthMiddleware\n"
        "app = Starlette(middleware=[Middleware(SmarterAuthMiddleware)])\n"
    )
    found = checked(run, "/bots/1", "--app", app)
    assert (found["resource"], found["routes_from"]) == ("bot:1", app)


def test_an_app_without_the_middleware_is_not_found(run: Commands, written: Callable[[str], str]) -> None:
    ran = run("check", "/bots/1", "--app", written("async def app(scope, receive, send): ..."))
    assert ran.exit_code == 1
    assert "SmarterAuthMiddleware" in ran.error


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no attribute 'app'"),
        ("import no_such_module", "no_such_module"),
        ("raise RuntimeError('not today')", "not today (written_"),
        ("import sys; sys.exit(7)", "SystemExit"),
        ("app = (", "line 1"),
    ],
)
def test_an_app_that_does_not_import_is_one_clear_line(
    run: Commands, written: Callable[[str], str], text: str, says: str
) -> None:
    ran = run("check", "/bots/1", "--app", written(text))
    assert ran.exit_code == 2
    assert says in ran.error
