"""`smarter-auth serve`: somebody's app behind the middleware, as a real process."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from smarter_auth_mw.cli import server
from tests.support.cli import PATIENCE_S, PROGRAM, ROUTES, Commands, environment, program, serving
from tests.support.database import Database

SERVICE = [*PROGRAM, "serve", "existing_service:app", "--port", "0"]


@pytest.fixture
def env(database: Database) -> dict[str, str]:
    return environment(database_url=database.runtime, routes=ROUTES)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly_when_asked_to(env: dict[str, str], number: signal.Signals) -> None:
    with serving(SERVICE, env) as server:
        httpx.get(f"{server.url}/bots/1")
        exit_code, said = server.stop(number)
    assert exit_code in (0, -signal.SIGTERM)  # uvicorn passes SIGTERM on to itself in the end
    assert "Finished server process" in said
    assert "Traceback" not in said


def test_several_workers_share_the_port_and_the_keys(env: dict[str, str], run: Commands) -> None:
    token = run.json("key", "create", "--name", "first", "--bind", "bot:1")["token"]
    # The socket is there before the workers are, and nobody listens until then.
    started = re.compile(r"running on (http://\S+)(?s:.*startup complete){2}")
    with serving([*SERVICE, "--workers", "2"], env, started) as server:
        for _ in range(8):
            assert httpx.get(f"{server.url}/bots/1").status_code == 401
            assert httpx.get(f"{server.url}/bots/1", headers={"X-API-Key": token}).status_code == 200
        server.stop(signal.SIGINT)


SLOW_START = """
import sys, time

if "--multiprocessing-fork" in sys.argv:
    time.sleep(6)
"""


def test_workers_that_start_slowly_are_not_replaced(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_START)
    paths = os.pathsep.join([str(tmp_path), *filter(None, [env.get("PYTHONPATH")])])
    started = re.compile(r"running on (http://\S+)(?s:.*startup complete){2}")
    with serving([*SERVICE, "--workers", "2"], {**env, "PYTHONPATH": paths}, started) as server:
        assert "died" not in server.said


def test_worker_that_hangs_later_is_replaced_and_the_server_ends_when_asked_to(env: dict[str, str]) -> None:
    started = re.compile(r"running on (http://\S+)(?s:.*startup complete){2}")
    with serving([*SERVICE, "--workers", "2"], env, started) as server:
        first = re.findall(r"Started server process \[(\d+)\]", server.said)[0]
        os.kill(int(first), signal.SIGSTOP)
        assert server.process.stdout is not None
        assert any(f"Child process [{first}] died" in line for line in server.process.stdout)
        assert "Stopping parent process" in server.stop()[1]


DELAYED = """
import os, socket

async def app(scope, receive, send):
    assert scope["type"] == "http"
    body = str(bool(own(scope).getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})

def own(scope):
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            found = socket.socket(fileno=os.dup(fd))
            if found.getpeername()[:2] == tuple(scope["client"]):
                return found
        except OSError:
            pass
