"""Operators: what each role may do, how they are made and end, and how they are recognised."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from smarter_auth_mw.errors import ConflictError, NotFoundError, RefusedError, UsageError
from smarter_auth_mw.management.listings import AuditFilters, Listings
from smarter_auth_mw.management.operators import Doorkeeper, Operator, Operators, Role, is_allowed, is_in_scope
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from smarter_auth_mw.tokens import Token, mint, mint_operator_token
from tests.support.database import Database

VIEWER, MANAGER, ADMIN = Role


@pytest.fixture
async def owners_store(database: Database) -> AsyncIterator[Store]:
    async with open_pool(database.owner) as pool:
        yield Store(pool)


@pytest.fixture
def operators(owners_store: Store) -> Operators:
    return Operators(owners_store, actor="tester")


@pytest.fixture
def door(store: Store) -> Doorkeeper:
    """How a process that serves the API recognises operators: as a manager role."""
    return Doorkeeper(store)


def _operator(role: Role, account: str | None) -> Operator:
    return Operator(UUID(int=1), "somebody", role, account)


ALLOWED = {
    (VIEWER, VIEWER),
    (MANAGER, VIEWER),
    (MANAGER, MANAGER),
    (ADMIN, VIEWER),
    (ADMIN, MANAGER),
    (ADMIN, ADMIN),
}


@pytest.mark.parametrize(("role", "least", "account", "everywhere"), [*product(Role, Role, [None, "a"], [False, True])])
def test_role_and_account_decide_what_is_allowed(
    role: Role, least: Role, account: str | None, *, everywhere: bool
) -> None:
    expected = (role, least) in ALLOWED and (account is None or not everywhere)
    assert is_allowed(_operator(role, account), least, everywhere=everywhere) is expected


@pytest.mark.parametrize(
    ("own", "account", "is_seen"),
    [
        *((None, account, True) for account in ("a", "b", "", None)),
        ("a", "a", True),
        *(("a", account, False) for account in ("b", "A", "", "a ", None)),
        ("", "", True),
        ("", None, False),
    ],
)
def test_scope_is_one_account_or_all(own: str | None, account: str | None, *, is_seen: bool) -> None:
    assert is_in_scope(_operator(ADMIN, own), account) is is_seen


async def test_operator_is_made_and_recognised_by_the_token_alone(operators: Operators, door: Doorkeeper) -> None:
    minted = await operators.create("ada", MANAGER, account="acme")
    found = await door.by_token(minted.token)
    assert found == Operator(minted.operator.operator_id, "ada", MANAGER, "acme", None, minted.token.token_key)
    assert found.actor == "operator ada"
    assert minted.token.is_operators
    for other in (mint_operator_token(), mint(), mint("checked"), Token(b""), Token(minted.token.token_key.encode())):
        assert await door.by_token(other) is None


async def test_name_is_used_once(operators: Operators) -> None:
    await operators.create("ada", VIEWER)
    await operators.revoke("ada")
    with pytest.raises(ConflictError, match="is or was used"):
        await operators.create("ada", ADMIN)
    assert [operator.role for operator in await operators.all()] == [VIEWER]


async def test_demotion_counts_at_the_next_request(operators: Operators, door: Doorkeeper) -> None:
    token = (await operators.create("ada", ADMIN)).token
    session = await door.sign_in(token)
    assert session is not None
    await operators.set("ada", role=VIEWER, account="acme")
    for found in (await door.by_token(token), await door.by_session(session)):
        assert found is not None
        assert (found.role, found.account) == (VIEWER, "acme")
    await operators.set("ada", account=None)
    found = await door.by_token(token)
    assert found is not None
    assert (found.role, found.account) == (VIEWER, None)


async def test_revoked_operator_is_nobody_and_stays_so(operators: Operators, door: Doorkeeper) -> None:
    token = (await operators.create("ada", ADMIN)).token
    session = await door.sign_in(token)
    assert session is not None
    first = await operators.revoke("ada")
    assert await operators.revoke("ada") == first
    assert (await door.by_token(token), await door.by_session(session), await door.sign_in(token)) == (None, None, None)
    for act in (operators.set("ada", role=ADMIN), operators.rotate("ada")):
        with pytest.raises(RefusedError, match="revoked for good"):
            await act


async def test_expired_operator_is_nobody(operators: Operators, door: Doorkeeper, owner: asyncpg.Connection) -> None:
    token = (await operators.create("ada", ADMIN, expires_at=datetime.now(UTC) + timedelta(days=1))).token
    assert await door.by_token(token) is not None
    await owner.execute("UPDATE smarter_auth.operator SET expires_at = now()")
    assert await door.by_token(token) is None


async def test_rotation_ends_earlier_tokens_and_their_sessions(operators: Operators, door: Doorkeeper) -> None:
    first = (await operators.create("ada", ADMIN)).token
    session = await door.sign_in(first)
    assert session is not None
    second = (await operators.rotate("ada")).token
    assert (await door.by_token(first), await door.by_session(session)) == (None, None)
    third = await operators.rotate("ada", timedelta(hours=1))
    assert await door.by_token(second) is not None
    assert await door.by_token(third.token) is not None
    assert [token.token_key for token in third.operator.tokens] == [
        token.token_key for token in (first, second, third.token)
    ]


async def test_policy_bounds_the_life_of_an_operator(owners_store: Store) -> None:
    operators = Operators(owners_store, "tester", longest_life=timedelta(days=90))
    made = await operators.create("ada", ADMIN)
    assert made.operator.expires_at is not None
    assert made.operator.expires_at - datetime.now(UTC) <= timedelta(days=90)
    with pytest.raises(RefusedError, match="MAX_KEY_LIFETIME"):
        await operators.create("bob", ADMIN, expires_at=datetime.now(UTC) + timedelta(days=91))
    with pytest.raises(RefusedError, match="is in the past"):
        await operators.set("ada", expires_at=datetime.now(UTC))


@pytest.mark.parametrize("name", ["", "\t ", "x" * 256, "a\0b", "\ud800"])
async def test_name_that_cannot_be_stored_is_refused(operators: Operators, name: str) -> None:
    with pytest.raises(UsageError):
        await operators.create(name, VIEWER)


async def test_unknown_operator_is_not_found(operators: Operators) -> None:
    for act in (operators.revoke("nobody"), operators.rotate("nobody"), operators.set("nobody", role=ADMIN)):
        with pytest.raises(NotFoundError, match="no operator 'nobody'"):
            await act


@pytest.mark.parametrize("url", ["runtime", "manager"])
async def test_only_the_owner_makes_and_changes_operators(database: Database, operators: Operators, url: str) -> None:
    await operators.create("ada", VIEWER)
    async with open_pool(getattr(database, url)) as pool:
        others = Operators(Store(pool), "tester")
        acts: list[Any] = [
            others.create("eve", ADMIN),
            others.set("ada", role=ADMIN),
            others.rotate("ada"),
            others.revoke("ada"),
            others.all(),
        ]
        for act in acts:
            with pytest.raises(RefusedError, match="Only the owner") as refused:
                await act
            assert "OWNER@HOST" in refused.value.hint
    assert [(operator.name, operator.role) for operator in await operators.all()] == [("ada", VIEWER)]


# Sessions


async def test_session_ends_when_signed_out_here_or_everywhere(operators: Operators, door: Doorkeeper) -> None:
    token = (await operators.create("ada", ADMIN)).token
    other = await door.sign_in((await operators.create("bob", ADMIN)).token)
    one, two, three = [await door.sign_in(token) for _ in range(3)]
    assert one is not None
    assert two is not None
    assert three is not None
    assert other is not None
    await door.sign_out(one)
    assert await door.by_session(one) is None
    assert await door.by_session(two) is not None
    await door.sign_out(two, everywhere=True)
    assert (await door.by_session(two), await door.by_session(three)) == (None, None)
    assert await door.by_session(other) is not None


@pytest.mark.parametrize(
    ("column", "age", "is_open"),
    [
        ("seen_at", "29 minutes", True),
        ("seen_at", "31 minutes", False),
        ("created_at", "7 hours 59 minutes", True),
        ("created_at", "8 hours 1 minute", False),
    ],
)
async def test_session_ends_when_idle_or_old(
    operators: Operators, door: Doorkeeper, owner: asyncpg.Connection, column: str, age: str, *, is_open: bool
) -> None:
    session = await door.sign_in((await operators.create("ada", ADMIN)).token)
    assert session is not None
    await owner.execute(f"UPDATE smarter_auth.operator_session SET {column} = now() - interval '{age}'")
    assert (await door.by_session(session) is not None) is is_open
    await door.sign_in((await operators.create("bob", ADMIN)).token)
    assert await owner.fetchval("SELECT count(*) FROM smarter_auth.operator_session") == (2 if is_open else 1)


async def test_use_is_written_at_most_hourly_and_sight_at_most_once_a_minute(
    operators: Operators, door: Doorkeeper, owner: asyncpg.Connection
) -> None:
    token = (await operators.create("ada", ADMIN)).token
    session = await door.sign_in(token)
    assert session is not None

    async def written() -> list[Any]:
        await door.by_token(token)
        await door.by_session(session)
        query = "SELECT t.xmin::text, s.xmin::text FROM smarter_auth.operator_token t, smarter_auth.operator_session s"
        return list(await owner.fetchrow(query) or ())

    first = await written()
    assert await written() == first
    await owner.execute("UPDATE smarter_auth.operator_token SET last_used_at = now() - interval '61 minutes'")
    await owner.execute("UPDATE smarter_auth.operator_session SET seen_at = now() - interval '61 seconds'")
    second = await written()
    assert await written() == second
    assert await owner.fetchval("SELECT now() - last_used_at < '1 minute' FROM smarter_auth.operator_token")
    assert await owner.fetchval("SELECT now() - seen_at < '1 minute' FROM smarter_auth.operator_session")


async def test_leaked_token_ends_with_its_sessions(operators: Operators, door: Doorkeeper) -> None:
    leaked = (await operators.create("ada", ADMIN, account="acme")).token
    kept = (await operators.create("bob", ADMIN)).token
    session = await door.sign_in(leaked)
    assert session is not None
    digests = [leaked.digest, leaked.digest, mint_operator_token().digest]
    assert await door.end_tokens([*digests, kept.digest], "other", "operator eve") == 0
    assert await door.end_tokens(digests, "acme", "operator eve") == 1
    assert await door.end_tokens(digests, None, "operator eve") == 0
    assert (await door.by_token(leaked), await door.by_session(session)) == (None, None)
    assert await door.by_token(kept) is not None


async def test_every_act_stands_in_the_audit_without_a_secret(
    operators: Operators, door: Doorkeeper, store: Store, database: Database
) -> None:
    token = (await operators.create("ada", ADMIN)).token
    session = await door.sign_in(token)
    await operators.set("ada", role=VIEWER)
    new = (await operators.rotate("ada", timedelta(hours=1))).token
    await door.end_tokens([new.digest], None, "operator bob")
    await operators.revoke("ada")
    events = [event async for event in Listings(store).every_event(AuditFilters(action="operator.*"))]
    assert [(event.actor, event.action.removeprefix("operator."), event.account) for event in events] == [
        ("tester", "create", None),
        ("operator ada", "sign_in", None),
        ("tester", "set", None),
        ("tester", "rotate", None),
        ("operator bob", "end_token", None),
        ("tester", "revoke", None),
    ]
    assert all((event.after or {})["name"] == "ada" for event in events)
    text = repr(events)
    assert not [secret for secret in (token.reveal(), new.reveal(), session, token.digest.hex()) if str(secret) in text]
