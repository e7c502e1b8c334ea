"""Measure a warm request in the process: the cost of the middleware, relative to Starlette's own.

    python -m benchmarks.in_process [--rounds 120]

Everything is on: usage, audit, the listener, memoised paths. Only the database is a fake that answers immediately,
because a warm request never queries it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import sys
import time
from collections.abc import AsyncIterator, Iterable
from types import SimpleNamespace
from typing import Any

from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from benchmarks.apps import DictBackend, Floor, app
from benchmarks.measuring import Block, Row, in_turn, medians, row, show
from smarter_auth_mw import Settings, SmarterAuthMiddleware
from smarter_auth_mw.authentication.authenticator import Authenticator
from smarter_auth_mw.cache.changes import Changes
from smarter_auth_mw.cache.entries import Cache, Limits
from smarter_auth_mw.domain import Binding, Bindings, Protection, Resource, Target
from smarter_auth_mw.tokens import mint
from smarter_auth_mw.wsgi import SmarterAuthWSGIMiddleware

CALLS = 200
GRANT, NO_RESOURCE = (0.8, 0.1) if sys.version_info >= (3, 12) else (1.0, 0.2)
"""The targets; before Python 3.12, a coroutine of ours runs between server and app."""
TOKEN = mint()
HEADERS = [
    (b"host", b"bots.example"),
    (b"user-agent", b"python-httpx/0.28.1"),
    (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip, deflate"),
    (b"connection", b"keep-alive"),
]
CREDENTIALS = (b"authorization", b"Token " + TOKEN.reveal().encode())


class Facts:
    """A prepared result of a database read."""

    def __init__(self, resource: Resource, bindings: Iterable[Binding]) -> None:
        self.bindings = Bindings(resource, "default", Protection.BOUND, "stale", tuple(bindings))
        self.snapshot = "10:10:"
        self.sources = (f"resource:{resource}", "bindings:1", "account:default", "key:1")


class Source:
    def __init__(self, others: int = 0) -> None:
        filler = [Binding(str(n), "other", "default", n.to_bytes(64, "big"), "") for n in range(1, others + 1)]
        self.bindings = [*filler, Binding("1", "laptop", "default", TOKEN.digest, TOKEN.token_key)]

    async def read(self, target: Target) -> Facts:
        assert isinstance(target.names, Resource)
        return Facts(target.names, self.bindings)


SETTINGS = Settings(database_url="postgresql://unused/unused", routes=["bot /bots/{ref:int}"])
FOR_EVER = Limits(max_staleness_s=1e9, cache_ttl_s=1e9)


def guarded(others: int = 0, wrapped: ASGIApp | None = None) -> SmarterAuthMiddleware:
    """Return the app behind the middleware, with a prepared source."""
    middleware = SmarterAuthMiddleware(wrapped or app(), SETTINGS)

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Any]:
        yield SimpleNamespace(authenticator=Authenticator(Cache(Source(others), FOR_EVER, Changes())))

    middleware._guard.engines.opening = opened
    middleware._guard._know_domains(())  # or each request asks whether its host is a custom domain
    return middleware


def scope(path: str, headers: list[tuple[bytes, bytes]]) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "extensions": {},
    }


async def receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Message) -> None:
    """Do nothing: no notifications arrive."""


def block(side: ASGIApp, path: str, *credentials: tuple[bytes, bytes]) -> Block:
    headers = [*HEADERS, *credentials]

    async def run() -> float:
        began = time.thread_time()
        for _ in range(CALLS):
            await side(scope(path, headers), receive, send)
        return (time.thread_time() - began) / CALLS * 1e6

    return run


def messages_block(side: ASGIApp) -> Block:
    """Measure the messages of a WebSocket, without its handshake, which is a separate request."""
    connection = dict(scope("/bots/1", [*HEADERS, CREDENTIALS])) | {
        "type": "websocket",
        "scheme": "ws",
        "subprotocols": [],
    }
    del connection["method"]

    async def run() -> float:
        left, began = CALLS, 0.0

        async def receive() -> Message:
            nonlocal left, began
            began = began or time.thread_time()
            left -= 1
            return {"type": "websocket.receive" if left >= 0 else "websocket.disconnect", "text": "hello"}

        await side({**connection}, receive, send)
        return (time.thread_time() - began) / CALLS * 1e6

    return run


async def listener(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that receives every message of a WebSocket."""
    while (await receive())["type"] == "websocket.receive":
        pass


