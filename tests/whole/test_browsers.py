"""Protected resources called from a page of another origin, in a real Chromium, and through real proxies with CORS.

What the how-to says about it is what runs here: apps, snippets for proxies and scripts come out of the page.
"""

from __future__ import annotations

import asyncio
import textwrap
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import pytest_asyncio
from a2wsgi import WSGIMiddleware
from playwright.async_api import Browser, Page
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from smarter_auth_mw import Settings
from smarter_auth_mw.engine import loop_thread
from smarter_auth_mw.gate.dialects import DIALECTS
from smarter_auth_mw.gate.forward_auth import ForwardAuth
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.postgres.embedded.cluster import Cluster
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from tests.programs import find, libraries
from tests.support.asgi import APP, KEYED, guarded
from tests.support.browser import browser, served, visiting
from tests.support.database import Database, copied
from tests.support.documents import ROOT, Block, blocks
from tests.support.proxy import COMMANDS, Ports, running, write_configuration
from tests.support.valkey import free_port

__all__ = ["browser"]

PAGE = ROOT / "docs/how-to/browsers.md"
BLOCKS = blocks(PAGE)
ALLOWED = "https://app.example.com"
FETCH = """([url, token]) => fetch(url, {headers: {Authorization: `Bearer ${token}`}}).then(
    async response => [response.status, await response.text()], error => [0, error.message])"""
SOCKET = """([url, token]) => new Promise(resolve => {
    const found = [], console = {log: value => found.push(value)};
    %s
    socket.addEventListener("message", () => socket.close(1000));
    socket.addEventListener("close", () => resolve(found));
})"""
EVENTS = """async ([url, token]) => {
    const found = [], console = {log: value => found.push(value)};
    try { %s } catch (error) { found.push(error.message); }
    return found.join("");
}"""
EVENT_SOURCE = """url => new Promise(resolve => {
    const source = new EventSource(url);
    source.onmessage = event => { source.close(); resolve(event.data); };
    source.onerror = () => resolve(source.readyState == EventSource.CLOSED ? "closed" : "tries again");
})"""


class World(NamedTuple):
    """A database, and a token that opens bot 1."""

    database: Database
    token: str

    def settings(self, **more: Any) -> Settings:
        values = {"database_url": self.database.runtime, "routes": ["bot /bots/{ref}"], "failed_attempts": ""}
        return Settings(**values | more)


@pytest.fixture(scope="module")
def world(cluster: Cluster, template: str) -> Iterator[World]:
    for database in copied(cluster, template):
        yield World(database, asyncio.run(_minted(database)))


async def _minted(database: Database) -> str:
    async with open_pool(database.manager) as pool:
        return (await Management(Store(pool), "tester").create("laptop", bind=[KEYED])).token.reveal()


async def _html(_: Request) -> HTMLResponse:
    return HTMLResponse("<!doctype html><html lang=en><title>A page</title><link rel=icon href='data:,'><h1>Hi</h1>")


SERVICE = Starlette(routes=[Route("/", _html), Route("/bots/{ref}", _html)])


async def _events(_: Request) -> StreamingResponse:
    async def stream() -> AsyncIterator[str]:
        yield "data: one\n\n"
        yield "data: two\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A page of an origin that is none of the APIs'."""
    with served(SERVICE) as origin:
        context = await browser.new_context()
        page = await context.new_page()
        await page.goto(origin.replace("127.0.0.1", "localhost"))
        yield page
        await context.close()


def origin_of(page: Page) -> str:
    return page.url.rstrip("/")


