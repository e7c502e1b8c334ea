"""Signals: the app hears of what is decided, with masked tokens, and changes nothing by it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.authentication import UnauthenticatedUser

from smarter_auth_mw import SmarterAuthMiddleware
from smarter_auth_mw.decision import Reason
from smarter_auth_mw.domain import Principal
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.signals import SIGNALS, authentication_failure, authentication_request, authentication_success
from smarter_auth_mw.tokens import Token, mint
from tests import test_wsgi
from tests.support.asgi import APP, KEYED, OTHER, bearer, client, guarded, lifespan
from tests.support.database import Database

NAMES = {authentication_request: "request", authentication_success: "success", authentication_failure: "failure"}


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    yield
    for signal in SIGNALS:
        signal.receivers.clear()


class Heard:
    """What receivers were called with, in its order."""

    def __init__(self, *, sender: Any = None) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._receivers = [self._receiver(name) for name in NAMES.values()]
        for signal, receiver in zip(NAMES, self._receivers, strict=True):
            signal.connect(receiver, **({} if sender is None else {"sender": sender}))

    def _receiver(self, name: str) -> Any:
        return lambda sender, **told: self.calls.append((name, {"sender": sender, **told}))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


async def test_a_request_and_what_came_of_it_are_told(database: Database, token: Token, keys: Management) -> None:
    await keys.add_resource(OTHER)
    app = guarded(database.runtime)
    async with lifespan(app), client(app) as http:
        heard = Heard()  # while it serves already
        wrong = mint()
        for path, headers in (
            ("/bots/1?secret=1", bearer(token)),
            ("/bots/1", bearer(wrong)),
            ("/bots/2", {}),
            ("/bots/1", {"Authorization": "Token a b"}),
            ("/health", bearer(token)),
        ):
            await http.get(path, headers=headers)
    assert heard.names == ["request", "success", "request", "failure", "request", "request", "failure"]
    (_, asked), (_, granted), _, (_, refused), (_, opened), _, (_, malformed) = heard.calls
    assert asked == {"sender": APP, "token": token.masked, "resource": KEYED, "url": "/bots/1"}
    assert isinstance(granted["user"], Principal)
    assert granted == asked | {"user": granted["user"], "key_id": granted["user"].key_id}
    assert (refused["token"], refused["reason"]) == (wrong.masked, Reason.UNKNOWN_TOKEN)
    assert isinstance(refused["user"], UnauthenticatedUser)
    assert (opened["token"], opened["resource"]) == ("", OTHER)
    assert (malformed["token"], malformed["reason"]) == ("", Reason.MALFORMED_CREDENTIALS)
    assert token.reveal() not in str(heard.calls)


async def test_a_token_is_masked_wherever_it_is(database: Database, token: Token) -> None:
    async with lifespan(guarded(database.runtime)) as app, client(app) as http:
        heard = Heard()
        await http.get(f"/bots/1/{token.reveal()}", headers=bearer(token))
    assert token.masked == f"{token.reveal()[:4]}…"
    assert heard.names == ["request", "success"]
    assert token.reveal()[:8] not in str(heard.calls)


async def test_a_receiver_that_raises_is_counted_and_steers_nothing(
    app: SmarterAuthMiddleware, token: Token, recwarn: pytest.WarningsRecorder
) -> None:
    def failing(_: Any, **told: Any) -> None:
        raise RuntimeError(told)

    async def waiting(_: Any, **told: Any) -> None: ...

    authentication_success.connect(failing)
    authentication_success.connect(waiting)
    heard = Heard()
    async with client(app) as http:
        assert [(await http.get("/bots/1", headers=bearer(token))).status_code for _ in range(3)] == [200] * 3
    assert heard.names == ["request", "success"] * 3
    assert app._guard._observers.failures == 6
    assert not list(recwarn)


async def test_a_receiver_hears_one_app_where_it_asks_for_it(database: Database, token: Token) -> None:
    other = object()
    heard, strange = Heard(sender=APP), Heard(sender=other)
    async with lifespan(guarded(database.runtime)) as app, client(app) as http:
        await http.get("/bots/1", headers=bearer(token))
    assert (heard.names, strange.names) == (["request", "success"], [])


async def test_without_a_receiver_nobody_is_called(app: SmarterAuthMiddleware, token: Token) -> None:
    observers = app._guard._observers
    before = dict(observers._of)
    async with client(app) as http:
        await http.get("/bots/1", headers=bearer(token))
        assert observers._of == before
        heard = Heard()
        assert observers._of != before
        del heard  # Its receivers are held weakly.
        await http.get("/bots/1", headers=bearer(token))
    assert observers.failures == 0


def test_under_wsgi_they_are_the_same(database: Database) -> None:
    heard, app = Heard(), test_wsgi.guarded(database.runtime)
    with test_wsgi.client(app) as http:
        http.get("/bots/2")
        http.get("/bots/01")
    app.close()
    assert heard.names == ["request", "request", "failure"]
    assert heard.calls[-1][1]["reason"] is Reason.NOT_CANONICAL
