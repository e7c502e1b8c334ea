"""What a request may cost, counted and not timed: queries, waiting, calls and memory, on any machine the same."""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import asyncpg
import pytest
from starlette.types import Message, Receive, Scope, Send
from werkzeug.test import create_environ

import smarter_auth_mw
from benchmarks.memory import Source
from smarter_auth_mw import Settings
from smarter_auth_mw.authentication.authenticator import Authenticator
from smarter_auth_mw.cache.changes import Changes
from smarter_auth_mw.cache.entries import Cache, Limits
from smarter_auth_mw.domain import Resource, Target
from smarter_auth_mw.gate.dialects import DIALECTS
from smarter_auth_mw.gate.forward_auth import ForwardAuth
from smarter_auth_mw.tokens import Token
from smarter_auth_mw.wsgi import SmarterAuthWSGIMiddleware
from tests.support.asgi import forget, guarded, lifespan, raw, scope, speak_lifespan
from tests.support.database import Database

OURS = str(Path(smarter_auth_mw.__file__).parent)
GRANT_CALLS, REFUSAL_CALLS, WRONG_TOKEN_CALLS, NO_RESOURCE_CALLS, WSGI_GRANT_CALLS, MESSAGE_CALLS = 2, 21, 40, 1, 10, 3
GATE_GRANT_CALLS, GRANT_BUILT_INS, COLD_CALLS = 7, 6, 120
"""How many functions of ours may be called. Fewer is better: whoever needs more says in the commit what it buys."""
ENTRY_BYTES = 1_190
"""The most memory for an entry with one binding, as Python counts it."""


class App:
    """It answers with an awaitable that can be told from any other, and nobody has to wait for it."""

    def __init__(self) -> None:
        self.answers: list[Awaitable[None]] = []

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "lifespan":
            return speak_lifespan(receive, send)
        self.answers.append(nothing())
        return self.answers[-1]


async def nothing() -> None:
    return


async def receive() -> Message:
    raise AssertionError("The body was read.")


async def send(message: Message) -> None:
    """Nobody listens."""


def calls_of(call: Callable[[], Awaitable[None]], event: str = "call") -> list[str]:
    """The functions that are called until the answer has come, as ``calls``; an AssertionError if it is waited for."""
    with calls(event) as names, pytest.raises(StopIteration):
        call().__await__().send(None)
    return names


@contextmanager
def calls(event: str = "call") -> Iterator[list[str]]:
    """The functions of ours that are called meanwhile, on this thread; with ``c_call``, the built-in ones they call."""
    names: list[str] = []

    def note(frame: FrameType, happened: str, called: Any) -> None:
        if happened == event and frame.f_code.co_filename.startswith(OURS):
            names.append(frame.f_code.co_qualname if called is None else called.__qualname__)

    sys.setprofile(note)
    try:
        yield names
    finally:
        sys.setprofile(None)


