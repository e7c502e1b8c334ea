"""A preflight that passes without a token brings nothing that could make another request of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from smarter_auth_mw import Settings
from smarter_auth_mw.gate.dialects import DIALECTS
from smarter_auth_mw.tokens import Token
from smarter_auth_mw.wsgi import SmarterAuthWSGIMiddleware
from tests.support.asgi import client, guarded, lifespan
from tests.support.database import Database
from tests.support.gate import gate

ASKED = {
    "Origin": "https://a.example",
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type",
    "X-Forwarded-Proto": "https",
}
OVERRIDES = [
    "X-HTTP-Method-Override",
    "X-HTTP-Method",
    "X-Method-Override",
    "X-METHOD-OVERRIDE",
    "X_HTTP_Method_Override",
    "X-Method",
    "X-Original-Method",
    "X-Forwarded-Method",
    "X-Rewrite-Method",
    "HTTP-Method-Override",
    "X-HTTP-Verb-Override",
    "X-HTTP-Verb",
    "X-HTTP-Override",
    "_method",
]
QUERIES = {
    "_method=GET": "",
    "a=1&_method=GET": "a=1",
    "_method=GET&a=1": "a=1",
    "a=1;_METHOD=GET;b=2": "a=1;b=2",
    "a=1&%5Fmethod=GET&b=%20": "a=1&b=%20",
    "_meth%6Fd=GET": "",
    "X-HTTP-Method-Override=GET": "",
    "$httpMethod=GET": "",
    "post[_method]=GET&a": "a",
    "_method": "",
    "_verb=GET&verbose=1": "verbose=1",
    "http_override=GET": "",
    "a=_method&b=&&c": "a=_method&b=&&c",
}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    seen = {"headers": dict(request.headers), "query": scope["query_string"].decode(), "method": request.method}
    await JSONResponse({**seen, "body": (await request.body()).decode()})(scope, receive, send)


def wsgi_echo(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    names = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
    names |= {name: environ[name.upper().replace("-", "_")] for name in ("content-type",) if "CONTENT_TYPE" in environ}
    seen = {"headers": names, "query": environ["QUERY_STRING"], "method": environ["REQUEST_METHOD"]}
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode()
    answer = JSONResponse({**seen, "body": body}).body
    start_response("200 OK", [("Content-Type", "application/json")])
    return [bytes(answer)]


@pytest.fixture(params=["asgi", "wsgi"])
async def http(request: pytest.FixtureRequest, database: Database, token: Token) -> AsyncIterator[Any]:
    """Asks a protected bot's app, with ``PREFLIGHT=pass``."""
    if request.param == "asgi":
        async with lifespan(guarded(database.runtime, echo, preflight="pass")) as app, client(app) as connected:

            async def ask(method: str, url: str, **more: Any) -> httpx.Response:
                return await connected.request(method, url, **more)

            yield ask
        return
    made = Settings(database_url=database.runtime, routes=["bot /bots/{ref}"], preflight="pass")
    app = SmarterAuthWSGIMiddleware(wsgi_echo, made)
    with httpx.Client(transport=httpx.WSGITransport(app), base_url="http://testserver") as blocking:

        async def ask_wsgi(method: str, url: str, **more: Any) -> httpx.Response:
            return await asyncio.to_thread(blocking.request, method, url, **more)

        yield ask_wsgi
    app.close()


async def test_it_passes_without_its_body_and_without_another_method(http: Any) -> None:
    overrides = dict.fromkeys(OVERRIDES, "GET")
    answer = await http("OPTIONS", "/bots/1", headers=ASKED | overrides, data={"_method": "GET", "secret": "x"})
    assert answer.status_code == 200
    seen = answer.json()
    assert (seen["method"], seen["body"]) == ("OPTIONS", "")
    named = [name for name in seen["headers"] if any(word in name for word in ("method", "verb", "override"))]
    assert named == ["access-control-request-method"]
    assert "content-type" not in seen["headers"]
    assert seen["headers"]["x-forwarded-proto"] == "https"
    assert seen["headers"]["access-control-request-headers"] == "content-type"


@pytest.mark.parametrize("query", QUERIES)
async def test_no_parameter_names_another_method(http: Any, query: str) -> None:
    answer = await http("OPTIONS", httpx.URL("http://testserver/bots/1", query=query.encode()), headers=ASKED)
    assert (answer.status_code, answer.json()["query"]) == (200, QUERIES[query])


async def test_other_requests_keep_all_that_they_bring(http: Any, token: Token) -> None:
    override = {"X-HTTP-Method-Override": "GET"}
    more = {"headers": ASKED | override, "data": {"_method": "GET"}}
    elsewhere = (await http("OPTIONS", "/public?_method=GET", **more)).json()
    assert (elsewhere["body"], elsewhere["query"]) == ("_method=GET", "_method=GET")
    assert elsewhere["headers"]["x-http-method-override"] == "GET"
    key = {"X-API-Key": token.reveal()} | override
    granted = (await http("POST", "/bots/1?_method=GET", headers=key, data={"a": "1"})).json()
    assert (granted["body"], granted["query"], granted["method"]) == ("a=1", "_method=GET", "POST")
    refused = await http("POST", "/bots/1", **more)
    assert refused.status_code == 401


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
async def test_the_gate_lets_no_such_preflight_pass_since_the_proxy_hands_it_on(
    database: Database, token: Token, dialect: str
) -> None:
    asked = list(ASKED.items())[:-1]
    more = [("X-HTTP-Method-Override", "GET"), ("_method", "GET"), ("Content-Length", "3"), ("Expect", "100-continue")]
    async with gate(database.runtime, dialect, preflight="pass") as proxy:

        async def status(*headers: tuple[str, str], target: str = "/bots/1") -> int:
            return (await proxy.ask(target, *headers, method="OPTIONS")).status_code

        assert await status(*asked) == 200
        assert await status(*asked, ("Content-Length", "0")) == 200
        assert [await status(*asked, one) for one in more] == [401] * len(more)
        assert await status(*asked, target="/bots/1?_method=GET") == 401
