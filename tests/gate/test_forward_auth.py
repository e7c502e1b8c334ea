"""The gate: what each dialect reads, what it never reads, and what it answers."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from starlette.types import Scope

from smarter_auth_mw.gate.dialects import DIALECTS
from smarter_auth_mw.gate.forward_auth import ForwardAuth
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.tokens import Token
from tests.support.asgi import KEYED
from tests.support.database import Database
from tests.support.gate import ROUTES, TELLING, gate
from tests.support.worker import PATIENCE_S

IDENTITY = ("resource", "key-id", "key-name", "account")
EMPTY = dict.fromkeys(IDENTITY, "")

Headers = list[tuple[str, str]]
CLOSER: dict[str, Headers] = {
    "usual": [("Authorization", "Token TOKEN")],
    "two tokens": [("Authorization", "Token TOKEN"), ("X-API-Key", "another")],
    "no token": [],
    "wrong token": [("Authorization", "Token another")],
    "host twice": [("Authorization", "Token TOKEN"), ("Host", "b.example"), ("X-Forwarded-Host", "b.example")],
    "websocket": [("Sec-WebSocket-Key", "x"), ("Sec-WebSocket-Protocol", "smarter-auth, TOKEN")],
    "preflight": [("Origin", "https://a.example"), ("Access-Control-Request-Method", "GET")],
}
"""What comes with a request, and that only the first can be answered without a closer look."""

every_dialect = pytest.mark.parametrize("dialect", DIALECTS)


def credentials(token: Token) -> tuple[str, str]:
    return "Authorization", f"Token {token.reveal()}"


def identity(answer: httpx.Response) -> dict[str, str]:
    return {name: answer.headers[f"x-smarter-auth-{name}"] for name in IDENTITY}


@every_dialect
async def test_a_bound_token_passes_and_tells_who_it_is(database: Database, keys: Management, dialect: str) -> None:
    minted = await keys.create("laptop", bind=[KEYED])
    async with gate(database.runtime, dialect) as proxy:
        answer = await proxy.ask("/bots/1/chat?q=/bots/2", credentials(minted.token), method="POST")
    assert answer.status_code == 200
    assert identity(answer) == {
        "resource": "bot:1",
        "key-id": str(minted.key.key_id),
        "key-name": "laptop",
        "account": "default",
    }
    assert answer.headers["cache-control"] == "no-store"


@every_dialect
async def test_without_a_token_it_is_challenged(database: Database, token: Token, dialect: str) -> None:
    async with gate(database.runtime, dialect) as proxy:
        answer = await proxy.ask("/bots/1")
    assert answer.status_code == 401
    assert len(answer.headers.get_list("www-authenticate")) == 3
    assert answer.headers["cache-control"] == "no-store"
    assert identity(answer) == EMPTY


@every_dialect
@pytest.mark.parametrize("target", ["/bots/2", "/health", "/"])
async def test_whatever_is_open_passes_with_empty_identity_headers(
    database: Database, token: Token, dialect: str, target: str
) -> None:
    async with gate(database.runtime, dialect) as proxy:
        answer = await proxy.ask(target, credentials(token), ("X-Smarter-Auth-Key-Id", "spoofed"))
    assert answer.status_code == 200
    assert identity(answer) == EMPTY
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("dialect", TELLING)
@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize("mistake", ["missing", "twice", "empty"])
async def test_what_does_not_say_once_what_it_asks_about_is_refused(
    database: Database, caplog: pytest.LogCaptureFixture, dialect: str, at: int, mistake: str
) -> None:
    told = list(zip(TELLING[dialect], ("/health", "GET", "example.com"), strict=True))
    name, value = told[at]
    told[at : at + 1] = {"missing": [], "twice": [(name, value)] * 2, "empty": [(name, "")]}[mistake]
    async with gate(database.runtime, dialect) as proxy:
        answers = [await proxy.send("GET", "/", *told) for _ in range(2)]
    assert {answer.headers.get("x-smarter-auth-status", str(answer.status_code)) for answer in answers} == {"400"}
    assert caplog.text.count("gate.misread") == 1
    assert name in caplog.text


@pytest.mark.parametrize("dialect", TELLING)
@pytest.mark.parametrize("target", ["health", "http://example.com/health", "*", "?/health"])
async def test_a_target_without_leading_slash_is_refused(database: Database, dialect: str, target: str) -> None:
    async with gate(database.runtime, dialect) as proxy:
        answer = await proxy.ask(target)
    assert answer.status_code in (400, 403)


@pytest.mark.parametrize("method", ["GET\tX", "GE T", "G" * 33])
async def test_a_method_that_is_none_is_refused(database: Database, method: str) -> None:
    async with gate(database.runtime, "traefik") as proxy:
        assert (await proxy.ask("/health", method=method)).status_code == 400


@every_dialect
async def test_the_headers_of_other_dialects_are_never_read(database: Database, token: Token, dialect: str) -> None:
    names = {name for told in TELLING.values() for name in told[:2]} - set(TELLING.get(dialect, ())[:2])
    others = [(name, "GET" if "Method" in name else "/health") for name in names]
    async with gate(database.runtime, dialect) as proxy:
        assert (await proxy.ask("/bots/1", *others)).status_code == 401
        others = [(name, "GET" if "Method" in name else "/bots/1") for name in names]
        assert (await proxy.ask("/health", *others)).status_code == 200


@every_dialect
async def test_the_host_is_the_one_that_the_dialect_tells(database: Database, token: Token, dialect: str) -> None:
    elsewhere = [
        ("X-Forwarded-Server", "elsewhere.example.com"),
        ("X-Original-Host", "elsewhere.example.com"),
        ("Forwarded", "host=elsewhere.example.com"),
    ]
    if "X-Forwarded-Host" not in TELLING.get(dialect, ()):
        elsewhere.append(("X-Forwarded-Host", "elsewhere.example.com"))
    else:
        elsewhere.append(("Host", "elsewhere.example.com"))
    settings = {"routes": ["bot host:{ref:int}.bots.example.com"], "trusted_proxies": ["127.0.0.1"]}
    async with gate(database.runtime, dialect, **settings) as proxy:
        assert (await proxy.ask("/", *elsewhere, host="1.bots.example.com:8080")).status_code == 401
        assert (await proxy.ask("/", *elsewhere, host="2.bots.example.com")).status_code == 200
        told = [(name, "1.bots.example.com") for name, _ in elsewhere]
        assert (await proxy.ask("/", *told, host="example.com")).status_code == 200


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/bots/%31", 200),
        ("/b%6Fts/1", 200),
        ("/b%256Fts/1", 400),
        ("/%2562ots/1", 400),
        ("/bots%2F1", 400),
        ("/bots//1", 400),
        ("/x/../bots/1", 400),
        ("/BOTS/1", 400),
        ("/bots/01", 400),
        ("/bots/1#x", 400),
        ("/files/a%20b%2525.pdf", 200),
        ("/files/r%C3%A9sum%C3%A9.pdf", 200),
    ],
)
async def test_a_target_is_decoded_exactly_once_and_read_in_one_way(
    database: Database, token: Token, target: str, status: int
) -> None:
    async with gate(database.runtime, "traefik") as proxy:
        assert (await proxy.ask(target, credentials(token))).status_code == status


@pytest.mark.parametrize("dialect", ["traefik", "envoy", "caddy"])
async def test_a_proxy_that_knows_them_hears_the_refusal_as_it_is(database: Database, dialect: str) -> None:
    async with gate(database.runtime, dialect) as proxy:
        answer = await proxy.ask("/bots/01")
    assert answer.status_code == 400
    assert answer.json()["status"] == 400
    assert "x-smarter-auth-status" not in answer.headers


async def test_nginx_which_knows_two_refusals_hears_of_the_others_in_a_header(database: Database, token: Token) -> None:
    routes = ["bot /bots/{ref}", "bot /named/{name}"]
    async with gate(database.runtime, routes=routes, failed_attempts="1/hour") as proxy:
        answers = [await proxy.ask(target) for target in ("/bots/01", "/named/nobody")]
        answers += [await proxy.ask("/bots/1", ("X-API-Key", "wrong")) for _ in range(3)]
    told = [(answer.status_code, answer.headers.get("x-smarter-auth-status")) for answer in answers]
    assert told[:3] == [(403, "400"), (403, "404"), (401, "401")]
    assert told[-1] == (403, "429")
    assert answers[-1].headers["retry-after"]
    assert {answer.headers["cache-control"] for answer in answers} == {"no-store"}


async def test_a_database_that_is_down_lets_nobody_pass() -> None:
    async with gate("postgresql://nobody@127.0.0.1:1/none") as proxy:
        answer = await proxy.ask("/bots/1")
    assert (answer.status_code, answer.headers["x-smarter-auth-status"]) == (403, "503")


async def test_names_are_told_in_printable_ascii_and_can_be_decoded(database: Database, keys: Management) -> None:
    name = "Büro 50% ✓"
    minted = await keys.create(name, bind=[KEYED])
    async with gate(database.runtime) as proxy:
        told = (await proxy.ask("/bots/1", credentials(minted.token))).headers["x-smarter-auth-key-name"]
    assert told == "B%C3%BCro 50%25 %E2%9C%93"
    assert unquote(told) == name


async def test_a_websocket_may_bring_its_token_as_a_subprotocol(database: Database, token: Token) -> None:
    offered = ("Sec-WebSocket-Protocol", f"chat, smarter-auth, {token.reveal()}")
    async with gate(database.runtime) as proxy:
        assert (await proxy.ask("/bots/1", offered)).status_code == 401
        assert (await proxy.ask("/bots/1", offered, ("Sec-WebSocket-Key", "AAAA"))).status_code == 200


async def test_a_preflight_passes_where_that_is_said(database: Database, token: Token) -> None:
    asked = [("Origin", "https://example.com"), ("Access-Control-Request-Method", "POST")]
    async with gate(database.runtime) as proxy:
        assert (await proxy.ask("/bots/1", *asked, method="OPTIONS")).status_code == 401
    async with gate(database.runtime, preflight="pass") as proxy:
        assert (await proxy.ask("/bots/1", *asked, method="OPTIONS")).status_code == 200
        assert (await proxy.ask("/bots/1", *asked, method="GET")).status_code == 401


async def test_the_client_behind_a_trusted_proxy_is_throttled_and_no_other(database: Database, token: Token) -> None:
    wrong = ("X-API-Key", "wrong")
    settings = {"failed_attempts": "1/hour", "trusted_proxies": ["127.0.0.1"]}
    async with gate(database.runtime, "traefik", **settings) as proxy:
        for _ in range(3):
            last = await proxy.ask("/bots/1", wrong, ("X-Forwarded-For", "192.0.2.1"))
        assert last.status_code == 429
        assert (await proxy.ask("/bots/1", wrong, ("X-Forwarded-For", "192.0.2.2"))).status_code == 401


@every_dialect
async def test_probes_of_the_gate_itself_are_answered(database: Database, token: Token, dialect: str) -> None:
    settings = {
        "live_path": "/livez",
        "ready_path": "/readyz",
        "routes": [ROUTES, "bot host:{ref}.bots.example.com"],
    }
    own = ("Host", "gate")
    async with gate(database.runtime, dialect, **settings) as proxy:
        assert (await proxy.send("GET", "/livez", own)).json() == {"status": "live"}
        ready = await proxy.send("GET", "/readyz", own)
        assert (ready.status_code, identity(ready)) == (200, EMPTY)
        assert (await proxy.ask("/livez", host="1.bots.example.com")).status_code == 401
        told = [(name, "/livez") for name in TELLING.get(dialect, ())[:1]]
        assert (await proxy.send("GET", "/livez", *told)).status_code in (400, 403) or dialect == "envoy"


async def test_a_revoked_key_is_refused(database: Database, keys: Management) -> None:
    minted = await keys.create("laptop", bind=[KEYED])
    async with gate(database.runtime) as proxy:
        assert (await proxy.ask("/bots/1", credentials(minted.token))).status_code == 200
        await keys.revoke(minted.key.key_id)
        async with asyncio.timeout(PATIENCE_S):
            while (status := (await proxy.ask("/bots/1", credentials(minted.token))).status_code) == 200:
                await asyncio.sleep(0.002)
    assert status == 401


@every_dialect
async def test_only_what_is_usual_is_answered_at_once_and_as_on_a_close_look(
    database: Database, token: Token, dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once: list[bool] = []
    glance = ForwardAuth._pass_at_once

    def glanced(self: ForwardAuth, scope: Scope) -> Any:
        passed = glance(self, scope)
        at_once.append(passed is not None)
        return passed

    monkeypatch.setattr(ForwardAuth, "_pass_at_once", glanced)
    async with gate(database.runtime, dialect, failed_attempts="") as proxy:
        for name, headers in CLOSER.items():
            asked = [(header, value.replace("TOKEN", token.reveal())) for header, value in headers]
            for method, target in (
                ("GET", "/bots/1?q=1"),
                ("POST", "/bots/1"),
                ("OPTIONS", "/bots/1"),
                ("GET", "/bots/%31"),
            ):
                at_once.clear()
                answers = [await proxy.ask(target, *asked, method=method) for _ in range(3)]
                assert len({(answer.status_code, *answer.headers.multi_items()) for answer in answers}) == 1
                is_usual = name == "usual" and method != "OPTIONS" and "%" not in target
                assert at_once[1:] == [is_usual] * 2, (name, method, target)
