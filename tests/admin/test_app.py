"""AdminApp as a server runs it: started, stopped, without a database, misconfigured, and watched."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from smarter_auth_mw import Settings
from smarter_auth_mw.admin import AdminApp
from smarter_auth_mw.admin.services import POOL_MAX
from smarter_auth_mw.errors import ConfigurationError
from smarter_auth_mw.metrics import samples
from smarter_auth_mw.testing import AuthKit
from tests.support.admin import ROUTES, Caller, Site, settings
from tests.support.asgi import Conversation, lifespan
from tests.support.database import Database

PAGES = {"live_path": "/livez", "ready_path": "/readyz", "metrics_path": "/metrics"}


def _client(app: AdminApp, host: str = "localhost") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"http://{host}")


async def test_mistakes_fail_the_start_and_answer_503_without_one() -> None:
    app = AdminApp(Settings(database_url="postgresql://nobody@127.0.0.1:1/none", routes=["nonsense"]))
    assert app.mistakes is not None
    conversation = Conversation({"type": "lifespan.startup"})
    with pytest.raises(ConfigurationError):
        await app({"type": "lifespan"}, conversation.receive, conversation.send)
    assert conversation.sent[0]["type"] == "lifespan.startup.failed"
    async with _client(app) as client:
        response = await client.get("/api/v1/me")
    assert (response.status_code, response.json()["code"]) == (503, "configuration")


async def test_without_a_database_every_request_is_one_static_503() -> None:
    url = "postgresql://nobody:secret@127.0.0.1:1/none"
    app = AdminApp(Settings(database_url=url, routes=ROUTES, **PAGES))
    async with lifespan(app), _client(app) as client:
        answers = [
            await client.request(method, path, headers={"Authorization": "Bearer x"})
            for method, path in (("GET", "/api/v1/me"), ("POST", "/api/v1/keys"), ("GET", "/api/v1/audit"))
        ]
        assert {(answer.status_code, answer.headers["retry-after"]) for answer in answers} == {(503, "2")}
        assert len({answer.text for answer in answers}) == 1
        assert "127.0.0.1" not in answers[0].text
        assert (await client.get("/livez")).status_code == 200
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["reasons"]) == (503, ["store_unreachable"])


async def test_pages_answer_any_host_before_anything_else(database: Database) -> None:
    app = AdminApp(settings(database, **PAGES))
    async with lifespan(app), _client(app, "10.1.2.3") as client:
        assert (await client.get("/livez")).json() == {"status": "live"}
        assert (await client.get("/readyz")).json() == {"status": "ready"}
        assert "smarter_auth_admin_requests_total" in (await client.get("/metrics")).text
        assert (await client.get("/api/v1/me")).status_code == 421


async def test_requests_and_refused_tokens_are_counted(site: Site, admin: Caller) -> None:
    await admin("GET", "/me")
    await admin("GET", "/keys/x")
    await Caller(site.client, "sma_" + "a" * 49)("GET", "/me")
    await Caller(site.client)("GET", "/me")
    figures = site.app.figures()
    assert figures[samples.ADMIN_REQUESTS.name] == {
        ("show_me", "200"): 1,
        ("show_key", "404"): 1,
        ("show_me", "401"): 2,
    }
    assert figures[samples.ADMIN_REFUSED.name] == {(): 1}


async def test_stand_in_for_the_database_is_refused_in_words(caplog: pytest.LogCaptureFixture) -> None:
    with AuthKit(ROUTES):
        app = AdminApp()
        async with lifespan(app), _client(app) as client:
            assert (await client.get("/api/v1/me")).status_code == 503
    assert "The management API needs PostgreSQL" in caplog.text


async def test_websockets_are_closed(site: Site) -> None:
    sent = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, str]) -> None:
        sent.append(message["type"])

    await site.app({"type": "websocket", "path": "/api/v1/me", "headers": []}, receive, send)  # type: ignore[arg-type]
    assert sent == ["websocket.close"]


async def test_it_keeps_to_a_few_connections_of_its_own(site: Site, admin: Caller) -> None:
    await asyncio.gather(*(admin.json("GET", "/keys") for _ in range(20)))
    services = await site.app._get_services()
    sizes = services.store.pool_sizes
    assert sizes.busy + sizes.idle <= POOL_MAX


@pytest.mark.parametrize("prefix", ["/admin", "/a/b"])
async def test_it_serves_below_a_prefix_that_the_server_knows(site: Site, admin: Caller, prefix: str) -> None:
    transport = httpx.ASGITransport(site.app, root_path=prefix)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        response = await client.get(f"{prefix}/api/v1/me", headers={"Authorization": f"Bearer {admin.token}"})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "path", ["/api", "/api/", "/api/v1", "/api/v1/", "/api/v1/me/", "/api/v1//me", "/api/v2/me", "/api/keys"]
)
async def test_other_paths_of_the_api_are_not_found(site: Site, path: str) -> None:
    response = await site.client.get(path)
    assert (response.status_code, response.json()["code"]) == (404, "no_such_path")


async def test_without_their_extra_the_pages_name_it_and_the_api_works(
    site: Site, admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site.app, "_site", None)
    for path in ("/", "/keys", "/sign-in"):
        answer = await site.client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (501, "pages_not_installed")
        assert "pip install 'smarter_auth_mw[admin]'" in answer.json()["hint"]
    assert (await admin("GET", "/me")).status_code == 200
