"""Every framework on every server, for real: HTTP, WebSockets, below ``Host`` and ``Mount``, and a graceful end."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from smarter_auth_mw.postgres.embedded.cluster import Cluster
from tests.support.cli import Server, environment, program, rows
from tests.support.database import Database, copied
from tests.support.framework import ASGI_SERVERS, PATIENCE_S, WSGI_SERVERS, check, client, restarted

ROOT = str(Path(__file__).parents[2])
ASGI_FRAMEWORKS = ["starlette", "fastapi", "litestar", "quart", "django"]
WITH_SOCKETS = ["fastapi", "litestar", "quart"]
WSGI_FRAMEWORKS = ["flask", "django"]


@pytest.fixture(scope="module")
def database(cluster: Cluster, template: str) -> Iterator[Database]:
    """One for all of these tests."""
    yield from copied(cluster, template)


@pytest.fixture(scope="module")
def env(database: Database) -> dict[str, str]:
    settings = environment(database_url=database.runtime, routes="bot /bots/{ref:int}", usage_flush_s="3600")
    return settings | {"PYTHONPATH": ROOT}


@pytest.fixture(scope="module")
def minted(env: dict[str, str], database: Database) -> dict[str, Any]:
    """A key that opens bot 1."""
    writing = env | {"SMARTER_AUTH_DATABASE_URL": database.manager}
    created: dict[str, Any] = program("key", "create", "--name", "k", "--bind", "bot:1", "--json", env=writing).json
    return created


@pytest.fixture(scope="module", params=ASGI_SERVERS)
def asgi_servers(request: pytest.FixtureRequest, env: dict[str, str]) -> Iterator[Callable[[], Server]]:
    with restarted(ASGI_SERVERS[request.param], "tests.support.every_asgi_app:app", env) as running_now:
        yield running_now


@pytest.fixture
def server(asgi_servers: Callable[[], Server]) -> Server:
    return asgi_servers()


@pytest.fixture(scope="module", params=WSGI_SERVERS)
def wsgi_servers(request: pytest.FixtureRequest, env: dict[str, str]) -> Iterator[Callable[[], Server]]:
    with restarted(WSGI_SERVERS[request.param], "tests.support.every_wsgi_app:app", env) as running_now:
        yield running_now


@pytest.fixture
def wsgi_server(wsgi_servers: Callable[[], Server]) -> Server:
    return wsgi_servers()


@pytest.mark.parametrize("framework", ASGI_FRAMEWORKS)
def test_an_asgi_framework_is_protected_at_a_host_and_below_a_path(
    server: Server, minted: dict[str, Any], framework: str
) -> None:
    for prefix, host in (("", f"{framework}.example.com"), (f"/{framework}", "example.com")):
        with client(server, prefix, host=host) as http:
            check(http, minted["token"], minted["key_id"])


@pytest.mark.parametrize("framework", WITH_SOCKETS)
async def test_a_websocket_is_refused_without_and_served_with_a_token(
    server: Server, minted: dict[str, Any], framework: str
) -> None:
    url = f"{server.url.replace('http', 'ws', 1)}/{framework}/bots/1/socket"
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, proxy=None)
        assert refused.value.response.status_code in (401, 403)
        async with connect(url, additional_headers={"X-API-Key": minted["token"]}, proxy=None) as websocket:
            await websocket.send("hello")
            assert str(await websocket.recv()).startswith("Bot 1 heard: ")


def test_an_asgi_server_finishes_what_is_running_and_writes_what_was_counted(
    server: Server, minted: dict[str, Any], database: Database
) -> None:
    before = counted(database)
    authorized = {"authorization": f"Token {minted['token']}"}
    with client(server, "/service", host="front.example.com") as front:
        assert front.get("/bots/1").status_code == 401
        assert front.get("/bots/1", headers=authorized).text == "You have reached /bots/1\n"
    question = {"text": "a b c d e f", "pause_s": 0.05}
    with client(server, "/fastapi", **authorized) as http, http.stream("POST", "/bots/1/chat", json=question) as answer:
        words = answer.iter_text()
        heard = next(words)
        server.process.send_signal(signal.SIGTERM)
        heard += "".join(words)
    assert heard == "Bot 1 heard: a b c d e f "
    ends_cleanly(server, minted["token"])
    assert counted(database) > before


@pytest.mark.parametrize("framework", WSGI_FRAMEWORKS)
def test_a_wsgi_framework_is_protected_below_a_path(
    wsgi_server: Server, minted: dict[str, Any], framework: str
) -> None:
    with client(wsgi_server, f"/{framework}") as http:
        for _ in range(3):  # Whichever worker answers.
            check(http, minted["token"], minted["key_id"])


@pytest.mark.parametrize(
    "request_line",
    [
        "GET http://example.com/flask/bots/1 HTTP/1.1",
        "GET //flask/bots/1 HTTP/1.1",
        "GET /flask/bots/1%2F.. HTTP/1.1",
        "GET /flask/x/../bots/1 HTTP/1.1",
        "GET /flask//bots/1 HTTP/1.1",
        "GET flask/bots/1 HTTP/1.1",
    ],
)
def test_a_request_target_that_can_be_read_in_other_ways_reaches_no_wsgi_app(
    wsgi_server: Server, minted: dict[str, Any], request_line: str
) -> None:
    answer = asked(wsgi_server, request_line, "Host: example.com")
    assert answer.split(b" ", 2)[1] in (b"400", b"401", b"404"), answer
    assert b"bot:1" not in answer


def test_a_token_that_comes_twice_opens_nothing_under_wsgi(wsgi_server: Server, minted: dict[str, Any]) -> None:
    line = "GET /flask/bots/1 HTTP/1.1"
    once, again = f"X-API-Key: {minted['token']}", f"x-api-key: {minted['token']}"
    assert asked(wsgi_server, line, "Host: x", once).startswith(b"HTTP/1.1 200")
    assert asked(wsgi_server, line, "Host: x", once, again).startswith(b"HTTP/1.1 400")


def test_a_wsgi_server_ends_cleanly_and_writes_what_was_counted(
    wsgi_server: Server, minted: dict[str, Any], database: Database
) -> None:
    before = counted(database)
    with client(wsgi_server, "/flask") as http:
        assert http.get("/bots/2").status_code == 200
    wsgi_server.process.send_signal(signal.SIGTERM)
    ends_cleanly(wsgi_server, minted["token"])
    assert counted(database) > before


def counted(database: Database) -> int:
    """How many requests are written down."""
    (row,) = rows(database.owner, "SELECT coalesce(sum(count), 0)::int AS written FROM smarter_auth.usage_minute")
    return int(row["written"])


def asked(server: Server, *lines: str) -> bytes:
    """What the server answers to these bytes."""
    address = urlsplit(server.url)
    with socket.create_connection((str(address.hostname), address.port or 0), PATIENCE_S) as connection:
        connection.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1"))
        return b"".join(iter(lambda: connection.recv(65536), b""))


def ends_cleanly(server: Server, token: str) -> None:
    """It was told to end, does so without a complaint, and has told no token."""
    said, _ = server.process.communicate(timeout=PATIENCE_S)
    assert server.process.returncode in (0, -signal.SIGTERM)  # uvicorn passes it on to itself in the end
    told = [word for word in ("Traceback", "was destroyed", "ResourceWarning", "Unclosed", token) if word in said]
    assert not told, said
