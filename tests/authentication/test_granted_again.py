"""What is true of a first request is true of all that follow, which are granted without looking as closely."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from starlette.authentication import SimpleUser
from starlette.types import Message, Receive, Scope, Send

from smarter_auth_mw import SmarterAuthMiddleware
from smarter_auth_mw.authentication import authenticator
from smarter_auth_mw.decision import Decision
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.tokens import Token, quick_hash
from tests.support.asgi import KEYED, Conversation, forget, guarded, lifespan, raw, scope, speak_lifespan
from tests.support.database import Database


class Seen:
    """An app that keeps what it is asked."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await speak_lifespan(receive, send)
            return
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": "heard"})


async def ask(app: SmarterAuthMiddleware, asked: Scope) -> list[Message]:
    """What is sent, if not by the app, which sends nothing."""
    talk = Conversation()
    await app(asked, talk.receive, talk.send)
    return talk.sent


async def warm(app: SmarterAuthMiddleware, token: Token, path: str = "/bots/1") -> None:
    """Have the token granted until it is granted by itself."""
    for _ in range(3):
        assert await ask(app, scope(path, raw(token))) == []


@pytest.fixture
def seen() -> Seen:
    return Seen()


async def test_it_is_one_decision_that_counts_itself(database: Database, token: Token, seen: Seen) -> None:
    async with lifespan(guarded(database.runtime, seen)) as app:
        await warm(app, token)
        first, _, last = (asked["smarter_auth"] for asked in seen.scopes)
        assert first is last
        assert last.tally.is_kept


async def test_the_callers_scope_is_left_as_it_was(database: Database, token: Token, seen: Seen) -> None:
    async with lifespan(guarded(database.runtime, seen)) as app:
        await warm(app, token)
        given = scope("/bots/1", raw(token))
        before = dict(given)
        await ask(app, given)
        assert given == before
        assert set(seen.scopes[-1]) - set(given) == {"user", "auth", "smarter_auth"}


async def test_an_outer_user_gives_way_and_is_told(database: Database, token: Token, seen: Seen) -> None:
    async with lifespan(guarded(database.runtime, seen)) as app:
        await warm(app, token)
        alice = SimpleUser("alice")
        for outer, told in ((alice, alice), (None, None)):
            await ask(app, scope("/bots/1", raw(token), user=outer))
            assert seen.scopes[-1]["smarter_auth"].outer_user is told
            assert seen.scopes[-1]["user"].display_name == "laptop"


async def test_credentials_are_hidden(database: Database, token: Token, seen: Seen) -> None:
    async with lifespan(guarded(database.runtime, seen, hide_credentials=True)) as app:
        await warm(app, token)
        assert [asked["headers"] for asked in seen.scopes] == [[]] * 3


async def test_a_websocket_for_the_same_path_is_cut_as_any_other(
    database: Database, token: Token, keys: Management, seen: Seen
) -> None:
    async with lifespan(guarded(database.runtime, seen)) as app:
        await warm(app, token)

        async def revoke() -> None:
            for key in await keys.keys(KEYED):
                await keys.revoke(key.key_id)
            forget(app)

        hello = {"type": "websocket.receive", "text": "hello"}
        talk = Conversation({"type": "websocket.connect"}, hello, revoke, hello)
        await app(scope("/bots/1", raw(token), kind="websocket"), talk.receive, talk.send)
        assert talk.types == ["accept", "send", "close"]


async def test_further_messages_of_a_websocket_are_not_hashed(
    database: Database, token: Token, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[bytes] = []

    def counted(value: bytes) -> Any:
        hashed.append(value)
        return quick_hash(value)

    async with lifespan(guarded(database.runtime, seen)) as app:
        await warm(app, token)
        monkeypatch.setattr(authenticator, "quick_hash", counted)
        hello = {"type": "websocket.receive", "text": "hello"}
        talk = Conversation({"type": "websocket.connect"}, *[hello] * 50, {"type": "websocket.disconnect"})
        await app(scope("/bots/1", raw(token), kind="websocket"), talk.receive, talk.send)
        assert talk.types == ["accept", *["send"] * 50]
        assert 0 < len(hashed) < 10  # By the first message, and again if a heartbeat comes in between.


async def test_a_preflight_passes_each_time_where_that_is_wished(database: Database, token: Token, seen: Seen) -> None:
    preflight = [(b"origin", b"https://a.example"), (b"access-control-request-method", b"POST")]
    async with lifespan(guarded(database.runtime, seen, preflight="pass")) as app:
        await warm(app, token)
        for _ in range(2):
            assert await ask(app, {**scope("/bots/1", *preflight), "method": "OPTIONS"}) == []
        assert (await ask(app, scope("/bots/1")))[0]["status"] == 401


async def test_a_path_that_names_nothing_is_looked_at_anew_once_hosts_do(
    database: Database, token: Token, seen: Seen
) -> None:
    async with lifespan(guarded(database.runtime, seen)) as app:
        host = (b"host", b"sales.example.net")
        for _ in range(3):
            assert await ask(app, scope("/", host)) == []
        app._guard._know_domains([("sales.example.net", "bot")])
        assert (await ask(app, scope("/", host)))[0]["status"] == 404  # Such a domain stands for no bot.
        app._guard._know_domains([])
        assert await ask(app, scope("/", host)) == []


async def test_hosts_that_name_resources_are_looked_at_each_time(database: Database, token: Token, seen: Seen) -> None:
    settings: dict[str, Any] = {
        "routes": ["bot host:{label}.{account}.api.example.com"],
        "api_domains": ["api.example.com"],
    }
    async with lifespan(guarded(database.runtime, seen, **settings)) as app:
        for _ in range(3):
            assert await ask(app, scope("/", (b"host", b"www.example.com"))) == []
        bot = (b"host", b"sales.3141-5926-5359.api.example.com")
        assert (await ask(app, scope("/", bot)))[0]["status"] == 404


async def test_another_event_loop_has_its_own(database: Database, token: Token, seen: Seen) -> None:
    async with lifespan(guarded(database.runtime, seen)) as app:
        await warm(app, token)

        async def elsewhere() -> bool:
            await ask(app, scope("/bots/1", raw(token)))
            return app._guard.engines.ready() is not None

        assert await asyncio.to_thread(asyncio.run, elsewhere())


@pytest.mark.parametrize("settings", [{"audit": "all"}, {}])
async def test_whoever_wants_to_hear_of_all_hears_of_all(
    database: Database, token: Token, seen: Seen, settings: dict[str, Any]
) -> None:
    told: list[Decision] = []

    def observe(decision: Decision, _: Mapping[str, Any]) -> None:
        told.append(decision)

    async with lifespan(guarded(database.runtime, seen, **settings)) as app:
        await warm(app, token)
        if settings:  # The audit is one of them, and is there from the beginning.
            assert not seen.scopes[-1]["smarter_auth"].tally.is_kept
        app._guard._observers.add(observe)
        await warm(app, token)
        assert len(told) == 3
