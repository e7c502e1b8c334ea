"""The middleware's own pages: they tell the truth about it, and open nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest

from smarter_auth_mw import Settings
from smarter_auth_mw.configured import compile_routes
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.errors import ConfigurationError
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.postgres.store import Store
from smarter_auth_mw.wsgi import SmarterAuthWSGIMiddleware
from tests import test_wsgi
from tests.support.asgi import KEYED, client, guarded, lifespan
from tests.support.cli import PROGRAM, ROUTES, environment, serving
from tests.support.database import Database
from tests.support.faults import GONE, QUICK
from tests.support.postgres import Postgres, Proxy
from tests.support.valkey import Valkey
from tests.support.worker import FOREVER_S, PATIENCE_S

PATHS = {"live_path": "/livez", "ready_path": "/readyz"}
READY: tuple[int, dict[str, Any]] = (200, {"status": "ready"})


def degraded(*reasons: str) -> tuple[int, dict[str, Any]]:
    return 200, {"status": "degraded", "reasons": list(reasons)}


def not_ready(reason: str) -> tuple[int, dict[str, Any]]:
    return 503, {"status": "not_ready", "reasons": [reason]}


CALM = QUICK | {"max_staleness_s": PATIENCE_S}
"""A busy machine makes no heartbeat late."""


@asynccontextmanager
async def running(url: str, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with lifespan(guarded(url, **(CALM | PATHS | settings))) as app, client(app) as http:
        yield http


async def told(http: httpx.AsyncClient, path: str = "/readyz") -> tuple[int, dict[str, Any]]:
    answer = await http.get(path)
    return answer.status_code, answer.json()


async def comes_to(http: httpx.AsyncClient, expected: tuple[int, dict[str, Any]], *, asking: str = "/x/") -> None:
    last = None
    try:
        async with asyncio.timeout(PATIENCE_S):
            for number in count():
                await http.get(f"{asking}{number}")
                if (last := await told(http)) == expected:
                    return
                assert await told(http, "/livez") == (200, {"status": "live"})
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"{last} is not {expected}") from None


# The pages


async def test_without_a_path_there_is_no_page(database: Database) -> None:
    async with client(guarded(database.runtime)) as http:
        assert {(await http.get(path)).status_code for path in PATHS.values()} == {404}


async def test_a_page_is_small_and_never_stored(database: Database) -> None:
    async with running(database.runtime) as http:
        answer = await http.get("/livez")
        assert (answer.status_code, answer.json()) == (200, {"status": "live"})
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-type"] == "application/json"
        head = await http.head("/readyz")
        assert (head.status_code, head.content) == (200, b"")
        options = await http.options("/readyz")  # As HAProxy asks if only a path is configured.
        assert (options.status_code, options.json()) == (200, {"status": "ready"})
        refused = await http.post("/livez")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize("path", ["/livez/", "/LIVEZ", "/%6civez", "//livez", "/livez/x", "/x/livez", "/livez;a"])
async def test_only_exactly_its_path_is_a_page(database: Database, path: str) -> None:
    async with client(guarded(database.runtime, **PATHS)) as http:
        assert (await http.get(path)).status_code == 404


@pytest.mark.parametrize("path", ["/livez", "/svc/livez"])
async def test_a_page_is_found_below_the_root_path(database: Database, path: str) -> None:
    transport = httpx.ASGITransport(guarded(database.runtime, **PATHS), root_path="/svc")
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as http:
        assert (await http.get(path)).json() == {"status": "live"}


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        ({"live_path": "/bots/1"}, "SMARTER_AUTH_LIVE_PATH='/bots/1': a line of ROUTES owns this path"),
        ({"ready_path": "/bots/live/x"}, "SMARTER_AUTH_READY_PATH='/bots/live/x': a line of ROUTES owns this path"),
        ({"ready_path": "/Bots/live"}, "SMARTER_AUTH_READY_PATH='/Bots/live': a line of ROUTES owns this path"),
        ({"ready_path": "/api/bots/live"}, "SMARTER_AUTH_READY_PATH='/api/bots/live': a line of ROUTES owns this path"),
        ({"live_path": "livez"}, "SMARTER_AUTH_LIVE_PATH='livez': a plain path"),
        ({"live_path": "/"}, "SMARTER_AUTH_LIVE_PATH='/': a plain path"),
        ({"live_path": "/a/../b"}, "SMARTER_AUTH_LIVE_PATH='/a/../b': a plain path"),
        (
            {"live_path": "/z", "ready_path": "/z"},
            "SMARTER_AUTH_READY_PATH='/z': SMARTER_AUTH_LIVE_PATH already has this path",
        ),
    ],
)
def test_a_page_that_would_lie_in_a_resource_is_a_mistake(paths: dict[str, str], said: str) -> None:
    settings = Settings(database_url="postgresql://x/y", routes=["bot /bots/{ref}"], mounts=["/api"], **paths)
    with pytest.raises(ConfigurationError) as caught:
        compile_routes(settings)
    assert said in str(caught.value)


async def test_a_page_answers_before_hosts_are_read(database: Database, keys: Management) -> None:
    await keys.create("laptop", bind=[Resource("bot", "shut")])
    app = guarded(database.runtime, routes=["bot host:{ref}.bots.example"], **PATHS)
    async with lifespan(app), client(app) as http:
        for host in ("shut.bots.example", "open.bots.example", "other.example", "no host at all"):
            assert (await http.get("/livez", headers={"Host": host})).json() == {"status": "live"}
        assert (await http.get("/", headers={"Host": "shut.bots.example"})).status_code == 401


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
def test_a_probe_by_http_1_0_without_a_host_is_answered(database: Database, tmp_path: Path, interface: str) -> None:
    tmp_path.joinpath("app.py").write_text(APPS[interface])
    env = environment(database_url=database.runtime, routes="bot host:{ref}.bots.example", live_path="/livez")
    with serving([*PROGRAM, "serve", "app:app", "--port", "0"], env, cwd=tmp_path) as server:
        for path, status in (("/livez", b"200"), ("/elsewhere", b"400")):
            with socket.create_connection(("127.0.0.1", urlsplit(server.url).port or 0), PATIENCE_S) as probe:
                probe.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())  # as HAProxy's httpchk
                assert probe.makefile("rb").readline().split()[1] == status


APPS = {
    "asgi": "async def app(scope, receive, send):\n    raise RuntimeError(scope['type'])\n",
    "wsgi": "def app(environ, start_response):\n    raise RuntimeError('called')\n",
}


async def test_under_wsgi_the_pages_are_the_same(database: Database, keys: Management) -> None:
    app = test_wsgi.guarded(database.runtime, **PATHS)
    await asyncio.to_thread(_ask_wsgi, app)
    app.close()


def _ask_wsgi(app: SmarterAuthWSGIMiddleware) -> None:
    with test_wsgi.client(app) as http:
        assert http.get("/livez").json() == {"status": "live"}
        assert (http.get("/readyz").status_code, http.get("/readyz").json()) == READY
        assert http.head("/readyz").content == b""
        assert http.options("/readyz").status_code == 200
        assert http.post("/readyz").status_code == 405
        assert http.get("/livez/").status_code == 404
        assert http.get("/bots/2").status_code == 200


def test_serve_answers_for_an_app_that_has_no_such_pages(database: Database) -> None:
    env = environment(database_url=database.runtime, routes=ROUTES, live_path="/livez", ready_path="/readyz")
    with serving([*PROGRAM, "serve", "existing_service:app", "--port", "0"], env) as server:
        assert httpx.get(f"{server.url}/livez").json() == {"status": "live"}
        assert httpx.get(f"{server.url}/readyz").json() == {"status": "ready"}


# What they tell


async def test_a_worker_is_ready_at_once(database: Database) -> None:
    async with running(database.runtime) as http:
        assert await told(http) == READY


@pytest.mark.parametrize("fault", GONE)
async def test_it_is_not_ready_while_the_database_is_gone_and_ready_again_afterwards(
    fault: str, own_server: Postgres, own_database: Database
) -> None:
    async with running(own_database.runtime, **QUICK) as http:
        async with GONE[fault](own_server):
            await comes_to(http, not_ready("store_unreachable"))
        await comes_to(http, READY)


async def test_a_database_that_is_gone_at_the_start_is_told_of_without_its_address(
    own_server: Postgres, own_database: Database
) -> None:
    async with GONE["stopped"](own_server), client(guarded(own_database.runtime, **(QUICK | PATHS))) as http:
        answer = await http.get("/readyz")
        assert (answer.status_code, answer.json()) == not_ready("store_unreachable")
        assert await told(http, "/livez") == (200, {"status": "live"})
        # A host that might be a custom domain, which nobody can know yet, has the page all the same.
        assert (await http.get("/livez", headers={"Host": "app.example.com"})).status_code == 200


async def test_grants_by_what_is_old_are_told_of(own_server: Postgres, own_database: Database) -> None:
    async with running(own_database.runtime, **QUICK, stale_if_error_s=FOREVER_S) as http:
        async with GONE["stopped"](own_server):
            await comes_to(http, degraded("store_unreachable", "stale_served"))
        await comes_to(http, READY)


async def test_a_missing_trigger_degrades_it(database: Database, owner: asyncpg.Connection) -> None:
    async with running(database.runtime) as http:
        await owner.execute("ALTER TABLE smarter_auth.key DISABLE TRIGGER note_update")
        await comes_to(http, degraded("triggers_missing"))
        await owner.execute("ALTER TABLE smarter_auth.key ENABLE ALWAYS TRIGGER note_update")
        await comes_to(http, READY)


async def test_without_listen_it_lives_by_the_heartbeat(database: Database) -> None:
    async with running(database.runtime, statement_cache_size=0) as http:
        assert await told(http) == degraded("heartbeat_only")


async def test_a_listening_connection_that_is_lost_degrades_it(database: Database) -> None:
    async with running(database.runtime, **QUICK, listen_url="postgresql://127.0.0.1:1/none") as http:
        await comes_to(http, degraded("heartbeat_late"))


async def test_a_shared_cache_that_is_lost_degrades_it(database: Database, keys: Management) -> None:
    await keys.add_resource(KEYED)
    with Valkey() as valkey:
        async with running(database.runtime, cache_url=valkey.url) as http:
            assert await told(http) == READY
            valkey.kill()
            await comes_to(http, degraded("shared_cache_unreachable"), asking="/bots/")


async def test_a_schema_that_is_gone_is_told_of(database: Database, owner: asyncpg.Connection) -> None:
    async with running(database.runtime, **QUICK) as http:
        await owner.execute("ALTER SCHEMA smarter_auth RENAME TO elsewhere")
        await comes_to(http, not_ready("schema_mismatch"))


async def test_a_kind_that_is_protected_and_has_no_route_is_told_of(database: Database, keys: Management) -> None:
    await keys.create("laptop", bind=[Resource("llm", "1")])
    async with running(database.runtime) as http:
        assert await told(http) == degraded("kinds_unrouted")


async def test_a_pool_that_is_lost_is_told_of_though_heartbeats_go_another_way(
    own_server: Postgres, own_database: Database
) -> None:
    async with Proxy(own_server.socket) as wire:
        url = wire.url(own_database.runtime)
        async with running(url, **QUICK, listen_url=own_database.runtime, cache_ttl_s=3) as http:
            wire.swallows = True
            await comes_to(http, degraded("store_unreachable"))  # What is warm is still decided,
            await comes_to(http, not_ready("store_unreachable"))  # until it has been kept for too long.
            wire.swallows = False
            await comes_to(http, READY)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Store]:
    """One entry for each question that a probe has asked the database."""
    asked: list[Store] = []

    async def check(store: Store) -> None:
        asked.append(store)
        await Store.domains(store)

    monkeypatch.setattr(Store, "check", check)
    return asked


async def test_probes_ask_the_database_nothing_while_heartbeats_are_answered(
    database: Database, asked: list[Store]
) -> None:
    async with running(database.runtime) as http:
        assert await asyncio.gather(*[told(http) for _ in range(50)]) == [READY] * 50
        assert not asked


async def test_any_number_of_probes_ask_the_database_one_question(
    own_server: Postgres, own_database: Database, asked: list[Store]
) -> None:
    async with running(own_database.runtime, **QUICK) as http, GONE["frozen"](own_server):
        await comes_to(http, not_ready("store_unreachable"))
        asked.clear()
        answers = await asyncio.gather(*[told(http) for _ in range(50)])
        assert answers == [not_ready("store_unreachable")] * 50
        assert len(asked) == 1
