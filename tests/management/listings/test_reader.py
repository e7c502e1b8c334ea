"""Lists of keys, resources and events: what is in them, in which order, in pages, and for whom."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from smarter_auth_mw.domain import Key, Resource
from smarter_auth_mw.errors import UsageError
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.management.listings import AuditFilters, KeyFilters, Listings, Page, ResourceFilters
from smarter_auth_mw.postgres.store import Store

BOT = Resource("bot", "1")
DAY = timedelta(days=1)


@pytest.fixture
def lists(store: Store) -> Listings:
    return Listings(store)


async def names(lists: Listings, **filters: Any) -> list[str]:
    return [key.name for key in (await lists.keys(KeyFilters(**filters))).items]


async def in_pages(lists: Listings, limit: int, **filters: Any) -> list[str]:
    found, cursor = [], None
    while True:
        page: Page[Key] = await lists.keys(KeyFilters(**filters), limit=limit, cursor=cursor)
        found += [key.name for key in page.items]
        if (cursor := page.next) is None:
            return found
        assert len(page.items) == limit


async def test_keys_are_listed_by_name_whatever_its_case(lists: Listings, keys: Management) -> None:
    for name in ("beta", "Alpha", "alpine", "Gamma"):
        await keys.create(name)
    assert await names(lists) == ["Alpha", "alpine", "beta", "Gamma"]
    assert await names(lists, find="AL") == ["Alpha", "alpine"]
    assert await names(lists, find="alp", sort="-created_at") == ["alpine", "Alpha"]
    assert await names(lists, find="x") == []


async def test_account_and_scope_limit_a_list(store: Store, lists: Listings, keys: Management) -> None:
    for account in ("mine", "theirs"):
        await keys.create(f"of {account}", account=account)
    mine = Listings(store, scope="mine")
    assert await names(lists, account="theirs") == ["of theirs"]
    assert await names(mine) == await names(mine, account="mine") == ["of mine"]
    assert await names(mine, account="theirs") == []
    theirs = (await lists.keys(KeyFilters(account="theirs"))).items[0]
    assert await names(mine, key_id=theirs.key_id) == []
    assert await names(mine, token_key=theirs.token_keys[0]) == []


async def test_revoked_keys_are_listed_where_they_are_asked_for(lists: Listings, keys: Management) -> None:
    first, second = await keys.create("first", bind=[BOT]), await keys.create("second", bind=[BOT])
    await keys.revoke(first.key.key_id)
    assert await names(lists) == await names(lists, resource=BOT) == ["second"]
    assert await names(lists, state="revoked") == await names(lists, resource=BOT, state="revoked") == ["first"]
    assert await names(lists, key_id=first.key.key_id) == ["first"]
    assert await names(lists, token_key=first.token.token_key) == ["first"]
    assert sorted(await names(lists, resource=BOT, state="any")) == ["first", "second"]
    await keys.revoke(second.key.key_id)
    assert await names(lists, state="revoked") == ["second", "first"]


@pytest.fixture
async def many(owner: asyncpg.Connection) -> asyncpg.Connection:
    """Keys of every kind, whose names say what they are."""
    await owner.execute("""
        INSERT INTO smarter_auth.key (name, is_active, expires_at, revoked_at, created_at) VALUES
            ('active', true, NULL, NULL, now() - interval '10 days'),
            ('inactive', false, now() + interval '50 days', NULL, now() - interval '20 days'),
            ('expired', true, now() - interval '1 day', NULL, now() - interval '30 days'),
            ('expires soon', true, now() + interval '5 days', NULL, now() - interval '40 days'),
            ('revoked', true, now() + interval '2 days', now(), now() - interval '50 days');
        INSERT INTO smarter_auth.token (digest, token_key, key_id, account, created_at)
        SELECT sha512(name::bytea), left(name, 15), key_id, account, created_at FROM smarter_auth.key;
        INSERT INTO smarter_auth.token_use (digest, last_used_at) VALUES
            (sha512('active'), now() - interval '3 days'), (sha512('inactive'), now() - interval '15 days');
        INSERT INTO smarter_auth.token (digest, token_key, key_id, account, created_at, valid_until)
        SELECT sha512(name::bytea || n), 'old', key_id, account, created_at, now() + interval '1 hour'
          FROM smarter_auth.key, unnest(ARRAY['x', 'y']::bytea[]) AS n WHERE name IN ('inactive', 'revoked');
        INSERT INTO smarter_auth.key_label (key_id, name, value)
        SELECT key_id, label, value
          FROM smarter_auth.key, (VALUES ('team', 'sales'), ('env', 'live')) AS l (label, value)
         WHERE key.name IN ('inactive', 'expired', 'revoked') OR key.name = 'active' AND label = 'env';
    """)
    return owner


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"state": "active"}, ["active", "expires soon"]),
        ({"state": "inactive"}, ["inactive"]),
        ({"state": "expired"}, ["expired"]),
        ({"state": "revoked"}, ["revoked"]),
        ({"expiring_within": 6 * DAY}, ["expires soon"]),
        ({"expiring_within": 100 * DAY}, ["expires soon", "inactive"]),
        ({"expiring_within": timedelta.max}, ["expires soon", "inactive"]),
        ({"never_expires": True}, ["active"]),
        ({"unused_for": 10 * DAY}, ["expires soon", "expired", "inactive"]),
        ({"unused_for": 2 * DAY}, ["expires soon", "expired", "inactive", "active"]),
        ({"unused_for": timedelta.max}, []),
        ({"never_used": True}, ["expires soon", "expired"]),
        ({"never_used": True, "unused_for": 35 * DAY}, ["expires soon"]),
        ({"older_than": 25 * DAY}, ["expires soon", "expired"]),
        ({"older_than": 25 * DAY, "sort": "-created_at"}, ["expired", "expires soon"]),
        ({"sort": "created_at"}, ["expires soon", "expired", "inactive", "active"]),
        ({"sort": "-created_at"}, ["active", "inactive", "expired", "expires soon"]),
        ({"token_older_than": 15 * DAY}, ["expired", "expires soon", "inactive"]),
        ({"rotating": True}, ["inactive"]),
        ({"rotating": True, "state": "revoked"}, ["revoked"]),
        ({"labels": {"team": "sales"}, "sort": "name"}, ["expired", "inactive"]),
        ({"labels": {"team": "sales", "env": "live"}, "state": "inactive"}, ["inactive"]),
        ({"labels": {"team": "sales"}, "state": "revoked"}, ["revoked"]),
        ({"labels": {"team": "live"}}, []),
        ({"labels": {"env": "live"}, "never_used": True}, ["expired"]),
        ({"find": "exp", "unused_for": DAY, "state": "active"}, ["expires soon"]),
    ],
)
async def test_filters_find_the_keys_that_all_of_them_fit_in_one_order(
    many: asyncpg.Connection, lists: Listings, filters: dict[str, Any], found: Sequence[str]
) -> None:
    assert await names(lists, **filters) == found
    assert await in_pages(lists, 1, **filters) == found
    for name in found:  # Each filter drives or is tested, and says the same.
        sort = None if filters.get("state") == "revoked" else "name"
        assert await names(lists, **filters | {"find": name, "sort": sort}) == [name]


async def test_what_needs_attention_is_counted_as_its_lists_show_it(
    store: Store, many: asyncpg.Connection, lists: Listings, keys: Management
) -> None:
    await many.execute("""
        INSERT INTO smarter_auth.key (name, account, expires_at, created_at) VALUES
            ('theirs', 'theirs', now() + interval '5 days', now()),
            ('their idle one', 'theirs', NULL, now() - interval '40 days');
        INSERT INTO smarter_auth.token_use (digest, last_used_at)
        SELECT sha512(name::bytea || 'y'), now() FROM smarter_auth.key WHERE name IN ('inactive', 'revoked');
    """)
    for ref, account in (("2", "default"), ("3", "theirs"), ("4", "theirs")):
        await keys.add_resource(Resource("bot", ref), account=account)
    await keys.protect(Resource("bot", "4"))
    counted: dict[str | None, list[object]] = {
        None: [3, 3, 1, 1, 2, True],
        "default": [2, 2, 1, 1, 1, True],
        "theirs": [1, 1, 0, 0, 1, True],
        "nobodys": [0, 0, 0, 0, 0, False],
    }
    for scope, counts in counted.items():
        scoped = Listings(store, scope=scope)
        found = [
            len((await scoped.keys(KeyFilters(expiring_within=100 * DAY))).items),
            len((await scoped.keys(KeyFilters(unused_for=10 * DAY))).items),
            len((await scoped.keys(KeyFilters(rotating=True))).items),
        ]
        attention = await scoped.attention(expiring_within=100 * DAY, unused_for=10 * DAY)
        assert list(attention) == counts
        assert list(attention)[:3] == found
        assert attention.open_resources == len((await scoped.resources(ResourceFilters(open=True))).items)
    assert list(await lists.attention(expiring_within=100 * DAY, unused_for=10 * DAY, most=1)) == [1, 1, 1, 1, 1, True]


async def test_a_label_list_goes_by_id_and_leaves_revoked_keys_out(many: asyncpg.Connection, lists: Listings) -> None:
    listed = (await lists.keys(KeyFilters(labels={"env": "live"}))).items
    assert {key.name for key in listed} == {"active", "inactive", "expired"}
    assert [key.key_id for key in listed] == sorted(key.key_id for key in listed)
    assert listed[0].labels["env"] == "live"


async def test_pages_follow_each_other_while_keys_come_and_go(lists: Listings, keys: Management) -> None:
    for number in range(5):
        await keys.create(f"key {number}")
    first = await lists.keys(limit=2)
    await keys.create("key 0 and a half")
    await keys.revoke(first.items[1].key_id)
    second = await lists.keys(limit=2, cursor=first.next)
    third = await lists.keys(limit=2, cursor=second.next)
    assert [key.name for page in (first, second, third) for key in page.items] == [f"key {n}" for n in range(5)]
    assert third.next is None


async def test_page_that_the_last_key_fills_has_no_next(lists: Listings, keys: Management) -> None:
    for number in range(4):
        await keys.create(f"key {number}")
    first = await lists.keys(limit=2)
    assert (await lists.keys(limit=2, cursor=first.next)).next is None


async def test_keys_of_one_time_are_listed_once_each(many: asyncpg.Connection, lists: Listings) -> None:
    await many.execute(
        "INSERT INTO smarter_auth.key (name, created_at) SELECT n, '2020-01-01' FROM generate_series(1, 30) n"
    )
    for sort in ("created_at", "-created_at"):
        found = await in_pages(lists, 2, sort=sort)
        assert len(found) == len(set(found)) == 34
        assert [key.name async for key in lists.every_key(KeyFilters(sort=sort))] == found


async def test_rare_keys_among_many_make_short_pages_that_go_on(many: asyncpg.Connection, lists: Listings) -> None:
    await many.execute("INSERT INTO smarter_auth.key (name) SELECT 'n' || n FROM generate_series(1, 3000) n")
    await many.execute("INSERT INTO smarter_auth.key (name, is_active) VALUES ('z', false)")
    found, cursor, sizes = [], None, []
    while True:
        page = await lists.keys(KeyFilters(state="inactive"), limit=10, cursor=cursor)
        found += [key.name for key in page.items]
        sizes.append(len(page.items))
        if (cursor := page.next) is None:
            break
    assert found == ["inactive", "z"]
    assert sizes == [1, 0, 0, 1]
    assert [key.name async for key in lists.every_key(KeyFilters(state="inactive"))] == found


@pytest.mark.parametrize(
    "filters", [{"state": "revoked", "sort": "name"}, {"state": "any"}, {"state": "any", "labels": {"a": "b"}}]
)
async def test_revoked_keys_are_not_looked_for_among_living_ones(lists: Listings, filters: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="a list of their own"):
        await lists.keys(KeyFilters(**filters))


@pytest.mark.parametrize("cursor", ["", "x", "é", "bm9uc2Vuc2U", "W10", "=" * 10, "A" * 100_000, "bnVsbA", "W1tbW1tb"])
async def test_what_is_no_cursor_is_refused(lists: Listings, cursor: str) -> None:
    for page in (lists.keys, lists.resources, lists.audit):
        with pytest.raises(UsageError) as refused:
            await page(cursor=cursor)
        assert refused.value.code == "cursor"


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-01-01T00:00:00"])
async def test_cursor_with_a_time_that_no_database_holds_is_refused(
    lists: Listings, keys: Management, time: str
) -> None:
    for number in range(2):
        await keys.create(f"key {number}")
    for page in (lists.keys, lists.audit):
        cursor = (await page(limit=1)).next
        assert cursor is not None
        found = re.sub(r'"[^"]*T[^"]*"', f'"{time}"', base64.urlsafe_b64decode(cursor + "==").decode())
        with pytest.raises(UsageError, match="another list"):
            await page(limit=1, cursor=base64.urlsafe_b64encode(found.encode()).decode().rstrip("="))


async def test_cursor_of_another_list_is_refused(lists: Listings, keys: Management) -> None:
    for number in range(3):
        await keys.create(f"key {number}")
    page = await lists.keys(KeyFilters(find="k"), limit=1)
    for filters in (KeyFilters(), KeyFilters(find="K"), KeyFilters(find="k", account="default")):
        with pytest.raises(UsageError, match="another list"):
            await lists.keys(filters, limit=1, cursor=page.next)
    with pytest.raises(UsageError, match="another list"):
        await lists.resources(cursor=page.next)


@pytest.mark.parametrize("limit", [0, -1, 1001])
async def test_page_has_a_size_within_bounds(lists: Listings, limit: int) -> None:
    with pytest.raises(UsageError, match="1 to 1000"):
        await lists.keys(limit=limit)


async def test_inner_lists_are_cut_when_that_is_asked_for(lists: Listings, keys: Management) -> None:
    bound = await keys.create("first", bind=[Resource("bot", str(number)) for number in range(5)])
    for number in range(4):
        await keys.create(f"more {number}", bind=[BOT])
    assert len((await lists.keys(KeyFilters(find="first"))).items[0].bindings) == 5
    assert len((await lists.keys(KeyFilters(find="first"), inner=2)).items[0].bindings) == 3
    assert len((await lists.resources(ResourceFilters(find="1"))).items[0].keys) == 5
    (cut,) = (await lists.resources(ResourceFilters(find="1"), inner=2)).items
    assert len(cut.keys) == 3
    assert (await lists.resources(ResourceFilters(key_id=bound.key.key_id), limit=2)).next is not None


@pytest.fixture
async def resources(keys: Management) -> UUID:
    """Resources of two accounts and two kinds; a key's id."""
    for resource in (Resource("bot", "b-1"), Resource("bot", "b_2"), Resource("agent", "a")):
        await keys.add_resource(resource, account="mine")
    await keys.add_resource(Resource("bot", "c"), account="theirs")
    minted = await keys.create("first", account="mine", bind=[Resource("bot", "b_2"), Resource("agent", "a")])
    return minted.key.key_id


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, ["agent:a", "bot:b-1", "bot:b_2", "bot:c"]),
        ({"kind": "bot"}, ["bot:b-1", "bot:b_2", "bot:c"]),
        ({"kind": "bo"}, []),
        ({"account": "mine", "kind": "bot"}, ["bot:b-1", "bot:b_2"]),
        ({"open": True}, ["bot:b-1", "bot:c"]),
        ({"open": True, "account": "mine"}, ["bot:b-1"]),
        ({"open": False}, ["agent:a", "bot:b_2"]),
        ({"kind": "bot", "find": "b_"}, ["bot:b-1", "bot:b_2"]),
        ({"find": "b-2"}, ["bot:b_2"]),
        ({"kind": "bot", "find": "b_2"}, ["bot:b_2"]),
        ({"kind": "bot", "find": "c", "open": True}, ["bot:c"]),
        ({"kind": "bot", "find": "b-1", "account": "mine"}, ["bot:b-1"]),
        ({"kind": "bot", "find": "b-1", "account": "mine", "open": True}, ["bot:b-1"]),
    ],
)
async def test_resources_are_listed_by_kind_and_reference(
    resources: UUID, lists: Listings, filters: dict[str, Any], found: list[str]
) -> None:
    page = await lists.resources(ResourceFilters(**filters))
    assert [str(one.resource) for one in page.items] == found
    in_pages = [one async for one in lists.every_resource(ResourceFilters(**filters))]
    assert [str(one.resource) for one in in_pages] == found
    if len(found) > 1:
        first = await lists.resources(ResourceFilters(**filters), limit=1)
        rest = await lists.resources(ResourceFilters(**filters), cursor=first.next)
        assert [str(one.resource) for one in (*first.items, *rest.items)] == found


