"""Every mistake in a form stands beside its field, and what was typed is in the form again."""

from __future__ import annotations

import pytest
import pytest_asyncio

from smarter_auth_mw.admin.pages.table import PAGES
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.management.operators import Role
from tests.support.admin import OWN
from tests.support.pages import Outline, Pages

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY, BOT = "/keys/KEY", "/resources/bot/1"
LONG, NUL = "long " * 100, "a\0b"
MISTAKES: list[tuple[str, dict[str, str], str]] = [
    ("/keys/new", {"name": ""}, "name"),
    ("/keys/new", {"name": LONG}, "name"),
    ("/keys/new", {"name": NUL}, "name"),
    ("/keys/new", {"name": "taken"}, "name"),
    ("/keys/new", {"name": "a", "expires": "soon"}, "expires"),
    ("/keys/new", {"name": "a", "expires": "0d"}, "expires"),
    ("/keys/new", {"name": "a", "expires": "999999999d"}, "expires"),
    ("/keys/new", {"name": "a", "bind": "bot"}, "bind"),
    ("/keys/new", {"name": "a", "bind": "bot:1 bot:x"}, "bind"),
    ("/keys/new", {"name": "a", "bind": "dog:1"}, "bind"),
    ("/keys/new", {"name": "a", "labels": "team"}, "labels"),
    ("/keys/new", {"name": "a", "labels": "Team=A"}, "labels"),
    ("/keys/new", {"name": "a", "description": "x " * 6_000}, "description"),
    ("/keys/new", {"name": "a", "account": LONG}, "account"),
    (f"{KEY}/rotate", {"overlap": "soon"}, "overlap"),
    (f"{KEY}/edit", {"name": ""}, "name"),
    (f"{KEY}/edit", {"name": LONG}, "name"),
    (f"{KEY}/edit", {"name": "other"}, "name"),
    (f"{KEY}/edit", {"name": "taken", "expires": "soon"}, "expires"),
    (f"{KEY}/edit", {"name": "taken", "labels": "Team=A"}, "labels"),
    (f"{KEY}/edit", {"name": "taken", "description": "x " * 6_000}, "description"),
    (f"{KEY}/bind", {"resource": "bot"}, "resource"),
    (f"{KEY}/bind", {"resource": "dog:1"}, "resource"),
    (f"{KEY}/bind", {"resource": "bot:007"}, "resource"),
    (f"{KEY}/bind", {"resource": f"bot:{LONG}"}, "resource"),
    ("/resources/new", {"kind": "", "ref": "1"}, "kind"),
    ("/resources/new", {"kind": "Dog", "ref": "1"}, "kind"),
    ("/resources/new", {"kind": "bot", "ref": ""}, "ref"),
    ("/resources/new", {"kind": "bot", "ref": "007"}, "ref"),
    ("/resources/new", {"kind": "bot", "ref": "1"}, "ref"),
    ("/resources/new", {"kind": "bot", "ref": "9", "name": LONG}, "name"),
    ("/resources/new", {"kind": "bot", "ref": "9", "account": LONG}, "account"),
    ("/resources/new", {"kind": "bot", "ref": "9", "domain": LONG}, "domain"),
    (f"{BOT}/edit", {"name": LONG}, "name"),
    (f"{BOT}/edit", {"account": "elsewhere"}, "account"),
    (f"{BOT}/edit", {"domain": LONG}, "domain"),
    (f"{BOT}/bind", {"key": "nobody"}, "key"),
    (f"{BOT}/bind", {"key": ""}, "key"),
    (f"{BOT}/remove", {"confirm": "bot:2"}, "confirm"),
    (f"{BOT}/remove", {"confirm": "bot:1", "token": "sma_wrong"}, "token"),
    ("/leaks", {"tokens": ""}, "tokens"),
    ("/leaks", {"tokens": "a\n" * 501}, "tokens"),
    ("/leaks", {"tokens": "a" * 600}, "tokens"),
    ("/check", {"url": ""}, "url"),
    ("/check", {"url": "nowhere"}, "url"),
    ("/check", {"url": "/bots/1", "method": "get it"}, "method"),
    ("/check", {"url": "/bots/1", "key_id": "x"}, "key_id"),
    ("/check", {"url": "/bots/1", "key_id": "KEY", "token": "x"}, "key_id"),
    ("/check", {"url": "/bots/1", "headers": "no colon"}, "headers"),
]
SCOPED = [
    ("/keys/new", {"name": "a", "bind": "bot:424242"}, "bind"),
    (f"{KEY}/bind", {"resource": "bot:424242"}, "resource"),
]
FILTERS = [
    ("/keys?expiring_within=soon", "expiring_within"),
    ("/keys?unused_for=soon", "unused_for"),
    ("/keys?label=team", "label"),
    ("/keys?resource=bot", "resource"),
    ("/keys?state=lost", "state"),
    ("/keys?state=revoked&sort=name", "state"),
    ("/keys?sort=size", "sort"),
    ("/resources?state=ajar", "state"),
    ("/usage?resource=bot", "resource"),
    ("/usage?resource=bot%3A424242", "resource"),
    ("/usage?key=x", "key"),
    ("/usage?key=00000000-0000-4000-8000-000000000000", "key"),
    ("/usage?resource=bot%3A1&since=soon", "since"),
    ("/audit?resource=bot", "resource"),
    ("/audit?key=x", "key"),
    ("/audit?since=soon", "since"),
]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def key_id(pages: Pages) -> str:
    await pages.keys.create("other")
    await pages.keys.create("owned", account=OWN, bind=[Resource("bot", "2")])
    return str((await pages.keys.create("taken", bind=[Resource("bot", "1")])).key.key_id)


