"""The command that a page shows does what its form does: each is run as it is copied."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Mapping
from html import unescape
from typing import Any
from urllib.parse import urlencode

import pytest

from smarter_auth_mw.cli import main
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.errors import NotFoundError
from tests.support.pages import Outline, Pages, Person, token_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOG = Resource("dog", "7")
"""A resource that no route reaches."""


class Shell:
    """A terminal with the settings that commands need."""

    def __init__(self, pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SMARTER_AUTH_DATABASE_URL", pages.database.manager)
        monkeypatch.setenv("SMARTER_AUTH_ROUTES", "bot /bots/{ref:int}; cat /cats/{ref}")

    async def run(self, text: str) -> int:
        """Run commands, each if the one before it succeeded; returns the exit code."""
        for command in text.split(" && "):
            program, *arguments = shlex.split(command)
            assert program == "smarter-auth"
            if code := await asyncio.to_thread(main, arguments):
                return code
        return 0


@pytest.fixture
def shell(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(pages, monkeypatch)


def shown(html: str) -> str:
    """Return the command of a page, as its button copies it."""
    (found,) = re.findall(r'<footer class="cli">.*?<code data-copy>(.*?)</code>', html, re.DOTALL)
    return unescape(re.sub("<[^>]*>", "", found))


async def refused(person: Person, path: str, fields: Mapping[str, Any]) -> str:
    """Send a form that was read before somebody changed the record; returns the command for what was typed."""
    response = await person.post(path, {**fields, "etag": '"1"'})
    assert response.status_code == 412
    return shown(response.text)


async def test_a_key_is_made_as_by_the_form(pages: Pages, shell: Shell) -> None:
    person = await pages.person()
    typed = {"bind": "bot:1 bot:2", "description": 'it\'s "new"', "labels": "team=web\nenv=live", "account": "acme"}
    for name, fields in (("full", typed | {"expires": "2031-01-31"}), ("plain", {"bind": "bot:3"})):
        assert await shell.run(shown((await person.get("/keys/new?" + urlencode({"name": name, **fields}))).text)) == 0
        token = token_of((await person.post("/keys/new", {"name": f"{name}, by form", **fields})).text)
        one, other = [key for key in await pages.keys.keys() if key.name in (name, f"{name}, by form")]
        for what in ("account", "description", "labels", "expires_at", "bindings"):
            assert getattr(one, what) == getattr(other, what), what
        assert [key.token_keys[0][:3] for key in (one, other)] == [token[:3]] * 2
    scoped = await pages.person(account="acme")
    assert "--account acme" in shown((await scoped.get("/keys/new?name=own")).text)


async def test_a_resource_is_registered_as_by_the_form(pages: Pages, shell: Shell) -> None:
    person = await pages.person()
    typed = {"kind": "bot", "name": "support", "account": "acme", "on_error": "deny", "protect": "true"}
    command = shown(
        (await person.get("/resources/new?" + urlencode({**typed, "ref": "31", "domain": "a.example"}))).text
    )
    assert await shell.run(command) == 0
    await person.post("/resources/new", {**typed, "ref": "32", "domain": "b.example"})
    one, other = [await pages.keys.resource(Resource("bot", ref)) for ref in ("31", "32")]
    for what in ("name", "account", "on_error", "protection"):
        assert getattr(one, what) == getattr(other, what), what
    assert (one.domain, other.domain) == ("a.example", "b.example")


async def test_changes_are_those_that_were_typed(pages: Pages, shell: Shell) -> None:
    person = await pages.person()
    minted = await pages.keys.create("before", description="old", labels={"team": "web", "env": "live"})
    await pages.keys.add_resource(Resource("bot", "33"), name="old")
    key = f"/keys/{minted.key.key_id}/edit"
    assert await shell.run(shown((await person.get(key)).text)) == 0
    assert (await pages.keys.key(minted.key.key_id)).name == "before", "Copied as it is, it changes nothing."
    typed = {"name": "after", "description": "", "labels": "team=sales\ntier=one", "expires": "2031-01-31"}
    assert await shell.run(await refused(person, key, typed)) == 0
    changed = await pages.keys.key(minted.key.key_id)
    assert (changed.name, changed.description, changed.labels) == ("after", "", {"team": "sales", "tier": "one"})
    assert changed.expires_at is not None
    assert await shell.run(await refused(person, key, {**typed, "expires": ""})) == 0
    assert (await pages.keys.key(minted.key.key_id)).expires_at is None
    resource = {"name": "", "account": "default", "domain": "c.example", "on_error": "deny"}
    assert await shell.run(shown((await person.get("/resources/bot/33/edit")).text)) == 0
    assert await shell.run(await refused(person, "/resources/bot/33/edit", resource)) == 0
    found = await pages.keys.resource(Resource("bot", "33"))
    assert (found.name, found.domain, found.on_error) == (None, "c.example", "deny")


async def test_a_key_is_rotated_again_while_a_rotation_overlaps(pages: Pages, shell: Shell) -> None:
    person, minted = await pages.person(), await pages.keys.create("rotated twice")
    for tokens in (2, 3):
        assert await shell.run(shown((await person.get(f"/keys/{minted.key.key_id}/rotate")).text)) == 0
        assert len((await pages.keys.key(minted.key.key_id)).token_keys) == tokens


async def test_keys_are_deactivated_activated_and_revoked(pages: Pages, shell: Shell) -> None:
    person = await pages.person()
    made = [await pages.keys.create(f"doomed {number}") for number in range(3)]
    first = f"/keys/{made[0].key.key_id}"
    states = []
    for act in ("deactivate", "activate", "revoke"):
        assert await shell.run(shown((await person.get(f"{first}/{act}")).text)) == 0
        key = await pages.keys.key(made[0].key.key_id)
        states.append((key.is_active, key.revoked_at is not None))
    assert states == [(False, False), (True, False), (True, True)]
    others = urlencode({"key_id": [str(one.key.key_id) for one in made[1:]]}, doseq=True)
    assert await shell.run(shown((await person.get(f"/keys/revoke?{others}")).text)) == 0
    assert all([(await pages.keys.key(one.key.key_id)).revoked_at for one in made])


async def test_a_resource_that_no_route_reaches_is_managed_too(pages: Pages, shell: Shell) -> None:
    person, minted = await pages.person(), await pages.keys.create("of dogs")
    query = urlencode({"kind": "dog", "ref": "7", "no_route": "true"})
    assert await shell.run(shown((await person.get(f"/resources/new?{query}")).text)) == 0
    dog, bound = "/resources/dog/7", f"/resources/dog/7/keys/{minted.key.key_id}/unbind"
    acts = [f"/keys/{minted.key.key_id}/bind?resource=dog:7", bound, f"{dog}/unprotect", f"{dog}/remove"]
    for path in (dog, f"{dog}/edit", f"{dog}/protect", *acts):
        assert await shell.run(shown((await person.get(path)).text)) == 0, path
    with pytest.raises(NotFoundError):
        await pages.keys.resource(DOG)


async def test_a_request_is_explained_with_its_headers(pages: Pages) -> None:
    person, minted = await pages.person(), await pages.keys.create("asks", bind=[Resource("bot", "9")])
    typed = {"url": "/bots/9", "method": "POST", "headers": "Host: api.example.com\nX-Trace: 1"}
    page = await person.post("/check", {**typed, "key_id": str(minted.key.key_id)})
    assert Outline(page.text).text.count("Granted") == 1
    assert shlex.split(shown(page.text))[1:] == [
        *("check", "/bots/9", "--method", "POST", "--header", "Host: api.example.com", "--header", "X-Trace: 1"),
        *("--header", "Authorization: Token TOKEN"),
    ]
