"""What acts on keys leave behind: the key's fields, the audit, and errors that say what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from smarter_auth_mw.domain import Key, Resource
from smarter_auth_mw.errors import ConflictError, NotFoundError, RefusedError, UsageError, WouldOpenError
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.management.rotations import RotationOverlapsError
from smarter_auth_mw.postgres.store import Store
from smarter_auth_mw.testing.store import MemoryStore, MemoryTransaction
from tests.support.database import Database
from tests.support.lists import audited
from tests.support.store import pytest_generate_tests, store, store_url

__all__ = ["pytest_generate_tests", "store", "store_url"]

BOT, OTHER, THIRD = Resource("bot", "42"), Resource("bot", "43"), Resource("bot", "44")
DAY = timedelta(days=1)
Act = Callable[[Management, UUID], Awaitable[object]]


async def test_new_key_has_what_it_was_given_and_nothing_else(keys: Management) -> None:
    plain = (await keys.create("plain")).key
    assert (plain.account, plain.description, plain.expires_at, plain.labels) == ("default", "", None, {})
    labels = {"team": "sales", "stage": "live"}
    full = (
        await keys.create("full", description="for CI", expires_at=datetime(2999, 1, 1, tzinfo=UTC), labels=labels)
    ).key
    assert (full.description, full.expires_at, full.labels) == ("for CI", datetime(2999, 1, 1, tzinfo=UTC), labels)
    assert await keys.key(full.key_id) == full


async def test_labels_are_added_and_removed_one_by_one(keys: Management) -> None:
    key_id = (await keys.create("one", labels={"team": "sales", "stage": "live"})).key.key_id
    assert (await keys.set_key(key_id, labels={"team": None, "tier": "1"})).labels == {"stage": "live", "tier": "1"}
    assert (await keys.set_key(key_id, description="other")).labels == {"stage": "live", "tier": "1"}


async def test_what_cannot_be_stored_is_named(keys: Management) -> None:
    key_id = (await keys.create("one", description="x" * 10_000)).key.key_id
    for refused, says in (
        (keys.create(""), "The name has 0 characters"),
        (keys.create("two", description="x" * 10_001), "The description has 10.?001 characters"),
        (keys.create("two", labels={"Team": "sales"}), "'Team' cannot be part of a label"),
        (keys.set_key(key_id, name=""), "The name has 0 characters"),
        (keys.set_key(key_id, description="x" * 10_001), "The description has 10.?001 characters"),
        (keys.set_key(key_id, labels={"team": "two words"}), "'two words' cannot be part of a label"),
        (keys.set_key(key_id, expires_at=datetime(2999, 1, 1)), "has no time zone"),
    ):
        with pytest.raises(UsageError, match=says):
            await refused
    assert [key.labels for key in await keys.keys()] == [{}]
    assert (await keys.set_key(key_id, description="")).description == ""


async def test_binding_is_read_and_touched(keys: Management) -> None:
    key_id = (await keys.create("one", bind=[BOT])).key.key_id
    made = await keys.binding(key_id, BOT)
    assert (made.resource.resource, made.key.key_id) == (BOT, key_id)
    touched = await keys.touch_binding(key_id, BOT)
    assert (touched.id, touched.created_at) == (made.id, made.created_at)
    assert touched.updated_at > made.updated_at
    assert await keys.binding(key_id, BOT) == touched
    await keys.add_resource(OTHER)
    for act in (keys.binding, keys.touch_binding):
        with pytest.raises(NotFoundError, match=f"{key_id} is not bound to bot:43"):
            await act(key_id, OTHER)


async def test_keys_are_found_by_the_digests_of_their_tokens(keys: Management, store_kind: str) -> None:
    one, two = await keys.create("one", bind=[BOT]), await keys.create("two")
    unknown = bytes(64)
    assert await keys.owner(one.token.digest) == one.key
    found = await keys.owners([two.token.digest, unknown, one.token.digest])
    assert {digest: key.key_id for digest, key in found.items()} == {
        one.token.digest: one.key.key_id,
        two.token.digest: two.key.key_id,
    }
    assert found[one.token.digest].bindings == (() if store_kind == "postgresql" else (BOT,))
    with pytest.raises(NotFoundError, match="No key has a token with this digest"):
        await keys.owner(unknown)


async def test_key_that_is_gone_by_the_second_look_owns_no_token_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Management(MemoryStore().as_store, "tester")
    minted = await keys.create("one")

    async def gone(*_: object) -> dict[UUID, Key]:
        return {}

    monkeypatch.setattr(MemoryTransaction, "keys_by_id", gone)
    assert await keys.owners([minted.token.digest]) == {}


async def test_locked_key_is_the_key_without_its_bindings(store: Store, keys: Management, store_kind: str) -> None:
    key = (await keys.create("one", bind=[BOT, OTHER])).key
    bindings = () if store_kind == "postgresql" else key.bindings
    assert await keys.held_key(key.key_id) == replace(key, bindings=bindings)


async def test_locked_key_is_read_again_once_it_is_free(keys: Management, owner: asyncpg.Connection) -> None:
    key_id = (await keys.create("one")).key.key_id
    async with keys.together() as acts:
        await acts.rotate(key_id)
        waiting = asyncio.create_task(keys.rotate(key_id))
        async with asyncio.timeout(30):
            while not await owner.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.01)
    with pytest.raises(RotationOverlapsError):
        await waiting


async def test_errors_say_what_to_do(keys: Management) -> None:
    await keys.add_resource(OTHER, account="acme")
    living = (await keys.create("one", bind=[BOT])).key.key_id
    revoked = (await keys.create("two")).key.key_id
    await keys.revoke(revoked)
    for refused, error, says, hint in (
        (keys.key(uuid4()), NotFoundError, "There is no key", "smarter-auth key list"),
        (keys.activate(revoked), RefusedError, "revoked for good", "smarter-auth key create"),
        (keys.create("one"), ConflictError, "default already has a key named 'one'", "choose another name"),
        (keys.bind(living, OTHER), RefusedError, "belongs to account 'acme', the key to 'default'", "its own account"),
        (keys.bind(living, BOT), ConflictError, f"{living} is already bound to bot:42", ""),
    ):
        with pytest.raises(error, match=says) as caught:
            await refused
        assert hint in caught.value.hint


ON_A_KEY: dict[str, Act] = {
    "bind": lambda keys, key_id: keys.bind(key_id, OTHER),
    "unbind": lambda keys, key_id: keys.unbind(key_id, BOT, allow_anonymous=True),
    "touch_binding": lambda keys, key_id: keys.touch_binding(key_id, BOT),
    "set_key": lambda keys, key_id: keys.set_key(key_id, name="two"),
    "activate": lambda keys, key_id: keys.activate(key_id),
    "deactivate": lambda keys, key_id: keys.deactivate(key_id),
    "toggle_active": lambda keys, key_id: keys.toggle_active(key_id),
    "rotate": lambda keys, key_id: keys.rotate(key_id),
    "revoke": lambda keys, key_id: keys.revoke(key_id),
    "held_key": lambda keys, key_id: keys.held_key(key_id),
}


@pytest.mark.parametrize("act", ON_A_KEY)
async def test_platforms_key_in_memory_is_read_and_never_written(act: str) -> None:
    kept = MemoryStore()
    keys = Management(kept.as_store, "tester")
    key = (await keys.create("one", bind=[BOT])).key
    kept.tables.keys[key.key_id] = replace(kept.tables.keys[key.key_id], is_platforms=True)
    with pytest.raises(RefusedError, match="belongs to the platform") as refused:
        await ON_A_KEY[act](keys, key.key_id)
    assert "Django admin" in refused.value.hint
    assert (await keys.key(key.key_id)) == replace(key, is_platforms=True)


async def test_platforms_key_in_memory_does_not_keep_leaked_tokens_of_others_valid() -> None:
    kept = MemoryStore()
    keys = Management(kept.as_store, "tester")
    made = [await keys.create(str(number)) for number in range(5)]
    for minted in made[:2]:
        kept.tables.keys[minted.key.key_id] = replace(kept.tables.keys[minted.key.key_id], is_platforms=True)
    with pytest.raises(RefusedError, match="belongs to the platform"):
        await keys.revoke_tokens([minted.token for minted in made])
    assert [(await keys.key(minted.key.key_id)).revoked_at is not None for minted in made] == 2 * [False] + 3 * [True]


UNTOLD: dict[str, Act] = {
    "bind": lambda keys, key_id: keys.bind(key_id, BOT),
    "unbind": lambda keys, key_id: keys.unbind(key_id, BOT),
    "deactivate": lambda keys, key_id: keys.deactivate(key_id),
    "toggle_active": lambda keys, key_id: keys.toggle_active(key_id),
    "revoke": lambda keys, key_id: keys.revoke(key_id, unbind=True),
}


@pytest.mark.parametrize("act", UNTOLD)
async def test_no_act_in_memory_opens_what_it_was_not_told_to_open(act: str) -> None:
    keys = Management(MemoryStore().as_store, "tester", require="active")
    key_id = (await keys.create("one", bind=[OTHER] if act == "bind" else [BOT])).key.key_id
    if act == "bind":  # Latched by a key that is gone; deactivated keys do not protect.
        await keys.revoke((await keys.create("gone", bind=[BOT])).key.key_id, unbind=True)
        await keys.deactivate(key_id, allow_anonymous=True)
    with nullcontext() if act == "revoke" else pytest.raises(WouldOpenError, match="bot:42"):
        await UNTOLD[act](keys, key_id)
    assert (await keys.resource(BOT)).is_protected


async def test_rotation_of_a_token_that_is_not_the_newest_is_refused(keys: Management) -> None:
    minted = await keys.create("one")
    rotated = await keys.rotate(minted.key.key_id, timedelta(0), replaces=minted.token.token_key)
    with pytest.raises(ConflictError):
        await keys.rotate(minted.key.key_id, force=True, replaces=minted.token.token_key)
    assert (await keys.key(minted.key.key_id)).token_keys == rotated.key.token_keys


async def test_audit_has_what_each_act_changed_and_why(keys: Management, store: Store, database: Database) -> None:
    minted = await keys.create("one", account="acme", labels={"team": "sales"}, bind=[BOT])
    key_id = minted.key.key_id
    await keys.bind(key_id, OTHER)
    await keys.touch_binding(key_id, OTHER)
    await keys.unbind(key_id, OTHER, allow_anonymous=True)
    await keys.set_key(key_id, description="other", labels={"team": "it"})
    await keys.toggle_active(key_id)
    await keys.toggle_active(key_id)
    rotated = await keys.rotate(key_id)
    revoked = await keys.revoke(key_id)
    assert revoked.revoked_at is not None
    assert revoked.bindings == (BOT,)
    events = await audited(store)
    assert {(event.actor, event.account) for event in events} == {("tester", "acme")}
    assert [(event.action, event.key_id and 1, event.ref, _differences(event)) for event in events] == [
        ("key.create", 1, None, {"name": (None, "one"), "labels": (None, {"team": "sales"})}),
        ("resource.add", None, "42", {"account": (None, "acme")}),
        ("key.bind", 1, "42", {}),
        ("resource.add", None, "43", {"account": (None, "acme")}),
        ("key.bind", 1, "43", {}),
        ("binding.touch", 1, "43", {}),
        ("key.unbind", 1, "43", {}),
        ("resource.unprotect", None, "43", {"protection": ("bound", "open")}),
        ("key.set", 1, None, {"description": ("", "other"), "labels": ({"team": "sales"}, {"team": "it"})}),
        ("key.deactivate", 1, None, {"is_active": (True, False)}),
        ("key.activate", 1, None, {"is_active": (False, True)}),
        ("key.rotate", 1, None, {}),
        ("key.revoke", 1, None, {"revoked_at": (None, revoked.revoked_at.isoformat())}),
    ]
    until, head = rotated.previous_valid_until.isoformat(), rotated.token.token_key
    assert {event.action: event.reason for event in events if event.reason} == {
        "resource.unprotect": "unbind --allow-anonymous",
        "key.rotate": f"the previous token is valid until {until}, the new one begins with {head}",
    }


def _differences(event: Any) -> dict[str, tuple[Any, Any]]:
    """What an event says has changed, of what a new record has from its maker."""
    before, after = event.before or {}, event.after or {}
    names = after.keys() if before else after.keys() & {"name", "labels", "account"}
    return {name: (before.get(name), after[name]) for name in names if before.get(name) != after[name]}
