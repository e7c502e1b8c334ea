"""WebSockets: read the token from a browser's subprotocol, and decide every message."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic
from weakref import WeakKeyDictionary

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from smarter_auth_mw.decision import Decision, Denial, Holds, never
from smarter_auth_mw.http.credentials import SUBPROTOCOL, others_offered, without_subprotocol

Decide = Callable[[], Awaitable[tuple[Decision, Holds]]]
"""Decides a message, and says with the decision whether it holds for the next one: if not, that is decided too."""

POLICY_VIOLATION = 1008
"""The close code of a refused WebSocket (RFC 6455 §7.4.1)."""

TURN_S = 0.002
"""The time for which waiting messages may occupy the event loop; other tasks run within twice that."""

_CLOSED = (OSError, WebSocketDisconnect)
"""The errors that tell an app that its peer is gone (ASGI 2.4)."""


class CutError(OSError):
    """The WebSocket was closed because the key no longer opens the resource."""


async def converse(app: ASGIApp, scope: Scope, receive: Receive, send: Send, decide: Decide) -> None:
    """Run the app on a WebSocket while each received message is still granted."""
    turns = _turns.setdefault(asyncio.get_running_loop(), _Turns())
    is_marked = SUBPROTOCOL in scope.get("subprotocols", ())
    conversation = _Conversation(receive, send, decide, turns, is_marked=is_marked)
    try:
        await app(_without_token(scope), conversation.receive, conversation.send)
    except Exception as error:
        if not (conversation.is_cut and _tells_of_closing(error)):
            raise


class _Turns:
    """Decides when to yield to the event loop.

    The messages of a flood are already buffered, so receiving one does not suspend: the loop would process neither
    notifications nor heartbeats during the flood, and a revoked key would stay valid.
    """

    def __init__(self) -> None:
        self._since_s = 0.0
        self._is_waiting = False

    def is_due(self) -> bool:
        """Return whether messages of any WebSocket have kept the loop busy for too long."""
        now_s = monotonic()
        if now_s - self._since_s < TURN_S:
            return False
        if self._is_waiting:
            return True
        self._since_s, self._is_waiting = now_s, True
        asyncio.get_running_loop().call_soon(self._turned)
        return False

    def _turned(self) -> None:
        self._is_waiting = False


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()
"""One per event loop, for all of its WebSockets."""


class _Conversation:
    """Both directions of a WebSocket; after a cut nothing is received or sent."""

    def __init__(self, receive: Receive, send: Send, decide: Decide, turns: _Turns, *, is_marked: bool) -> None:
        self.is_cut = False
        self._is_closed = False
        self._is_marked = is_marked
        self._receive = receive
        self._send = send
        self._decide = decide
        self._is_due = turns.is_due
        self._holds: Holds = never
        self._undecided: Message | None = None

    async def receive(self) -> Message:
        if self._undecided is None and not self.is_cut:
            message = await self._receive()
            if self._holds() and not self._is_due():
                return message
            # Kept until it is decided: the waiting task may be cancelled meanwhile and call again.
            self._undecided = message
        return await self._decided()

    async def _decided(self) -> Message:
        """Return the message that waits if it is admitted, and cut the conversation if it is not."""
        if (message := self._undecided) is not None:
            if self._is_due():
                await asyncio.sleep(0)
            if message["type"] != "websocket.receive" or self._holds() or await self._is_admitted():
                self._undecided = None
                return message
            self._undecided = None
            await self._cut()
        return {"type": "websocket.disconnect", "code": POLICY_VIOLATION}

    async def send(self, message: Message) -> None:
        if self.is_cut:
            raise CutError
        if message["type"] == "websocket.accept" and self._is_marked and not message.get("subprotocol"):
            message = {**message, "subprotocol": SUBPROTOCOL}  # A browser that offers subprotocols requires one.
        self._is_closed = self._is_closed or message["type"] == "websocket.close"
        await self._send(message)

    async def _is_admitted(self) -> bool:
        decision, self._holds = await self._decide()
        return not isinstance(decision, Denial)

    async def _cut(self) -> None:
        self.is_cut = True
        if not self._is_closed:
            self._is_closed = True
            with suppress(OSError):
                await self._send({"type": "websocket.close", "code": POLICY_VIOLATION})


def _without_token(scope: Scope) -> Scope:
    subprotocols = others_offered(scope.get("subprotocols", ()), SUBPROTOCOL)
    return {**scope, "subprotocols": subprotocols, "headers": without_subprotocol(scope["headers"])}


def _tells_of_closing(error: Exception) -> bool:
    if isinstance(error, ExceptionGroup):
        return error.split(_CLOSED)[1] is None
    return isinstance(error, _CLOSED)