"""
"""An app that says whether the connection it answers on sends at once."""


@pytest.mark.parametrize("how", [["--port", "0"], ["--port", "0", "--reload"], ["--fd", "FD"]])
def test_every_process_sends_what_it_has_at_once(
    env: dict[str, str], written: Callable[[str], str], how: list[str], tmp_path: Path
) -> None:
    name = written(DELAYED)
    (tmp_path / "uvloop.py").write_text("raise ImportError")  # uvloop sees to it by itself.
    workers = [] if "--reload" in how else ["--workers", "2"]
    with socket.create_server(("127.0.0.1", 0)) as given:
        command = [*PROGRAM, "serve", name, *workers, *(word.replace("FD", str(given.fileno())) for word in how)]
        environment = env | {"PYTHONPATH": str(tmp_path)}
        with serving(command, environment, cwd=Path.cwd(), pass_fds=[given.fileno()]) as started:
            assert httpx.get(f"{started.url}/", timeout=PATIENCE_S).text == "True"


def test_an_app_that_has_the_middleware_already_is_not_wrapped_again(env: dict[str, str], run: Commands) -> None:
    run.json("resource", "add", "bot:1", "--protect")
    with serving([*PROGRAM, "serve", "starlette_app:app", "--port", "0"], env) as server:
        assert "already has SmarterAuthMiddleware" in server.said
        assert httpx.get(f"{server.url}/bots/1").status_code == 401


WSGI_APPS = {
    "plain": "app = hello",
    "an object": "class Hello:\n    def __call__(self, environ, start_response):\n"
    "        return hello(environ, start_response)\napp = Hello()",
    "wrapped": "from smarter_auth_mw.wsgi import SmarterAuthWSGIMiddleware\napp = SmarterAuthWSGIMiddleware(hello)",
}


@pytest.mark.parametrize("way", WSGI_APPS)
def test_a_wsgi_app_is_served_too_and_told_who_asks(
    env: dict[str, str], run: Commands, written: Callable[[str], str], way: str
) -> None:
    created = run.json("key", "create", "--name", "first", "--bind", "bot:1")
    app = written(
        "def hello(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return [environ.get('REMOTE_USER', 'nobody').encode()]\n" + WSGI_APPS[way]
    )
    with serving([*PROGRAM, "serve", app, "--port", "0"], env, cwd=Path.cwd()) as server:
        assert httpx.get(f"{server.url}/bots/1").status_code == 401
        granted = httpx.get(f"{server.url}/bots/1", headers={"X-API-Key": created["token"]})
        assert granted.text == created["key_id"]
        assert httpx.get(f"{server.url}/bots/2").text == "nobody"
        exit_code, said = server.stop(signal.SIGTERM)
    assert exit_code in (0, -signal.SIGTERM)
    assert "Traceback" not in said
    (counted,) = run.json("usage", "--key", created["key_id"])
    assert counted["granted"] == 1, "What was counted is written when the server ends."


def test_a_changed_file_is_served_anew_and_one_that_is_wrong_is_told_in_a_line(
    env: dict[str, str], run: Commands, written: Callable[[str], str]
) -> None:
    text = (
        "async def app(scope, receive, send):\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': b'one'})\n"
    )
    run.json("resource", "add", "bot:1", "--protect")
    name = written(text)
    file = Path(f"{name.partition(':')[0]}.py")
    transport = httpx.HTTPTransport(retries=7)
    with (
        serving([*PROGRAM, "serve", name, "--port", "0", "--reload"], env, cwd=Path.cwd()) as server,
        httpx.Client(base_url=server.url, transport=transport, timeout=PATIENCE_S) as http,
    ):
        assert http.get("/bots/2").text == "one"
        assert http.get("/bots/1").status_code == 401
        file.write_text(f"import no_such_module\n{text}")
        assert server.process.stdout is not None
        said = next(line for line in server.process.stdout if "no_such_module" in line)
        assert said.startswith(f"error: The app '{name}' cannot be imported: ModuleNotFoundError: ")
        file.write_text(text.replace("one", "two"))
        assert http.get("/bots/2").text == "two"
        assert http.get("/bots/1").status_code == 401
        _, said = server.stop()
    assert "Traceback" not in said


def test_an_app_that_a_factory_makes_is_served(
    env: dict[str, str], run: Commands, written: Callable[[str], str]
) -> None:
    run.json("resource", "add", "bot:1", "--protect")
    name = written("from flask import Flask\ndef app():\n    made = Flask(__name__)\n"
                   "    made.add_url_rule('/<path:x>', view_func=lambda x: x)\n    return made\n")  # fmt: skip
    with serving([*PROGRAM, "serve", name, "--port", "0", "--factory"], env, cwd=Path.cwd()) as server:
        assert httpx.get(f"{server.url}/bots/1").status_code == 401
        assert httpx.get(f"{server.url}/bots/2").text == "bots/2"


def test_apps_that_bring_their_own_middlewares_below_paths_are_not_wrapped_again(env: dict[str, str]) -> None:
    without_routes = {name: value for name, value in env.items() if name != "SMARTER_AUTH_ROUTES"}
    with serving([*PROGRAM, "serve", "several_apps:app", "--port", "0"], without_routes) as server:
        assert "already has SmarterAuthMiddleware" in server.said
        assert httpx.get(f"{server.url}/workshop/tools/saw").status_code == 401


def test_files_that_settings_come_from_are_named(
    env: dict[str, str], written: Callable[[str], str], tmp_path: Path
) -> None:
    name = written("async def app(scope, receive, send): ...")
    (tmp_path / ".env").write_text("SMARTER_AUTH_REALM=here\n")
    with serving([*PROGRAM, "serve", name, "--port", "0"], env, cwd=tmp_path) as server:
        assert f"Settings are read from {tmp_path}/.env." in server.said


def test_a_mounted_app_whose_start_up_nobody_runs_is_named(
    run: Commands, written: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "run", lambda _, listening: listening.close())
    app = written(
        "from contextlib import asynccontextmanager\n"
        "from fastapi import FastAPI\n"
        "from starlette.applications import Starlette\n"
        "from starlette.routing import Host, Mount\n"
        "@asynccontextmanager\n"
        "async def lifespan(app):\n    yield\n"
        "inner = Starlette(routes=[Host('deep.example.com', FastAPI(lifespan=lifespan))], lifespan=lifespan)\n"
        "app = FastAPI(lifespan=lifespan)\n"
        "app.mount('/plain', FastAPI())\n"
        "app.mount('/inner', inner)\n"
    )
    said = run("serve", app, "--port", "0").err.splitlines()
    assert [line.partition(" has ")[0] for line in said] == [
        "The app at /inner",
        "The app at /inner at deep.example.com",
    ]


def test_no_token_reaches_the_log(env: dict[str, str], run: Commands) -> None:
    token = run.json("key", "create", "--name", "first", "--bind", "bot:1")["token"]
    with serving(SERVICE, env) as server:
        for header in ({"X-API-Key": token}, {"Authorization": f"Token {token} {token}"}):
            httpx.get(f"{server.url}/bots/1", headers=header)
        _, said = server.stop()
    assert '"GET /bots/1 HTTP/1.1" 400' in said
    assert token not in said


def test_a_stranger_cannot_say_by_a_header_where_they_come_from(env: dict[str, str]) -> None:
    with serving(SERVICE, env) as server:
        httpx.get(f"{server.url}/bots/1", headers={"X-Forwarded-For": "192.0.2.1"})
        _, said = server.stop()
    assert "192.0.2.1" not in said


def test_a_port_in_use_is_one_clear_line(env: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ran = program("serve", "tests.support.asgi:APP", "--port", port, env=env)
    assert ran.exit_code == 3
    assert re.fullmatch(rf"error: Cannot listen on 127.0.0.1:{port}: .* --port, --host.", ran.error)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def app(): ...", "neither an ASGI nor a WSGI app"),
        ("app = 'hello'", "neither an ASGI nor a WSGI app"),
        ("class app:\n async def __call__(self, scope, receive, send): ...", "neither an ASGI nor a WSGI app"),
        ("def app(*anything): ...", "may be ASGI or WSGI"),
        ("def app(): ...", "For a function that creates the app, add --factory"),
        ("import no_such_module", "no_such_module"),
        ("", "has no attribute 'app'"),
    ],
)
def test_what_cannot_be_served_is_one_clear_line(
    run: Commands, written: Callable[[str], str], text: str, says: str
) -> None:
    ran = run("serve", written(text))
    assert ran.exit_code == 2
    assert says in ran.error


@pytest.mark.parametrize(
    ("text", "arguments", "says"),
    [
        ("def app(environ, start_response): ...", ["--interface", "asgi"], "is WSGI by its signature, and not ASGI"),
        ("async def app(scope, receive, send): ...", ["--interface", "wsgi"], "is ASGI by its signature, and not WSGI"),
        ("def app(): raise RuntimeError('no')", ["--factory"], "failed: RuntimeError: no"),
        ("def app(): ...", ["--factory"], "is a NoneType, and neither an ASGI nor a WSGI app"),
        ("app = None", ["--reload", "--workers", "2"], "Use --reload or --workers, not both"),
    ],
)
def test_what_contradicts_itself_is_one_clear_line(
    run: Commands, written: Callable[[str], str], text: str, arguments: list[str], says: str
) -> None:
    ran = run("serve", written(text), *arguments)
    assert ran.exit_code == 2
    assert says in ran.error


@pytest.mark.parametrize("name", ["existing_service", ":app", "existing_service:", ""])
def test_what_names_no_app_is_one_clear_line(run: Commands, name: str) -> None:
    ran = run("serve", name)
    assert ran.exit_code == 2
    assert "main:app" in ran.error


def test_mistakes_of_the_configuration_are_told_before_anything_is_served(bare: Commands) -> None:
    bare.set(database_url="postgresql://localhost/db", routes="bot /bots/{id}")
    ran = bare("serve", "tests.support.asgi:APP", "--port", "0")
    assert ran.exit_code == 2
    assert "SMARTER_AUTH_ROUTES" in ran.error


def test_json_is_no_option_of_a_command_that_prints_no_document(run: Commands) -> None:
    assert run("serve", "tests.support.asgi:APP", "--json").json["error"]["code"] == "usage"
