"""Which requests are for the API at all, and what every response carries."""

from __future__ import annotations

import httpx
import pytest

from smarter_auth_mw.admin import AdminApp
from smarter_auth_mw.admin.operations import BASE
from smarter_auth_mw.admin.security import HEADERS, is_loopback
from smarter_auth_mw.errors import ConfigurationError
from smarter_auth_mw.management.operators import Role
from tests.support.admin import Caller, Site, settings
from tests.support.asgi import lifespan
from tests.support.database import Database

LOCAL_HOSTS = ["localhost", "localhost:8010", "LocalHost:1", "127.0.0.1:8010", "127.9.9.9", "[::1]", "[::1]:8010"]
FOREIGN_HOSTS = [
    *("evil.example.com", "localhost.evil.example.com", "127.0.0.1.evil.example.com", "10.0.0.1", "0.0.0.0", "[::2]"),
    *("localhost@evil", "", "localhost:", "localhost:x", "127.1", "0x7f000001", "localhost, evil", "[::1", "::1"),
]


def _client(app: AdminApp, peer: str = "127.0.0.1", base: str = "http://localhost") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(peer, 1)), base_url=base)


@pytest.mark.parametrize("host", LOCAL_HOSTS)
async def test_without_an_origin_this_machine_is_served(admin: Caller, host: str) -> None:
    assert (await admin("GET", "/me", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
async def test_without_an_origin_a_foreign_host_is_misdirected(admin: Caller, host: str) -> None:
    assert await admin.code("GET", "/me", headers={"Host": host}) == (421, "misdirected")


async def test_two_hosts_or_none_are_misdirected(site: Site, admin: Caller) -> None:
    request = site.client.build_request("GET", f"{BASE}/me", headers={"Authorization": f"Bearer {admin.token}"})
    for hosts in ([], [("host", "localhost"), ("host", "localhost")]):
        headers = [(name, value) for name, value in request.headers.items() if name != "host"]
        sent = httpx.Request("GET", request.url, headers=[*headers, *hosts])
        if not hosts:
            del sent.headers["host"]
        assert (await site.client.send(sent)).status_code == 421


@pytest.mark.parametrize(
    ("peer", "status"), [("127.0.0.1", 200), ("::1", 200), ("::ffff:127.0.0.1", 200), ("10.0.0.1", 421)]
)
async def test_without_an_origin_other_machines_are_not_served(
    site: Site, admin: Caller, peer: str, status: int
) -> None:
    async with _client(site.app, peer) as client:
        assert (await Caller(client, admin.token)("GET", "/me")).status_code == status


async def test_with_an_origin_any_host_and_peer_is_served(database: Database, admin: Caller) -> None:
    app = AdminApp(settings(database, admin_origin="https://admin.example.com"))
    async with lifespan(app), _client(app, "10.0.0.1", "http://inner:9000") as client:
        assert (await Caller(client, admin.token)("GET", "/me")).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        "https://a.example.com",
        "https://a.example.com:8443",
        "http://localhost:8010",
        "http://127.0.0.1",
        "https://[::1]:1",
    ],
)
def test_origins_that_are_possible(database: Database, origin: str) -> None:
    assert settings(database, admin_origin=origin).admin_origin == origin


@pytest.mark.parametrize(
    "origin",
    [
        *("admin.example.com", "http://admin.example.com", "https://a.example.com/", "https://a.example.com/admin"),
        *(
            "https://",
            "https://a b",
            "https://user@a.example.com",
            "https://*.example.com",
            "null",
            "https://A.example.com",
        ),
    ],
)
def test_origins_that_are_not(database: Database, origin: str) -> None:
    with pytest.raises(ConfigurationError, match="ADMIN_ORIGIN"):
        settings(database, admin_origin=origin)