async def test_every_mistake_in_a_form_stands_beside_its_field(pages: Pages, key_id: str) -> None:
    person, wrong = await pages.person(), {}
    for path, fields, name in MISTAKES:
        sent = {field: value.replace("KEY", key_id) for field, value in fields.items()}
        answer = await person.post(path.replace("KEY", key_id), sent)
        outline = Outline(answer.text)
        shown = {one["name"]: one for form in outline.forms for one in form["fields"]}
        marked = [field for field, one in shown.items() if "aria-invalid" in one]
        kept = {field for field, one in shown.items() if sent.get(field) and one.get("value") == sent[field].strip()}
        lost = {field for field, one in shown.items() if sent.get(field) and "value" in one} - kept - {"token"}
        if (marked, lost) != ([name], set()) or not 400 <= answer.status_code < 500:
            wrong[path, str(fields)[:60]] = (answer.status_code, marked, lost)
    assert wrong == {}


@pytest.mark.usefixtures("key_id")
async def test_a_resource_that_an_operator_of_one_account_cannot_see_is_a_mistake_in_the_form(pages: Pages) -> None:
    person = await pages.person(Role.MANAGER, OWN)
    own = (await pages.keys.keys(Resource("bot", "2")))[0]
    for path, fields, name in SCOPED:
        answer = await person.post(path.replace("KEY", str(own.key_id)), fields)
        marked = [one["name"] for one in Outline(answer.text).forms[0]["fields"] if "aria-invalid" in one]
        assert marked == [name], answer.text


async def test_every_wrong_filter_is_marked(pages: Pages, key_id: str) -> None:
    person, wrong = await pages.person(), {}
    for path, name in FILTERS:
        answer = await person.get(path)
        fields = Outline(answer.text).forms[0]["fields"]
        marked = [one["name"] for one in fields if "aria-invalid" in one]
        if marked != [name]:
            wrong[path] = (answer.status_code, marked)
    assert wrong == {}


async def test_every_form_with_fields_has_a_mistake_in_the_list() -> None:
    bare = {"sign_out", "key_activate", "key_deactivate", "key_revoke", "resource_protect", "keys_revoke"}
    opening = {"resource_unprotect", "key_unbind"}  # Their fields are those of resource_remove.
    tried = {path.replace(KEY, "/keys/{key_id}").replace(BOT, "/resources/{kind}/{ref}") for path, _, _ in MISTAKES}
    assert tried == {page.path for page in PAGES if page.act and page.name not in bare | opening}
