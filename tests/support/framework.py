"""Real servers with the examples of all frameworks, and what is to be asked of each of them."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec

import httpx

from tests.support.cli import EXAMPLES, Server, serving
from tests.support.warm import PYTHON

PATIENCE_S = 120
LISTENING = re.compile(r"(?:running on|listening at:?) (http://\S+)", re.IGNORECASE)
UVICORN = ("uvicorn", "--no-proxy-headers", "--port", "0")

ASGI_SERVERS: dict[str, Sequence[str]] = {
    "uvicorn h11": (*UVICORN, "--http", "h11"),
    "uvicorn httptools": (*UVICORN, "--http", "httptools"),
    "uvicorn, two workers": (*UVICORN, "--workers", "2"),
    "hypercorn": ("hypercorn", "--bind", "127.0.0.1:0"),
    "granian": ("granian", "--interface", "asgi", "--port", "PORT"),
    "gunicorn uvicorn": ("gunicorn", "--worker-class", "uvicorn_worker.UvicornWorker", "--bind", "127.0.0.1:0"),
}
if find_spec("gunicorn.workers.gasgi"):  # An older gunicorn speaks WSGI alone.
    ASGI_SERVERS |= {"gunicorn asgi": ("gunicorn", "--worker-class", "asgi", "--bind", "127.0.0.1:0")}
GUNICORN = ("gunicorn", "--bind", "127.0.0.1:0", "--workers", "2", "--worker-class")
WSGI_SERVERS: Mapping[str, Sequence[str]] = {
    "gunicorn sync": (*GUNICORN, "sync"),
    "gunicorn sync, preloaded": (*GUNICORN, "sync", "--preload"),
    "gunicorn gthread": (*GUNICORN, "gthread", "--threads", "4"),
    "gunicorn gthread, preloaded": (*GUNICORN, "gthread", "--threads", "4", "--preload"),
    "granian": ("granian", "--interface", "wsgi", "--port", "PORT"),
}
"""Each as its users start it. PORT is one that is kept free."""


@contextmanager
def running(command: Sequence[str], app: str, env: Mapping[str, str]) -> Iterator[Server]:
    """The app on a server whose workers answer, as long as the block lasts."""
    with ExitStack() as stack:
        port = stack.enter_context(_kept_free()) if "PORT" in command else "0"
        words = [port if word == "PORT" else word for word in command]
        server = stack.enter_context(serving([*PYTHON, "-m", *words, app], env, LISTENING, EXAMPLES))
        with client(server) as http:
            http.get("/")  # Granian says that it listens before it does, and does not end before it does.
        yield server


@contextmanager
def restarted(command: Sequence[str], app: str, env: Mapping[str, str]) -> Iterator[Callable[[], Server]]:
    """What returns the server with the app on it: the same one, until a test has ended it."""
    with ExitStack() as stack:
        started: list[Server] = []

        def now() -> Server:
            if not started or started[-1].process.poll() is not None:
                started.append(stack.enter_context(running(command, app, env)))
            return started[-1]

        yield now


@contextmanager
def _kept_free() -> Iterator[str]:
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        yield str(reserved.getsockname()[1])


def client(server: Server, prefix: str = "", **headers: str) -> httpx.Client:
    """A client of an app on the server, that tries again while its workers are not there yet."""
    transport = httpx.HTTPTransport(retries=9)
    return httpx.Client(base_url=server.url + prefix, headers=headers, transport=transport, timeout=PATIENCE_S)


def check(http: httpx.Client, token: str, key_id: str) -> None:
    """Ask an app for a protected bot, an open one, and one that can be read two ways."""
    authorized = {"Authorization": f"Token {token}"}
    refused = http.get("/bots/1")
    assert (refused.status_code, refused.json()["status"]) == (401, 401)
    assert "Token realm=" in refused.headers["www-authenticate"]
    granted = http.get("/bots/1", headers=authorized)
    assert granted.status_code == 200, granted.text
    assert granted.json()["key_id"] == key_id
    assert http.get("/bots/2").json()["key_id"] is None
    assert http.get("/bots/01", headers=authorized).status_code == 400
    assert http.get("/%62ots/1").status_code in (400, 401)
    assert http.get("/health").status_code == 200
