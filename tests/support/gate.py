"""The gate in this process: what a proxy asks it, and what it answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from smarter_auth_mw import Settings
from smarter_auth_mw.gate.dialects import DIALECTS
from smarter_auth_mw.gate.forward_auth import ForwardAuth
from tests.support.asgi import client, lifespan

ROUTES = "bot /bots/{ref}"
TELLING = {
    "nginx": ("X-Original-URI", "X-Original-Method", "Host"),
    "traefik": ("X-Forwarded-Uri", "X-Forwarded-Method", "X-Forwarded-Host"),
    "caddy": ("X-Forwarded-Uri", "X-Forwarded-Method", "X-Forwarded-Host"),
}
"""The headers in which each tells of target, method and host; Envoy asks with its own."""


class Gate:
    """A running gate, asked as its dialect has it; headers that are added stand besides those."""

    def __init__(self, dialect: str, http: httpx.AsyncClient) -> None:
        self._dialect = dialect
        self._http = http

    async def ask(
        self, target: str, *headers: tuple[str, str], method: str = "GET", host: str = "example.com"
    ) -> httpx.Response:
        if self._dialect == "envoy":
            return await self.send(method, target, ("Host", host), *headers)
        told = zip(TELLING[self._dialect], (target, method, host), strict=True)
        return await self.send("GET", "/anything", *told, *headers)

    async def send(self, method: str, target: str, *headers: tuple[str, str]) -> httpx.Response:
        """These headers, and no others that tell of anything."""
        url = httpx.URL("http://gate", raw_path=target.encode())
        request = httpx.Request(method, url, headers=list(headers))
        if not any(name.lower() == "host" for name, _ in headers):
            del request.headers["host"]
        return await self._http.send(request)


@asynccontextmanager
async def gate(url: str, dialect: str = "nginx", **settings: Any) -> AsyncIterator[Gate]:
    """A gate on the database."""
    values = {"database_url": url, "routes": [ROUTES]} | settings
    async with lifespan(ForwardAuth(DIALECTS[dialect], Settings(**values))) as app, client(app) as http:
        yield Gate(dialect, http)
