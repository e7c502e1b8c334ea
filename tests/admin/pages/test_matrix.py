"""Tests that the table of pages generates: roles, accounts, no GET changes anything, and no token comes back."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from itertools import cycle, product
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from smarter_auth_mw.admin.pages.table import PAGES, Page
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.management.operators import Operator, Role, is_allowed
from smarter_auth_mw.metrics import samples
from smarter_auth_mw.tokens import mint
from tests.admin.test_operations import state
from tests.admin.test_secrets import assert_dump_holds_digests_alone, holds
from tests.support.admin import FOREIGN, OWN
from tests.support.database import dumped
from tests.support.pages import Outline, Pages, Person, token_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

REMOVED = "80"
"""The bot that the tour of all pages removes."""
WHO = [*product(Role, [None, OWN])]
UNKNOWN = {"KEY": "11111111-1111-4111-8111-111111111111", "REF": "777777777", "TOKEN_KEY": "sm_000000000000"}
ACTS = [page for page in PAGES if page.act is not None]
FORMS: dict[str, dict[str, Any]] = {
    "key_create": {"name": "new", "bind": "bot:REF"},
    "keys_revoke": {"key_id": "KEY"},
    "key_rotate": {"token_key": "TOKEN_KEY", "force": "true"},
    "key_change": {"name": "renamed"},
    "key_bind": {"resource": "bot:REF"},
    "resource_create": {"kind": "bot", "ref": "5"},
    "resource_change": {"name": "renamed"},
    "resource_bind": {"key": "KEY"},
    "resource_unprotect": {"confirm": "bot:REF", "token": "OWN_TOKEN"},
    "resource_remove": {"confirm": "bot:REF", "token": "OWN_TOKEN"},
    "leaks": {"tokens": "TOKEN_KEY"},
    "key_unbind": {"confirm": "bot:REF", "token": "OWN_TOKEN"},
    "check": {"url": "/bots/REF", "key_id": "KEY"},
}
"""A form for each act that takes one; words in capitals stand for what is another account's, or unknown."""
WRONG = {"headers": "no colon", "expires": "soon", "etag": "x", "overlap": "soon", "kind": "no"}
"""Something wrong for every form that could store what is typed into another field."""
QUERIES: dict[str, list[str]] = {
    "keys": ["resource=bot:REF", "find=KEY", "find=TOKEN_KEY", "find=secret"],
    "resources": ["key_id=KEY", "kind=bot&find=REF"],
    "usage": ["resource=bot:REF", "key=KEY"],
    "audit": ["resource=bot:REF&requests=true", "key=KEY"],
    "keys_revoke": ["key_id=KEY"],
    "check": ["url=/bots/REF"],
}


def page_id(value: object) -> str:
    return value.name if isinstance(value, Page) else str(value)


def _filled(text: str, names: dict[str, str]) -> str:
    text = text.format(kind="bot", ref="REF", key_id="KEY") if text.startswith("/") else text
    return re.sub("|".join(sorted(names, key=len, reverse=True)), lambda found: names[found[0]], text)


def _form(page: Page, names: dict[str, str], person: Person) -> dict[str, str]:
    own = names | {"OWN_TOKEN": person.token}
    return {name: _filled(value, own) for name, value in FORMS.get(page.name, {}).items()}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def foreign(pages: Pages) -> dict[str, str]:
    """A key and a resource of another account; and some of the own, so that there is something to see."""
    await pages.keys.create("own", account=OWN, bind=[Resource("bot", "1")])
    minted = await pages.keys.create(
        "secret", account=FOREIGN, bind=[Resource("bot", "424242424"), Resource("bot", "43")]
    )
    revoked = await pages.keys.create("secret revoked", account=FOREIGN)
    await pages.keys.revoke(revoked.key.key_id)
    return {"KEY": str(minted.key.key_id), "REF": "424242424", "TOKEN_KEY": minted.token.token_key}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def database_owner(pages: Pages) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(pages.database.owner)
    yield connection
    await connection.close()