class Seen:
    """An app, and the methods that it was asked by."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.methods: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.methods.append(scope["method"])
        await self.app(scope, receive, send)


def block(name: str) -> Block:
    """The block of the page that is this file, or whose first line begins so."""
    return next(one for one in BLOCKS if one.file == name or one.text.startswith(f"# {name}"))


def app_of(name: str, origin: str) -> Any:
    """The app of a block, for pages of this origin."""
    namespace: dict[str, Any] = {"__name__": name}
    exec(block(name).text.replace(ALLOWED, origin), namespace)
    return WSGIMiddleware(namespace["app"]) if "wsgi" in name else namespace["app"]


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("name", ["cors_fastapi.py", "cors_asgi.py", "cors_wsgi.py"])
async def test_a_page_reads_a_refusal_if_cors_stands_outside(
    page: Page, world: World, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMARTER_AUTH_DATABASE_URL", world.database.runtime)
    monkeypatch.setenv("SMARTER_AUTH_ROUTES", "bot /bots/{ref}")
    app = Seen(app_of(name, origin_of(page)))
    with served(app, lifespan="off" if "wsgi" in name else "on") as api:
        status, body = await page.evaluate(FETCH, [f"{api}/bots/1", "sm_wrong"])
        granted, _ = await page.evaluate(FETCH, [f"{api}/bots/1", world.token])
    loop_thread.close_all()
    assert (status, "Unauthorized" in body) == (401, True)
    assert granted in (200, 404)  # The middleware lets it pass; not every app of the page has a bot.
    assert app.methods[:2] == ["OPTIONS", "GET"]


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("preflight", ["protect", "pass"])
async def test_a_page_sees_a_failed_fetch_if_cors_stands_inside(page: Page, world: World, preflight: str) -> None:
    inside = CORSMiddleware(APP, allow_origins=[origin_of(page)], allow_headers=["Authorization"])
    app = Seen(guarded(world.database.runtime, inside, preflight=preflight, failed_attempts=""))
    with served(app) as api:
        refused = await page.evaluate(FETCH, [f"{api}/bots/1", "sm_wrong"])
        granted, _ = await page.evaluate(FETCH, [f"{api}/bots/1", world.token])
    assert refused == [0, "Failed to fetch"]
    assert granted == (200 if preflight == "pass" else 0)
    assert app.methods[0] == "OPTIONS"


def script(word: str, frame: str, url: str) -> str:
    """A script of the page that has this word in it, with another address."""
    found = next(one.text for one in BLOCKS if one.language == "js" and word in one.text)
    return frame % found.replace(f'"{url}"', "url")


@pytest.mark.asyncio(loop_scope="session")
async def test_a_page_sends_its_token_with_a_websocket_as_a_subprotocol(page: Page, world: World) -> None:
    code = script("WebSocket", SOCKET, "wss://api.example.com/bots/1/chat")
    with served(guarded(world.database.runtime, failed_attempts="")) as api:
        url = f"{api.replace('http', 'ws')}/bots/1/chat"
        assert await page.evaluate(code, [url, world.token]) == ["laptop: hello", 1000]
        assert await page.evaluate(code, [url, "sm_wrong"]) == [1006]


@pytest.mark.asyncio(loop_scope="session")
async def test_a_page_reads_an_event_stream_by_fetch_where_an_event_source_is_refused(page: Page, world: World) -> None:
    code = script("reader", EVENTS, "https://api.example.com/bots/1/events")
    inner = guarded(world.database.runtime, Starlette(routes=[Route("/bots/{ref}/events", _events)]))
    with served(CORSMiddleware(inner, allow_origins=["*"], allow_headers=["Authorization"])) as api:
        assert await page.evaluate(code, [f"{api}/bots/1/events", world.token]) == "data: one\n\ndata: two\n\n"
        assert await page.evaluate(code, [f"{api}/bots/1/events", "sm_wrong"]) == "refused: 401"
        assert await page.evaluate(EVENT_SOURCE, f"{api}/bots/1/events") == "closed"
        assert await page.evaluate(EVENT_SOURCE, f"{api}/bots/2/events") == "one"


def indented(text: str, by: int) -> str:
    return textwrap.indent(text, " " * by)


def changes(proxy: str) -> list[tuple[str, str]]:
    """What the page puts into the shipped file, where it says so."""
    if proxy == "nginx":
        headers = block("in `server` and in").text
        maps, preflight = block("examples/nginx").text, block("in `server`\n").text
        locations = [f"location @smarter_auth_{name} {{\n" for name in ("unauthorized", "refused", "failed")]
        return [
            ("server {\n    listen", f"{maps}\nserver {{\n{headers}\n{preflight}\n    listen"),
            *((location, location + headers) for location in locations),
        ]
    if proxy == "caddy":
        return [("\troute {\n", "\troute {\n" + block("examples/caddy").text)]
    if proxy == "traefik":
        cors = indented(block("examples/traefik").text, 4)
        return [
            ("[one_reading, smarter_auth]", "[cors, one_reading, smarter_auth]"),
            ("    one_reading:\n", f"{cors}    one_reading:\n"),
        ]
    first, host = block("examples/envoy/envoy.yaml, the first").text, block("examples/envoy/envoy.yaml, in").text
    return [
        ("                http_filters:\n", "                http_filters:\n" + indented(first, 18)),
        ('                      domains: ["*"]\n', '                      domains: ["*"]\n' + indented(host, 22)),
    ]


@pytest.mark.parametrize("proxy", COMMANDS)
def test_a_proxy_answers_preflights_and_adds_its_header_to_refusals(proxy: str, world: World, tmp_path: Path) -> None:
    find(proxy)
    gate = ForwardAuth(DIALECTS[proxy], world.settings())
    with ExitStack() as stack:
        ports = Ports(free_port(), *(httpx.URL(stack.enter_context(served(app))).port or 0 for app in (gate, SERVICE)))
        write_configuration(proxy, tmp_path, ports, changes(proxy))
        env = {**libraries(proxy), "HOME": str(tmp_path)}
        stack.enter_context(running(COMMANDS[proxy](tmp_path), ports.proxy, env, tmp_path))
        http = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{ports.proxy}"))
        while http.get("/bots/2").status_code == 404:  # Traefik listens before it knows its routes.
            time.sleep(0.01)
        preflight = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
        asked = http.options("/bots/1", headers={"Origin": ALLOWED, **preflight})
        assert asked.status_code in (200, 204)
        assert "authorization" in asked.headers["access-control-allow-headers"].lower()
        authorized = {"Authorization": f"Bearer {world.token}"}
        answers = [http.get(path, headers={"Origin": ALLOWED, **more}) for path, more in asking(authorized)]
        assert [answer.status_code for answer in answers] == [401, 400, 200]
        assert {_allowed(answer) for answer in (asked, *answers)} == {(ALLOWED,)}
        foreign = {"Origin": "https://evil.example.com"}
        assert _allowed(http.get("/bots/1", headers=foreign)) in ((), ("",))
        assert (
            http.options("/bots/1", headers={**foreign, **preflight}).headers.get("access-control-allow-origin") is None
        )


def asking(authorized: Mapping[str, str]) -> list[tuple[str, Mapping[str, str]]]:
    return [("/bots/1", {}), ("/bots/-1", {}), ("/bots/1", authorized)]


def _allowed(answer: httpx.Response) -> tuple[str, ...]:
    return tuple(answer.headers.get_list("access-control-allow-origin"))


FAULTS = "<p style='color: red'>a</p><script>1</script><script src=none.js></script><img alt='' src='http://localhost:9/x.png'>"


@pytest.mark.asyncio(loop_scope="session")
async def test_what_a_page_of_ours_must_not_do_is_noticed(browser: Browser) -> None:
    async def faulty(_: Request) -> HTMLResponse:
        policy = "default-src 'none'; script-src 'self'; img-src *"
        return HTMLResponse(f"<!doctype html><title>t</title>{FAULTS}", headers={"Content-Security-Policy": policy})

    with served(Starlette(routes=[Route("/", faulty)])) as origin, pytest.raises(AssertionError) as noticed:
        async with visiting(browser, origin) as page:
            await page.goto("/")
    for fault in ("inline style", "inline script", "404 for", "asked another origin: http://localhost:9/x.png"):
        assert fault in str(noticed.value)
