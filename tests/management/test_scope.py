"""One account's scope: what belongs to another account answers exactly like what does not exist, and stays as it is."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from smarter_auth_mw.domain import Resource
from smarter_auth_mw.errors import NotFoundError, OutOfScopeError, SmarterAuthError
from smarter_auth_mw.management.keys import Management, Minted
from smarter_auth_mw.management.listings import AuditFilters, KeyFilters, Listings, ResourceFilters, UsageFilters
from smarter_auth_mw.management.many_keys import Chosen, ManyKeys
from smarter_auth_mw.observers.usage import ANONYMOUS, GRANTED, Batch, Series
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from smarter_auth_mw.testing.store import MemoryStore
from smarter_auth_mw.tokens import Token, mint
from tests.support.platform import Platform

MINE = Resource("bot", "2")
WEEK = timedelta(days=7)


@dataclass(frozen=True)
class Things:
    """A resource, a key that opens it, and what names them."""

    account: str
    resource: Resource
    key_id: UUID
    name: str
    token: Token
    label: str
    domain: str

    def hide(self, text: str) -> str:
        """The text without what tells these things from others."""
        told = (str(self.key_id), str(self.resource), self.token.token_key, self.token.digest.hex(), self.domain)
        for word in (*told, self.account, self.name, self.label, repr(self.resource)):
            text = text.replace(word, "…")
        return text


UNKNOWN = Things(
    "nobody", Resource("bot", "901"), uuid4(), "unknown-key", mint(), "unknown-label", "unknown.example.com"
)


@dataclass(frozen=True)
class World:
    """What acts and lists with the scope of one account, which has a key too, and another account's things."""

    keys: Management
    many: ManyKeys
    lists: Listings
    mine: Minted
    theirs: Things
    owner: asyncpg.Connection

    async def rows(self) -> dict[str, list[str]]:
        """All that is in the database."""
        tables = ("resource", "key", "token", "binding", "key_label", "alias", "audit_event", "change")
        return {table: await self._rows(table) for table in tables}

    async def _rows(self, table: str) -> list[str]:
        found = await self.owner.fetch(f"SELECT it::text FROM smarter_auth.{table} AS it ORDER BY 1")
        return [row["it"] for row in found]


@pytest.fixture
async def world(store: Store, owner: asyncpg.Connection) -> World:
    everybody = Management(store, "tester")
    theirs = Resource("bot", "1")
    await everybody.add_resource(theirs, account="theirs", domain="theirs.example.com", name="their-bot")
    key = await everybody.create("their-key", account="theirs", bind=[theirs], labels={"team": "their-label"})
    await everybody.deactivate(key.key.key_id)
    await everybody.add_resource(MINE, account="mine")
    mine = await everybody.create("my-key", account="mine", bind=[MINE])
    series = Series(*theirs, GRANTED, str(key.key.key_id), key.token.token_key, key.token.digest)
    await store.write_usage(Batch({series: 3}, uuid4(), 0.0))
    things = Things("theirs", theirs, key.key.key_id, "their-key", key.token, "their-label", "theirs.example.com")
    keys, many = Management(store, "me", scope="mine"), ManyKeys(store, "me", scope="mine")
    return World(keys, many, Listings(store, scope="mine"), mine, things, owner)


Act = Callable[[World, Things], Any]