@pytest.mark.parametrize("page", PAGES, ids=page_id)
async def test_role_matrix(pages: Pages, page: Page) -> None:
    path = _filled(page.path, UNKNOWN)
    stranger = Person(pages.app)
    assert (await stranger.get(path)).status_code == 303
    for role, account in WHO:
        person = await (pages.new_person if page.name == "sign_out" else pages.person)(role, account)
        may = is_allowed(Operator(UUID(int=0), "", role, account), page.role, everywhere=page.everywhere)
        assert ((await person.get(path)).status_code == 403) is not may, (role, account)
        if page.act is not None:
            answer = await person.post(path, {"key_id": "x"})
            assert (answer.status_code == 403) is not may, (role, account, answer.text)
            assert may or page.role.value in answer.text


async def test_every_form_that_takes_fields_has_a_sample() -> None:
    bare = {"sign_out", "key_activate", "key_deactivate", "key_revoke", "resource_protect"}
    assert {page.name for page in ACTS} == {*FORMS, *bare}
    assert set(QUERIES) <= {page.name for page in PAGES}


async def _answers(person: Person, page: Page, names: dict[str, str]) -> list[Any]:
    """What each request is answered, with the names that were asked for replaced."""
    path = _filled(page.path, names)
    answers = [await person.get(f"{path}?{_filled(query, names)}") for query in QUERIES.get(page.name, [""])]
    if page.act is not None:
        answers.append(await person.post(path, _form(page, names, person)))
    return [(answer.status_code, _neutral(answer.text, names), answer.headers.get("location")) for answer in answers]


def _neutral(text: str, names: dict[str, str]) -> str:
    for word, value in names.items():
        text = text.replace(value, word)
    return re.sub("[0-9]+ (second|minute)s? ago|just now", "AGO", text)


ON_THINGS = [page for page in PAGES if not page.everywhere and ("{" in page.path or page.name in {*FORMS, *QUERIES})]


@pytest.mark.parametrize("page", ON_THINGS, ids=page_id)
async def test_what_is_another_accounts_looks_as_what_does_not_exist(
    pages: Pages, foreign: dict[str, str], database_owner: asyncpg.Connection, page: Page
) -> None:
    person = await pages.person(Role.ADMIN, OWN)
    before = await _state(database_owner)
    seen = await _answers(person, page, foreign)
    assert await _state(database_owner) == before
    assert seen == await _answers(person, page, UNKNOWN)
    assert not [text for _, text, _ in seen if ">secret" in text or FOREIGN in text.replace("others", "")]


async def test_pages_of_one_account_show_that_account_alone(pages: Pages, foreign: dict[str, str]) -> None:
    person = await pages.person(Role.VIEWER, OWN)
    for path in ("/", "/keys", "/resources", "/audit", "/audit?requests=true", "/keys?state=revoked"):
        text = (await person.get(path)).text
        assert "secret" not in text
        assert "bot/424242424" not in text
    for path in ("/keys", "/resources", "/audit"):
        assert (await person.get(f"{path}?account={FOREIGN}")).status_code == 403
        assert (await person.get(f"{path}?account=nobodys")).status_code == 403


async def test_no_get_changes_anything(
    pages: Pages, foreign: dict[str, str], database_owner: asyncpg.Connection
) -> None:
    person = await pages.person()
    before = await _state(database_owner)
    for page in PAGES:
        path = _filled(page.path, foreign)
        for query in ["", *QUERIES.get(page.name, [])]:
            url = f"{path}?{_filled(query, foreign)}"
            assert (await person.get(url)).status_code == 200, url
            assert (await person.client.head(url)).status_code == 200, url
    assert await _state(database_owner) == before


async def test_buttons_are_for_those_who_may_use_them(pages: Pages, foreign: dict[str, str]) -> None:
    """A crawler of each role follows every link, and none leads to a refusal."""
    for role, account in WHO:
        person = await pages.person(role, account)
        todo, seen = ["/"], set[str]()
        while todo:
            path = todo.pop()
            if path in seen or len(seen) > 60:
                continue
            seen.add(path)
            page = await person.get(path)
            if path == f"/resources/bot/{REMOVED}" and page.status_code == 404:
                continue  # The audit still names it, if the tour of all pages came first.
            assert page.status_code == 200, (role, account, path)
            outline = Outline(page.text)
            assert len(outline.all("h1")) == 1, path
            base = page.request.url
            links = [*outline.links, *(form["action"] for form in outline.forms if form.get("method") == "get")]
            todo += [base.join(link).raw_path.decode() for link in links if not link.startswith("#")]
        assert len(seen) > 10