async def test_resources_of_a_key_and_of_a_scope(resources: UUID, store: Store, lists: Listings) -> None:
    page = await lists.resources(ResourceFilters(key_id=resources))
    assert {str(one.resource) for one in page.items} == {"bot:b_2", "agent:a"}
    assert [key.name for key in page.items[0].keys] == ["first"]
    theirs = Listings(store, scope="theirs")
    assert [str(one.resource) for one in (await theirs.resources()).items] == ["bot:c"]
    assert (await theirs.resources(ResourceFilters(key_id=resources))).items == ()


@pytest.fixture
async def events(owner: asyncpg.Connection) -> asyncpg.Connection:
    """Five events, whose reasons are their order in time; their ids run the other way round."""
    one, two = UUID(int=1), UUID(int=2)
    rows = [
        (day(5), "10.0.0.0/24", "request.deny", "bot", "a-1", "mine", None, "5", '{"status": 401, "token_key": "t"}'),
        (day(4), "bob", "key.revoke", None, None, "theirs", one, "4", None),
        (day(3), "alice", "key.bind", "bot", "a_1", "mine", two, "3", None),
        (day(2), "alice", "audit.prune", None, None, None, None, "2", None),
        (day(1), "10.0.0.0/24", "request.grant", "bot", "a-1", "mine", one, "1", '{"token_key": "t"}'),
    ]
    await owner.executemany(
        "INSERT INTO smarter_auth.audit_event (at, actor, action, kind, ref, account, key_id, reason, after)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        rows,
    )
    await owner.executemany(
        "INSERT INTO smarter_auth.key (key_id, name, account) VALUES ($1, $2, $3)",
        [(one, "one", "theirs"), (two, "two", "mine")],
    )
    return owner


