"""Real proxies in front of a service that is not protected by itself, each with the gate and the shipped configuration.

The service reads paths and hosts as sloppily as anyone might. Whatever the bytes are that a client sends, and however
the proxy reads them, it serves no protected resource without a valid token.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from smarter_auth_mw.cli.attack.cases import UNKNOWN, Case, ResourceUrl, cases, nearly
from smarter_auth_mw.cli.attack.client import Marker, Result, attack
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.postgres.embedded.cluster import Cluster
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from tests import hostile
from tests.support.asgi import KEYED
from tests.support.database import Database, copied
from tests.support.hostile_hosts import mutated_headers
from tests.support.hostile_oracles import all_oracles
from tests.support.proxy import COMMANDS, proxied
from tests.support.server import Serving

IDENTITY = ("resource", "key-id", "key-name", "account")
PATIENCE_S = 30.0
SEED, MUTATIONS = 20260101, 200
HOSTS = ["b1.bots.example", "b2.bots.example", "app.example.com"]
ORACLE = next(oracle for oracle in all_oracles() if not oracle.hosts)
"""Tells the mutations what to put in front of a path, and to append to it."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """One that opens bot 1 and the bot of a host, whose key it is, and some that open neither."""

    valid: str
    key_id: str
    refused: Mapping[str, str]


@pytest.fixture(scope="module")
def database(cluster: Cluster, template: str) -> Iterator[Database]:
    """One for all of these tests."""
    yield from copied(cluster, template)


@pytest.fixture(scope="module")
def tokens(database: Database) -> Tokens:
    return asyncio.run(_minted(database))


async def _minted(database: Database) -> Tokens:
    async with open_pool(database.manager) as pool:
        keys = Management(Store(pool), actor="tester")
        both = [KEYED, Resource("bot", "b1")]
        valid, revoked = [await keys.create(name, bind=both) for name in ("valid", "revoked")]
        await keys.revoke(revoked.key.key_id)
    token = valid.token.reveal()
    refused = {**UNKNOWN, "revoked token": revoked.token.reveal(), **nearly(token)}
    return Tokens(token, str(valid.key.key_id), refused)


@pytest.fixture(scope="module")
def environment(database: Database) -> dict[str, str]:
    return {
        "SMARTER_AUTH_DATABASE_URL": database.runtime,
        "SMARTER_AUTH_ROUTES": "bot /bots/{ref:int}; bot /named/{name}; bot host:{ref}.bots.example",
        "SMARTER_AUTH_FAILED_ATTEMPTS": "",
        "SMARTER_AUTH_TRUSTED_PROXIES": "127.0.0.1",
    }


@pytest.fixture(scope="module", params=COMMANDS)
def running(
    request: pytest.FixtureRequest, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    with proxied(request.param, tmp_path_factory.mktemp("proxy"), environment) as started:
        yield started


@pytest.fixture
def proxy(running: Serving, tokens: Tokens) -> Serving:
    """The service behind the proxy; it has served nobody yet."""
    running.served.write_text("")
    return running


@pytest.fixture
def http(proxy: Serving) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{proxy.site.port}") as client:
        yield client


@pytest.mark.parametrize(("named_by", "bot"), [("path", "bot:1"), ("host", "bot:b1")])
async def test_no_bytes_reach_a_protected_resource_without_a_valid_token(
    proxy: Serving, tokens: Tokens, named_by: str, bot: str
) -> None:
    site = replace(proxy.site, path="/bots/1/chat")
    if named_by == "host":
        site = replace(site, host="b1.bots.example", address=site.host, path="/chat")
    assert await reached(site, bot, tokens) == []
    assert bot not in proxy.whom()


@pytest.mark.parametrize(("named_by", "bot"), [("path", "bot:1"), ("host", "bot:b1")])
async def test_no_mutation_of_an_ordinary_request_reaches_a_protected_resource(
    proxy: Serving, named_by: str, bot: str
) -> None:
    rng = random.Random(f"{SEED} {named_by}")
    requests = {mutated_target(rng) if named_by == "path" else mutated_host(rng) for _ in range(MUTATIONS)}
    mutated = [Case("mutated", repr(request), request) for request in sorted(requests)]
    report = await attack(proxy.site, mutated, Marker(header=("x-served", bot)), PATIENCE_S)
    served = [str(result.case) for result in report.results if bot in whom(result)]
    assert served == []
    assert bot not in proxy.whom()


def whom(result: Result) -> set[str]:
    """Whom the service has served with these answers."""
    heads = [answer.head.decode("latin-1").lower() for answer in result.answers]
    return {bot for head in heads for line in head.splitlines() if line.startswith("x-served:") for bot in line.split()}


def mutated_target(rng: random.Random) -> bytes:
    target = hostile.mutated(rng, rng.choice(["/bots/1", "/bots/1/chat", "/bots/2/files/1"]), ORACLE)
    return f"GET {target} HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n\r\n".encode()


def mutated_host(rng: random.Random) -> bytes:
    headers = [b"%s: %s\r\n" % header for header in mutated_headers(rng, HOSTS)]
    return b"GET /chat HTTP/1.1\r\n%sConnection: close\r\n\r\n" % b"".join(headers)


async def reached(site: ResourceUrl, bot: str, tokens: Tokens) -> list[str]:
    """The hostile requests that the service answered as this bot."""
    report = await attack(site, cases(site, tokens.refused), Marker(header=("x-served", bot)), PATIENCE_S)
    return [str(result.case) for result in report.reached]


NAIVE = (
    ("    auth_request /_smarter_auth;", ""),
    ("location / {", "location /bots/ { auth_request /_smarter_auth; proxy_pass http://service; }\nlocation / {"),
)
"""Ask only where a path begins with /bots/: nginx tidies a path up before it compares, but not as any router does."""


async def test_the_same_requests_find_the_hole_in_a_configuration_that_has_one(
    environment: dict[str, str], tokens: Tokens, tmp_path: Path
) -> None:
    with proxied("nginx", tmp_path, environment, changes=NAIVE) as naive:
        assert await reached(replace(naive.site, path="/bots/1/chat"), "bot:1", tokens)


@pytest.mark.parametrize("proxy", COMMANDS)
def test_nobody_passes_while_the_gate_is_down(environment: dict[str, str], tmp_path: Path, proxy: str) -> None:
    with proxied(proxy, tmp_path, environment, has_gate=False) as alone:
        answers = [httpx.get(f"http://127.0.0.1:{alone.site.port}{path}") for path in ("/bots/1", "/bots/2", "/")]
    assert {answer.status_code for answer in answers} <= {500, 502, 503}
    assert alone.whom() == set()


@pytest.mark.parametrize(
    "name", ["X-Smarter-Auth-Key-Id", "x-smarter-auth-key-id", "X_Smarter_Auth-Key_Id", "X.smarter.Auth-Key.Id"]
)
@pytest.mark.parametrize("path", ["/bots/1", "/bots/2", "/health"])
def test_the_service_is_told_who_was_let_in_and_never_what_the_client_says(
    proxy: Serving, http: httpx.Client, tokens: Tokens, name: str, path: str
) -> None:
    answer = http.get(path, headers={"X-API-Key": tokens.valid, name: "spoofed", "X-Smarter-Auth-Account": "spoofed"})
    told = {key: value for key, value in sent(answer) if "smarter" in key and value}
    granted = {"resource": "bot:1", "key-id": tokens.key_id, "key-name": "valid", "account": "default"}
    expected = {f"x-smarter-auth-{key}": value for key, value in granted.items()} if path == "/bots/1" else {}
    assert told == expected


NAMING = [
    *("Forwarded", "X-Forwarded-Host", "X-Forwarded-Server", "X-Forwarded-Prefix", "X-Forwarded-Uri"),
    *("X-Forwarded-Method", "X-Host", "X-Original-Host", "X-Original-URI", "X-Original-URL", "X-Original-Method"),
    *("X-Rewrite-URL", "X-HTTP-Host-Override", "X-HTTP-Method-Override"),
]


def test_the_service_hears_of_no_other_host_path_or_method(proxy: Serving, http: httpx.Client) -> None:
    answer = http.get("/health", headers=dict.fromkeys(NAMING, "b1.bots.example"))
    assert [(name, value) for name, value in sent(answer) if "b1.bots.example" in value] == []
    assert proxy.whom() == set()


def sent(answer: httpx.Response) -> list[tuple[str, str]]:
    """The headers that the service was sent."""
    return [(name, value) for name, value in answer.json()["headers"]]


@pytest.mark.parametrize(
    ("path", "status"), [("/bots/1", 401), ("/bots/01", 400), ("/named/nobody", 404), ("/bots/2", 200), ("/x", 404)]
)
def test_the_client_hears_the_status_of_the_middleware(
    proxy: Serving, http: httpx.Client, path: str, status: int
) -> None:
    answer = http.get(path)
    assert answer.status_code == status
    if "x-served" not in answer.headers:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.json()["status"] == status
    if status == 401:
        assert 'Token realm="smarter"' in answer.headers.get_list("www-authenticate")


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "PATCH", "OPTIONS"])
def test_any_method_is_asked_about_and_reaches_the_service_with_its_body(
    proxy: Serving, http: httpx.Client, tokens: Tokens, method: str
) -> None:
    body = b"x" * 100_000 if method in ("POST", "PATCH") else None
    assert http.request(method, "/bots/1/chat?a=%2Fb", content=body).status_code == 401
    assert proxy.whom() == set()
    granted = http.request(method, "/bots/1/chat?a=%2Fb", content=body, headers={"X-API-Key": tokens.valid})
    assert (granted.status_code, proxy.whom()) == (200, {"bot:1"})
    if method == "POST":
        assert ("content-length", "100000") in sent(granted)


@pytest.mark.parametrize("target", ["/bots/1/~user/a%20b", "/bots/1/%E2%9C%93", "/bots/1/x%2Fy"])
def test_the_service_gets_the_path_that_was_asked_about(
    proxy: Serving, http: httpx.Client, tokens: Tokens, target: str
) -> None:
    answer = http.get(target, headers={"X-API-Key": tokens.valid})
    assert answer.json()["raw_path"] == target


async def test_a_websocket_is_asked_about_and_switched_to(proxy: Serving, tokens: Tokens) -> None:
    url = f"ws://127.0.0.1:{proxy.site.port}/bots/1/chat"
    with pytest.raises(InvalidStatus) as refused:
        await connect(url, proxy=None)
    assert refused.value.response.status_code == 401
    ways: list[dict[str, Any]] = [
        {"additional_headers": {"X-API-Key": tokens.valid}},
        {"subprotocols": ["smarter-auth", tokens.valid]},
    ]
    for way in ways:
        async with asyncio.timeout(PATIENCE_S), connect(url, proxy=None, **way) as websocket:
            await websocket.send("hello")
            assert await websocket.recv() == "hello"


UPLOAD_BYTES = 5_000_000
LARGE_UPLOADS = ("location / {", "location / {\n        client_max_body_size 50m;")


@pytest.mark.parametrize("proxy", COMMANDS)
def test_an_upload_of_several_megabytes_reaches_the_service(
    environment: dict[str, str], tmp_path: Path, tokens: Tokens, proxy: str
) -> None:
    with proxied(proxy, tmp_path, environment, changes=[LARGE_UPLOADS] if proxy == "nginx" else []) as site:
        url, body = f"http://127.0.0.1:{site.site.port}/bots/1/chat", b"x" * UPLOAD_BYTES
        granted = httpx.post(url, content=body, headers={"X-API-Key": tokens.valid}, timeout=PATIENCE_S)
        assert granted.status_code == 200
        assert ("content-length", str(UPLOAD_BYTES)) in sent(granted)
        assert httpx.post(url, content=body, timeout=PATIENCE_S).status_code == 401


OWN_ERRORS = [
    (
        "    location / {",
        "    location /private { deny all; }\n    location /broken { return 500; }\n"
        "    location /cycle { try_files /none /cycle; }\n"
        "    location /small { client_max_body_size 1k; proxy_pass http://service; }\n    location / {",
    )
]


@pytest.mark.parametrize(
    ("path", "status"), [("/private", 403), ("/broken", 500), ("/cycle", 500), ("/small", 413), ("/bots/1", 401)]
)
def test_what_nginx_refuses_by_itself_keeps_its_status(
    environment: dict[str, str], tmp_path: Path, path: str, status: int
) -> None:
    with proxied("nginx", tmp_path, environment, changes=OWN_ERRORS) as nginx:
        answer = httpx.post(f"http://127.0.0.1:{nginx.site.port}{path}", content=b"x" * 2000)
    assert answer.status_code == status