ACTS: dict[str, list[Act]] = {
    "create": [
        lambda world, it: world.keys.create("one", account=it.account),
        lambda world, it: world.keys.create("one", bind=[it.resource]),
    ],
    "bind": [
        lambda world, it: world.keys.bind(it.key_id, MINE),
        lambda world, it: world.keys.bind(world.mine.key.key_id, it.resource),
        lambda world, it: world.keys.bind(it.key_id, it.resource),
    ],
    "unbind": [
        lambda world, it: world.keys.unbind(it.key_id, it.resource, allow_anonymous=True),
        lambda world, it: world.keys.unbind(world.mine.key.key_id, it.resource),
        lambda world, it: world.keys.unbind(it.key_id, MINE),
    ],
    "binding": [
        lambda world, it: world.keys.binding(it.key_id, it.resource),
        lambda world, it: world.keys.binding(it.key_id, MINE),
    ],
    "touch_binding": [lambda world, it: world.keys.touch_binding(it.key_id, it.resource)],
    "set_key": [
        lambda world, it: world.keys.set_key(it.key_id, name="other", labels={"a": "b", "team": None}),
        lambda world, it: world.keys.set_key(it.key_id, description="other", expires_at=None),
    ],
    "activate": [lambda world, it: world.keys.activate(it.key_id)],
    "deactivate": [lambda world, it: world.keys.deactivate(it.key_id)],
    "toggle_active": [lambda world, it: world.keys.toggle_active(it.key_id)],
    "rotate": [lambda world, it: world.keys.rotate(it.key_id, force=True)],
    "revoke": [
        lambda world, it: world.keys.revoke(it.key_id),
        lambda world, it: world.keys.revoke(it.key_id, unbind=True, allow_anonymous=True),
    ],
    "revoke_tokens": [lambda world, it: world.keys.revoke_tokens([it.token])],
    "owner": [lambda world, it: world.keys.owner(it.token.digest)],
    "owners": [lambda world, it: world.keys.owners([it.token.digest])],
    "held_key": [lambda world, it: world.keys.held_key(it.key_id)],
    "key": [lambda world, it: world.keys.key(it.key_id)],
    "keys": [lambda world, it: world.keys.keys(it.resource), lambda world, it: world.keys.keys()],
    "add_resource": [
        lambda world, it: world.keys.add_resource(it.resource),
        lambda world, it: world.keys.add_resource(Resource("bot", "77"), account=it.account),
        lambda world, it: world.keys.add_resource(Resource("bot", "77"), domain=it.domain),
    ],
    "number_resource": [lambda world, it: world.keys.number_resource("bot", account=it.account)],
    "set_resource": [
        lambda world, it: world.keys.set_resource(it.resource, name="other"),
        lambda world, it: world.keys.set_resource(it.resource, on_error="deny"),
        lambda world, it: world.keys.set_resource(MINE, account=it.account),
        lambda world, it: world.keys.set_resource(MINE, domain=it.domain),
    ],
    "protect": [lambda world, it: world.keys.protect(it.resource)],
    "unprotect": [lambda world, it: world.keys.unprotect(it.resource)],
    "remove_resource": [lambda world, it: world.keys.remove_resource(it.resource, allow_anonymous=True)],
    "resource": [lambda world, it: world.keys.resource(it.resource)],
    "resources": [lambda world, it: world.keys.resources("bot")],
}
ELSEWHERE = {"together": "what is done in its block is done by the others", "transaction_id": "a number"}


def _page(listed: Callable[..., Any], filters: Callable[[Things], object]) -> Act:
    return lambda world, it: listed(world.lists, filters(it))


def _every(listed: Callable[..., Any], filters: Callable[[Things], object]) -> Act:
    async def gone_through(world: World, it: Things) -> list[Any]:
        return [item async for item in listed(world.lists, filters(it))]

    return gone_through


def _events_of_stream(lists: Listings, filters: AuditFilters) -> Any:
    return lists.stream(filters).read()


_KEYS: list[Callable[[Things], KeyFilters]] = [
    lambda it: KeyFilters(key_id=it.key_id),
    lambda it: KeyFilters(token_key=it.token.token_key),
    lambda it: KeyFilters(resource=it.resource),
    lambda it: KeyFilters(account=it.account),
    lambda it: KeyFilters(find=it.name),
    lambda it: KeyFilters(labels={"team": it.label}),
    lambda it: KeyFilters(state="any", resource=it.resource),
]
_RESOURCES: list[Callable[[Things], ResourceFilters]] = [
    lambda it: ResourceFilters(kind="bot", find=it.resource.ref),
    lambda it: ResourceFilters(account=it.account),
    lambda it: ResourceFilters(key_id=it.key_id),
]
_EVENTS: list[Callable[[Things], AuditFilters]] = [
    lambda it: AuditFilters(resource=it.resource),
    lambda it: AuditFilters(key_id=it.key_id),
    lambda it: AuditFilters(account=it.account),
]
_USES: list[Callable[[Things], UsageFilters]] = [
    lambda it: UsageFilters(resource=it.resource, since=WEEK),
    lambda it: UsageFilters(key_id=it.key_id, since=WEEK),
    lambda it: UsageFilters(since=WEEK),
]

LISTS: dict[str, list[Act]] = {
    "keys": [_page(Listings.keys, of) for of in _KEYS],
    "every_key": [_every(Listings.every_key, of) for of in _KEYS],
    "attention": [lambda world, it: world.lists.attention(expiring_within=WEEK, unused_for=WEEK)],
    "key": [lambda world, it: world.lists.key(str(it.key_id)), lambda world, it: world.lists.key(it.name)],
    "resources": [_page(Listings.resources, of) for of in _RESOURCES],
    "every_resource": [_every(Listings.every_resource, of) for of in _RESOURCES],
    "audit": [_page(Listings.audit, of) for of in _EVENTS],
    "every_event": [_every(Listings.every_event, of) for of in _EVENTS],
    "stream": [_every(_events_of_stream, of) for of in _EVENTS],
    "usage": [_page(Listings.usage, of) for of in _USES],
    "every_total": [_every(Listings.every_total, of) for of in _USES],
    "usage_in_all": [_page(Listings.usage_in_all, of) for of in _USES],
    "traffic": [lambda world, it: world.lists.traffic()],
}


