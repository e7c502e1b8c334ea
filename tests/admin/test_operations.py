"""Tests that the table of operations generates: who may do what, what another account's things look like, and that no
GET changes anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from smarter_auth_mw.admin.call import Operation
from smarter_auth_mw.admin.operations import OPERATIONS
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.management.operators import Operator, Role, is_allowed
from smarter_auth_mw.tokens import mint
from tests.support.admin import FOREIGN, OWN, Caller, Site

VIEWER, MANAGER, ADMIN = Role
WHO = [*product(Role, [None, OWN])]
UNKNOWN_ID, UNKNOWN_REF = "11111111-1111-4111-8111-111111111111", "777"

BODIES: dict[str, dict[str, Any]] = {
    "create_resource": {"kind": "bot", "ref": "5"},
    "change_resource": {"name": "renamed"},
    "unprotect_resource": {"confirm": "bot:REF"},
    "create_key": {"name": "new", "bind": ["bot:REF"]},
    "revoke_keys": {"key_ids": ["KEY"]},
    "change_key": {"name": "renamed"},
    "rotate_key": {"token_key": "TOKEN_KEY", "force": True},
    "report_leaks": {"tokens": ["TOKEN"]},
    "explain": {"url": "/bots/REF"},
}
"""A body for each operation that takes one; words in capitals stand for what is another account's, or unknown."""

QUERIES: dict[str, list[str]] = {
    "list_keys": ["resource=bot:REF", "key_id=KEY", "token_key=TOKEN_KEY&state=any", "find=secret"],
    "list_resources": ["key_id=KEY", "kind=bot&find=REF", "find=REF"],
    "list_usage": ["resource=bot:REF", "key=KEY", "resource=bot:REF&key=KEY", "resource=bot:1&key=KEY"],
    "list_audit": ["resource=bot:REF", "key=KEY", "reason=revoked", "actor=somebody"],
    "unbind_key": ["", "allow_anonymous=true"],
    "deactivate_key": ["", "allow_anonymous=true"],
}
"""Queries that name something; the others have none."""


def operation_id(value: object) -> str:
    return value.name if isinstance(value, Operation) else str(value)


def _path(operation: Operation, ref: str, key_id: str) -> str:
    return operation.path.format(kind="bot", ref=ref, key_id=key_id)


# Roles


@pytest.mark.parametrize("operation", OPERATIONS, ids=operation_id)
async def test_role_matrix(site: Site, operation: Operation) -> None:
    path = _path(operation, UNKNOWN_REF, UNKNOWN_ID)
    assert (await Caller(site.client)(operation.method, path)).status_code == 401
    for role, account in WHO:
        caller = await site.caller(role, account)
        response = await caller(operation.method, path)
        is_refused = response.status_code == 403
        operator = Operator(UUID(int=0), "", role, account)
        assert is_refused is not is_allowed(operator, operation.role, everywhere=operation.everywhere), (role, account)
        if is_refused:
            assert response.json()["role"] == operation.role.value
        assert response.status_code != 401


def test_reading_needs_a_viewer_and_opening_an_admin() -> None:
    least = {operation.name: operation.role for operation in OPERATIONS}
    assert {name for name, role in least.items() if role is ADMIN} == {"unprotect_resource"}
    reading = {operation.name for operation in OPERATIONS if operation.method == "GET"} | {"explain"}
    assert {name for name, role in least.items() if role is VIEWER} == reading
    everywhere = {operation.name for operation in OPERATIONS if operation.everywhere}
    assert everywhere == {"create_resource", "remove_resource"}


def test_every_operation_has_a_sample_of_what_it_takes() -> None:
    assert {operation.name for operation in OPERATIONS if operation.body} == set(BODIES)
    assert set(QUERIES) <= {operation.name for operation in OPERATIONS}


# Accounts


@pytest.fixture
async def foreign(writes: Management) -> dict[str, str]:
    """A key and a resource of another account; and some of the own, so that there is something to see."""
    await writes.create("own", account=OWN, bind=[Resource("bot", "1")])
    minted = await writes.create("secret", account=FOREIGN, bind=[Resource("bot", "42"), Resource("bot", "43")])
    revoked = await writes.create("secret revoked", account=FOREIGN)
    await writes.revoke(revoked.key.key_id)
    return {
        "KEY": str(minted.key.key_id),
        "REF": "42",
        "TOKEN_KEY": minted.token.token_key,
        "TOKEN": minted.token.reveal(),
    }


def _unknown() -> dict[str, str]:
    token = mint()
    return {"KEY": UNKNOWN_ID, "REF": UNKNOWN_REF, "TOKEN_KEY": token.token_key, "TOKEN": token.reveal()}


def _filled(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _filled(inner, names) for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, names) for inner in value]
    if not isinstance(value, str):
        return value
    return re.sub("|".join(sorted(names, key=len, reverse=True)), lambda found: names[found[0]], value)


def _requests(operation: Operation, names: dict[str, str]) -> Iterator[tuple[str, str, Any]]:
    path = _path(operation, names["REF"], names["KEY"])
    for query in QUERIES.get(operation.name, [""]):
        url = f"{path}?{_filled(query, names)}" if query else path
        yield operation.method, url, _filled(BODIES.get(operation.name), names)


