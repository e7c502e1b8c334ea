"""The write side against a real PostgreSQL, as the role that a web process has, and against the store in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from smarter_auth_mw.domain import Key, KeyState, Protection, Resource, Target
from smarter_auth_mw.errors import ConflictError, NotFoundError, RefusedError, UsageError, WouldOpenError
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.postgres.store import Store
from tests.support.store import pytest_generate_tests, store, store_url

__all__ = ["pytest_generate_tests", "store", "store_url"]

BOT = Resource("bot", "42")
OTHER = Resource("bot", "43")
SLUG = Resource("bot", "my-bot")


async def _protection(keys: Management, resource: Resource = BOT) -> Protection:
    return (await keys.resource(resource)).protection


async def test_resource_is_registered_open(keys: Management) -> None:
    added = await keys.add_resource(BOT, name="Support", domain="bot.example.com", on_error="deny")
    assert added == await keys.resource(BOT)
    assert (added.account, added.name, added.domain, added.on_error) == (
        "default",
        "Support",
        "bot.example.com",
        "deny",
    )
    assert not added.is_protected


async def test_resource_is_registered_protected_where_asked(keys: Management) -> None:
    assert (await keys.add_resource(BOT, protect=True)).protection is Protection.DECLARED


@pytest.mark.parametrize("again", [SLUG, Resource("bot", "my_bot")])
async def test_resource_is_not_registered_twice_in_any_spelling(keys: Management, again: Resource) -> None:
    await keys.add_resource(SLUG)
    with pytest.raises((ConflictError, NotFoundError), match=f"{SLUG}"):
        await keys.add_resource(again)


async def test_domain_is_claimed_once(keys: Management) -> None:
    await keys.add_resource(BOT, domain="bot.example.com")
    await keys.set_resource(BOT, domain="bot.example.com")
    await keys.add_resource(OTHER)
    for claim in (
        keys.set_resource(OTHER, domain="bot.example.com"),
        keys.add_resource(SLUG, domain="bot.example.com"),
    ):
        with pytest.raises(ConflictError, match="belongs to bot:42"):
            await claim


async def test_resource_is_changed_where_asked_and_stays_otherwise(keys: Management) -> None:
    await keys.add_resource(BOT, name="one", domain="bot.example.com")
    changed = await keys.set_resource(BOT, name=None, on_error="deny")
    assert (changed.name, changed.domain, changed.on_error) == (None, "bot.example.com", "deny")


async def test_account_stays_while_keys_are_bound(keys: Management) -> None:
    await keys.create("one", bind=[BOT])
    with pytest.raises(RefusedError, match="default"):
        await keys.set_resource(BOT, account="acme")


async def test_resources_are_listed_by_kind_with_their_keys(keys: Management) -> None:
    minted = await keys.create("one", bind=[BOT, OTHER])
    await keys.add_resource(Resource("cat", "1"))
    assert [str(found.resource) for found in await keys.resources()] == ["bot:42", "bot:43", "cat:1"]
    bots = await keys.resources("bot")
    assert [found.keys for found in bots] == [(minted.key,), (minted.key,)]


async def test_key_registers_what_it_is_bound_to_in_its_own_account(keys: Management) -> None:
    await keys.add_resource(BOT, account="acme")
    minted = await keys.create("one", account="acme", bind=[BOT, OTHER])
    assert minted.created == (OTHER,)
    assert minted.key.bindings == (BOT, OTHER)
    assert (await keys.resource(OTHER)).account == "acme"
    assert await _protection(keys) is Protection.BOUND


async def test_token_is_stored_as_its_digest_only(keys: Management, owner: asyncpg.Connection) -> None:
    minted = await keys.create("one")
    (row,) = await owner.fetch("SELECT * FROM smarter_auth.token")
    assert row["digest"] == minted.token.digest
    assert row["token_key"] == minted.token.reveal()[:15]
    assert minted.key.token_keys == (row["token_key"],)
    assert minted.token.reveal() not in str(dict(row))


async def test_two_living_keys_of_an_account_have_two_names(keys: Management) -> None:
    first = await keys.create("one")
    await keys.create("one", account="acme")
    with pytest.raises(ConflictError, match="one"):
        await keys.create("one")
    await keys.revoke(first.key.key_id)
    await keys.create("one")


async def test_act_that_fails_among_others_is_undone_alone(keys: Management) -> None:
    await keys.add_resource(BOT, account="acme")
    async with keys.together() as joined:
        await joined.add_resource(OTHER)
        with pytest.raises(RefusedError):
            await joined.create("laptop", bind=[BOT])  # There is a key by then, and it goes again.
    assert await keys.keys() == []
    assert await keys.resource(OTHER)


async def test_key_is_not_bound_twice(keys: Management) -> None:
    minted = await keys.create("one", bind=[BOT])
    with pytest.raises(ConflictError, match="bot:42"):
        await keys.bind(minted.key.key_id, BOT)


async def test_key_is_not_bound_to_a_resource_of_another_account(keys: Management) -> None:
    await keys.add_resource(BOT, account="acme")
    with pytest.raises(RefusedError, match=r"'acme'.*'default'"):
        await keys.create("one", bind=[OTHER, BOT])
    assert await keys.keys() == []
    assert [found.resource for found in await keys.resources()] == [BOT]


async def test_binding_takes_the_registered_spelling_only(keys: Management) -> None:
    minted = await keys.create("one", bind=[SLUG])
    with pytest.raises(NotFoundError, match=str(SLUG)):
        await keys.bind(minted.key.key_id, Resource("bot", "my_bot"))


async def test_bind_says_whether_the_resource_is_new(keys: Management) -> None:
    key_id = (await keys.create("one")).key.key_id
    await keys.add_resource(BOT)
    assert not (await keys.bind(key_id, BOT)).created
    bound = await keys.bind(key_id, OTHER)
    assert bound.created
    assert bound.key.bindings == (BOT, OTHER)


async def test_last_binding_is_not_taken_away_without_saying_so(keys: Management) -> None:
    key_id = (await keys.create("one", bind=[BOT])).key.key_id
    with pytest.raises(RefusedError, match="bot:42") as refused:
        await keys.unbind(key_id, BOT)
    assert "--allow-anonymous" in refused.value.hint
    assert await _protection(keys) is Protection.BOUND
    assert (await keys.unbind(key_id, BOT, allow_anonymous=True)).bindings == ()
    assert await _protection(keys) is Protection.OPEN


async def test_binding_that_is_not_the_last_one_goes_and_the_resource_stays_protected(keys: Management) -> None:
    first = (await keys.create("one", bind=[BOT])).key.key_id
    await keys.create("two", bind=[BOT])
    await keys.unbind(first, BOT, allow_anonymous=True)
    assert await _protection(keys) is Protection.BOUND


async def test_two_who_unbind_the_last_two_keys_at_once_do_not_open_the_resource(keys: Management) -> None:
    key_ids = [(await keys.create(name, bind=[BOT])).key.key_id for name in ("one", "two")]
    done = await asyncio.gather(*(keys.unbind(key_id, BOT) for key_id in key_ids), return_exceptions=True)
    assert {type(result) for result in done} == {Key, WouldOpenError}
    assert len((await keys.resource(BOT)).keys) == 1


async def test_declared_protection_outlives_the_last_binding(keys: Management) -> None:
    await keys.add_resource(BOT, protect=True)
    key_id = (await keys.create("one", bind=[BOT])).key.key_id
    await keys.unbind(key_id, BOT, allow_anonymous=True)
    assert await _protection(keys) is Protection.DECLARED


async def test_what_is_not_bound_is_not_unbound(keys: Management) -> None:
    await keys.add_resource(BOT)
    key_id = (await keys.create("one")).key.key_id
    with pytest.raises(NotFoundError, match="bot:42"):
        await keys.unbind(key_id, BOT)


async def test_inactive_key_is_inactive_until_it_is_activated(keys: Management, store: Store) -> None:
    key_id = (await keys.create("one", bind=[BOT])).key.key_id
    assert (await keys.deactivate(key_id)).state(datetime.now(UTC)) is KeyState.INACTIVE
    assert not (await store.read(Target(BOT))).bindings.bindings[0].is_active
    assert (await keys.activate(key_id)).state(datetime.now(UTC)) is KeyState.ACTIVE


async def test_revoked_key_stays_revoked_and_its_resource_protected(keys: Management, store: Store) -> None:
    key_id = (await keys.create("one", bind=[BOT])).key.key_id
    revoked = await keys.revoke(key_id)
    assert revoked.state(datetime.now(UTC)) is KeyState.REVOKED
    assert await keys.revoke(key_id) == revoked
    for act in (keys.activate(key_id), keys.deactivate(key_id), keys.bind(key_id, OTHER)):
        with pytest.raises(RefusedError, match="revoked"):
            await act
    bindings = (await store.read(Target(BOT))).bindings
    assert bindings.protection is Protection.BOUND
    assert bindings.bindings[0].is_revoked


async def test_resource_is_unprotected_when_no_key_is_bound(keys: Management) -> None:
    key_id = (await keys.create("one", bind=[BOT])).key.key_id
    with pytest.raises(RefusedError) as refused:
        await keys.unprotect(BOT)
    assert str(key_id) in refused.value.hint
    await keys.unbind(key_id, BOT, allow_anonymous=True)
    assert (await keys.protect(BOT)).protection is Protection.DECLARED
    assert (await keys.unprotect(BOT)).protection is Protection.OPEN


async def test_resource_is_removed_only_when_it_is_open(keys: Management) -> None:
    await keys.add_resource(BOT, protect=True)
    with pytest.raises(RefusedError) as refused:
        await keys.remove_resource(BOT)
    assert "unprotect bot:42" in refused.value.hint
    await keys.unprotect(BOT)
    await keys.remove_resource(BOT)
    assert await keys.resources() == []


async def test_keys_are_listed_whole_or_by_resource(keys: Management) -> None:
    one = (await keys.create("one", bind=[BOT])).key
    two = (await keys.create("two")).key
    assert await keys.keys() == [one, two]
    assert await keys.keys(BOT) == [one]
    assert await keys.key(two.key_id) == two


@pytest.fixture(params=["bind", "unbind", "activate", "deactivate", "revoke", "key"])
def act_on_unknown_key(request: pytest.FixtureRequest, keys: Management) -> Callable[[UUID], Awaitable[object]]:
    method = getattr(keys, request.param)
    return lambda key_id: method(key_id, BOT) if "bind" in request.param else method(key_id)


async def test_unknown_key_is_not_found(act_on_unknown_key: Callable[[UUID], Awaitable[object]]) -> None:
    key_id = uuid4()
    with pytest.raises(NotFoundError, match=str(key_id)):
        await act_on_unknown_key(key_id)


@pytest.mark.parametrize("act", ["resource", "set_resource", "protect", "unprotect", "remove_resource", "keys"])
async def test_unknown_resource_is_not_found(keys: Management, act: str) -> None:
    with pytest.raises(NotFoundError, match="bot:42"):
        await getattr(keys, act)(BOT)


async def test_expiry_lies_ahead_and_says_its_time_zone(keys: Management) -> None:
    with pytest.raises(RefusedError, match="past"):
        await keys.create("one", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(UsageError, match="time zone"):
        await keys.create("one", expires_at=datetime(2999, 1, 1))
    assert await keys.keys() == []


@pytest.mark.parametrize("text", ["", " \u3000", "a\0b", "\ud800", "x" * 256])
async def test_text_that_cannot_be_stored_is_refused(keys: Management, text: str) -> None:
    for act in (
        keys.create(text),
        keys.create("one", account=text or "x" * 256),
        keys.add_resource(Resource("bot", text)),
        keys.add_resource(Resource(text, "42")),
        keys.add_resource(BOT, name=text),
        keys.add_resource(BOT, domain=text),
    ):
        with pytest.raises(UsageError):
            await act


@pytest.mark.parametrize("kind", ["Bot", "1bot", "bot:", "böt", "bot\n"])
async def test_kind_is_a_lower_case_word(keys: Management, kind: str) -> None:
    with pytest.raises(UsageError, match="is not a kind"):
        await keys.add_resource(Resource(kind, "42"))


async def test_each_act_is_written_down_once_without_any_secret(keys: Management, owner: asyncpg.Connection) -> None:
    await keys.add_resource(BOT)
    minted = await keys.create("one", bind=[BOT, OTHER])
    key_id = minted.key.key_id
    await keys.set_resource(BOT, name="Support")
    await keys.deactivate(key_id)
    await keys.deactivate(key_id)
    await keys.activate(key_id)
    await keys.unbind(key_id, OTHER, allow_anonymous=True)
    await keys.protect(OTHER)
    await keys.unprotect(OTHER)
    await keys.remove_resource(OTHER)
    await keys.revoke(key_id)
    events = await owner.fetch("SELECT * FROM smarter_auth.audit_event ORDER BY id")
    assert [(event["action"], event["ref"]) for event in events] == [
        ("resource.add", "42"),
        ("key.create", None),
        ("key.bind", "42"),
        ("resource.add", "43"),
        ("key.bind", "43"),
        ("resource.set", "42"),
        ("key.deactivate", None),
        ("key.activate", None),
        ("key.unbind", "43"),
        ("resource.unprotect", "43"),
        ("resource.protect", "43"),
        ("resource.unprotect", "43"),
        ("resource.remove", "43"),
        ("key.revoke", None),
    ]
    assert {event["actor"] for event in events} == {"tester"}
    assert {event["key_id"] for event in events if event["action"].startswith("key.")} == {key_id}
    deactivated = events[6]
    assert json.loads(deactivated["before"])["is_active"] is True
    assert json.loads(deactivated["after"])["is_active"] is False
    told = str([tuple(event) for event in events])
    assert minted.token.reveal() not in told
    assert minted.token.digest.hex() not in told


async def test_refused_act_leaves_no_trace(keys: Management, owner: asyncpg.Connection) -> None:
    await keys.add_resource(BOT, account="acme")
    with pytest.raises(RefusedError):
        await keys.create("one", bind=[BOT])
    assert await owner.fetchval("SELECT count(*) FROM smarter_auth.audit_event") == 1
