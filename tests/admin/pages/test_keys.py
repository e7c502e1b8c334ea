"""The list of keys, and one key."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from smarter_auth_mw.admin.pages.commands import command
from smarter_auth_mw.admin.pages.rendering import relative
from smarter_auth_mw.domain import Resource
from tests.support.database import OUTSIDE_THE_CALENDAR
from tests.support.pages import Outline, Pages

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOBODYS = "00000000-0000-4000-8000-000000000000"
HOSTILE = "<b>\u202eevil\u2066</b> '\"&amp; \x07 \x1b[31m"


async def test_the_list_shows_keys_and_finds_them_by_name_id_and_head(pages: Pages) -> None:
    person = await pages.person()
    minted = await pages.keys.create("findable", bind=[Resource("bot", "1")], account="acme")
    other = await pages.keys.create("other", account="acme")
    for find in ("find", str(minted.key.key_id), minted.key.token_keys[0]):
        page = await person.get("/keys", params={"find": find})
        assert page.status_code == 200
        assert str(minted.key.key_id) in page.text
        assert str(other.key.key_id) not in page.text
        assert minted.token.reveal() not in page.text


async def test_a_token_that_is_looked_for_is_not_repeated(pages: Pages) -> None:
    person = await pages.person()
    minted = await pages.keys.create("looked for")
    page = await person.get("/keys", params={"find": minted.token.reveal()})
    assert page.status_code == 422
    assert minted.token.reveal() not in page.text


async def test_a_name_that_is_not_found_for_its_case_says_which_letters_fold(pages: Pages) -> None:
    person = await pages.person()
    made = str((await pages.keys.create("Übersicht")).key.key_id)
    assert made in (await person.get("/keys", params={"find": "ÜBER"})).text
    page = await person.get("/keys", params={"find": "über"})
    assert made not in page.text
    assert "A to Z match a to z" in page.text
    assert "A to Z" not in (await person.get("/keys", params={"find": "zzz"})).text


async def test_long_lists_come_in_pages_and_no_key_is_lost(pages: Pages) -> None:
    person = await pages.person()
    made = {str((await pages.keys.create(f"many {number}")).key.key_id) for number in range(5)}
    path, found = "/keys?find=many&limit=2", set[str]()
    for _ in range(10):
        page = await person.get(path)
        found |= {key_id for key_id in made if key_id in page.text}
        further = [link for link in Outline(page.text).all("a") if link.get("rel") == "next"]
        if not further:
            break
        path = further[0]["href"].removeprefix(".")
    assert found == made


async def test_times_that_no_calendar_has_break_no_page(pages: Pages) -> None:
    person = await pages.person()
    made = [await pages.keys.create(name, bind=[Resource("bot", "7")]) for name in ("never", "far", "long ago")]
    owner = await asyncpg.connect(pages.database.owner)
    try:
        for statement in OUTSIDE_THE_CALENDAR:
            await owner.execute(statement)
        for path in (
            "/",
            "/keys",
            "/resources",
            "/resources/bot/7",
            *(f"/keys/{one.key.key_id}" for one in made),
        ):
            assert (await person.get(path)).status_code == 200, path
    finally:
        await owner.execute("UPDATE smarter_auth.key SET expires_at = NULL")
        await owner.close()


async def test_wrong_filters_are_named_beside_their_fields_and_kept(pages: Pages) -> None:
    person = await pages.person()
    page = await person.get("/keys?unused_for=soon&find=abc&resource=nonsense")
    outline = Outline(page.text)
    assert page.status_code == 422
    wrong = {field["name"]: field for field in outline.forms[0]["fields"] if "aria-invalid" in field}
    assert wrong.keys() == {"unused_for", "resource"}
    assert wrong["unused_for"]["value"] == "soon"
    assert wrong["unused_for"]["aria-describedby"] in {values.get("id") for _, values in outline.tags}


async def test_what_people_named_is_escaped_everywhere(pages: Pages) -> None:
    person = await pages.person()
    minted = await pages.keys.create(HOSTILE, description=HOSTILE, account="<u>")
    for path in ("/keys", f"/keys/{minted.key.key_id}", "/keys?find=%3Cb%3E"):
        text = (await person.get(path)).text
        assert not [char for char in text if not char.isprintable() and char != "\n"]
        assert "<b>" not in text
        assert "<u>" not in text
        assert "\\u202eevil" in text
        Outline(text)


async def test_unknown_and_malformed_keys_are_not_found(pages: Pages) -> None:
    person = await pages.person()
    for key_id in ("00000000-0000-0000-0000-000000000000", "x", "0D5E", "%00"):
        assert (await person.get(f"/keys/{key_id}")).status_code == 404


async def test_commands_are_quoted_for_a_shell() -> None:
    assert command("key", "show", "a b") == "smarter-auth key show 'a b'"
    assert command("key", "show", "a\nb'\\") == r"smarter-auth key show $'a\nb\'\\'"


@pytest.mark.parametrize(
    ("query", "same"),
    [
        ("", "key list --limit 50"),
        ("?state=active&sort=-created_at", "key list --state active --sort -created_at"),
        ("?rotating=true&never_used=true&never_expires=true", "--never-expires --never-used --rotating --limit 50"),
        ("?resource=bot:1&find=a&label=a=b&label=c=d", "--resource bot:1 --find a --label a=b --label c=d --limit 50"),
        ("?expiring_within=1d&unused_for=2d&account=acme", "--expiring 1d --unused-for 2d --account acme --limit 50"),
        (f"?find={NOBODYS}", f"key show {NOBODYS}"),
    ],
)
async def test_the_command_of_a_list_has_the_filters_of_the_page(pages: Pages, query: str, same: str) -> None:
    person = await pages.person()
    assert Outline((await person.get(f"/keys{query}")).text).text.endswith(f"{same}")


@pytest.mark.parametrize("page", ["keys", "resources", "audit"])
async def test_the_commands_for_an_operator_of_one_account_name_that_account(pages: Pages, page: str) -> None:
    person = await pages.person(account="acme")
    assert " --account acme" in Outline((await person.get(f"/{page}")).text).text


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(seconds=0.5), "just now"),
        (timedelta(seconds=-1), "1 second ago"),
        (timedelta(minutes=5, seconds=59), "in 5 minutes"),
        (timedelta(hours=-47), "1 day ago"),
        (timedelta(days=800), "in 2 years"),
    ],
)
async def test_times_are_told_relatively(span: timedelta, text: str) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert relative(now + span, now) == text
