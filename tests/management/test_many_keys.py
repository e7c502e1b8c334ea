"""Acts on many keys: what a filter finds, in one transaction, with an audit row for each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from smarter_auth_mw.decision import Grant, decide
from smarter_auth_mw.domain import Resource, Target
from smarter_auth_mw.errors import OutOfScopeError, UsageError, WouldOpenError
from smarter_auth_mw.management import many_keys
from smarter_auth_mw.management.keys import Management, Minted
from smarter_auth_mw.management.listings import KeyFilters
from smarter_auth_mw.management.many_keys import Chosen, ManyKeys, parts
from smarter_auth_mw.postgres.bulk import HeldKey, NewToken
from smarter_auth_mw.postgres.store import Store
from smarter_auth_mw.tokens import Token
from tests.support.lists import audited

BOT, OTHER = Resource("bot", "1"), Resource("bot", "2")
DAY = timedelta(days=1)
ACME = KeyFilters(account="acme")


@pytest.fixture
def many(store: Store) -> ManyKeys:
    return ManyKeys(store, "tester")


@pytest.fixture
async def minted(keys: Management) -> list[Minted]:
    """Three keys of an account, two of which open a bot; and one of another account."""
    await keys.add_resource(BOT, account="acme")
    made = [
        await keys.create("one", account="acme", bind=[BOT], labels={"team": "sales"}),
        await keys.create("two", account="acme", bind=[BOT]),
        await keys.create("three", account="acme", labels={"team": "sales"}),
    ]
    return [*made, await keys.create("foreign", account="other", labels={"team": "sales"})]


async def _opens(store: Store, token: Token) -> bool:
    bindings = (await store.read(Target(BOT))).bindings
    return isinstance(decide(bindings, token, datetime.now(UTC).timestamp()), Grant)


async def _names(keys: Management, ids: Sequence[UUID]) -> list[str]:
    return sorted([(await keys.key(key_id)).name for key_id in ids])


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (ACME, ["one", "three", "two"]),
        (KeyFilters(resource=BOT), ["one", "two"]),
        (KeyFilters(labels={"team": "sales"}), ["foreign", "one", "three"]),
        (KeyFilters(labels={"team": "sales"}, account="acme"), ["one", "three"]),
        (KeyFilters(older_than=30 * DAY), ["two"]),
        (KeyFilters(unused_for=30 * DAY), ["two"]),
        (KeyFilters(account="nobody"), []),
    ],
)
async def test_those_are_changed_that_the_filters_find(
    many: ManyKeys,
    keys: Management,
    minted: list[Minted],
    owner: asyncpg.Connection,
    filters: KeyFilters,
    names: list[str],
) -> None:
    await owner.execute("UPDATE smarter_auth.key SET created_at = now() - interval '40 days' WHERE name = 'two'")
    await owner.execute("UPDATE smarter_auth.key_use SET idle_since = now() - interval '40 days' WHERE key_id = $1",
                        minted[1].key.key_id)  # fmt: skip
    assert await _names(keys, await many.revoke(await many.find(filters))) == names
    revoked = [one.name for one in await keys.keys() if one.revoked_at is not None]
    assert sorted(revoked) == names
    told = [event.key_id for event in await audited(keys._store, action="key.revoke")]  # type: ignore[arg-type]
    assert await _names(keys, [key_id for key_id in told if key_id]) == names


async def test_revoked_keys_leave_what_they_opened_protected(
    many: ManyKeys, keys: Management, store: Store, minted: list[Minted]
) -> None:
    await many.revoke(await many.find(KeyFilters(resource=BOT)))
    assert not await _opens(store, minted[0].token)
    assert (await keys.resource(BOT)).is_protected
    assert await many.revoke(await many.find(KeyFilters(resource=BOT))) == []


async def test_failure_half_way_changes_nothing(
    many: ManyKeys, keys: Management, minted: list[Minted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many_keys, "AT_ONCE", 2)
    before, done = await keys.keys(), 0

    def progress(more: int) -> None:
        nonlocal done
        done += more
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await many.deactivate(await many.find(ACME), progress=progress)
    assert await keys.keys() == before


async def test_trial_names_the_keys_and_changes_nothing(many: ManyKeys, keys: Management, minted: list[Minted]) -> None:
    before = await keys.keys()
    for found in (
        await many.revoke(await many.find(ACME), is_dry=True),
        await many.deactivate(await many.find(ACME), is_dry=True),
        (await many.rotate(await many.find(ACME), _not_to_be_called, _not_to_be_called, is_dry=True)).key_ids,
    ):
        assert await _names(keys, found) == ["one", "three", "two"]
    assert await keys.keys() == before


def _not_to_be_called(*_: Any) -> None:
    raise AssertionError


async def test_deactivated_are_those_that_are_active(many: ManyKeys, keys: Management, minted: list[Minted]) -> None:
    await keys.deactivate(minted[0].key.key_id)
    assert await _names(keys, await many.deactivate(await many.find(ACME))) == ["three", "two"]
    assert [key.is_active for key in await keys.keys() if key.account == "acme"] == [False] * 3


async def test_what_opens_asks_of_many_too(store: Store, keys: Management, minted: list[Minted]) -> None:
    many = ManyKeys(store, "tester", require="active")
    with pytest.raises(WouldOpenError, match=str(BOT)):
        await many.deactivate(await many.find(ACME))
    with pytest.raises(WouldOpenError):
        await many.deactivate(await many.find(ACME), is_dry=True)
    assert all(key.is_active for key in await keys.keys())
    assert len(await many.deactivate(await many.find(ACME), allow_anonymous=True)) == 3


async def test_new_tokens_are_safe_before_they_count(
    many: ManyKeys, store: Store, minted: list[Minted], owner: asyncpg.Connection
) -> None:
    written: list[NewToken] = []
    seen: list[int] = []

    def secure() -> None:
        seen.append(len(written))

    rotation = await many.rotate(await many.find(KeyFilters(resource=BOT)), written.extend, secure)
    assert (len(rotation.key_ids), rotation.overlapping, seen) == (2, 0, [2])
    for one in written:
        assert await _opens(store, one.token)
        assert timedelta(hours=23) < one.previous_valid_until - datetime.now(UTC) < timedelta(hours=25)
    assert await _opens(store, minted[0].token)
    (event, _) = await audited(store, action="key.rotate")
    assert "the new one begins with" in event.reason


async def test_tokens_that_cannot_be_kept_do_not_count(many: ManyKeys, keys: Management, minted: list[Minted]) -> None:
    def secure() -> None:
        raise UsageError("The disk is full.")

    before = await keys.keys()
    with pytest.raises(UsageError):
        await many.rotate(await many.find(ACME), lambda _: None, secure)
    assert await keys.keys() == before


async def test_expired_keys_and_rotations_under_way_are_left_alone(
    many: ManyKeys, keys: Management, minted: list[Minted], owner: asyncpg.Connection
) -> None:
    await keys.rotate(minted[0].key.key_id)
    await owner.execute("UPDATE smarter_auth.key SET expires_at = now() - interval '1 day' WHERE name = 'three'")
    rotation = await many.rotate(await many.find(ACME), lambda _: None, lambda: None)
    assert (await _names(keys, rotation.key_ids), rotation.overlapping) == (["two"], 1)
    rotation = await many.rotate(await many.find(ACME), lambda _: None, lambda: None, force=True, overlap=timedelta(0))
    assert await _names(keys, rotation.key_ids) == ["one", "two"]


async def test_rotation_of_many_brings_them_within_the_policy(
    store: Store, keys: Management, minted: list[Minted]
) -> None:
    many = ManyKeys(store, "tester", longest_life=90 * DAY)
    await many.rotate(await many.find(ACME), lambda _: None, lambda: None)
    ends = [key.expires_at for key in await keys.keys() if key.account == "acme"]
    assert all(end is not None and end - datetime.now(UTC) <= 90 * DAY for end in ends)


async def test_scope_holds_for_many(store: Store, keys: Management, minted: list[Minted]) -> None:
    many = ManyKeys(store, "me", scope="acme")
    with pytest.raises(OutOfScopeError):
        await many.revoke(await many.find(KeyFilters(account="other")))
    assert await _names(keys, await many.revoke(await many.find(KeyFilters(labels={"team": "sales"})))) == [
        "one",
        "three",
    ]


async def test_only_keys_of_the_account_are_found(store: Store, keys: Management, minted: list[Minted]) -> None:
    sales = KeyFilters(labels={"team": "sales"})
    for many, filters in (
        (ManyKeys(store, "me", scope="acme"), sales),
        (ManyKeys(store, "me"), replace(sales, account="acme")),
    ):
        assert await _names(keys, (await many.find(filters)).key_ids) == ["one", "three"]


async def test_keys_have_to_be_named(many: ManyKeys) -> None:
    with pytest.raises(UsageError, match="Select the keys") as refused:
        await many.revoke(await many.find(KeyFilters()))
    assert "--account" in refused.value.hint


def test_actor_has_a_name(store: Store) -> None:
    with pytest.raises(UsageError, match="The actor has 0 characters"):
        ManyKeys(store, "")


def test_one_statement_concerns_few_keys_and_few_accounts() -> None:
    def held(number: int, account: int) -> HeldKey:
        return HeldKey(uuid4(), f"{account:05}", str(number), True, None, None, 1)

    one_account = list(parts([held(number, 1) for number in range(4_100)]))
    assert list(map(len, one_account)) == [2_000, 2_000, 100]
    many_accounts = list(parts([held(number, number // 3) for number in range(900)]))
    assert list(map(len, many_accounts)) == [300, 300, 300]
    assert all(len({key.account for key in part}) <= 100 for part in many_accounts)


async def test_bots_of_others_are_not_disturbed(
    many: ManyKeys, store: Store, keys: Management, minted: list[Minted]
) -> None:
    """The change names the keys or the account, and never everything."""
    await many.revoke(await many.find(ACME))
    async with store.bare_transaction() as connection:
        sources = {row["source"] for row in await connection.fetch("SELECT source FROM smarter_auth.change")}
    assert "*" not in sources


async def test_keys_that_changed_since_they_were_found_are_left_alone(
    many: ManyKeys, keys: Management, minted: list[Minted]
) -> None:
    by_label = await many.find(KeyFilters(labels={"team": "sales"}))
    by_resource = await many.find(KeyFilters(resource=BOT))
    one, two, three, foreign = (key.key.key_id for key in minted)
    await keys.set_key(one, labels={"team": "it"})
    await keys.unbind(two, BOT)
    await keys.revoke(three)
    assert await many.revoke(by_label) == [foreign]
    assert await many.deactivate(by_resource) == [one]
    assert [(await keys.key(key_id)).is_active for key_id in (one, two)] == [False, True]


async def test_act_looks_at_the_keys_once_it_has_waited_for_them(
    many: ManyKeys, store: Store, keys: Management, minted: list[Minted], owner: asyncpg.Connection
) -> None:
    """A rotation that is committed while another one waits for the key is not cut short by it."""
    chosen = await many.find(KeyFilters(resource=BOT))
    async with keys.together() as acts:
        await acts.rotate(minted[0].key.key_id)
        await acts.set_key(minted[1].key.key_id, expires_at=datetime.now(UTC) - DAY)
        rotating = asyncio.create_task(many.rotate(chosen, lambda _: None, lambda: None))
        async with asyncio.timeout(30):
            while not await owner.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.01)
    assert await rotating == ((), 1)


async def test_many_more_keys_than_a_page_are_looked_at_again(
    many: ManyKeys, keys: Management, owner: asyncpg.Connection
) -> None:
    await owner.execute("INSERT INTO smarter_auth.key (name, account) SELECT n, 'acme' FROM generate_series(1, 2500) n")
    chosen = await many.find(ACME)
    await owner.execute("UPDATE smarter_auth.key SET revoked_at = now() WHERE name LIKE '%7'")
    assert len(await many.deactivate(chosen)) == 2_250


async def test_keys_are_looked_at_again_as_of_the_time_when_they_were_found(store: Store, keys: Management) -> None:
    now = datetime.now(UTC)
    many = ManyKeys(store, "tester", clock=lambda: now)
    minted = await keys.create("one", account="acme", expires_at=now + DAY)
    chosen = await many.find(KeyFilters(account="acme", expiring_after=DAY / 2))
    now += 2 * DAY
    assert await many.deactivate(chosen) == [minted.key.key_id]


async def test_key_without_a_token_gets_one(many: ManyKeys, owner: asyncpg.Connection) -> None:
    await owner.execute("INSERT INTO smarter_auth.key (name, account) VALUES ('bare', 'acme')")
    written: list[NewToken] = []
    await many.rotate(await many.find(ACME), written.extend, lambda: None)
    assert [one.key.token_key for one in written] == [None]


async def test_second_look_reads_rows_in_proportion_to_the_keys(store: Store, owner: asyncpg.Connection) -> None:
    """Whatever the filters: it probes indexes, and leaves the planner of the act itself as it was."""
    await owner.execute("""
        INSERT INTO smarter_auth.resource (kind, ref, account) VALUES ('bot', '1', 'acme');
        INSERT INTO smarter_auth.key (name, account) SELECT n, 'acme' FROM generate_series(1, 5000) n;
        INSERT INTO smarter_auth.key_label (key_id, name, value) SELECT key_id, 'team', 'it' FROM smarter_auth.key;
        INSERT INTO smarter_auth.binding (resource_id, key_id, account)
        SELECT resource.id, key_id, key.account FROM smarter_auth.key CROSS JOIN smarter_auth.resource;
        ANALYZE
    """)
    measured = Measured(store)
    many = ManyKeys(measured, "tester")
    filters = KeyFilters(resource=BOT, labels={"team": "it"}, unused_for=-DAY)
    chosen = await many.find(filters)
    assert len(await many.deactivate(Chosen(chosen.key_ids[:10], filters, chosen.at))) == 10
    assert measured.read < 500
    assert measured.seqscan == "on"


async def test_audit_has_what_was_changed_of_each_key(
    many: ManyKeys, keys: Management, store: Store, minted: list[Minted]
) -> None:
    only = KeyFilters(resource=BOT)
    written: list[NewToken] = []
    await many.rotate(await many.find(only), written.extend, lambda: None)
    await many.deactivate(await many.find(only))
    await many.revoke(await many.find(only))
    for one, made in zip(sorted(minted[:2], key=lambda one: one.key.key_id), written, strict=True):
        told = [event for event in await audited(store, key_id=one.key.key_id) if event.action != "key.bind"][1:]
        revoked = (await keys.key(one.key.key_id)).revoked_at
        assert revoked is not None
        assert {(event.actor, event.account) for event in told} == {("tester", "acme")}
        assert [(event.action, event.before, event.after) for event in told[:2]] == [
            ("key.rotate", {"expires_at": None}, {"expires_at": None}),
            ("key.deactivate", {"is_active": True}, {"is_active": False}),
        ]
        assert (told[2].action, told[2].before, list(told[2].after or ())) == (
            "key.revoke",
            {"revoked_at": None},
            ["revoked_at"],
        )
        until = made.previous_valid_until.isoformat()
        assert [event.reason for event in told] == [
            f"the previous token is valid until {until}, the new one begins with {made.token.token_key}",
            "",
            "",
        ]


async def test_previous_token_ends_with_its_key_and_a_key_is_rotated_until_it_ends(
    store: Store, keys: Management, minted: list[Minted]
) -> None:
    end = datetime.now(UTC) + timedelta(hours=1)
    await keys.set_key(minted[0].key.key_id, expires_at=end)
    many = ManyKeys(store, "tester", clock=lambda: end)
    written: list[NewToken] = []
    chosen = Chosen([minted[0].key.key_id, minted[1].key.key_id])
    assert len((await many.rotate(chosen, written.extend, lambda: None)).key_ids) == 2
    assert sorted(one.previous_valid_until for one in written) == [end, end + DAY]
    late = ManyKeys(store, "tester", clock=lambda: end + timedelta(microseconds=1))
    assert (await late.rotate(chosen, written.extend, lambda: None, force=True)).key_ids == (minted[1].key.key_id,)


@pytest.mark.parametrize(
    ("overlap", "says"), [(timedelta(microseconds=-1), "cannot be negative"), (timedelta.max, "is too long")]
)
async def test_impossible_overlap_rotates_nothing(
    many: ManyKeys, keys: Management, minted: list[Minted], overlap: timedelta, says: str
) -> None:
    before = await keys.keys()
    with pytest.raises(UsageError, match=says):
        await many.rotate(await many.find(ACME), _not_to_be_called, _not_to_be_called, overlap=overlap)
    assert await keys.keys() == before


async def test_new_tokens_have_the_format_of_their_keys_unless_another_is_asked_for(
    many: ManyKeys, keys: Management
) -> None:
    await keys.create("knox", account="acme")
    await keys.create("test", account="acme", prefix="test")
    written: list[NewToken] = []
    for asked in ({}, {"prefix": "live"}, {"form": "knox"}):
        await many.rotate(await many.find(ACME), written.extend, lambda: None, force=True, **asked)  # type: ignore[arg-type]
    heads = [(one.key.name, one.token.token_key[:8] if one.token.reveal().startswith("sm_") else "") for one in written]
    assert sorted(heads) == [
        *[("knox", ""), ("knox", ""), ("knox", "sm_live_")],
        *[("test", ""), ("test", "sm_live_"), ("test", "sm_test_")],
    ]


async def test_keys_that_were_chosen_at_no_time_are_looked_at_now(
    many: ManyKeys, keys: Management, minted: list[Minted]
) -> None:
    every = [one.key.key_id for one in minted]
    assert await many.revoke(Chosen(every, KeyFilters(older_than=DAY))) == []
    assert await _names(keys, await many.revoke(Chosen(every, KeyFilters(older_than=-DAY, account="acme")))) == [
        "one",
        "three",
        "two",
    ]


async def test_progress_is_reported_in_keys(
    many: ManyKeys, minted: list[Minted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many_keys, "AT_ONCE", 2)
    done: list[int] = []
    await many.rotate(await many.find(ACME), lambda _: None, lambda: None, progress=done.append)
    await many.deactivate(await many.find(ACME), progress=done.append)
    await many.revoke(await many.find(ACME), progress=done.append)
    assert done == [2, 1] * 3


class Measured:
    """A store that counts how many rows its last transaction read, and has its setting of the planner at the end."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.lists = store.lists
        self.read = 0
        self.seqscan = ""

    @asynccontextmanager
    async def bare_transaction(self) -> AsyncIterator[Any]:
        async with self._store.bare_transaction() as connection:
            before = await connection.fetchval(_ROWS_READ)
            yield connection
            self.read = await connection.fetchval(_ROWS_READ) - before
            self.seqscan = await connection.fetchval("SHOW enable_seqscan")


_ROWS_READ = "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_xact_user_tables"
