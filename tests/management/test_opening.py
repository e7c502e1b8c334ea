"""What opens, asks: every act, under both settings of REQUIRE, with the other keys in every state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count, product
from typing import Literal
from uuid import UUID

import asyncpg
import pytest

from smarter_auth_mw.decision import Require, is_protected
from smarter_auth_mw.domain import Key, Resource, Target
from smarter_auth_mw.errors import RefusedError, WouldOpenError
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.postgres.store import Store
from smarter_auth_mw.postgres.transaction import Transaction
from smarter_auth_mw.testing.store import MemoryStore
from tests.support.lists import audited

BOT = Resource("bot", "42")
REQUIRES: tuple[Require, ...] = ("bound", "active")
State = Literal["active", "inactive", "revoked"]
STATES: tuple[State, ...] = ("active", "inactive", "revoked")
OTHERS: tuple[tuple[State, ...], ...] = (
    (),
    ("active",),
    ("inactive",),
    ("revoked",),
    ("active", "inactive"),
    ("inactive", "inactive"),
    ("inactive", "revoked"),
)
Act = Callable[[Management, UUID, Resource, bool], Awaitable[object]]
ACTS: dict[str, Act] = {
    "bind": lambda keys, key_id, bot, allow: keys.bind(key_id, bot, allow_anonymous=allow),
    "unbind": lambda keys, key_id, bot, allow: keys.unbind(key_id, bot, allow_anonymous=allow),
    "activate": lambda keys, key_id, _, __: keys.activate(key_id),
    "deactivate": lambda keys, key_id, _, allow: keys.deactivate(key_id, allow_anonymous=allow),
    "toggle": lambda keys, key_id, _, allow: keys.toggle_active(key_id, allow_anonymous=allow),
    "revoke": lambda keys, key_id, _, __: keys.revoke(key_id),
    "revoke and unbind": lambda keys, key_id, _, allow: keys.revoke(key_id, unbind=True, allow_anonymous=allow),
    "set": lambda keys, key_id, _, __: keys.set_key(key_id, description="changed"),
    "rotate": lambda keys, key_id, _, __: keys.rotate(key_id),
    "remove": lambda keys, _, bot, allow: keys.remove_resource(bot, allow_anonymous=allow),
    "protect": lambda keys, _, bot, __: keys.protect(bot),
}


_numbers = count(1)


class Scene:
    """Makes resources, each with a key that is acted on and other keys beside it."""

    def __init__(self, store: Store, require: Require) -> None:
        self.store = store
        self.require = require
        self.keys = Management(store, "tester", require=require)

    async def key(self, state: State, *bound: Resource) -> UUID:
        minted = await self.keys.create(f"key {next(_numbers)}", bind=bound)
        key_id = minted.key.key_id
        if state == "inactive":
            await self.keys.deactivate(key_id, allow_anonymous=True)
        if state == "revoked":
            await self.keys.revoke(key_id)
        return key_id

    async def resource(self, others: tuple[State, ...], *, is_declared: bool) -> Resource:
        """One that is latched by a key that has been taken off again, with these other keys."""
        bot = Resource("bot", str(next(_numbers)))
        await self.keys.add_resource(bot, protect=is_declared)
        gone = await self.key("active", bot)
        await self.keys.revoke(gone, unbind=True)
        for state in others:
            await self.key(state, bot)
        return bot

    async def is_protected(self, bot: Resource) -> bool:
        """Whether requests find it so."""
        return is_protected((await self.store.read(Target(bot))).bindings, require=self.require)


@pytest.mark.parametrize("require", REQUIRES)
@pytest.mark.parametrize("act", ACTS)
async def test_act_that_opens_asks_and_no_other_does(act: str, require: Require) -> None:
    """In memory, since there are a thousand cases; that PostgreSQL knows the same facts is a test of its own."""
    scene = Scene(MemoryStore().as_store, require)
    opened = 0
    for own, others, is_declared in product(STATES, OTHERS, (False, True)):
        bot = await scene.resource(others, is_declared=is_declared)
        key_id = await scene.key(own, *([] if act == "bind" else [bot]))
        case = f"{act} a key that is {own}, beside {others}, {is_declared=}"
        was_protected = await scene.is_protected(bot)
        try:
            await ACTS[act](scene.keys, key_id, bot, False)
        except WouldOpenError:
            assert await scene.is_protected(bot) is was_protected is True, case
            await ACTS[act](scene.keys, key_id, bot, True)
            assert not await scene.is_protected(bot), case
            opened += 1
        except RefusedError:
            assert await scene.is_protected(bot) is was_protected, case
        else:
            assert await scene.is_protected(bot) or not was_protected, case
    may_open = {"unbind"} if require == "bound" else {"bind", "unbind", "deactivate", "toggle", "revoke and unbind"}
    assert (opened > 0) is (act in may_open)


async def test_postgresql_judges_as_requests_are_decided(store: Store) -> None:
    for require, others, is_declared in product(REQUIRES, OTHERS, (False, True)):
        scene = Scene(store, require)
        bot = await scene.resource(others, is_declared=is_declared)
        async with store.transaction() as records:
            (closure,) = await records.closures([bot])
        assert is_protected(closure, require=require) is await scene.is_protected(bot), (require, others, is_declared)


@pytest.mark.parametrize(
    ("own", "others", "act"),
    [
        ("revoked", ("inactive",), "unbind"),
        ("active", ("inactive",), "unbind"),
        ("inactive", (), "bind"),
        ("active", ("inactive",), "deactivate"),
    ],
)
async def test_where_deactivated_keys_do_not_protect(
    store: Store, own: State, others: tuple[State, ...], act: str
) -> None:
    scene = Scene(store, "active")
    bot = await scene.resource(others, is_declared=False)
    key_id = await scene.key(own, *([] if act == "bind" else [bot]))
    with pytest.raises(WouldOpenError, match=f"This would open {bot} to anyone") as refused:
        await ACTS[act](scene.keys, key_id, bot, False)
    assert "--allow-anonymous" in refused.value.hint
    assert f"resource protect {bot}" in refused.value.hint


async def test_two_who_deactivate_the_last_two_keys_at_once_do_not_open_the_resource(store: Store) -> None:
    scene = Scene(store, "active")
    for _ in range(3):
        bot = await scene.resource((), is_declared=False)
        key_ids = [await scene.key("active", bot) for _ in range(2)]
        done = await asyncio.gather(*(scene.keys.deactivate(key_id) for key_id in key_ids), return_exceptions=True)
        assert {type(result) for result in done} == {Key, WouldOpenError}
        assert await scene.is_protected(bot)


async def test_two_whose_acts_differ_do_not_open_the_resource_together(store: Store) -> None:
    scene = Scene(store, "active")
    for _ in range(3):
        bot = await scene.resource((), is_declared=False)
        one, other = [await scene.key("active", bot) for _ in range(2)]
        acts = (scene.keys.unbind(one, bot), scene.keys.deactivate(other))
        done = await asyncio.gather(*acts, return_exceptions=True)
        assert {type(result) for result in done} == {Key, WouldOpenError}
        assert await scene.is_protected(bot)


async def test_key_of_many_resources_opens_none_of_them(store: Store) -> None:
    scene = Scene(store, "active")
    bots = [await scene.resource((), is_declared=False) for _ in range(5)]
    key_id = await scene.key("active", *bots)
    with pytest.raises(WouldOpenError, match="and 2 others to anyone"):
        await scene.keys.deactivate(key_id)
    assert (await scene.keys.key(key_id)).is_active
    await scene.keys.deactivate(key_id, allow_anonymous=True)
    assert [await scene.is_protected(bot) for bot in bots] == [False] * 5


@pytest.mark.parametrize(("number", "others"), [(1, ""), (2, ""), (3, ""), (4, " and 1 other"), (5, " and 2 others")])
async def test_refusal_names_three_resources_counts_the_others_and_lists_all(number: int, others: str) -> None:
    scene = Scene(MemoryStore().as_store, "active")
    bots = sorted([await scene.resource((), is_declared=False) for _ in range(number)])
    key_id = await scene.key("active", *bots)
    with pytest.raises(WouldOpenError) as refused:
        await scene.keys.deactivate(key_id)
    assert refused.value.message == f"This would open {', '.join(map(str, bots[:3]))}{others} to anyone."
    assert refused.value.hint.endswith(f"smarter-auth resource protect {bots[0]}")
    assert refused.value.opened == tuple(bots)


async def test_act_may_open_the_resources_that_are_named_and_no_others() -> None:
    scene = Scene(MemoryStore().as_store, "active")
    bots = [await scene.resource((), is_declared=False) for _ in range(3)]
    key_id = await scene.key("active", *bots)
    with pytest.raises(WouldOpenError) as refused:
        await scene.keys.deactivate(key_id, allow_anonymous=bots[1:])
    assert refused.value.opened == (bots[0],)
    await scene.keys.deactivate(key_id, allow_anonymous=bots)
    assert [await scene.is_protected(bot) for bot in bots] == [False] * 3


async def test_removed_resource_takes_every_binding_along_and_writes_each_down(store: Store) -> None:
    scene = Scene(store, "bound")
    bot = await scene.resource(("active",) * 3, is_declared=False)
    await scene.keys.remove_resource(bot, allow_anonymous=True)
    actions = [event.action for event in await audited(store, resource=bot)]
    assert actions[-5:] == ["key.unbind"] * 3 + ["resource.unprotect", "resource.remove"]


class Measured:
    """A store that counts how many rows of keys and bindings each transaction reads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.read: list[int] = []

    @asynccontextmanager
    async def transaction(self, scope: str | None = None) -> AsyncIterator[Transaction]:
        async with self._store.bare_transaction() as connection:
            before = await connection.fetchval(_ROWS_READ)
            yield Transaction(connection, scope)
            self.read.append(await connection.fetchval(_ROWS_READ) - before)


_ROWS_READ = """
SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_xact_user_tables
 WHERE relname IN ('key', 'binding', 'token')
"""


async def test_write_does_not_load_all_keys_of_a_resource(store: Store, owner: asyncpg.Connection) -> None:
    measured = Measured(store)
    keys = Management(measured, "tester", require="active")
    await keys.add_resource(BOT)
    await owner.execute("""
        INSERT INTO smarter_auth.key (name) SELECT 'many ' || n FROM generate_series(1, 1000) AS n;
        INSERT INTO smarter_auth.binding (resource_id, key_id, account)
        SELECT resource.id, key_id, key.account FROM smarter_auth.key CROSS JOIN smarter_auth.resource;
        ANALYZE
    """)
    key_id = (await keys.create("mine")).key.key_id
    for act in ("bind", "deactivate", "activate", "unbind", "protect"):
        measured.read.clear()
        await ACTS[act](keys, key_id, BOT, False)
        assert measured.read[0] < 50, (act, measured.read)  # What comes after it is the answer, and locks nothing.
    measured.read.clear()
    assert len((await keys.resource(BOT, most=11)).keys) == 11
    assert measured.read[0] < 50
    await keys.resource(BOT)
    assert measured.read[1] >= 1000
