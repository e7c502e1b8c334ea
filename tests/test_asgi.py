"""The middleware from outside: a real database, a real application, and the decision table in HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest
from starlette.authentication import SimpleUser
from starlette.types import Receive, Scope, Send

from smarter_auth_mw import SmarterAuthMiddleware
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.errors import ConfigurationError
from smarter_auth_mw.keys import Keys
from smarter_auth_mw.tokens import Token
from tests.asgi_support import APP, Conversation, client, guarded, lifespan, scope
from tests.database_support import Database

KEYED, OTHER = Resource("bot", "1"), Resource("bot", "2")


def bearer(token: Token) -> dict[str, str]:
    return {"Authorization": f"Bearer {token.reveal()}"}


def raw(token: Token) -> tuple[bytes, bytes]:
    return b"authorization", b"Token " + token.reveal().encode()


@pytest.fixture
async def app(database: Database) -> AsyncIterator[SmarterAuthMiddleware]:
    async with lifespan(guarded(database.runtime)) as started:
        yield started


@pytest.fixture
async def http(app: SmarterAuthMiddleware) -> AsyncIterator[httpx.AsyncClient]:
    async with client(app) as connected:
        yield connected


@pytest.fixture
async def token(keys: Keys) -> Token:
    return (await keys.create("laptop", bind=[KEYED])).token


async def test_a_protected_resource_answers_401_with_a_challenge(http: httpx.AsyncClient, token: Token) -> None:
    answer = await http.get("/bots/1")
    assert answer.status_code == 401
    assert 'Token realm="smarter"' in answer.headers["www-authenticate"]
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json()["status"] == 401


@pytest.mark.parametrize("name", ["Authorization: Token ", "Authorization: bearer ", "X-API-Key: "])
async def test_a_bound_token_opens_it_in_each_accepted_way(http: httpx.AsyncClient, token: Token, name: str) -> None:
    header, _, scheme = name.partition(": ")
    answer = await http.get("/bots/1", headers={header: scheme + token.reveal()})
    assert answer.status_code == 200
    told = answer.json()
    assert (told["user"], told["is_authenticated"], told["scopes"]) == ("laptop", True, ["authenticated"])
    assert told["resource"] == "bot:1"
    assert told["key_id"]


async def test_an_open_resource_is_anonymous_whatever_credentials_come(http: httpx.AsyncClient, token: Token) -> None:
    for headers in ({}, bearer(token), {"Authorization": "Token nonsense"}, {"Authorization": "Token a b"}):
        answer = await http.get("/bots/2", headers=headers)
        assert answer.status_code == 200
        assert answer.json()["is_authenticated"] is False
        assert (answer.json()["user"], answer.json()["key_id"]) == ("", None)


async def test_a_route_that_is_no_resource_passes_untouched(http: httpx.AsyncClient) -> None:
    answer = await http.get("/health")
    assert (answer.status_code, answer.json()) == (200, [])


async def test_refused_tokens_cannot_be_told_apart(http: httpx.AsyncClient, keys: Keys, token: Token) -> None:
    refused = {"unknown": "0" * 64, "elsewhere": (await keys.create("b", bind=[OTHER])).token.reveal()}
    for change in (keys.deactivate, keys.revoke):
        minted = await keys.create(change.__name__, bind=[KEYED])
        await change(minted.key.key_id)
        refused[change.__name__] = minted.token.reveal()
    answers = [await http.get("/bots/1", headers={"X-API-Key": value}) for value in refused.values()]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1
    assert len({tuple(answer.headers.items()) for answer in answers}) == 1


async def test_an_expired_key_is_refused_and_nothing_is_deleted(
    http: httpx.AsyncClient, keys: Keys, owner: asyncpg.Connection
) -> None:
    minted = await keys.create("short", bind=[KEYED], expires_at=datetime.now(UTC) + timedelta(hours=1))
    await owner.execute("UPDATE smarter_auth.key SET expires_at = now() - interval '1 s'")
    assert (await http.get("/bots/1", headers=bearer(minted.token))).status_code == 401
    assert (await http.get("/bots/1")).status_code == 401
    assert await owner.fetchval("SELECT count(*) FROM smarter_auth.token") == 1


async def test_malformed_credentials_are_400_on_a_protected_resource_only(
    http: httpx.AsyncClient, token: Token
) -> None:
    assert (await http.get("/bots/1", headers={"Authorization": "Token a b"})).status_code == 400
    assert (await http.get("/bots/2", headers={"Authorization": "Token a b"})).status_code == 200


@pytest.mark.parametrize("path", ["/bots/01", "/BOTS/1", "//bots/1", "/bots/1%2e", "/x/../bots/1", "/bots/+1"])
async def test_what_can_be_read_two_ways_is_refused(app: SmarterAuthMiddleware, token: Token, path: str) -> None:
    for headers in ((), (raw(token),)):
        talk = Conversation()
        await app(scope(path, *headers), talk.receive, talk.send)
        assert talk.sent[0]["status"] == 400


async def test_another_spelling_of_a_registered_slug_is_refused(http: httpx.AsyncClient, keys: Keys) -> None:
    minted = await keys.create("k", bind=[Resource("bot", "my-bot")])
    assert (await http.get("/bots/my-bot", headers=bearer(minted.token))).status_code == 200
    assert (await http.get("/bots/my_bot", headers=bearer(minted.token))).status_code == 400
    assert (await http.get("/bots/my_bot")).status_code == 400


async def test_a_declared_route_is_protected_without_any_binding(database: Database) -> None:
    async with lifespan(guarded(database.runtime, routes=["bot /bots/{ref} always"])) as app, client(app) as http:
        assert (await http.get("/bots/2")).status_code == 401


async def test_an_outer_user_stays_on_open_resources_and_gives_way_to_a_grant(
    app: SmarterAuthMiddleware, token: Token
) -> None:
    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "user": SimpleUser("alice")}, receive, send)

    async with client(outer) as http:
        opened = (await http.get("/bots/1", headers=bearer(token))).json()
        assert opened["user"] == "laptop"
        assert "SimpleUser" in opened["outer_user"]


async def test_the_callers_scope_is_left_as_it_was(app: SmarterAuthMiddleware, token: Token) -> None:
    given = scope("/bots/1", raw(token))
    before = dict(given)
    talk = Conversation({"type": "http.request", "body": b"", "more_body": False})
    await app(given, talk.receive, talk.send)
    assert talk.sent[0]["status"] == 200
    assert given == before


async def test_a_refusal_comes_before_the_body_is_read(app: SmarterAuthMiddleware, token: Token) -> None:
    talk = Conversation()  # receiving anything would fail
    await app(scope("/bots/1"), talk.receive, talk.send)
    assert [message["type"] for message in talk.sent] == ["http.response.start", "http.response.body"]
    assert talk.sent[0]["status"] == 401


async def test_an_unreachable_database_is_503_and_never_anonymous(database: Database) -> None:
    app = guarded(database.runtime.replace("/test_", "/no_such_"))
    async with client(app) as http:
        for headers in ({}, {"Authorization": "Token x"}):
            answer = await http.get("/bots/2", headers=headers)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
        assert (await http.get("/health")).status_code == 200


async def test_a_schema_that_was_not_migrated_is_503(
    empty_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async with client(guarded(empty_database.owner)) as http:
        assert (await http.get("/bots/2")).status_code == 503
    assert "smarter-auth db migrate" in caplog.text


async def test_an_unknown_scope_type_is_refused(app: SmarterAuthMiddleware) -> None:
    with pytest.raises(RuntimeError, match="not known"):
        await app({"type": "telepathy", "path": "/bots/2"}, Conversation().receive, Conversation().send)


class TestWebSocket:
    async def test_without_a_token_it_is_denied_before_it_is_accepted(
        self, app: SmarterAuthMiddleware, token: Token
    ) -> None:
        talk = Conversation({"type": "websocket.connect"})
        await app(scope("/bots/1/chat", kind="websocket"), talk.receive, talk.send)
        assert talk.sent == [{"type": "websocket.close", "code": 1008}]

    async def test_the_denial_extension_carries_the_whole_rejection(
        self, app: SmarterAuthMiddleware, token: Token
    ) -> None:
        talk = Conversation({"type": "websocket.connect"})
        asked = scope("/bots/1/chat", kind="websocket", extensions={"websocket.http.response": {}})
        await app(asked, talk.receive, talk.send)
        assert [message["type"] for message in talk.sent] == [
            "websocket.http.response.start",
            "websocket.http.response.body",
        ]
        assert talk.sent[0]["status"] == 401
        assert b"www-authenticate" in dict(talk.sent[0]["headers"])

    async def test_with_a_token_it_talks(self, app: SmarterAuthMiddleware, token: Token) -> None:
        talk = Conversation(
            {"type": "websocket.connect"},
            {"type": "websocket.receive", "text": "hello"},
            {"type": "websocket.disconnect", "code": 1000},
        )
        await app(scope("/bots/1/chat", raw(token), kind="websocket"), talk.receive, talk.send)
        assert [message.get("text") for message in talk.sent] == [None, "laptop: hello"]

    async def test_it_is_closed_at_the_next_message_when_the_grant_is_gone(
        self, app: SmarterAuthMiddleware, token: Token, keys: Keys
    ) -> None:
        async def revoke() -> None:
            for key in await keys.keys(KEYED):
                await keys.revoke(key.key_id)
            app._wiring.authenticator()._cache._known.empty()  # type: ignore[union-attr]

        class Revoking(Conversation):
            async def receive(self) -> Any:
                if len(self.to_come) == 2:
                    await revoke()
                return await super().receive()

        talk = Revoking(
            {"type": "websocket.connect"},
            {"type": "websocket.receive", "text": "hello"},
            {"type": "websocket.receive", "text": "still there?"},
            {"type": "websocket.disconnect", "code": 1000},
        )
        await app(scope("/bots/1/chat", raw(token), kind="websocket"), talk.receive, talk.send)
        assert [message.get("text") for message in talk.sent] == [None, "laptop: hello", None]
        assert talk.sent[-1] == {"type": "websocket.close", "code": 1008}


class TestMistakes:
    @pytest.fixture
    def broken(self, monkeypatch: pytest.MonkeyPatch) -> SmarterAuthMiddleware:
        monkeypatch.setenv("SMARTER_AUTH_ROUTES", "bot /bots/{ref}")
        monkeypatch.setenv("SMARTER_AUTH_DATABASE_URL", "mysql://me:sesame@db/bots")
        monkeypatch.setenv("SMARTER_AUTH_POOL_MAX", "many")
        return SmarterAuthMiddleware(APP)

    async def test_a_lifespan_is_told_all_of_them(self, broken: SmarterAuthMiddleware) -> None:
        talk = Conversation({"type": "lifespan.startup"})
        await broken({"type": "lifespan", "asgi": {"version": "3.0"}}, talk.receive, talk.send)
        assert [message["type"] for message in talk.sent] == ["lifespan.startup.failed"]
        assert "DATABASE_URL" in talk.sent[0]["message"]
        assert "POOL_MAX" in talk.sent[0]["message"]
        assert "sesame" not in talk.sent[0]["message"]

    async def test_without_a_lifespan_only_what_is_surely_no_resource_passes(
        self, broken: SmarterAuthMiddleware
    ) -> None:
        async with client(broken) as http:
            assert (await http.get("/health")).status_code == 200
            assert (await http.get("/bots/2")).status_code == 503

    async def test_without_readable_routes_nothing_passes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SMARTER_AUTH_ROUTES", "bot /bots/{id}")
        monkeypatch.setenv("SMARTER_AUTH_DATABASE_URL", "postgresql://db/bots")
        app = SmarterAuthMiddleware(APP)
        assert isinstance(app._wiring.mistakes, ConfigurationError)
        assert "{id}" in str(app._wiring.mistakes)
        async with client(app) as http:
            assert (await http.get("/health")).status_code == 503
            assert (await http.get("/bots/2")).status_code == 503