def _these(act: Callable[..., Any]) -> list[Act]:
    """An act on many keys: on those of a list, as a search found them."""
    return [
        lambda world, it: act(world.many, Chosen([it.key_id])),
        lambda world, it: act(world.many, Chosen([it.key_id], KeyFilters(resource=it.resource), datetime.now(UTC))),
    ]


def _rotate(many: ManyKeys, chosen: Chosen) -> Any:
    return many.rotate(chosen, lambda _: None, lambda: None, force=True)


async def _find(world: World, filters: KeyFilters) -> Any:
    return (await world.many.find(filters)).key_ids


MANY: dict[str, list[Act]] = {
    "find": [
        lambda world, it: _find(world, KeyFilters(account=it.account)),
        lambda world, it: _find(world, KeyFilters(resource=it.resource)),
        lambda world, it: _find(world, KeyFilters(labels={"team": it.label})),
    ],
    "revoke": _these(ManyKeys.revoke),
    "deactivate": _these(ManyKeys.deactivate),
    "rotate": _these(_rotate),
}


async def _answer(world: World, act: Act, things: Things) -> str:
    try:
        return things.hide(repr(await act(world, things)))
    except SmarterAuthError as error:
        return things.hide(f"{type(error).__name__} {error.code}: {error} {error.hint}")


def _cases(table: dict[str, list[Act]]) -> list[Any]:
    return [pytest.param(act, id=f"{name}-{number}") for name, acts in table.items() for number, act in enumerate(acts)]


@pytest.mark.parametrize("act", _cases(ACTS) + _cases(LISTS) + _cases(MANY))
async def test_what_another_account_has_answers_like_what_does_not_exist(world: World, act: Act) -> None:
    before = await world.rows()
    foreign, unknown = [await _answer(world, act, things) for things in (world.theirs, UNKNOWN)]
    assert foreign == unknown
    assert await world.rows() == before
    assert not any(word in foreign for word in ("theirs", "their-", str(world.theirs.key_id)))


@pytest.mark.parametrize(("room", "table"), [(Management, {**ACTS, **ELSEWHERE}), (Listings, LISTS), (ManyKeys, MANY)])
def test_every_public_method_stands_in_the_table(room: type, table: dict[str, Any]) -> None:
    methods = {name for name, _ in inspect.getmembers(room, inspect.isfunction) if not name.startswith("_")}
    assert methods == set(table)


async def test_whoever_has_a_scope_does_there_what_everybody_does(world: World) -> None:
    key_id = world.mine.key.key_id
    made = await world.keys.create("second", bind=[MINE], labels={"team": "mine"})
    assert made.key.account == "mine"
    assert (await world.keys.set_key(key_id, name="renamed")).name == "renamed"
    assert (await world.keys.rotate(key_id)).key.account == "mine"
    assert (await world.keys.unbind(key_id, MINE)).bindings == ()
    assert (await world.keys.bind(key_id, MINE)).key.bindings == (MINE,)
    assert (await world.keys.protect(MINE)).is_protected
    assert (await world.keys.set_resource(MINE, name="sales")).name == "sales"
    assert [key.name for key in await world.keys.keys()] == ["renamed", "second"]
    assert (await world.keys.revoke_tokens([made.token])).unknown == 0


async def test_only_without_a_scope_are_resources_registered_moved_and_removed(world: World) -> None:
    new = Resource("bot", "77")
    for refused in (
        world.keys.add_resource(new),
        world.keys.number_resource("bot"),
        world.keys.remove_resource(MINE, allow_anonymous=True),
        world.keys.set_resource(MINE, domain="mine.example.com"),
        world.keys.set_resource(MINE, on_error="deny"),
        world.keys.set_resource(MINE, account="mine"),
        world.keys.create("one", account="theirs"),
    ):
        with pytest.raises(OutOfScopeError):
            await refused
    with pytest.raises(NotFoundError):  # Binding it would take it over.
        await world.keys.bind(world.mine.key.key_id, new)


async def test_scope_holds_for_acts_that_are_done_together(world: World) -> None:
    async with world.keys.together() as acts:
        with pytest.raises(NotFoundError):
            await acts.revoke(world.theirs.key_id)
        assert [key.name for key in await acts.keys()] == ["my-key"]


