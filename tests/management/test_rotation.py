"""The life of a key after its birth: rotated with an overlap, changed, expired, leaked, revoked."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from smarter_auth_mw.decision import Decision, Denial, Grant, Reason, decide
from smarter_auth_mw.domain import Key, Protection, Resource, Target
from smarter_auth_mw.errors import ConflictError, NotFoundError, RefusedError, UnavailableError, UsageError
from smarter_auth_mw.management.keys import Management, Rotated
from smarter_auth_mw.postgres.store import Store
from smarter_auth_mw.tokens import Token, mint
from tests.support.store import pytest_generate_tests, store, store_url

__all__ = ["pytest_generate_tests", "store", "store_url"]

BOT, OTHER = Resource("bot", "42"), Resource("bot", "43")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(store: Store, clock: Clock) -> Management:
    return Management(store, actor="tester", clock=clock)


async def decided(store: Store, token: Token, at: datetime) -> Decision:
    """What the token is worth at the bot, at that time."""
    return decide((await store.read(Target(BOT))).bindings, token, at.timestamp())


async def test_rotation_gives_the_same_key_another_token(keys: Management, store: Store, clock: Clock) -> None:
    minted = await keys.create("one", bind=[BOT, OTHER])
    rotated = await keys.rotate(minted.key.key_id, HOUR)
    assert rotated.key.key_id == minted.key.key_id
    assert rotated.key.bindings == minted.key.bindings
    assert rotated.previous_valid_until == clock.now + HOUR
    assert rotated.key.token_keys == (minted.token.token_key, rotated.token.token_key)
    for token in (minted.token, rotated.token):
        granted = await decided(store, token, rotated.previous_valid_until)
        assert isinstance(granted, Grant)
        assert granted.key_id == str(minted.key.key_id)


async def test_previous_token_is_valid_until_the_overlap_ends_and_not_a_moment_longer(
    keys: Management, store: Store, clock: Clock
) -> None:
    minted = await keys.create("one", bind=[BOT])
    rotated = await keys.rotate(minted.key.key_id, HOUR)
    late = rotated.previous_valid_until + timedelta(milliseconds=1)
    assert await decided(store, minted.token, late) == Denial(Reason.EXPIRED, BOT, str(minted.key.key_id))
    assert isinstance(await decided(store, rotated.token, late + 1000 * DAY), Grant)


async def test_rotation_without_overlap_ends_the_previous_token_at_once(
    keys: Management, store: Store, clock: Clock
) -> None:
    minted = await keys.create("one", bind=[BOT])
    rotated = await keys.rotate(minted.key.key_id, timedelta(0))
    assert rotated.previous_valid_until == clock.now
    just_after = clock.now + timedelta(milliseconds=1)
    assert isinstance(await decided(store, minted.token, just_after), Denial)
    assert isinstance(await decided(store, rotated.token, just_after), Grant)


async def test_rotation_during_a_rotation_is_refused_and_says_until_when(keys: Management, clock: Clock) -> None:
    minted = await keys.create("one")
    rotated = await keys.rotate(minted.key.key_id, HOUR)
    with pytest.raises(RefusedError, match=re.escape(rotated.previous_valid_until.isoformat())) as refused:
        await keys.rotate(minted.key.key_id, HOUR)
    assert "--force" in refused.value.hint
    assert await keys.key(minted.key.key_id) == rotated.key
    clock.now = rotated.previous_valid_until + timedelta(seconds=1)
    await keys.rotate(minted.key.key_id, HOUR)


async def test_forced_rotation_lets_no_earlier_token_live_longer_than_before(
    keys: Management, store: Store, clock: Clock
) -> None:
    minted = await keys.create("one", bind=[BOT])
    second = await keys.rotate(minted.key.key_id, HOUR)
    third = await keys.rotate(minted.key.key_id, DAY, force=True)
    assert [token.valid_until for token in third.key.tokens] == [clock.now + HOUR, clock.now + DAY, None]
    await keys.rotate(minted.key.key_id, timedelta(0), force=True)
    just_after = clock.now + timedelta(milliseconds=1)
    for token in (minted.token, second.token, third.token):
        assert isinstance(await decided(store, token, just_after), Denial)


async def test_two_who_rotate_at_once_do_not_lose_a_token(keys: Management) -> None:
    key_id = (await keys.create("one")).key.key_id
    done = await asyncio.gather(*(keys.rotate(key_id, HOUR) for _ in range(4)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in done) == ["Rotated"] + ["RotationOverlapsError"] * 3
    assert len((await keys.key(key_id)).tokens) == 2


async def test_overlap_ends_with_the_key_itself(keys: Management, clock: Clock) -> None:
    key_id = (await keys.create("one", expires_at=clock.now + HOUR)).key.key_id
    assert (await keys.rotate(key_id, DAY)).previous_valid_until == clock.now + HOUR


async def test_new_token_has_the_format_of_the_previous_one_unless_another_is_asked_for(keys: Management) -> None:
    key_id = (await keys.create("one", form="checked")).key.key_id
    forms = [
        (await keys.rotate(key_id, timedelta(0), force=True)).token,
        (await keys.rotate(key_id, timedelta(0), force=True, form="knox")).token,
        (await keys.rotate(key_id, timedelta(0), force=True)).token,
    ]
    assert [token.reveal().startswith("sm_") for token in forms] == [True, False, False]


async def test_expired_revoked_and_unknown_keys_are_not_rotated(keys: Management, clock: Clock) -> None:
    expired = (await keys.create("one", expires_at=clock.now + HOUR)).key.key_id
    revoked = (await keys.create("two")).key.key_id
    await keys.revoke(revoked)
    clock.now += DAY
    for key_id, error, says in (
        (expired, RefusedError, "expired"),
        (revoked, RefusedError, "revoked"),
        (UUID(int=0), NotFoundError, "no key"),
    ):
        with pytest.raises(error, match=says):
            await keys.rotate(key_id, HOUR)


@pytest.mark.parametrize("overlap", [timedelta(seconds=-1), timedelta.max])
async def test_impossible_overlap_is_refused(keys: Management, overlap: timedelta) -> None:
    key = (await keys.create("one")).key
    with pytest.raises(UsageError, match="overlap"):
        await keys.rotate(key.key_id, overlap)
    assert await keys.key(key.key_id) == key


async def test_rotation_is_written_down_without_any_secret(keys: Management, owner: asyncpg.Connection) -> None:
    minted = await keys.create("one")
    rotated = await keys.rotate(minted.key.key_id, HOUR)
    (event,) = await owner.fetch("SELECT * FROM smarter_auth.audit_event ORDER BY id DESC LIMIT 1")
    assert (event["action"], event["key_id"], event["actor"]) == ("key.rotate", minted.key.key_id, "tester")
    assert rotated.previous_valid_until.isoformat() in event["reason"]
    assert rotated.token.token_key in event["reason"]
    for token in (minted.token, rotated.token):
        assert token.reveal() not in str(tuple(event))
        assert token.digest.hex() not in str(tuple(event))


async def test_each_token_shows_its_own_last_use(keys: Management, owner: asyncpg.Connection, clock: Clock) -> None:
    minted = await keys.create("one")
    await keys.rotate(minted.key.key_id, HOUR)
    await owner.execute("INSERT INTO smarter_auth.token_use VALUES ($1, $2)", minted.token.digest, clock.now)
    key = await keys.key(minted.key.key_id)
    assert [token.last_used_at for token in key.tokens] == [clock.now, None]
    assert key.last_used_at == clock.now
    assert [token.token_key for token in key.previous_tokens(clock.now)] == [minted.token.token_key]


async def test_changing_a_key_leaves_the_rest_as_it_is(keys: Management, clock: Clock) -> None:
    before = (await keys.create("one", description="for CI", expires_at=clock.now + DAY)).key
    after = await keys.set_key(before.key_id, name="two")
    assert (after.name, after.description, after.expires_at) == ("two", "for CI", before.expires_at)
    assert (await keys.set_key(before.key_id, expires_at=None)).expires_at is None
    past = await keys.set_key(before.key_id, expires_at=clock.now - HOUR, description="")
    assert (past.expires_at, past.description) == (clock.now - HOUR, "")


async def test_name_of_another_living_key_is_not_taken(keys: Management) -> None:
    one = (await keys.create("one")).key
    two = (await keys.create("two")).key
    with pytest.raises(ConflictError, match="'one'"):
        await keys.set_key(two.key_id, name="one")
    assert (await keys.set_key(one.key_id, name="one")).name == "one"
    await keys.revoke(one.key_id)
    assert (await keys.set_key(two.key_id, name="one")).name == "one"


async def test_what_cannot_be_stored_changes_nothing(keys: Management) -> None:
    key = (await keys.create("one")).key
    for change in ({"name": ""}, {"name": "a\0b"}, {"description": "x" * 10_001}, {"expires_at": datetime(2999, 1, 1)}):
        with pytest.raises(UsageError):
            await keys.set_key(key.key_id, **change)
    assert await keys.key(key.key_id) == key


@pytest.mark.parametrize(
    "act",
    [
        lambda keys, key: keys.bind(key, OTHER),
        lambda keys, key: keys.unbind(key, BOT, allow_anonymous=True),
        lambda keys, key: keys.set_key(key, name="renamed"),
        lambda keys, key: keys.deactivate(key),
        lambda keys, key: keys.activate(key),
        lambda keys, key: keys.toggle_active(key),
        lambda keys, key: keys.rotate(key),
        lambda keys, key: keys.revoke(key),
    ],
    ids=["bind", "unbind", "set", "deactivate", "activate", "toggle", "rotate", "revoke"],
)
async def test_an_act_returns_the_key_as_its_own_transaction_left_it(
    keys: Management, store: Store, monkeypatch: pytest.MonkeyPatch, act: Callable[[Management, UUID], Awaitable[Any]]
) -> None:
    key = (await keys.create("one", bind=[BOT])).key
    begun: list[None] = []
    begin = store.transaction

    def counted(*args: Any, **kwargs: Any) -> Any:
        begun.append(None)
        return begin(*args, **kwargs)

    monkeypatch.setattr(store, "transaction", counted)
    await act(keys, key.key_id)
    assert len(begun) == 1


async def test_toggling_twice_at_once_is_two_turns(keys: Management) -> None:
    key = (await keys.create("one")).key
    turned = await asyncio.gather(*(keys.toggle_active(key.key_id) for _ in range(2)))
    assert {key.is_active for key in turned} == {True, False}
    assert (await keys.key(key.key_id)).is_active


async def test_leaked_tokens_revoke_the_keys_they_belong_or_belonged_to(keys: Management, store: Store) -> None:
    first, second = await keys.create("one", bind=[BOT]), await keys.create("two")
    rotated = await keys.rotate(first.key.key_id, timedelta(0))
    healthy = await keys.create("three")
    leaked = await keys.revoke_tokens([first.token, rotated.token, mint(), second.token, mint("checked"), first.token])
    assert {key.key_id for key in leaked.keys} == {first.key.key_id, second.key.key_id}
    assert all(key.revoked_at for key in leaked.keys)
    assert leaked.unknown == 2
    assert (await keys.key(healthy.key.key_id)).revoked_at is None
    assert (await store.read(Target(BOT))).bindings.protection is Protection.BOUND


async def test_leaked_tokens_of_nobody_change_nothing(keys: Management, owner: asyncpg.Connection) -> None:
    leaked = await keys.revoke_tokens([mint()])
    assert (leaked.keys, leaked.unknown) == ((), 1)
    assert await owner.fetchval("SELECT count(*) FROM smarter_auth.audit_event") == 0


@pytest.mark.parametrize(("allow_anonymous", "left"), [(False, Protection.BOUND), (True, Protection.OPEN)])
async def test_key_that_is_taken_off_everything_opens_only_what_is_meant_to_be_open(
    keys: Management, allow_anonymous: bool, left: Protection
) -> None:
    minted = await keys.create("one", bind=[BOT, OTHER])
    await keys.create("two", bind=[OTHER])
    revoked = await keys.revoke(minted.key.key_id, unbind=True, allow_anonymous=allow_anonymous)
    assert revoked.bindings == ()
    assert revoked.revoked_at is not None
    assert (await keys.resource(BOT)).protection is left
    assert (await keys.resource(OTHER)).protection is Protection.BOUND


async def test_key_that_expires_too_late_or_never_is_refused_where_that_is_wished(
    keys: Management, clock: Clock
) -> None:
    for expires_at, says in ((None, "without end"), (clock.now + 2 * DAY, "longer than 1 day")):
        with pytest.raises(RefusedError, match=says):
            await keys.create("one", expires_at=expires_at, max_lifetime=DAY)
    assert await keys.keys() == []
    await keys.create("one", expires_at=clock.now + DAY, max_lifetime=DAY)


async def test_keys_that_expire_soon_are_listed_the_next_one_first(keys: Management, clock: Clock) -> None:
    for name, span in (("later", 13 * DAY), ("sooner", HOUR), ("too late", 15 * DAY), ("past", timedelta(seconds=1))):
        await keys.create(name, expires_at=clock.now + span)
    await keys.create("never")
    revoked = await keys.create("revoked", expires_at=clock.now + HOUR)
    await keys.revoke(revoked.key.key_id)
    clock.now += timedelta(minutes=1)
    assert [key.name for key in await keys.keys(expiring_within=14 * DAY)] == ["sooner", "later"]


async def test_keys_with_a_valid_token_older_than_allowed_are_listed(
    keys: Management, owner: asyncpg.Connection, clock: Clock
) -> None:
    await keys.create("old")
    renewed = (await keys.create("renewed")).key
    await owner.execute("UPDATE smarter_auth.token SET created_at = created_at - interval '10 days'")
    await keys.create("new")
    assert [key.name for key in await keys.keys(max_lifetime=9 * DAY)] == ["old", "renewed"]
    assert await keys.keys(max_lifetime=11 * DAY) == []
    await keys.rotate(renewed.key_id, HOUR)
    assert [key.name for key in await keys.keys(max_lifetime=9 * DAY)] == ["old", "renewed"]
    clock.now += 2 * HOUR
    assert [key.name for key in await keys.keys(max_lifetime=9 * DAY)] == ["old"]


async def test_acts_together_are_all_done_or_none(keys: Management) -> None:
    async with keys.together() as acts:
        one = await acts.create("one", bind=[BOT])
        await acts.deactivate(one.key.key_id)
    assert not (await keys.key(one.key.key_id)).is_active

    async def create_two_and_one() -> None:
        async with keys.together() as acts:
            await acts.create("two")
            await acts.create("one")

    with pytest.raises(ConflictError):
        await create_two_and_one()
    assert [key.name for key in await keys.keys()] == ["one"]


async def test_act_that_failed_among_others_left_nothing_behind(keys: Management) -> None:
    await keys.add_resource(BOT, account="acme")
    async with keys.together() as acts:
        with pytest.raises(RefusedError):
            await acts.create("one", bind=[OTHER, BOT])
        await acts.create("two")
    assert [key.name for key in await keys.keys()] == ["two"]
    assert [found.resource for found in await keys.resources()] == [BOT]


async def test_database_that_goes_away_in_the_middle_takes_nothing_with_it(
    keys: Management, owner: asyncpg.Connection
) -> None:
    key = (await keys.create("one", bind=[BOT])).key

    async def rotate_create_and_revoke() -> None:
        async with keys.together() as acts:
            await acts.rotate(key.key_id, HOUR)
            await acts.create("two")
            await owner.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND state = 'idle in transaction'"
            )
            await acts.revoke(key.key_id)

    with pytest.raises(UnavailableError):
        await asyncio.wait_for(rotate_create_and_revoke(), 30)
    assert await keys.keys() == [key]
    assert isinstance(await keys.rotate(key.key_id, HOUR), Rotated)


async def test_numbered_resources_never_share_a_number(keys: Management) -> None:
    for taken in range(1, 20):
        await keys.add_resource(Resource("bot", str(taken)))
    made = await asyncio.gather(*(keys.number_resource("bot", name="made") for _ in range(10)))
    numbers = {int(found.resource.ref) for found in made}
    assert len(numbers) == 10
    assert not numbers & set(range(1, 20))
    assert len(await keys.resources("bot")) == 29


async def test_number_that_was_given_once_is_not_given_again(keys: Management) -> None:
    first = await keys.number_resource("bot")
    await keys.remove_resource(first.resource)
    assert (await keys.number_resource("bot")).resource != first.resource


async def test_number_that_is_somebody_elses_reference_is_passed_over(
    keys: Management, owner: asyncpg.Connection
) -> None:
    first = int((await keys.number_resource("bot")).resource.ref)
    for taken in range(first + 3, first + 6):
        await owner.execute(
            "INSERT INTO smarter_auth.resource (id, kind, ref) VALUES (-$1::bigint, 'bot', $2)", taken, str(taken)
        )
    made = [int((await keys.number_resource("bot")).resource.ref) for _ in range(4)]
    assert made == [first + 1, first + 2, first + 6, first + 7]


async def test_protected_resource_goes_with_its_bindings_where_that_is_meant(
    keys: Management, owner: asyncpg.Connection
) -> None:
    key = (await keys.create("one", bind=[BOT])).key
    await keys.remove_resource(BOT, allow_anonymous=True)
    assert await keys.resources() == []
    assert (await keys.key(key.key_id)).bindings == ()
    told = await owner.fetch("SELECT action, before FROM smarter_auth.audit_event ORDER BY id DESC LIMIT 3")
    assert [row["action"] for row in told] == ["resource.remove", "resource.unprotect", "key.unbind"]
    assert json.loads(told[0]["before"])["protection"] == "bound"


async def test_binding_to_what_is_gone_does_not_register_it_anew(keys: Management) -> None:
    key = (await keys.create("one")).key
    with pytest.raises(NotFoundError, match="bot:42"):
        await keys.bind(key.key_id, BOT, register=False)
    assert await keys.resources() == []
    assert isinstance(await keys.key(key.key_id), Key)
