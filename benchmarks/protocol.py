"""Measure a request in uvicorn's protocol without its sockets: what an app takes and what each guard adds, in µs.

    python -m benchmarks.protocol [--rounds 40]

In a loop that only calls the app, the app's code stays in the processor's caches. Here uvicorn parses each request and
writes each response, as on a connection, so its own code runs in between; only the system calls are missing. The times
are processor time of the thread. Both sides of a row take turns. The lower rows get what nginx asks a gate.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterable
from typing import Any

import uvicorn
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from benchmarks.apps import DictBackend, Floor, answers, app
from benchmarks.in_process import CALLS, CREDENTIALS, HEADERS, SETTINGS, TOKEN, guarded
from benchmarks.measuring import Block, Row, in_turn, less, row, show
from smarter_auth_mw.gate.dialects import NGINX
from smarter_auth_mw.gate.forward_auth import ForwardAuth
from smarter_auth_mw.http.credentials import Header

ASKED = [*HEADERS, (b"x-original-uri", b"/bots/1"), (b"x-original-method", b"GET"), CREDENTIALS]
"""The question that nginx asks the gate about one request."""
MORE = [(b"cache-control", b"no-store"), *((b"x-smarter-auth-%d" % number, b"laptop") for number in range(4))]
"""As many headers as the gate adds to a response."""


class Nowhere(asyncio.Transport):
    """A connection of which nothing is kept."""

    def is_closing(self) -> bool:
        return False

    def write(self, data: Any) -> None:
        """Drop it; raises AssertionError for a response other than 200."""
        assert data[:4] != b"HTTP" or data[9:12] == b"200", data


def gate() -> ForwardAuth:
    """Return the gate, with a prepared source."""
    made = ForwardAuth(NGINX, SETTINGS)
    made._guard.engines.opening = guarded()._guard.engines.opening
    made._guard._know_domains(())
    return made


def with_more_headers() -> ASGIApp:
    """Return the minimal app, with as many headers as the gate's answer has."""
    headers = [(b"content-length", b"0"), *MORE]

    async def bare(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body"})

    return bare


def block(side: ASGIApp, path: str, headers: Iterable[Header]) -> Block:
    """Send requests on one connection, each after the response to the one before."""
    head = b"".join(b"%s: %s\r\n" % header for header in headers)
    request = b"GET %s HTTP/1.1\r\n%s\r\n" % (path.encode(), head)
    config = uvicorn.Config(side, log_config=None, access_log=False, lifespan="off")
    protocol = HttpToolsProtocol(config, ServerState(), {}, asyncio.get_running_loop())
    protocol.connection_made(Nowhere({"peername": ("127.0.0.1", 50000), "sockname": ("127.0.0.1", 8000)}))

    async def run() -> float:
        began = time.thread_time()
        for _ in range(CALLS):
            protocol.data_received(request)
            while not protocol.cycle.response_complete:
                await asyncio.sleep(0)
        return (time.thread_time() - began) / CALLS * 1e6

    return run


async def measure(rounds: int) -> list[Row]:
    token, bot = TOKEN.reveal(), [*HEADERS, CREDENTIALS]
    sides = {
        "bare": block(app(), "/bots/1", bot),
        "AuthenticationMiddleware": block(AuthenticationMiddleware(app(), DictBackend(token)), "/bots/1", bot),
        "floor": block(Floor(app(), token), "/bots/1", bot),
        "grant": block(guarded(), "/bots/1", bot),
        "answer": block(answers(), "/_smarter_auth", ASKED),
        "answer with more headers": block(with_more_headers(), "/_smarter_auth", ASKED),
        "gate": block(gate(), "/_smarter_auth", ASKED),
    }
    taken = await in_turn(sides, rounds)
    named = {
        "the bare app": taken["bare"],
        "AuthenticationMiddleware adds": less(taken["AuthenticationMiddleware"], taken["bare"]),
        "the hand-written floor adds": less(taken["floor"], taken["bare"]),
        "a warm grant adds": less(taken["grant"], taken["bare"]),
        "an app that answers 200 without looking": taken["answer"],
        "five more headers in its answer add": less(taken["answer with more headers"], taken["answer"]),
        "the gate adds": less(taken["gate"], taken["answer"]),
    }
    return [row(what, figures, None, unit="µs") for what, figures in named.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    show(asyncio.run(measure(parser.parse_args().rounds)))


if __name__ == "__main__":
    main()
