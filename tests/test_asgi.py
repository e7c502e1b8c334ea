"""The middleware from outside: a real database, a real application, and the decision table in HTTP."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import asyncpg
import httpx
import pytest
from starlette.applications import Starlette
from starlette.authentication import SimpleUser
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from smarter_auth_mw import SmarterAuthMiddleware
from smarter_auth_mw.asgi import AUTHENTICATED
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.errors import ConfigurationError
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.tokens import Token
from tests.support.asgi import APP, KEYED, OTHER, Conversation, bearer, client, guarded, health, lifespan, raw, scope
from tests.support.database import Database

OPTIONS_APP = Starlette(routes=[Route("/bots/{ref}", health, methods=["OPTIONS"])])


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


def test_requests_share_their_credentials_and_cannot_change_them() -> None:
    AUTHENTICATED.scopes.append("admin")
    assert AUTHENTICATED.scopes == ["authenticated"]
    with pytest.raises(AttributeError, match="share"):
        AUTHENTICATED.scopes = ["admin"]


def test_servers_see_an_asgi_3_app() -> None:
    assert inspect.iscoroutinefunction(guarded("postgresql://unused/unused").__call__)


async def test_an_open_resource_is_anonymous_whatever_credentials_come(http: httpx.AsyncClient, token: Token) -> None:
    for headers in ({}, bearer(token), {"Authorization": "Token nonsense"}, {"Authorization": "Token a b"}):
        answer = await http.get("/bots/2", headers=headers)
        assert answer.status_code == 200
        assert answer.json()["is_authenticated"] is False
        assert (answer.json()["user"], answer.json()["key_id"]) == ("", None)


async def test_a_route_that_is_no_resource_passes_untouched(http: httpx.AsyncClient) -> None:
    answer = await http.get("/health")
    assert (answer.status_code, answer.json()) == (200, [])


async def test_refused_tokens_cannot_be_told_apart(http: httpx.AsyncClient, keys: Management, token: Token) -> None:
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
    http: httpx.AsyncClient, keys: Management, owner: asyncpg.Connection
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


async def test_another_spelling_of_a_registered_slug_is_refused(http: httpx.AsyncClient, keys: Management) -> None:
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


async def test_a_protected_kind_that_no_line_names_is_one_warning_and_no_refusal_to_start(
    database: Database, keys: Management, caplog: pytest.LogCaptureFixture
) -> None:
    await keys.add_resource(Resource("llm", "1"), protect=True)
    await keys.add_resource(Resource("note", "1"))
    async with lifespan(guarded(database.runtime)) as app, client(app) as http:
        assert (await http.get("/bots/2")).status_code == 200
        assert app._guard.unrouted_kinds == {"llm"}
    (record,) = [record for record in caplog.records if "routes.missing" in record.message]
    assert "llm" in record.message


async def test_an_unknown_scope_type_is_refused(app: SmarterAuthMiddleware) -> None:
    with pytest.raises(RuntimeError, match="not known"):
        await app({"type": "telepathy", "path": "/bots/2"}, Conversation().receive, Conversation().send)


class TestHidingCredentials:
    """``HIDE_CREDENTIALS``: the app behind does not see our tokens, and everything else as it came."""

    THEIRS: ClassVar = [
        (b"host", b"x"),
        (b"authorization", b"Basic dTpw"),
        (b"cookie", b"a=\xff; b"),
        (b"x-api-keys", b""),
    ]

    @pytest.fixture
    async def seen(self, database: Database) -> AsyncIterator[Callable[..., Awaitable[Scope]]]:
        """What the app sees of a request."""
        scopes: list[Scope] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scopes.append(scope)

        async with lifespan(guarded(database.runtime, APP, hide_credentials=True)) as guard:
            guard.app = app

            async def ask(path: str, *headers: tuple[bytes, bytes], kind: str = "http") -> Scope:
                await guard(scope(path, *headers, kind=kind), Conversation().receive, Conversation().send)
                return scopes.pop()

            yield ask

    async def test_an_accepted_token_is_taken_out(self, seen: Callable[..., Awaitable[Scope]], token: Token) -> None:
        ours = (b"x-api-key", token.reveal().encode())
        assert (await seen("/bots/1", *self.THEIRS, ours))["headers"] == self.THEIRS
        assert (await seen("/bots/1/chat", ours, *self.THEIRS, kind="websocket"))["headers"] == self.THEIRS

    async def test_so_is_one_that_an_open_resource_ignores(self, seen: Callable[..., Awaitable[Scope]]) -> None:
        assert (await seen("/bots/2", *self.THEIRS, (b"x-api-key", b"a b")))["headers"] == self.THEIRS

    async def test_what_is_no_resource_is_not_touched(
        self, seen: Callable[..., Awaitable[Scope]], token: Token
    ) -> None:
        assert (await seen("/health", raw(token)))["headers"] == [raw(token)]


class TestPreflight:
    """A CORS preflight is a request like any other, unless ``PREFLIGHT=pass``."""

    ASKED: ClassVar = {"origin": "https://a.example", "access-control-request-method": "POST"}

    async def options(self, database: Database, path: str = "/bots/1", **settings: Any) -> httpx.Response:
        headers = settings.pop("headers", self.ASKED)
        method = settings.pop("method", "OPTIONS")
        async with lifespan(guarded(database.runtime, OPTIONS_APP, **settings)) as app, client(app) as http:
            return await http.request(method, path, headers=headers)

    async def test_it_is_refused_by_default(self, database: Database, token: Token) -> None:
        assert (await self.options(database)).status_code == 401

    async def test_a_real_one_passes_where_that_is_wished(self, database: Database, token: Token) -> None:
        answer = await self.options(database, preflight="pass")
        assert (answer.status_code, answer.json()) == (200, [])

    @pytest.mark.parametrize(
        "wrong",
        [
            {"method": "GET"},
            {"headers": {}},
            {"headers": {"origin": "https://a.example"}},
            {"headers": [*ASKED.items(), ("origin", "https://b.example")]},
            {"headers": [*ASKED.items(), ("access-control-request-method", "GET")]},
        ],
        ids=repr,
    )
    async def test_what_is_no_real_one_does_not(self, database: Database, token: Token, wrong: dict[str, Any]) -> None:
        assert (await self.options(database, preflight="pass", **wrong)).status_code == 401

    async def test_one_that_could_be_read_two_ways_does_not(self, database: Database) -> None:
        assert (await self.options(database, "/bots/01", preflight="pass")).status_code == 400


class TestThrottle:
    """A 429 in the place of a 401, and of nothing else."""

    async def test_failures_are_throttled_and_a_valid_token_never(self, database: Database, token: Token) -> None:
        async with lifespan(guarded(database.runtime, failed_attempts="3/hour")) as app, client(app) as http:
            answers = [await http.get("/bots/1", headers={"X-API-Key": f"{number:064}"}) for number in range(5)]
            assert [answer.status_code for answer in answers] == [401, 401, 401, 429, 429]
            assert answers[-1].headers["retry-after"] == "3600"
            assert (await http.get("/bots/1", headers=bearer(token))).status_code == 200
            assert (await http.get("/bots/1")).status_code == 401
            assert (await http.get("/bots/1", headers={"X-API-Key": "a b"})).status_code == 400

    async def test_another_peer_is_told_what_the_first_one_was(self, database: Database, token: Token) -> None:
        async def status(app: SmarterAuthMiddleware, address: str) -> int:
            talk = Conversation()
            await app(scope("/bots/1", (b"x-api-key", b"0" * 64), client=(address, 1)), talk.receive, talk.send)
            return int(talk.sent[0]["status"])

        async with lifespan(guarded(database.runtime, failed_attempts="1/minute")) as app:
            statuses = [await status(app, f"2001:db8::{number}") for number in range(3)]
            assert [*statuses, await status(app, "2001:db8:1::1")] == [401, 429, 429, 401]


async def test_the_apps_own_task_and_context_are_the_callers(database: Database) -> None:
    told: ContextVar[str] = ContextVar("told", default="nothing")
    tasks: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        tasks.append(asyncio.current_task())
        assert told.get() == "by the caller"
        told.set("by the app")

    guard = guarded(database.runtime, app)
    for path in ("/bots/2", "/health"):
        told.set("by the caller")
        await guard(scope(path), Conversation().receive, Conversation().send)
        assert told.get() == "by the app"
    assert set(tasks) == {asyncio.current_task()}


async def test_streams_and_background_tasks_run_as_they_would_without_it(database: Database) -> None:
    steps: list[str] = []

    async def body() -> AsyncIterator[bytes]:
        for piece in (b"one", b"two"):
            steps.append(piece.decode())
            yield piece

    async def background() -> None:
        steps.append("background")

    class Listening(Conversation):
        async def send(self, message: Message) -> None:
            steps.append(f"sent {message.get('body', b'headers').decode()}")

    talk = Listening()
    app = StreamingResponse(body(), background=BackgroundTask(background))
    await guarded(database.runtime, app)(scope("/bots/2", asgi={"spec_version": "2.4"}), talk.receive, talk.send)
    assert steps == ["sent headers", "one", "sent one", "two", "sent two", "sent ", "background"]


class TestMistakes:
    @pytest.fixture
    def broken(self, monkeypatch: pytest.MonkeyPatch) -> SmarterAuthMiddleware:
        monkeypatch.setenv("SMARTER_AUTH_ROUTES", "bot /bots/{ref}")
        monkeypatch.setenv("SMARTER_AUTH_DATABASE_URL", "mysql://me:sesame@db/bots")
        monkeypatch.setenv("SMARTER_AUTH_POOL_MAX", "many")
        return SmarterAuthMiddleware(APP)

    async def test_a_lifespan_is_told_all_of_them(self, broken: SmarterAuthMiddleware) -> None:
        talk = Conversation({"type": "lifespan.startup"})
        with pytest.raises(ConfigurationError):  # For test clients; servers have heard of it by then.
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
        assert isinstance(app._guard.mistakes, ConfigurationError)
        assert "{id}" in str(app._guard.mistakes)
        async with client(app) as http:
            assert (await http.get("/health")).status_code == 503
            assert (await http.get("/bots/2")).status_code == 503


@pytest.mark.parametrize("path", ["/bots/1", "/bots/01"])
async def test_a_refused_head_has_the_headers_of_a_get_and_no_body(database: Database, token: Token, path: str) -> None:
    async with lifespan(guarded(database.runtime)) as app:
        sent = {}
        for method in ("GET", "HEAD"):
            talk = Conversation()
            await app({**scope(path), "method": method}, talk.receive, talk.send)
            sent[method] = talk.sent
        assert sent["HEAD"][0] == sent["GET"][0]
        assert (sent["HEAD"][1]["body"], bool(sent["GET"][1]["body"])) == (b"", True)
