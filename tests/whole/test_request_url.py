"""An app that dispatches on ``request.url``, of which the Host header is a part, is guarded as any other is."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from smarter_auth_mw.management.keys import Management
from tests.support.asgi import KEYED, Conversation, guarded, lifespan, raw, scope
from tests.support.database import Database

HOSTS = [
    "x/bots/1?",
    "x/bots/1#",
    "x:80/bots/1?",
    "[::1]/bots/1?",
    "me@x/bots/1?",
    "x\\bots\\1?",
    "/bots/1?",
    "?/bots/1#",
    "x/bots",
    "x\t/bots/1?",
    "http://x/bots/1?",
]
PATHS = ["/", "/1", "/public", "/@x/1"]


async def by_url(scope: Scope, receive: Receive, send: Send) -> None:
    path = HTTPConnection(scope).url.path
    await PlainTextResponse("bot 1" if path.startswith(f"/bots/{KEYED.ref}") else "elsewhere")(scope, receive, send)


@pytest.mark.parametrize("host", HOSTS)
async def test_a_host_that_brings_a_path_along_reaches_no_resource(
    database: Database, keys: Management, host: str
) -> None:
    created = await keys.create("laptop", bind=[KEYED])
    async with lifespan(guarded(database.runtime, Starlette(routes=[Mount("/", app=by_url)]))) as app:
        assert await answer(app, "/bots/1", "x", raw(created.token)) == b"bot 1"
        assert {await answer(app, path, host) for path in PATHS} <= {b"elsewhere", b""}


async def answer(app: object, path: str, host: str, *headers: tuple[bytes, bytes]) -> bytes:
    talk = Conversation()
    asked = scope(path, (b"host", host.encode("latin-1")), *headers)
    await app({**asked, "scheme": "http", "server": ("x", 80)}, talk.receive, talk.send)  # type: ignore[operator]
    body: bytes = talk.sent[-1].get("body", b"")
    return body if talk.sent[0]["status"] == 200 else b""
