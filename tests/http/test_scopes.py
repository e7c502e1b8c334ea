"""Every scope that ASGI allows, and many that it does not, gets a decision or a refusal from the middleware."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from smarter_auth_mw import SmarterAuthMiddleware
from smarter_auth_mw.errors import NoEventLoopError
from smarter_auth_mw.gate.dialects import ENVOY
from smarter_auth_mw.gate.forward_auth import ForwardAuth
from smarter_auth_mw.testing import AuthKit
from tests.support.asgi import scope, speak_lifespan

PASSED = 200


class Recorder:
    """An app that notes which scopes reach it."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await speak_lifespan(receive, send)
            return
        self.scopes.append(scope)
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": PASSED, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await send({"type": "websocket.close", "code": 1000})


class World:
    """The middleware and the gate in front of one protected bot, on an event loop that outlives the examples."""

    def __init__(self, runner: asyncio.Runner, token: bytes) -> None:
        self.app = Recorder()
        self.token = token
        self._runner = runner
        self._guarded = SmarterAuthMiddleware(self.app)
        self._gate = ForwardAuth(ENVOY)

    def ask(self, scope: Scope) -> int:
        """Return the status that the client gets; 1008 for a WebSocket that is refused, 1000 for one that passes."""
        return self._runner.run(_answer(self._guarded, scope))

    def ask_gate(self, scope: Scope) -> int:
        """Return the status that the proxy gets."""
        return self._runner.run(_answer(self._gate, scope))


async def _answer(app: Any, scope: Scope) -> int:
    answers: list[int] = []

    async def receive() -> Message:
        return {"type": f"{scope['type']}.connect"}

    async def send(message: Message) -> None:
        answers.extend(message[name] for name in ("status", "code") if name in message)

    await app(scope, receive, send)
    (answer,) = answers
    return answer


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with AuthKit(["bot /bots/{ref}"]) as kit, asyncio.Runner() as runner:
        yield World(runner, str(kit.mint("bot:1").token).encode())


def spelled(name: bytes) -> st.SearchStrategy[bytes]:
    return st.sampled_from([name, name.upper(), name.title()])


NAMES = st.one_of(spelled(b"authorization"), spelled(b"x-api-key"))
CONTAINERS = st.sampled_from([list, tuple, iter])
OPTIONAL = ("raw_path", "root_path", "client", "extensions", "subprotocols", "query_string", "state")
CLIENTS = st.sampled_from([None, ["127.0.0.1", 5000], ("::1", 5000), ["unix:/run/app.sock", None], ("", 0)])


@given(
    path=st.sampled_from(["/bots/1", "/bots/2", "/health"]),
    kind=st.sampled_from(["http", "websocket"]),
    name=NAMES,
    has_token=st.booleans(),
    pair=st.sampled_from([tuple, list]),
    container=CONTAINERS,
    missing=st.sets(st.sampled_from(OPTIONAL)),
    none=st.sets(st.sampled_from(["raw_path", "client", "extensions"])),
    client=CLIENTS,
)
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_every_scope_that_asgi_allows_gets_the_decision_that_the_usual_one_gets(
    world: World,
    path: str,
    kind: str,
    *,
    name: bytes,
    has_token: bool,
    pair: Any,
    container: Any,
    missing: set[str],
    none: set[str],
    client: Any,
) -> None:
    value = b"Token " * (name.lower() == b"authorization") + world.token
    headers = [pair((b"host", b"localhost")), *([pair((name, value))] if has_token else [])]
    asked = {**scope(path, kind=kind, client=client), **dict.fromkeys(none)}
    asked["headers"] = container(headers)
    for left_out in missing:
        asked.pop(left_out, None)
    passes = has_token or path != "/bots/1"
    expected = {"http": (401, PASSED), "websocket": (1008, 1000)}[kind][passes]
    assert world.ask(asked) == expected


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.lists(st.one_of(st.binary(max_size=3), st.text(max_size=3), st.none()), max_size=3),
    st.lists(st.lists(st.one_of(st.binary(max_size=9), st.text(max_size=3), st.none()), max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
    st.just(object()),
)
KEYS = (*OPTIONAL, "path", "method", "headers", "scheme", "server", "http_version", "asgi")


@given(
    path=st.sampled_from(["/bots/1", "/bots/2", "/health", "\ud800", "/bots/\ud800"]),
    kind=st.sampled_from(["http", "websocket"]),
    changes=st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=3),
    missing=st.sets(st.sampled_from(KEYS), max_size=3),
)
@settings(deadline=None, max_examples=500, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_a_server_sends_is_decided_or_refused_and_opens_nothing(
    world: World, path: str, kind: str, changes: dict[str, Any], missing: set[str]
) -> None:
    asked = {**scope("/", kind=kind), "path": path, "raw_path": path.encode("utf-8", "replace"), **changes}
    for left_out in missing:
        asked.pop(left_out, None)
    world.app.scopes.clear()
    assert world.ask(dict(asked)) in {PASSED, 400, 401, 404, 503, 1000, 1008}
    assert not any(reached["path"] == "/bots/1" for reached in world.app.scopes)
    if kind == "http":
        assert world.ask_gate(dict(asked)) in {PASSED, 400, 401, 404, 503}


def test_a_scope_whose_headers_cannot_be_read_is_refused(world: World) -> None:
    assert world.ask({**scope("/bots/1"), "headers": [b"authorization: Token x"]}) == 400


def test_the_app_gets_headers_that_were_read_once_already(world: World) -> None:
    world.ask({**scope("/bots/1"), "headers": iter([[b"X-API-Key", world.token], [b"Accept", b"*/*"]])})
    assert world.app.scopes[-1]["headers"] == [(b"x-api-key", world.token), (b"accept", b"*/*")]


@pytest.mark.parametrize("front", [lambda: SmarterAuthMiddleware(Recorder()), lambda: ForwardAuth(ENVOY)])
def test_a_server_without_an_asyncio_loop_is_told_so_at_its_start(world: World, front: Callable[[], Any]) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        sent.append(message)

    with pytest.raises(NoEventLoopError):
        front()({"type": "lifespan"}, receive, send).__await__().send(None)
    (failed,) = sent
    assert failed["type"] == "lifespan.startup.failed"
    assert "needs an asyncio event loop" in failed["message"]
    assert "--worker-class asyncio" in failed["message"]


@pytest.mark.parametrize(("path", "status"), [("/bots/1", 503), ("/health", PASSED)])
def test_without_an_asyncio_loop_nothing_is_granted(world: World, path: str, status: int) -> None:
    """A server that runs trio, and speaks no lifespan."""
    with pytest.raises(StopIteration) as ended:
        _answer(SmarterAuthMiddleware(Recorder()), scope(path, (b"host", b"localhost"))).__await__().send(None)
    assert ended.value.value == status
