"""The read side against a real PostgreSQL: the facts of a decision, in one statement, with their snapshot."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest

from smarter_auth_mw.domain import Protection, Resource, Target
from smarter_auth_mw.errors import InvalidReferenceError
from smarter_auth_mw.keys import Keys
from smarter_auth_mw.store import Store

BOT = Resource("bot", "42")


async def test_unknown_resource_is_open_and_has_no_account(store: Store) -> None:
    read = await store.read(Target(BOT))
    assert read.bindings.resource == BOT
    assert read.bindings.account is None
    assert read.bindings.protection is Protection.OPEN
    assert read.bindings.bindings == ()


async def test_bound_resource_comes_with_all_its_bindings(store: Store, keys: Keys) -> None:
    expires_at = datetime.now(UTC) + timedelta(days=1)
    minted = await keys.create("one", bind=[BOT], expires_at=expires_at)
    await keys.create("two", bind=[BOT])
    bindings = (await store.read(Target(BOT))).bindings
    assert (bindings.account, bindings.protection) == ("default", Protection.BOUND)
    (one,) = bindings.by_digest[minted.token.digest]
    assert (one.key_id, one.key_name, one.account) == (str(minted.key.key_id), "one", "default")
    assert one.token_key == minted.token.token_key
    assert one.expires_at_s == pytest.approx(expires_at.timestamp(), abs=1e-5)
    assert sorted(binding.expires_at_s for binding in bindings.bindings) == [one.expires_at_s, math.inf]


@pytest.mark.parametrize("ref", ["a\0b", "a\ud800b"])
async def test_text_that_no_database_can_hold_is_refused_before_the_query(store: Store, ref: str) -> None:
    with pytest.raises(InvalidReferenceError):
        await store.read(Target(Resource("bot", ref)))