async def _answers(caller: Caller, operation: Operation, names: dict[str, str]) -> list[tuple[int, str, Any]]:
    """What each request is answered, with the names that were asked for replaced."""
    answers = []
    for method, url, body in _requests(operation, names):
        response = await caller(method, url, body)
        text = response.text
        for word, value in names.items():
            text = text.replace(value, word)
        headers = {name: value for name, value in response.headers.items() if name not in ("content-length", "link")}
        answers.append((response.status_code, text, headers))
    return answers


ON_THINGS = [
    operation
    for operation in OPERATIONS
    if not operation.everywhere and ("{" in operation.path or operation.name in {*BODIES, *QUERIES})
]


@pytest.mark.parametrize("role", [VIEWER, ADMIN], ids=str)
@pytest.mark.parametrize("operation", ON_THINGS, ids=operation_id)
async def test_what_is_another_accounts_is_answered_byte_for_byte_as_what_does_not_exist(
    site: Site, foreign: dict[str, str], owner: asyncpg.Connection, operation: Operation, role: Role
) -> None:
    caller = await site.caller(role, OWN)
    before = await state(owner)
    seen = await _answers(caller, operation, foreign)
    assert await state(owner) == before
    assert seen == await _answers(caller, operation, _unknown())
    assert not [text for _, text, _ in seen if "secret" in text or FOREIGN in text]


async def test_the_same_requests_succeed_for_those_who_may(site: Site, foreign: dict[str, str]) -> None:
    """Otherwise the test above would compare refusals that have nothing to do with accounts."""
    caller = await site.caller(ADMIN, FOREIGN)
    done = {}
    for operation in sorted(
        ON_THINGS, key=lambda one: (one.method != "GET", one.name in ("revoke_key", "revoke_keys"))
    ):
        for method, url, body in _requests(operation, foreign):
            done[operation.name] = (await caller(method, url, body)).status_code
    refused = {name for name, status in done.items() if status >= 400}
    assert refused <= {"unprotect_resource", "unbind_key", "list_usage", "activate_key", "deactivate_key"}, done


@pytest.mark.parametrize("account", [FOREIGN, "nobodys"])
async def test_a_foreign_account_in_a_query_or_a_body_is_forbidden_whether_or_not_it_exists(
    site: Site, foreign: dict[str, str], account: str
) -> None:
    caller = await site.caller(ADMIN, OWN)
    for path in ("/keys", "/resources", "/audit"):
        assert await caller.code("GET", f"{path}?account={account}") == (403, "forbidden")
    assert await caller.code("POST", "/keys", {"name": "x", "account": account}) == (403, "forbidden")
    assert await caller.code("PATCH", "/resources/bot/1", {"account": account}) == (403, "forbidden")
    assert (await caller.json("POST", "/keys", {"name": "x", "account": OWN}))["account"] == OWN


async def test_operator_of_one_account_neither_registers_nor_takes_over(site: Site, writes: Management) -> None:
    caller = await site.caller(ADMIN, OWN)
    key = await caller.json("POST", "/keys", {"name": "mine"})
    unregistered = await caller("PUT", f"/resources/bot/77/keys/{key['key_id']}")
    assert unregistered.status_code == 404
    assert await caller.code("POST", "/keys", {"name": "x", "bind": ["bot:77"]}) == (404, "not_found")
    for change in ({"domain": "x.example.com"}, {"on_error": "deny"}, {"account": OWN}):
        await writes.add_resource(Resource("bot", str(uuid4().int % 10**9)), account=OWN)
        assert await caller.code("PATCH", "/resources/bot/1", change) == (403, "forbidden")
    everywhere = await site.caller(MANAGER)
    assert (await everywhere("PUT", f"/resources/bot/77/keys/{key['key_id']}")).status_code == 201


async def test_scoped_lists_show_the_own_account_alone(site: Site, foreign: dict[str, str]) -> None:
    caller = await site.caller(VIEWER, OWN)
    assert [key["name"] for key in (await caller.json("GET", "/keys"))["items"]] == ["own"]
    assert [one["ref"] for one in (await caller.json("GET", "/resources"))["items"]] == ["1"]
    assert {event["account"] for event in (await caller.json("GET", "/audit"))["items"]} == {OWN}


# Reading


async def test_no_get_changes_anything(site: Site, foreign: dict[str, str], owner: asyncpg.Connection) -> None:
    caller = await site.caller(ADMIN)
    before = await state(owner)
    for operation in OPERATIONS:
        if operation.method == "GET":
            for method, url, _ in _requests(operation, foreign):
                assert (await caller(method, url)).status_code == 200, url
                assert (await caller("HEAD", url)).status_code == 200, url
    await caller.json("POST", "/check", {"url": "/bots/42", "token": foreign["TOKEN"]})
    assert await state(owner) == before


async def state(owner: asyncpg.Connection) -> dict[str, list[str]]:
    """All that the database holds, less when an operator's token was used."""
    tables = await owner.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'smarter_auth'::regnamespace AND relkind = 'r'"
        " AND relname <> 'incarnation' ORDER BY 1"
    )
    found = {}
    for (table,) in map(tuple, tables):
        rows = await owner.fetch(f"SELECT to_jsonb(t) - 'last_used_at' AS row FROM smarter_auth.{table} AS t")
        found[table] = sorted(row["row"] for row in rows)
    return found
