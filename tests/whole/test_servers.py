"""Raw sockets against real servers: whatever the bytes, nobody is served without a valid token.

What each server makes of each request stands in ``golden/servers.json``: a server that changes its mind shows there.
``UPDATE_GOLDEN=1`` writes it anew; read the difference.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from smarter_auth_mw.cli.attack.cases import KEY, UNKNOWN, ResourceUrl, cases, nearly
from smarter_auth_mw.cli.attack.client import Marker, Report, Result, ask, attack
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.postgres.embedded.cluster import Cluster
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from tests.support.asgi import KEYED, OTHER
from tests.support.database import Database, copied
from tests.support.server import COMMANDS, Serving, serving

GOLDEN = Path(__file__).parents[1] / "golden" / "servers.json"
PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Tokens:
    """One that opens the resource, and those that do not, by what is wrong with them."""

    valid: str
    refused: Mapping[str, str]


@pytest.fixture(scope="module")
def database(cluster: Cluster, template: str) -> Iterator[Database]:
    """One for all of these tests."""
    yield from copied(cluster, template)


@pytest.fixture(scope="module")
def tokens(database: Database) -> Tokens:
    return asyncio.run(_minted(database))


@pytest.fixture(scope="module", params=COMMANDS)
def running(
    request: pytest.FixtureRequest, database: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    environment = {
        "SMARTER_AUTH_DATABASE_URL": database.runtime,
        "SMARTER_AUTH_ROUTES": "bot /bots/{ref:int}; bot host:{ref}.bots.example",
        "SMARTER_AUTH_FAILED_ATTEMPTS": "",
    }
    with serving(request.param, tmp_path_factory.mktemp("server"), environment) as started:
        yield started


@pytest.fixture
def server(running: Serving) -> Serving:
    """The sloppy app behind the middleware, on a real server; it has served nobody yet."""
    running.served.write_text("")
    return running


async def _minted(database: Database) -> Tokens:
    async with open_pool(database.manager) as pool:
        keys = Management(Store(pool), actor="tester")
        both = [KEYED, Resource("bot", "b1")]
        minted = {name: await keys.create(name, bind=both) for name in ("valid", "inactive", "revoked", "expired")}
        minted["other resource's"] = await keys.create("elsewhere", bind=[OTHER])
        await keys.deactivate(minted["inactive"].key.key_id)
        await keys.revoke(minted["revoked"].key.key_id)
    owner = await asyncpg.connect(database.owner)
    await owner.execute("UPDATE smarter_auth.key SET expires_at = now() - interval '1 s' WHERE name = 'expired'")
    await owner.close()
    valid = minted.pop("valid").token.reveal()
    refused = {f"{name} token": mint.token.reveal() for name, mint in minted.items()}
    return Tokens(valid, {**UNKNOWN, **refused, **nearly(valid)})


@pytest.mark.parametrize(("named_by", "bot"), [("path", "bot:1"), ("host", "bot:b1")])
async def test_no_bytes_reach_a_protected_resource_without_a_valid_token(
    server: Serving, request: pytest.FixtureRequest, tokens: Tokens, named_by: str, bot: str
) -> None:
    site = replace(server.site, path="/bots/1/chat")
    if named_by == "host":
        site = replace(site, host="b1.bots.example", address=site.host, path="/chat")
    await ask(site, request_of(site), PATIENCE_S)  # Its connections are open now: no other answer is slow.
    report = await attack(site, cases(site, tokens.refused), Marker(header=("x-served", bot)), PATIENCE_S)
    assert [str(result.case) for result in report.reached] == []
    assert bot not in server.whom()
    check_golden(f"{named_by}, {request.node.callspec.params['running']}", report)


async def test_a_valid_token_is_served_where_the_host_names_the_resource(server: Serving, tokens: Tokens) -> None:
    site = replace(server.site, host="b1.bots.example", address="127.0.0.1")
    (answer,) = await ask(site, request_of(site, f"X-API-Key: {tokens.valid}"), PATIENCE_S)
    assert (answer.status, server.whom()) == (200, {"bot:b1"})


@pytest.mark.parametrize("way", ["Authorization: Token ", "Authorization: Bearer ", "X-API-Key: "])
async def test_a_valid_token_is_served(server: Serving, tokens: Tokens, way: str) -> None:
    site = replace(server.site, path="/bots/1/chat")
    (answer,) = await ask(site, request_of(site, way + tokens.valid), PATIENCE_S)
    assert (answer.status, server.whom()) == (200, {"bot:1"})


@pytest.mark.parametrize("way", ["X-API-Key: ", "Sec-WebSocket-Protocol: smarter-auth, "])
async def test_a_websocket_takes_a_token_by_header_and_by_subprotocol(
    server: Serving, tokens: Tokens, way: str
) -> None:
    site = replace(server.site, path="/bots/1/chat")
    upgrade = ("Upgrade: websocket", f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13")
    (answer,) = await ask(site, request_of(site, *upgrade, way + tokens.valid, connection="Upgrade"), PATIENCE_S)
    head = answer.head.decode("latin-1")
    assert (answer.status, server.whom()) == (101, {"bot:1"})
    assert ("sec-websocket-protocol: smarter-auth" in head.lower()) == way.startswith("Sec-")
    assert tokens.valid not in head


async def test_a_websocket_is_cut_at_a_message_after_its_key_was_revoked(server: Serving, database: Database) -> None:
    url = f"ws://127.0.0.1:{server.site.port}/bots/4/chat"
    async with open_pool(database.manager) as pool, asyncio.timeout(PATIENCE_S):
        keys = Management(Store(pool), actor="tester")
        minted = await keys.create(str(uuid4()), bind=[Resource("bot", "4")])
        headers = {"X-API-Key": minted.token.reveal()}
        async with connect(url, additional_headers=headers, proxy=None) as websocket:
            await websocket.send("hello")
            assert await websocket.recv() == "hello"
            await keys.revoke(minted.key.key_id)
            with pytest.raises(ConnectionClosed) as closed:
                await talk(websocket)  # The worker hears of it in a moment, by the database.
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


async def talk(websocket: ClientConnection) -> None:
    while True:
        await websocket.send("still there?")
        await websocket.recv()


async def test_an_open_resource_is_served_to_anyone(server: Serving) -> None:
    site = replace(server.site, path="/bots/3")
    (answer,) = await ask(site, request_of(site), PATIENCE_S)
    assert answer.status == 200
    assert server.whom() == {"bot:3"}


@pytest.mark.usefixtures("tokens")  # They protect what is asked for.
async def test_a_large_body_is_refused_before_it_is_sent(server: Serving) -> None:
    site = replace(server.site, path="/bots/1")
    waits = ("Expect: 100-continue", "Content-Length: 1000000000")
    (answer,) = await ask(site, request_of(site, *waits), PATIENCE_S)
    assert answer.status == 401


def request_of(site: ResourceUrl, *headers: str, connection: str = "close") -> bytes:
    lines = [f"GET {site.path} HTTP/1.1", f"Host: {site.authority}", f"Connection: {connection}", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def check_golden(server: str, report: Report) -> None:
    """Compare with what the server made of each request the last time that somebody looked."""
    found = {str(result.case): _told(result) for result in report.results}
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if "UPDATE_GOLDEN" in os.environ:
        golden[server] = found
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
    assert golden.get(server) == found


def _told(result: Result) -> str:
    """The statuses, and whether it was the app that answered."""
    is_app = any(b"x-served" in answer.head.lower() for answer in result.answers)
    return f"{result.outcome}, by the app" if is_app else result.outcome
