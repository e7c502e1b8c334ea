"""The examples, each as a process of its own on a real socket, configured by nothing but the environment."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support.cli import PROGRAM, Commands, environment, serving
from tests.support.database import Database
from tests.support.framework import ASGI_SERVERS, WSGI_SERVERS, check, running
from tests.support.framework import client as framework_client
from tests.support.warm import PYTHON

UVICORN = [*PYTHON, "-m", "uvicorn", "--port", "0"]


@pytest.fixture
def token(run: Commands) -> str:
    """A token for bot 1."""
    return str(run.json("key", "create", "--name", "first", "--bind", "bot:1")["token"])


@pytest.fixture
def env(database: Database) -> dict[str, str]:
    return environment(database_url=database.runtime, routes="bot /bots/{ref}")


def client(url: str, token: str | None = None) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"Authorization": f"Token {token}"} if token else None)


def test_starlette_app_tells_its_handlers_who_asks(env: dict[str, str], token: str) -> None:
    with serving([*UVICORN, "starlette_app:app"], env) as server, client(server.url) as anyone:
        assert anyone.get("/health").json() == {"status": "ok"}
        assert anyone.get("/bots/2").json()["authenticated"] is False
        refused = anyone.get("/bots/1")
        assert refused.status_code == 401
        assert refused.headers.get_list("www-authenticate")[0] == 'Token realm="smarter"'
        granted = anyone.get("/bots/1", headers={"X-API-Key": token}).json()
    assert (granted["resource"], granted["authenticated"], granted["key"]) == ("bot:1", True, "first")


@pytest.fixture
def fastapi_app(env: dict[str, str]) -> Iterator[str]:
    with serving([*UVICORN, "fastapi_app:app"], env) as server:
        yield server.url


def test_fastapi_app_answers_bound_tokens_only(fastapi_app: str, token: str) -> None:
    with client(fastapi_app) as anyone, client(fastapi_app, token) as caller:
        assert anyone.get("/bots/1").status_code == 401
        assert anyone.post("/bots/1/chat", json={"text": "hello"}).status_code == 401
        assert anyone.get("/bots/2").json() == {"bot": 2, "key": None, "key_id": None}
        assert caller.get("/bots/1").json()["key"] == "first"
        assert anyone.get("/bots/01", headers={"X-API-Key": token}).status_code == 400


def test_a_streamed_answer_arrives_piece_by_piece(fastapi_app: str, token: str) -> None:
    # The bot waits for an hour before the second word: only what is streamed arrives at all.
    question = {"text": "hello there", "pause_s": 3600}
    with client(fastapi_app, token) as caller, caller.stream("POST", "/bots/1/chat", json=question) as answer:
        assert answer.status_code == 200
        assert next(answer.iter_text()) == "Bot 1 heard: "


def test_a_websocket_is_refused_without_and_served_with_the_token(fastapi_app: str, token: str) -> None:
    url = fastapi_app.replace("http", "ws", 1) + "/bots/1/socket"

    async def converse() -> list[str]:
        with pytest.raises(InvalidStatus) as refused:
            await connect(url)
        assert refused.value.response.status_code == 401
        async with connect(url, additional_headers={"Authorization": f"Token {token}"}) as socket:
            await socket.send("hello")
            return [str(await socket.recv()), str(await socket.recv())]

    assert asyncio.run(converse()) == ["Bot 1 heard: ", "hello "]


def test_a_revoked_key_closes_the_websocket_at_one_of_its_next_messages(
    env: dict[str, str], run: Commands, token: str
) -> None:
    (key,) = run.json("key", "list")

    async def converse(url: str) -> int | None:
        async with connect(url, additional_headers={"Authorization": f"Token {token}"}) as socket:
            await asyncio.to_thread(run.json, "key", "revoke", key["key_id"])
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await socket.send("Still there?")
                    await socket.recv()
            return socket.close_code

    at_once = environment(heartbeat_s="0.1", max_staleness_s="0.2")
    with serving([*UVICORN, "fastapi_app:app"], env | at_once) as server:
        assert asyncio.run(converse(server.url.replace("http", "ws", 1) + "/bots/1/socket")) == 1008


def test_curl_gets_the_same(fastapi_app: str, token: str) -> None:
    curl = shutil.which("curl")
    assert curl is not None, "curl is needed: it is what people try first"

    def status(*arguments: str) -> str:
        command = [curl, "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert status(f"{fastapi_app}/bots/1") == "401"
    assert status("-H", f"Authorization: Token {token}", f"{fastapi_app}/bots/1") == "200"
    assert status(f"{fastapi_app}/bots/2") == "200"


def test_the_existing_service_is_served_behind_the_middleware_as_it_is(env: dict[str, str], token: str) -> None:
    command = [*PROGRAM, "serve", "existing_service:app", "--port", "0"]
    with serving(command, env) as server, client(server.url) as anyone, client(server.url, token) as caller:
        assert anyone.get("/bots/1/anything").status_code == 401
        assert caller.get("/bots/1/anything").text == "You have reached /bots/1/anything\n"
        assert anyone.get("/elsewhere").text == "You have reached /elsewhere\n"


def test_the_mounted_service_is_protected_below_its_prefix(env: dict[str, str], token: str) -> None:
    with serving([*UVICORN, "mounted:app"], env) as server, client(server.url) as anyone:
        assert anyone.get("/service/bots/1").status_code == 401
        assert anyone.get("/service/bots/1", headers={"X-API-Key": token}).text == "You have reached /bots/1\n"
        assert anyone.get("/service/bots/2").text == "You have reached /bots/2\n"
        assert anyone.get("/").status_code == 200


ALONE = {
    "litestar_app:app": ASGI_SERVERS["granian"],
    "quart_app:app": ASGI_SERVERS["hypercorn"],
    "django_app:app": ASGI_SERVERS["uvicorn h11"],
    "flask_app:app": WSGI_SERVERS["gunicorn gthread"],
    "django_app:wsgi_app": WSGI_SERVERS["gunicorn sync, preloaded"],
}


@pytest.mark.parametrize("app", ALONE)
def test_an_app_of_another_framework_is_protected_on_the_server_that_it_names(
    env: dict[str, str], run: Commands, app: str
) -> None:
    created = run.json("key", "create", "--name", "first", "--bind", "bot:1")
    with running(ALONE[app], app, env | environment(routes="bot /bots/{ref:int}")) as server:
        with framework_client(server) as http:
            check(http, created["token"], created["key_id"])
        exit_code, said = server.stop(signal.SIGTERM)
    assert exit_code in (0, -signal.SIGTERM)
    assert "Traceback" not in said


def test_several_apps_in_one_process_have_keys_routes_and_realms_of_their_own(
    env: dict[str, str], run: Commands, token: str
) -> None:
    hammer = run.json("key", "create", "--name", "hammer", "--bind", "tool:hammer", "--no-route")["token"]
    with serving([*UVICORN, "several_apps:app"], env) as server, client(server.url) as http:

        def ask(path: str, token: str = "", host: str = "localhost") -> tuple[int, str]:
            answer = http.get(path, headers={"host": host} | ({"X-API-Key": token} if token else {}))
            return answer.status_code, answer.headers.get("www-authenticate", "").partition(",")[0]

        assert ask("/chat/bots/1") == (401, 'Token realm="bots"')
        assert ask("/workshop/tools/saw") == (401, 'Token realm="tools"')
        assert ask("/tools/saw", host="tools.example.com") == (401, 'Token realm="tools"')
        assert ask("/workshop/tools/hammer", token) == (401, 'Token realm="tools"')
        assert ask("/chat/bots/1", hammer) == (401, 'Token realm="bots"')
        assert ask("/chat/bots/1/members", token) == ask("/chat/bots/2") == (200, "")
        assert ask("/workshop/tools/hammer", hammer) == (200, "")
        assert ask("/tools/hammer", hammer, "tools.example.com") == (200, "")
        assert ask("/chat/bots/2/members") == (403, "")  # by Starlette's own @requires