def wsgi_block(side: Any) -> Block:
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/bots/1",
        "QUERY_STRING": "",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "bots.example",
        "HTTP_ACCEPT": "*/*",
        "HTTP_AUTHORIZATION": f"Token {TOKEN.reveal()}",
        "RAW_URI": "/bots/1",
    }

    async def run() -> float:
        began = time.thread_time()
        for _ in range(CALLS):
            side(dict(environ), lambda *_: None)
        return (time.thread_time() - began) / CALLS * 1e6

    return run


def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("content-type", "text/plain")])
    return [b"ok"]


def wsgi_guarded() -> SmarterAuthWSGIMiddleware:
    middleware = SmarterAuthWSGIMiddleware(wsgi_app, SETTINGS)
    middleware._guard.engines.opening = guarded()._guard.engines.opening
    middleware._guard._know_domains(())
    return middleware


async def sha512_block() -> float:
    token = TOKEN.reveal().encode()
    began = time.thread_time()
    for _ in range(CALLS):
        hashlib.sha512(token).digest()
    return (time.thread_time() - began) / CALLS * 1e6


async def measure(rounds: int) -> list[Row]:
    bare = app()
    wsgi = wsgi_guarded()
    sides = {
        "bare": block(bare, "/bots/1", CREDENTIALS),
        "AuthenticationMiddleware": block(
            AuthenticationMiddleware(app(), DictBackend(TOKEN.reveal())), "/bots/1", CREDENTIALS
        ),
        "floor": block(Floor(app(), TOKEN.reveal()), "/bots/1", CREDENTIALS),
        "grant": block(guarded(), "/bots/1", CREDENTIALS),
        "grant of 10,000": block(guarded(9_999), "/bots/1", CREDENTIALS),
        "bare health": block(bare, "/health"),
        "health": block(guarded(), "/health"),
        "bare 401": block(bare, "/no"),
        "refusal": block(guarded(), "/bots/1"),
        "refusal of a token": block(guarded(), "/bots/1", (b"authorization", b"Token " + b"0" * 64)),
        "bare WSGI": wsgi_block(wsgi_app),
        "WSGI grant": wsgi_block(wsgi),
        "bare message": messages_block(listener),
        "message": messages_block(guarded(wrapped=listener)),
        "sha512": sha512_block,
    }
    taken = await in_turn(sides, rounds)
    wsgi.close()
    told = ", ".join(f"{name} {figure:.2f}" for name, figure in medians(taken).items())
    print(f"µs a call, medians: {told}", file=sys.stderr)
    return rows(taken)


def rows(taken: dict[str, list[float]]) -> list[Row]:
    def each(numerator: str, below: str, denominator: str = "", floor: str = "") -> list[float]:
        tops = zip(taken[numerator], taken[below], strict=True)
        if not denominator:
            return [top / base for top, base in tops]
        bottoms = zip(taken[denominator], taken[floor], strict=True)
        return [
            (top - base) / max(bottom - ground, 0.01)
            for (top, base), (bottom, ground) in zip(tops, bottoms, strict=True)
        ]

    # Nothing of a warm grant is sha512: it is found again by another hash.
    own = [grant - base for grant, base in zip(taken["grant"], taken["bare"], strict=True)]
    floors = [side - base - sha for side, base, sha in zip(taken["floor"], taken["bare"], taken["sha512"], strict=True)]
    return [
        row("warm grant: added, over what AuthenticationMiddleware adds",
            each("grant", "bare", "AuthenticationMiddleware", "bare"), GRANT),
        row("no resource: added, over the same",
            each("health", "bare health", "AuthenticationMiddleware", "bare"), NO_RESOURCE),
        row("warm refusal, over a bare 401 route", each("refusal", "bare 401"), 0.5),
        row("the same for a token that is wrong", each("refusal of a token", "bare 401"), None),
        row("warm grant, what of it is not sha512, over the floor's",
            [one / max(other, 0.01) for one, other in zip(own, floors, strict=True)], 2.0),
        row("10,000 bindings: warm grant, over one binding", each("grant of 10,000", "grant"), 1.2),
        row("WSGI warm grant: added, over what ASGI's adds", each("WSGI grant", "bare WSGI", "grant", "bare"), 1.5),
        row("WebSocket message: added, over what AuthenticationMiddleware adds to a request",
            each("message", "bare message", "AuthenticationMiddleware", "bare"), 0.3),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=120)
    show(asyncio.run(measure(parser.parse_args().rounds)))


if __name__ == "__main__":
    main()
