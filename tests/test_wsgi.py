"""WSGI: the same decisions, on an event loop of the middleware's own, under the servers that people run."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import waitress
from flask import Flask, request

from smarter_auth_mw import Settings, SmarterAuthMiddleware
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.management.keys import Management
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
