"""``Checker``: what one account is shown of a request. What the decision is, ``tests/cli/test_check.py`` tries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any

import pytest

from smarter_auth_mw import Settings
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.engine.assembly import authenticator_of
from smarter_auth_mw.errors import NotFoundError
from smarter_auth_mw.guard import Guard
from smarter_auth_mw.management.check import Checker, request_scope
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.postgres.store import Store
from smarter_auth_mw.tokens import Token

Check = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
def check(store: Store) -> Check:
    """Checks a path with a token, as somebody who may look at one account, or at all."""
    settings = Settings(database_url="postgresql://nobody@localhost/nothing", routes=["bot /bots/{ref:int}"])
    guard = Guard(None, settings)

    async def check(path: str, token: Token | None = None, account: str | None = None) -> dict[str, Any]:
        checker = Checker(
            guard,
            lambda: nullcontext(store),
            lambda store: authenticator_of(settings, store).authenticate,
            routes_from="here",
            account=account,
        )
        headers = [(b"x-api-key", token.reveal().encode())] if token else []
        return await checker.check(request_scope(path, headers=headers))

    return check


async def test_another_accounts_resource_is_not_found_like_one_that_is_not_there(
    check: Check, keys: Management
) -> None:
    await keys.add_resource(Resource("bot", "1"), account="theirs", protect=True)
    refusals = []
    for path in ("/bots/1", "/bots/2"):
        with pytest.raises(NotFoundError) as refused:
            await check(path, account="mine")
        refusals.append((refused.value.message, refused.value.hint))
    assert refusals[0] == refusals[1]
    assert (await check("/bots/1", account="theirs"))["reason"] == "missing_credentials"
    assert (await check("/health", account="mine"))["decision"] == "pass"


async def test_another_accounts_token_is_an_unknown_one(check: Check, keys: Management) -> None:
    await keys.add_resource(Resource("bot", "1"), account="mine", protect=True)
    foreign = await keys.create("foreign", account="theirs", bind=[Resource("bot", "2")])
    own = await keys.create("own", account="mine")
    unknown = await check("/bots/1", Token(b"0" * 64), "mine")
    assert await check("/bots/1", foreign.token, "mine") == unknown
    assert "foreign" in (await check("/bots/1", foreign.token))["detail"]
    assert "own" in (await check("/bots/1", own.token, "mine"))["detail"]