def day(number: int) -> datetime:
    return datetime(2026, 1, number, tzinfo=UTC)


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, "12345"),
        ({"account": "mine"}, "135"),
        ({"resource": Resource("bot", "a_1")}, "135"),
        ({"resource": Resource("bot", "a-1"), "acts": True}, "3"),
        ({"key_id": UUID(int=1)}, "14"),
        ({"key_id": UUID(int=1), "acts": True}, "4"),
        ({"actor": "alice"}, "23"),
        ({"actor": "alice", "acts": True}, "23"),
        ({"actor": "10.0.0.0/24"}, "15"),
        ({"action": "key.*"}, "34"),
        ({"action": "key.bind"}, "3"),
        ({"action": "key_bind"}, ""),
        ({"action": "request.*"}, "15"),
        ({"action": "req*"}, "15"),
        ({"action": "*"}, "12345"),
        ({"action": "*.prune"}, "2"),
        ({"action": "audit.*", "actor": "alice"}, "2"),
        ({"acts": True}, "234"),
        ({"acts": True, "account": "mine"}, "3"),
        ({"reason": "4"}, "4"),
        ({"since": day(2), "until": day(4)}, "23"),
        ({"since": timedelta.max}, "12345"),
        ({"until": timedelta.max}, ""),
        ({"since": timedelta(days=36500), "until": timedelta(0)}, "12345"),
    ],
)
async def test_events_are_listed_in_order_of_time(
    events: asyncpg.Connection, lists: Listings, filters: dict[str, Any], found: str
) -> None:
    asked = AuditFilters(**filters)
    assert "".join([event.reason async for event in lists.every_event(asked)]) == found
    newest: list[str] = []
    cursor = None
    while True:
        page = await lists.audit(asked, limit=2, cursor=cursor)
        newest += [event.reason for event in page.items]
        if (cursor := page.next) is None:
            break
    assert "".join(newest) == found[::-1]


async def test_one_account_sees_no_event_of_another_and_nothing_of_its_keys(
    events: asyncpg.Connection, store: Store
) -> None:
    mine = Listings(store, scope="mine")
    deny, bind, grant = (await mine.audit()).items
    assert (bind.key_id, bind.reason) == (UUID(int=2), "3")
    assert (grant.key_id, grant.reason, grant.after) == (None, "unknown_token", None)
    assert deny.after == {"status": 401, "token_key": "t"}
    assert (await mine.audit(AuditFilters(key_id=UUID(int=1)))).items == ()