async def test_tokens_that_are_typed_in_the_wrong_place_do_not_come_back(pages: Pages, foreign: dict[str, str]) -> None:
    person = await pages.new_person()
    tokens = [mint("checked").reveal(), mint().reveal()]
    person.seen.clear()
    for token, page in zip(cycle(tokens), ACTS, strict=False):
        names = {"name", "description", "labels", "key", "url", *FORMS.get(page.name, {})} - {"key_id", "token"}
        if page.name != "sign_out":
            await person.post(_filled(page.path, foreign), WRONG | dict.fromkeys(names, f"x {token}"))
            await person.post(_filled(page.path, foreign), WRONG | {token: "x", "headers": token})
    for token in tokens:
        for path in ("/keys?find=", "/audit?cursor=", "/usage?resource=", "/check?url=", "/sign-in?to=", "/keys?"):
            await person.get(f"{path}{token}")
        for path in (f"/keys/{token}", f"/resources/bot/{token}", f"/{token}"):
            person.seen += [(await one.get(path)).headers.get("location", "") for one in (person, Person(pages.app))]
    assert [page for page in person.seen if any(token in page for token in tokens)] == []


async def test_a_tour_of_all_pages_leaves_no_token_in_log_metrics_or_dump(
    pages: Pages, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    person = await pages.new_person()
    made = await person.post("/keys/new", {"name": "toured", "bind": f"bot:{REMOVED}"})
    key = (await pages.keys.keys(Resource("bot", REMOVED)))[0]
    names = {"KEY": str(key.key_id), "REF": REMOVED, "TOKEN_KEY": key.token_keys[0]}
    rotated = await person.post(f"/keys/{key.key_id}/rotate", {"token_key": key.token_keys[0], "overlap": "1h"})
    tokens = [token_of(made.text), token_of(rotated.text), person.token]
    person.seen.clear()
    for token, page in product(tokens, (page for page in PAGES if page.name != "sign_out")):
        path = _filled(page.path, names)
        person.seen.append((await person.client.get(f"{path}?find={token}")).text)
        for query in QUERIES.get(page.name, [""]):
            await person.get(f"{path}?{_filled(query, names)}")
        if page.name in FORMS:
            await person.post(path, WRONG | dict.fromkeys((*FORMS[page.name], "token", "tokens"), token))
            await person.post(path, WRONG | _form(page, names, person))
        await Person(pages.app).sign_in(f"{token}x")
    for act in ("find", "end"):
        assert (await person.post("/leaks", {"tokens": "\n".join(tokens[:2]), "act": act})).status_code == 200
    assert [page for page in person.seen if holds(page, set(tokens))] == []
    log = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("http"))
    assert not holds(log + str(samples.samples_of_all()), set(tokens))
    assert_dump_holds_digests_alone(await dumped(pages.database.owner), tokens)


async def test_operators_who_are_demoted_or_revoked_lose_it_at_the_next_request(pages: Pages) -> None:
    person = await pages.new_person(Role.ADMIN)
    me = Outline((await person.get("/account")).text).text
    name = next(word for word in re.findall(r"admin \d+", me))
    assert (await person.get("/keys/new")).status_code == 200
    await pages.operators.set(name, role=Role.VIEWER)
    assert (await person.post("/keys/new", {"name": "too late"})).status_code == 403
    assert "New key" not in (await person.get("/keys")).text
    await pages.operators.revoke(name)
    assert (await person.post("/keys/new", {"name": "too late"})).status_code == 401
    assert (await person.get("/keys")).headers["location"] == "./sign-in?to=keys"


async def _state(owner: asyncpg.Connection) -> dict[str, list[str]]:
    """All that the database holds, less when a session was seen."""
    found = await state(owner)
    return {name: rows for name, rows in found.items() if name != "operator_session"}