def sent_by_new_tasks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every query that is sent to answer a request: not what the tasks send that ran before it."""
    sent: list[str] = []
    background = asyncio.all_tasks() - {asyncio.current_task()}
    fetch = asyncpg.Connection.fetch

    async def counted(self: Any, query: str, *arguments: Any, **options: Any) -> Any:
        if asyncio.current_task() not in background:
            sent.append(query)
        return await fetch(self, query, *arguments, **options)

    monkeypatch.setattr(asyncpg.Connection, "fetch", counted)
    return sent


async def test_a_cold_request_is_one_query_and_a_warm_one_is_none(
    database: Database, token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = guarded(database.runtime, App())
    async with lifespan(app):
        queries = sent_by_new_tasks(monkeypatch)
        for path in ("/bots/1", "/bots/2"):  # One that is protected, and one that nobody knows.
            counts = [await counts_of(app, path, token, queries) for _ in range(20)]
            # What is heard late of the key that was just minted makes one of them read again.
            assert min(counts) == (1, 0)


async def counts_of(app: Any, path: str, token: Token, queries: list[str]) -> tuple[int, int]:
    """How many queries a cold request takes, and three warm ones behind it."""
    forget(app)
    queries.clear()
    await app(scope(path, raw(token)), receive, send)
    cold = len(queries)
    for headers in ([raw(token)], [raw(Token(b"another"))], []):
        await app(scope(path, *headers), receive, send)
    return cold, len(queries) - cold


async def test_a_cold_request_calls_few_functions(database: Database, token: Token) -> None:
    app = guarded(database.runtime, App())
    counts = []
    async with lifespan(app):
        for _ in range(10):
            forget(app)
            with calls() as names:
                await app(scope("/bots/1", raw(token)), receive, send)
            counts.append(len(names))
    assert min(counts) <= COLD_CALLS  # What runs beside it, a heartbeat say, counts too.


async def test_what_passes_is_answered_by_the_apps_own_awaitable(database: Database, token: Token) -> None:
    wrapped = App()
    app = guarded(database.runtime, wrapped)
    async with lifespan(app):
        await app(scope("/bots/1", raw(token)), receive, send)
        for asked in (scope("/bots/1", raw(token)), scope("/health"), scope("/bots/1/chat", raw(token))):
            await app(asked, receive, send)
            answer = app._call(asked, receive, send)
            assert answer is wrapped.answers[-1]
            await answer


@pytest.mark.parametrize(
    ("path", "credentials", "most"),
    [
        ("/bots/1", "its own", GRANT_CALLS),
        ("/bots/1", "none", REFUSAL_CALLS),
        ("/bots/1", "wrong", WRONG_TOKEN_CALLS),
        ("/health", "none", NO_RESOURCE_CALLS),
    ],
)
async def test_a_warm_request_calls_few_functions_and_waits_for_none(
    database: Database, token: Token, path: str, credentials: str, most: int
) -> None:
    app = guarded(database.runtime, App(), failed_attempts="")
    headers = {"its own": [raw(token)], "wrong": [raw(Token(b"another"))], "none": []}[credentials]
    asked = scope(path, *headers)
    async with lifespan(app):
        for _ in range(3):
            await app(asked, receive, send)
        assert len(calls_of(lambda: app._call(asked, receive, send))) <= most


async def test_a_warm_grant_calls_few_built_in_functions(database: Database, token: Token) -> None:
    app = guarded(database.runtime, App())
    asked = scope("/bots/1", raw(token))
    async with lifespan(app):
        for _ in range(3):
            await app(asked, receive, send)
        assert len(names := calls_of(lambda: app._call(asked, receive, send), "c_call")) <= GRANT_BUILT_INS, names


async def test_a_warm_answer_of_the_gate_calls_few_functions_and_waits_for_none(
    database: Database, token: Token
) -> None:
    gate = ForwardAuth(DIALECTS["nginx"], Settings(database_url=database.runtime, routes=["bot /bots/{ref}"]))
    describing = [(b"host", b"bots.example"), (b"x-original-uri", b"/bots/1"), (b"x-original-method", b"GET")]
    asked = {**scope("/_smarter_auth"), "headers": [*describing, raw(token)]}
    statuses: list[int] = []

    async def sent(message: Message) -> None:
        statuses.append(message.get("status", 0))

    async with lifespan(gate):
        for _ in range(3):
            await gate(asked, receive, sent)
        assert len(calls_of(lambda: gate(asked, receive, sent))) <= GATE_GRANT_CALLS
    assert statuses[-2:] == [200, 0]


async def test_a_warm_wsgi_request_calls_few_functions(database: Database, token: Token) -> None:
    answers: list[list[bytes]] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        answers.append([b"ok"])
        return answers[-1]

    def start_response(status: str, headers: Any, error: Any = None) -> Any:
        raise AssertionError(status)

    guard = SmarterAuthWSGIMiddleware(app, Settings(database_url=database.runtime, routes=["bot /bots/{ref}"]))
    asked = create_environ("/bots/1", headers={"Authorization": f"Token {token.reveal()}"})
    for _ in range(3):
        guard(asked, start_response)
    with calls() as names:
        answer = guard(asked, start_response)
    guard.close()
    assert answer is answers[-1]
    assert 0 < len(names) <= WSGI_GRANT_CALLS


async def test_a_further_message_of_a_websocket_calls_few_functions(database: Database, token: Token) -> None:
    counts: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(9):
            with calls() as names:
                await receive()
            counts.append(len(names))

    async def hello() -> Message:
        return {"type": "websocket.receive", "text": "hello"}

    guard = guarded(database.runtime, app)
    async with lifespan(guarded(database.runtime, App())):
        await guard(scope("/bots/1", raw(token), kind="websocket"), hello, send)
    assert min(counts) == MESSAGE_CALLS  # One of them may find that a heartbeat came in between.


async def test_warm_requests_leave_nothing_behind(database: Database, token: Token) -> None:
    app = guarded(database.runtime, App(), audit="none", failed_attempts="")  # These remember, within their bounds.
    scopes = [scope("/bots/1", raw(token)), scope("/bots/1", raw(Token(b"another"))), scope("/bots/1"), scope("/x")]
    async with lifespan(app):
        growths: list[int] = []
        for _ in range(5):
            before = sys.getallocatedblocks()
            for _ in range(300):
                for asked in scopes:
                    app.app.answers.clear()  # type: ignore[attr-defined]
                    await app(asked, receive, send)
            gc.collect()
            growths.append(sys.getallocatedblocks() - before)
        # What runs beside it, a heartbeat say, may keep something once; what requests leave behind adds up each time.
        assert min(growths) < 100


async def test_an_entry_with_one_binding_takes_little_memory() -> None:
    authenticator = Authenticator(Cache(Source(), Limits(), Changes()))

    async def fill(refs: range) -> None:
        for ref in refs:
            await authenticator.authenticate(Target(Resource("bot", str(ref))), None)

    await fill(range(1, 3_000))  # So that its tables need not grow below.
    gc.collect()
    tracemalloc.start()
    try:
        await fill(range(3_000, 3_500))
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] / 500 < ENTRY_BYTES
    finally:
        tracemalloc.stop()