async def test_what_an_attached_platform_has_is_for_those_without_a_scope(platform: Platform) -> None:
    profile = await platform.user("admin")
    for name, ref in (("bound", 42), ("noted", 43)):
        await platform.bot(name, profile, ref)
    key_id = await platform.key("first", profile)
    await platform.bind(42, key_id)
    async with open_pool(platform.database.manager) as pool:
        store = Store(pool)
        everybody, all_lists = Management(store, "tester"), Listings(store)
        await everybody.protect(Resource("llm_client", "43"))  # Noted in a row of ours.
        (shown,) = (await all_lists.keys()).items
        assert {str(one.resource) for one in (await all_lists.resources()).items} == {"llm_client:42", "llm_client:43"}
        keys, lists = Management(store, "me", scope=shown.account), Listings(store, scope=shown.account)
        assert [*(await lists.keys()).items, *(await lists.resources()).items] == []
        assert (await lists.keys(KeyFilters(key_id=shown.key_id))).items == ()
        assert (await keys.keys(), await keys.resources()) == ([], [])
        series = Series("llm_client", "43", ANONYMOUS, None, "", b"")
        await store.write_usage(Batch({series: 3}, uuid4(), 0.0))
        noted = UsageFilters(resource=Resource("llm_client", "43"))
        assert (await all_lists.usage(noted)).items
        assert (await lists.usage(noted)).items == ()
        assert "resource.protect" in {event.action for event in (await all_lists.audit()).items}
        assert (await lists.audit()).items == ()
        assert [one async for one in lists.stream().read()] == []
        for number, known in product(("42", "43", "901"), (keys.resource, keys.protect, keys.unprotect)):
            with pytest.raises(NotFoundError, match=f"There is no resource llm_client:{number}"):
                await known(Resource("llm_client", number))


@pytest.mark.parametrize(
    ("theirs", "unknown"),
    [
        ({"resource": Resource("bot", "1")}, {"resource": Resource("bot", "9")}),
        ({"key_id": UUID(int=1)}, {"key_id": UUID(int=9)}),
        ({"actor": "their operator"}, {"actor": "nobody"}),
        ({"reason": "revoked"}, {"reason": "nothing"}),
        ({"key_id": UUID(int=1), "reason": "revoked"}, {"key_id": UUID(int=9), "reason": "revoked"}),
        ({"resource": Resource("bot", "1"), "acts": True}, {"resource": Resource("bot", "9"), "acts": True}),
    ],
)
async def test_not_even_the_end_of_a_page_depends_on_what_another_account_did(
    world: World, theirs: dict[str, Any], unknown: dict[str, Any]
) -> None:
    """Both pages are empty: a page that says "go on" would tell that something was looked at."""
    await world.owner.execute(
        "INSERT INTO smarter_auth.audit_event (actor, action, kind, ref, account, key_id, reason)"
        " SELECT actor, action, 'bot', ref, account, $1, 'revoked'"
        "   FROM (VALUES ('10.0.0.0/24', 'request.deny', '1', 'theirs'), ('their operator', 'key.set', '1', 'theirs'),"
        "                ('10.0.0.0/24', 'request.deny', '2', 'mine'))"
        "        AS it (actor, action, ref, account), generate_series(1, 1100)",
        UUID(int=1),
    )
    for order in ("newest", "oldest"):
        page = await world.lists.audit(AuditFilters(**theirs), order=order, limit=1)
        assert page.items == ()
        same = await world.lists.audit(AuditFilters(**unknown), order=order, limit=1)
        assert (page.items, page.next is None) == (same.items, same.next is None)


async def test_reason_is_looked_for_as_it_is_shown(world: World) -> None:
    await world.owner.execute(
        "INSERT INTO smarter_auth.audit_event (actor, action, kind, ref, account, key_id, reason)"
        " VALUES ('10.0.0.0/24', 'request.deny', 'bot', '2', 'mine', $1, 'revoked')",
        world.theirs.key_id,
    )
    (event,) = (await world.lists.audit(AuditFilters(reason="unknown_token"))).items
    assert (event.key_id, event.reason) == (None, "unknown_token")


async def test_scope_holds_in_memory_too() -> None:
    store = MemoryStore().as_store
    everybody = Management(store, "tester")
    minted = await everybody.create("their-key", account="theirs", bind=[Resource("bot", "1")])
    scoped = Management(store, "me", scope="mine")
    assert (await scoped.keys(), await scoped.resources()) == ([], [])
    for refused in (
        scoped.owner(minted.token.digest),
        scoped.revoke(minted.key.key_id),
        scoped.protect(Resource("bot", "1")),
    ):
        with pytest.raises(NotFoundError):
            await refused
