"""WSGI: the same decisions, on an event loop of the middleware's own, under the servers that people run."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import httpx
import pytest
import waitress
from flask import Flask, request
from hypothesis import HealthCheck, example, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from werkzeug.test import create_environ

from smarter_auth_mw import Settings, SmarterAuthMiddleware
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.testing import AuthKit
from smarter_auth_mw.tokens import Token
from smarter_auth_mw.wsgi import SmarterAuthWSGIMiddleware
from tests.support.database import Database

APP = Flask(__name__)


@APP.get("/bots/<int:ref>")
def bot(ref: int) -> dict[str, Any]:
    decision = request.environ["smarter_auth.decision"]
    return {
        "ref": ref,
        "user": request.environ.get("REMOTE_USER"),
        "key_id": decision.key_id,
        "resource": str(decision.resource),
    }


@APP.get("/health")
def health() -> dict[str, bool]:
    return {"is_told": "smarter_auth.decision" in request.environ}


def guarded(url: str, **settings: Any) -> SmarterAuthWSGIMiddleware:
    values = {"database_url": url, "routes": ["bot /bots/{ref:int}"]} | settings
    return SmarterAuthWSGIMiddleware(APP.wsgi_app, Settings(**values))


def client(app: Any, **options: Any) -> httpx.Client:
    return httpx.Client(transport=httpx.WSGITransport(app, **options), base_url="http://testserver")


@pytest.fixture
async def minted(keys: Management) -> Token:
    return (await keys.create("laptop", bind=[Resource("bot", "1")])).token


@pytest.fixture
def app(database: Database, minted: Token) -> Iterator[SmarterAuthWSGIMiddleware]:
    middleware = guarded(database.runtime)
    yield middleware
    middleware.close()


def bearer(token: Token) -> dict[str, str]:
    return {"Authorization": f"Bearer {token.reveal()}"}


def test_the_decision_table_in_http(app: SmarterAuthWSGIMiddleware, minted: Token) -> None:
    with client(app) as http:
        refused = http.get("/bots/1")
        assert (refused.status_code, refused.json()["status"]) == (401, 401)
        assert "Token realm=" in refused.headers["www-authenticate"]
        granted = http.get("/bots/1", headers=bearer(minted)).json()
        assert granted["user"] == granted["key_id"]
        assert granted["resource"] == "bot:1"
        assert http.get("/bots/2").json() == {"ref": 2, "user": None, "key_id": None, "resource": "bot:2"}
        assert http.get("/bots/1", headers={"Authorization": "Token a b"}).status_code == 400
        assert http.get("/bots/01").status_code == 400
        assert http.get("/health").json() == {"is_told": False}


def test_merged_headers_are_malformed(app: SmarterAuthWSGIMiddleware, minted: Token) -> None:
    with client(app) as http:  # what a WSGI server makes of a header that came twice
        assert http.get("/bots/1", headers={"X-API-Key": f"{minted.reveal()},{minted.reveal()}"}).status_code == 400


def test_warm_hits_do_not_cross_to_the_loop(
    app: SmarterAuthWSGIMiddleware, minted: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    crossings: list[object] = []
    run = app._loop.run

    def cross(*given: Any) -> Any:
        crossings.append(given)
        return run(*given)

    monkeypatch.setattr(app._loop, "run", cross)
    with client(app) as http:
        assert http.get("/bots/1", headers=bearer(minted)).status_code == 200
        assert crossings
        for _ in range(100):  # What is heard late of the key that was just minted makes a request cold again.
            crossings.clear()
            assert [http.get("/bots/1", headers=bearer(minted)).status_code for _ in range(3)] == [200] * 3
            if not crossings:
                return
    raise AssertionError(f"Of three requests in a row one crossed, each time: {crossings}")


# Closed from another thread, waitress finds its socket gone.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_refused_head_leaves_its_connection_fit_for_the_next_request(app: SmarterAuthWSGIMiddleware) -> None:
    server = waitress.create_server(app, host="127.0.0.1", port=0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        with socket.create_connection(("127.0.0.1", server.effective_port), timeout=30) as kept:
            for path in ("/bots/1", "/bots/01"):
                kept.sendall(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += kept.recv(1)
                kept.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                assert kept.recv(9) == b"HTTP/1.1 ", path  # and not what the refusal says
                while not kept.recv(1000).endswith(b"}\n"):
                    pass
    finally:
        server.close()
        thread.join(30)


def test_many_threads_share_one_loop(app: SmarterAuthWSGIMiddleware, minted: Token) -> None:
    before = threading.active_count()
    found: list[int] = []

    def ask() -> None:
        with client(app) as http:
            found.extend(http.get("/bots/1", headers=bearer(minted)).status_code for _ in range(20))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [200] * 160
    assert threading.active_count() == before + 1


def test_an_outer_user_gives_way_to_a_grant_and_stays_on_open_resources(
    app: SmarterAuthWSGIMiddleware, minted: Token
) -> None:
    with client(app, remote_addr="10.0.0.1") as plain:
        assert plain.get("/bots/2").json()["user"] is None

    def outer(environ: Any, start_response: Any) -> Any:
        return app({**environ, "REMOTE_USER": "alice"}, start_response)

    with client(outer) as http:
        assert http.get("/bots/2").json()["user"] == "alice"
        assert http.get("/bots/1", headers=bearer(minted)).json()["user"] != "alice"


def test_credentials_are_hidden_where_that_is_asked_for(database: Database, minted: Token) -> None:
    seen: dict[str, Any] = {}

    def app(environ: Any, start_response: Any) -> list[bytes]:
        seen.update(environ)
        start_response("200 OK", [])
        return [b""]

    hiding = SmarterAuthWSGIMiddleware(
        app, Settings(database_url=database.runtime, routes=["bot /bots/{ref:int}"], hide_credentials=True)
    )
    with client(hiding) as http:
        assert http.get("/bots/1", headers=bearer(minted) | {"X-Other": "kept"}).status_code == 200
    hiding.close()
    assert "HTTP_AUTHORIZATION" not in seen
    assert seen["HTTP_X_OTHER"] == "kept"


def test_an_unreachable_database_is_503_and_never_anonymous() -> None:
    app = guarded("postgresql://nobody@127.0.0.1:1/none")
    with client(app) as http:
        assert http.get("/bots/2").status_code == 503
        assert http.get("/health").status_code == 200
    app.close()


def test_mistakes_are_503_for_whatever_may_be_a_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMARTER_AUTH_ROUTES", "bot /bots/{ref:int}")
    app = SmarterAuthWSGIMiddleware(APP.wsgi_app)
    with client(app) as http:
        assert http.get("/bots/2").status_code == 503
        assert http.get("/health").status_code == 200
    app.close()


def test_a_streamed_body_is_handed_on_and_closed(database: Database, minted: Token) -> None:
    closed: list[bool] = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield b"one"
            yield b"two"

        def close(self) -> None:
            closed.append(True)

    body = Body()

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return body

    guard = SmarterAuthWSGIMiddleware(app, Settings(database_url=database.runtime, routes=["bot /bots/{ref:int}"]))
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/bots/2", "SCRIPT_NAME": ""}
    assert guard(environ, lambda *_: None) is body  # type: ignore[arg-type]
    guard.close()


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI app in the wrong place."""