async def test_every_response_carries_the_headers_and_none_of_cors(site: Site, admin: Caller) -> None:
    origin = {"Origin": "https://evil.example.com"}
    responses = [
        await admin("GET", "/me", headers=origin),
        await admin("GET", "/nothing", headers=origin),
        await admin("DELETE", "/me", headers=origin),
        await admin("POST", "/keys", {}, headers=origin),
        await Caller(site.client)("GET", "/me", headers=origin),
        await admin("GET", "/me", headers=origin | {"Host": "evil"}),
        await site.client.get("/", headers=origin),
    ]
    assert [response.status_code for response in responses] == [200, 404, 405, 422, 401, 421, 303]
    for response in responses:
        assert {name.decode(): value.decode() for name, value in HEADERS}.items() <= response.headers.items()
        assert not [name for name in response.headers if name.startswith("access-control-")]
        assert "set-cookie" not in response.headers


async def test_preflight_is_not_answered(site: Site) -> None:
    headers = {"Origin": "https://evil.example.com", "Access-Control-Request-Method": "POST"}
    response = await site.client.options(f"{BASE}/keys", headers=headers)
    assert response.status_code == 405
    assert response.headers["allow"] == "GET, POST, HEAD"


async def test_no_cookie_and_nothing_but_a_bearer_token_signs_in(site: Site, admin: Caller) -> None:
    token = admin.token
    attempts = [
        {"Cookie": f"__Host-smarter_auth={token}; smarter_auth={token}; token={token}"},
        {"X-API-Key": token},
        {"Authorization": f"Token {token}"},
        {"Authorization": f"Basic {token}"},
        {"Authorization": token},
        {"Authorization": f"Bearer {token[:-1]}"},
        {"Authorization": f"Bearer {token}x"},
        {"Authorization": f"Bearer {token}, Bearer {token}"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer " + "x" * 10_000},
    ]
    for headers in attempts:
        assert await Caller(site.client).code("GET", "/me", headers=headers) == (401, "unauthorized"), headers
    assert await Caller(site.client).code("GET", f"/me?token={token}") == (401, "unauthorized")
    assert (await Caller(site.client)("GET", "/me", headers={"Authorization": f"bearer  {token}"})).status_code == 200
    twice = httpx.Headers([("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {token}")])
    assert (await site.client.get(f"{BASE}/me", headers=twice)).status_code == 401


async def test_a_token_of_a_key_is_no_operators(site: Site, admin: Caller) -> None:
    minted = await admin.json("POST", "/keys", {"name": "key"})
    assert await Caller(site.client, minted["token"]).code("GET", "/me") == (401, "unauthorized")


async def test_failed_attempts_are_throttled_and_valid_tokens_never(database: Database, admin: Caller) -> None:
    app = AdminApp(settings(database, failed_attempts="3/minute"))
    async with lifespan(app), _client(app) as client, _client(app, "127.0.0.2") as other:
        wrong = "sma_" + "a" * 49
        statuses = [(await Caller(client, wrong)("GET", "/me")).status_code for _ in range(5)]
        assert statuses == [401, 401, 401, 429, 429]
        throttled = await Caller(client, wrong)("GET", "/me")
        assert int(throttled.headers["retry-after"]) > 0
        assert (await Caller(client, admin.token)("GET", "/me")).status_code == 200
        assert (await Caller(client)("GET", "/me")).status_code == 401
        assert (await Caller(other, wrong)("GET", "/me")).status_code == 401


async def test_unknown_expired_and_revoked_tokens_get_one_answer(site: Site) -> None:
    revoked = await site.operators.create("revoked", Role.VIEWER)
    await site.operators.revoke("revoked")
    tokens = [revoked.token.reveal(), "sma_" + "a" * 49, "x"]
    answers = [await Caller(site.client, token)("GET", "/me") for token in tokens]
    assert len({(answer.status_code, answer.text, str(answer.headers)) for answer in answers}) == 1


def test_loopback() -> None:
    assert [
        host for host in ("localhost", "127.0.0.1", "::1", "[::1]", "::ffff:127.0.0.1") if not is_loopback(host)
    ] == []
    assert [host for host in ("", "example.com", "10.0.0.1", "::", "local host") if is_loopback(host)] == []
