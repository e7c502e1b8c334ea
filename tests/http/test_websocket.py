"""WebSockets: refused before they are accepted, decided again with every message, and cut without noise."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import repeat
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from smarter_auth_mw import SmarterAuthMiddleware
from smarter_auth_mw.decision import Anonymous, Decision, Denial, Holds, Reason, never
from smarter_auth_mw.http.websocket import converse
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.tokens import Token
from tests.support.asgi import KEYED, OTHER, Conversation, forget, guarded, raw, scope
from tests.support.database import Database

CONNECT = {"type": "websocket.connect"}
HELLO = {"type": "websocket.receive", "text": "hello"}
GOODBYE = {"type": "websocket.disconnect", "code": 1000}
ACCEPT: Message = {"type": "websocket.accept", "subprotocol": None, "headers": []}
CUT = {"type": "websocket.close", "code": 1008}

Revoke = Callable[[], Awaitable[None]]


@pytest.fixture
def revoke(app: SmarterAuthMiddleware, keys: Management) -> Revoke:
    """What happens between two messages: the keys of the resource are revoked."""

    async def revoking() -> None:
        for key in await keys.keys(KEYED):
            await keys.revoke(key.key_id)
        forget(app)

    return revoking


def asked(*headers: tuple[bytes, bytes], path: str = "/bots/1/chat", **more: Any) -> Scope:
    return scope(path, *headers, kind="websocket", **more)


def offering(*subprotocols: str, path: str = "/bots/1/chat") -> Scope:
    header = (b"sec-websocket-protocol", ", ".join(subprotocols).encode())
    return asked((b"host", b"testserver"), header, path=path, subprotocols=list(subprotocols))


async def test_without_a_token_it_is_denied_before_it_is_accepted(app: SmarterAuthMiddleware, token: Token) -> None:
    talk = Conversation(CONNECT)
    await app(asked(), talk.receive, talk.send)
    assert talk.sent == [CUT]


async def test_the_denial_extension_carries_the_whole_rejection(app: SmarterAuthMiddleware, token: Token) -> None:
    talk = Conversation(CONNECT)
    await app(asked(extensions={"websocket.http.response": {}}), talk.receive, talk.send)
    assert [message["type"] for message in talk.sent] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert talk.sent[0]["status"] == 401
    assert b"www-authenticate" in dict(talk.sent[0]["headers"])


async def test_with_a_token_it_talks(app: SmarterAuthMiddleware, token: Token) -> None:
    talk = Conversation(CONNECT, HELLO, GOODBYE)
    await app(asked(raw(token)), talk.receive, talk.send)
    assert [message.get("text") for message in talk.sent] == [None, "laptop: hello"]


class TestSubprotocol:
    """Browsers cannot set headers: ``new WebSocket(url, ["smarter-auth", token])``."""

    async def test_the_token_lets_in_and_the_marker_is_answered(self, app: SmarterAuthMiddleware, token: Token) -> None:
        talk = Conversation(CONNECT, HELLO, GOODBYE)
        await app(offering("smarter-auth", token.reveal()), talk.receive, talk.send)
        assert talk.sent[0]["subprotocol"] == "smarter-auth"
        assert talk.sent[1]["text"] == "laptop: hello"
        assert token.reveal() not in repr(talk.sent)

    @pytest.mark.parametrize("path", ["/bots/1/chat", "/bots/2/chat"], ids=["protected", "open"])
    async def test_the_app_sees_neither_marker_nor_token(self, database: Database, token: Token, path: str) -> None:
        seen: list[Scope] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(scope)
            await send({"type": "websocket.accept", "subprotocol": "chat"})

        talk = Conversation(CONNECT)
        guard = guarded(database.runtime, app)
        await guard(offering("smarter-auth", token.reveal(), "chat", path=path), talk.receive, talk.send)
        assert seen[0]["subprotocols"] == ["chat"]
        assert (b"sec-websocket-protocol", b"chat") in seen[0]["headers"]
        assert token.reveal() not in repr(seen)
        assert talk.sent[0]["subprotocol"] == "chat"

    async def test_an_app_that_was_offered_no_marker_is_left_alone(
        self, app: SmarterAuthMiddleware, token: Token
    ) -> None:
        talk = Conversation(CONNECT, GOODBYE)
        await app(asked(raw(token), subprotocols=["chat"]), talk.receive, talk.send)
        assert talk.sent[0].get("subprotocol") is None

    @pytest.mark.parametrize("offered", [["smarter-auth", "0" * 64], ["smarter-auth"], ["chat"]])
    async def test_anything_else_is_denied(self, app: SmarterAuthMiddleware, token: Token, offered: list[str]) -> None:
        talk = Conversation(CONNECT)
        await app(offering(*offered), talk.receive, talk.send)
        assert talk.sent == [CUT]

    async def test_a_request_that_is_no_websocket_is_not_let_in_so(
        self, app: SmarterAuthMiddleware, token: Token
    ) -> None:
        talk = Conversation()
        header = (b"sec-websocket-protocol", b"smarter-auth, " + token.reveal().encode())
        await app(scope("/bots/1", header), talk.receive, talk.send)
        assert talk.sent[0]["status"] == 401


class TestCut:
    """Closed at the next message, when the grant is gone."""

    async def test_the_message_does_not_reach_the_app(
        self, app: SmarterAuthMiddleware, token: Token, revoke: Revoke
    ) -> None:
        talk = Conversation(CONNECT, HELLO, revoke, HELLO)
        await app(asked(raw(token)), talk.receive, talk.send)
        assert [message.get("text") for message in talk.sent] == [None, "laptop: hello", None]
        assert talk.sent[-1] == CUT

    async def test_an_open_resource_that_was_bound_meanwhile_is_cut_too(
        self, app: SmarterAuthMiddleware, keys: Management
    ) -> None:
        async def bind() -> None:
            await keys.create("first", bind=[OTHER])
            forget(app)

        talk = Conversation(CONNECT, HELLO, bind, HELLO)
        await app(asked(path="/bots/2/chat"), talk.receive, talk.send)
        assert talk.types == ["accept", "send", "close"]

    async def cut(self, database: Database, token: Token, keys: Management, handler: Any) -> list[Message]:
        """What is sent where the grant of a WebSocket that the handler serves is gone with its second message."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await handler(WebSocket(scope, receive, send))

        async def revoke() -> None:
            for key in await keys.keys(KEYED):
                await keys.revoke(key.key_id)
            forget(guard)

        guard = guarded(database.runtime, app)
        talk = Conversation(CONNECT, HELLO, revoke, HELLO)
        await guard(asked(raw(token)), talk.receive, talk.send)
        return talk.sent

    async def test_an_app_may_still_be_sending(self, database: Database, token: Token, keys: Management) -> None:
        ended: list[str] = []

        async def handler(websocket: WebSocket) -> None:
            await websocket.accept()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(stream(websocket))
                while True:
                    await websocket.receive_text()

        async def stream(websocket: WebSocket) -> None:
            try:
                while True:
                    await websocket.send_text("tick")
                    await asyncio.sleep(0)
            finally:
                ended.append("stream")

        sent = await self.cut(database, token, keys, handler)
        assert sent[-1] == CUT
        assert sent.count(CUT) == 1
        assert ended == ["stream"]

    async def test_an_app_may_close_it_once_more(self, database: Database, token: Token, keys: Management) -> None:
        async def handler(websocket: WebSocket) -> None:
            await websocket.accept()
            try:
                while True:
                    await websocket.receive_text()
            finally:
                await websocket.close()

        assert await self.cut(database, token, keys, handler) == [ACCEPT, CUT]

    async def test_an_app_that_goes_on_receiving_is_told_again(
        self, database: Database, token: Token, keys: Management
    ) -> None:
        received: list[str] = []

        async def handler(websocket: WebSocket) -> None:
            await websocket.accept()
            received.extend([(await websocket._receive())["type"] for _ in range(4)])

        await self.cut(database, token, keys, handler)
        assert received == ["websocket.receive", *["websocket.disconnect"] * 3]

    async def test_an_app_that_has_closed_it_is_not_closed_again(
        self, database: Database, token: Token, keys: Management
    ) -> None:
        async def handler(websocket: WebSocket) -> None:
            await websocket.accept()
            await websocket.receive_text()
            await websocket.close(4000)
            await websocket._receive()

        sent = await self.cut(database, token, keys, handler)
        assert [message.get("code") for message in sent] == [None, 4000]

    async def test_an_apps_own_failure_is_not_hidden(self, database: Database, token: Token, keys: Management) -> None:
        async def handler(websocket: WebSocket) -> None:
            await websocket.accept()
            try:
                while True:
                    await websocket.receive_text()
            except WebSocketDisconnect:
                raise ZeroDivisionError from None

        with pytest.raises(ZeroDivisionError):
            await self.cut(database, token, keys, handler)