class AsgiApp:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Another one."""


@pytest.mark.parametrize("app", [asgi_app, AsgiApp()])
def test_an_asgi_app_is_told_apart(app: Any) -> None:
    with pytest.raises(TypeError, match="SmarterAuthMiddleware"):
        SmarterAuthWSGIMiddleware(app)


def test_an_app_that_does_not_tell_what_it_is_may_be_wsgi(database: Database) -> None:
    def app(*arguments: Any) -> list[bytes]:
        arguments[1]("200 OK", [])
        return [b""]

    guard = SmarterAuthWSGIMiddleware(app, Settings(database_url=database.runtime, routes=["bot /bots/{ref:int}"]))
    with client(guard) as http:
        assert http.get("/bots/2").status_code == 200
    guard.close()


@pytest.mark.parametrize("app", [APP, APP.wsgi_app, lambda environ, start_response: []])
def test_a_wsgi_app_is_told_apart_by_the_asgi_middleware(app: Any) -> None:
    with pytest.raises(TypeError, match=r"smarter_auth_mw\.wsgi\.SmarterAuthWSGIMiddleware"):
        SmarterAuthMiddleware(app)


class World:
    """The middleware in front of one protected bot and an app that notes what reaches it."""

    def __init__(self, **settings: Any) -> None:
        self.reached: list[WSGIEnvironment] = []
        self._guarded = SmarterAuthWSGIMiddleware(self._app, Settings(**settings) if settings else None)

    def _app(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self.reached.append(environ)
        start_response("200 OK", [])
        return []

    def ask(self, environ: WSGIEnvironment) -> int:
        """Return the status that the client gets."""
        statuses: list[str] = []

        def start_response(status: str, *_: Any) -> Any:
            statuses.append(status)

        list(self._guarded(environ, start_response))
        (status,) = statuses
        return int(status.split()[0])

    def close(self) -> None:
        self._guarded.close()


@pytest.fixture(scope="module")
def worlds() -> Iterator[list[World]]:
    with AuthKit(["bot /bots/{ref}"]) as kit:
        kit.bind(kit.mint(), "bot:1")
        settings = {"database_url": "postgresql://in-memory/", "ready_path": "/ready", "trusted_proxies": ["unix:"]}
        hosts = {"routes": ["bot /bots/{ref}", "bot host:{label}.{account}.bots.example"]}
        more = [
            {"preflight": "pass", "hide_credentials": True, "routes": ["bot /bots/{ref}"]},
            hosts | {"default_account": "default", "hide_credentials": True},
        ]
        worlds = [World(), *(World(**settings | other) for other in more)]
        yield worlds
        for world in worlds:
            world.close()


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.lists(st.text(max_size=3), max_size=2),
    st.tuples(st.text(max_size=3)),
    st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
    st.sampled_from(["\ud800", "/b\u014dts/1", "/bots/\u0661", "/bots/1\u0661", "//bots/1", "http://x/bots/1", "*"]),
    st.just(object()),
)
VARIABLES = (
    *("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "RAW_URI", "REQUEST_URI", "CONTENT_LENGTH"),
    *("CONTENT_TYPE", "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL", "REMOTE_ADDR", "REMOTE_USER", "HTTP_HOST"),
    *("HTTP_AUTHORIZATION", "HTTP_X_API_KEY", "HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_FORWARDED_HOST"),
    *("HTTP_ORIGIN", "HTTP_ACCESS_CONTROL_REQUEST_METHOD", "wsgi.input", "wsgi.url_scheme", "wsgi.errors"),
)


@given(
    path=st.sampled_from(["/bots/1", "/bots/2", "/health", "/ready"]),
    method=st.sampled_from(["GET", "HEAD", "OPTIONS", "POST"]),
    changes=st.dictionaries(st.sampled_from(VARIABLES), ANYTHING, max_size=3),
    missing=st.sets(st.sampled_from(VARIABLES), max_size=3),
    strange=st.sampled_from([{}, {b"HTTP_HOST": "x"}, {1: 1, None: None}]),
)
@example("/bots/1", "GET", {"HTTP_AUTHORIZATION": b"Token x"}, set(), {})
@example("/bots/1", "GET", {"PATH_INFO": b"/bots/1"}, set(), {})
@example("/bots/1", "GET", {}, {"REQUEST_METHOD"}, {})
@example("/bots/2", "OPTIONS", {"QUERY_STRING": 1}, set(), {1: 1, None: None})
@effort(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_every_environ_is_decided_or_refused_and_opens_nothing(
    worlds: list[World], path: str, method: str, changes: dict[str, Any], missing: set[str], strange: dict[Any, Any]
) -> None:
    asks_preflight = {"Origin": "https://x", "Access-Control-Request-Method": "GET"} if method == "OPTIONS" else {}
    asked = {**create_environ(path, method=method, headers=asks_preflight), "RAW_URI": path, **strange, **changes}
    for left_out in missing:
        asked.pop(left_out, None)
    for world in worlds:
        world.reached.clear()
        assert world.ask(dict(asked)) in {200, 400, 401, 404, 405, 503}
        for reached in world.reached:
            opened = f"{reached.get('SCRIPT_NAME') or ''}{reached.get('PATH_INFO') or ''}" == "/bots/1"
            assert not opened or reached["wsgi.input"].read() == b"", "only a preflight may reach a protected bot"
            assert not opened or reached["REQUEST_METHOD"] == "OPTIONS"


@pytest.mark.parametrize(
    "broken",
    [{"PATH_INFO": b"/bots/1"}, {"SCRIPT_NAME": 1}, {"RAW_URI": b"/bots/1"}, {"HTTP_AUTHORIZATION": b"Token x"}],
)
def test_an_environ_that_nobody_can_read_is_refused(worlds: list[World], broken: dict[str, Any]) -> None:
    assert [world.ask(create_environ("/bots/1") | broken) for world in worlds] == [400] * len(worlds)


def test_a_path_that_the_server_has_decoded_already_is_read_as_it_is(worlds: list[World]) -> None:
    assert worlds[0].ask(create_environ("/") | {"PATH_INFO": "/p\u014dsts/1"}) == 200
    assert worlds[0].ask(create_environ("/") | {"PATH_INFO": "/bots/\u0661"}) == 400
