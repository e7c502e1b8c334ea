"""A real Chromium, one for all tests of a worker, and pages in it that notice whatever they should not do."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest_asyncio
import uvicorn
from axe_playwright_python.base import AXE_SCRIPT
from playwright.async_api import Browser, ConsoleMessage, Page, Request, Response, async_playwright

from tests.programs import find, libraries

PATIENCE_S = 30
SERVED_BESIDE_PAGES = {"stylesheet", "script", "image", "font"}
_ONLY_HERE = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost , EXCLUDE 127.0.0.1"
_STATUS = re.compile("Failed to load resource: the server responded with a status of [45]")
"""How Chromium reports every refusal on the console, also one that the test asks for."""


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Chromium without a screen, which reaches no machine but this one."""
    path = find("chromium")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(
            executable_path=path, args=[_ONLY_HERE, *sandbox], env={**os.environ, **libraries("chromium")}
        )
        yield started
        await started.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One for all tests of a worker."""
    async with chromium() as started:
        yield started


@asynccontextmanager
async def visiting(browser: Browser, origin: str, **options: Any) -> AsyncIterator[Page]:
    """A page of a fresh profile at ``origin``; at the end it has asked no other origin, and complained of nothing.

    ``options`` are those of Playwright's contexts: ``viewport``, ``color_scheme``, ``java_script_enabled`` and others.
    """
    context = await browser.new_context(base_url=origin, **options)
    context.set_default_timeout(PATIENCE_S * 1000)
    noticed: list[str] = []
    context.on("page", lambda page: _watch(page, origin, noticed))
    try:
        page = await context.new_page()
        yield page
    finally:
        await context.close()
    assert not noticed, noticed


def _watch(page: Page, origin: str, noticed: list[str]) -> None:
    def on_request(request: Request) -> None:
        if not request.url.startswith((f"{origin}/", "data:", "about:")):
            noticed.append(f"asked another origin: {request.url}")

    def on_response(response: Response) -> None:
        if response.status >= 400 and response.request.resource_type in SERVED_BESIDE_PAGES:
            noticed.append(f"{response.status} for {response.url}")

    def on_console(message: ConsoleMessage) -> None:
        # A violation of the Content-Security-Policy is an error on the console, too.
        if message.type in ("error", "warning") and not _STATUS.match(message.text):
            noticed.append(f"console: {message.text}")

    page.on("request", on_request)
    page.on("response", on_response)
    page.on("console", on_console)
    page.on("pageerror", lambda error: noticed.append(f"script: {error}"))


async def violations(page: Page, *rules: str) -> list[str]:
    """What axe-core finds on the page, by these rules or by all: the rule, and each element that breaks it."""
    # What is preloaded is for rules about media, of which there are none; what has passed is a lot to hand over.
    options = {"resultTypes": ["violations"], "preload": False, **({"runOnly": list(rules)} if rules else {})}
    await page.evaluate(AXE_SCRIPT)
    found = await page.evaluate("options => axe.run(options).then(found => found.violations)", options)
    return [
        f"{rule['id']}: {node['html'][:200]} ({node.get('failureSummary', '')})"
        for rule in found
        for node in rule["nodes"]
    ]


@contextmanager
def served(app: Any, **config: Any) -> Iterator[str]:
    """An ASGI app on a server in a thread of its own, for as long as the block lasts; gives its origin."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        server = uvicorn.Server(uvicorn.Config(app, **{"lifespan": "on", "log_level": "warning", **config}))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)