async def test_a_message_is_not_lost_when_its_receiver_gives_up_while_it_is_decided(
    app: SmarterAuthMiddleware, token: Token
) -> None:
    received: list[str] = []

    async def impatient(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        forget(guard)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await receive()
        assert not talk.to_come
        received.append((await receive())["text"])

    guard, talk = app, Conversation(CONNECT, HELLO)
    guard.app = impatient
    await guard(asked(raw(token)), talk.receive, talk.send)
    assert received == ["hello"]


class TestFlood:
    """Messages that wait at the server already: to receive one suspends nothing."""

    @pytest.mark.parametrize("sockets", [1, 20])
    async def test_the_loop_gets_its_turn_and_the_revocation_is_heard(self, sockets: int) -> None:
        revoked = asyncio.Event()

        async def decide() -> tuple[Decision, Holds]:
            return (Denial(Reason.REVOKED) if revoked.is_set() else Anonymous(KEYED)), never

        async def flooded() -> list[str]:
            talk, messages = Conversation(), repeat(HELLO, 200_000)

            async def receive() -> Message:
                return next(messages)

            await converse(listening, scope("/", kind="websocket"), receive, talk.send, decide)
            return talk.types

        async with asyncio.TaskGroup() as tasks:
            floods = [tasks.create_task(flooded()) for _ in range(sockets)]
            asyncio.get_running_loop().call_later(0, revoked.set)
        assert [flood.result() for flood in floods] == [["close"]] * sockets

    async def test_a_message_that_comes_by_itself_waits_for_nothing(self) -> None:
        async def decide() -> tuple[Decision, Holds]:
            return Anonymous(KEYED), never

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            for _ in range(3):
                await asyncio.sleep(0)
                with pytest.raises(StopIteration):
                    receive().__await__().send(None)

        talk = Conversation(*[HELLO] * 3)
        await converse(app, scope("/", kind="websocket"), talk.receive, talk.send, decide)
        assert not talk.to_come


async def listening(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that does nothing with its messages."""
    while (await receive())["type"] != "websocket.disconnect":
        pass
