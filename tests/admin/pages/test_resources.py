"""The list of resources, one resource, and what is done to it."""

from __future__ import annotations

import pytest

from smarter_auth_mw.domain import RegisteredResource, Resource
from smarter_auth_mw.errors import NotFoundError
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.management.operators import Role
from tests.support.pages import Outline, Pages

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_resource_is_registered_shown_and_changed(pages: Pages) -> None:
    person = await pages.person()
    made = await person.post("/resources/new", {"kind": "bot", "ref": "100", "account": "acme", "protect": "true"})
    assert made.headers["location"] == "../resources/bot/100"
    page = await person.get("/resources/bot/100")
    assert "/bots/100" in page.text
    assert "No keys yet." in page.text
    shown = await person.get("/resources/bot/100/edit")
    fields = {one["name"]: one.get("value", "") for one in Outline(shown.text).forms[0]["fields"]}
    fields |= {"name": "hundred", "account": "acme", "on_error": "deny"}
    assert (await person.post("/resources/bot/100/edit", fields)).status_code == 303
    found = await pages.keys.resource(Resource("bot", "100"))
    assert (found.name, found.account, found.on_error) == ("hundred", "acme", "deny")
    assert (await person.post("/resources/bot/100/edit", fields | {"name": "late"})).status_code == 412


async def test_mistakes_are_named_beside_their_fields(pages: Pages) -> None:
    person = await pages.person()
    await person.post("/resources/new", {"kind": "bot", "ref": "101"})
    for field, fields, status in (
        ("kind", {"kind": "dog", "ref": "1"}, 422),
        ("ref", {"kind": "bot", "ref": "01"}, 422),
        ("kind", {"kind": "", "ref": "1"}, 422),
        ("ref", {"kind": "bot", "ref": "101"}, 409),
    ):
        answer = await person.post("/resources/new", fields)
        assert answer.status_code == status
        wrong = {one["name"] for one in Outline(answer.text).forms[0]["fields"] if "aria-invalid" in one}
        assert wrong == {field}


async def test_resources_are_protected_opened_and_removed(pages: Pages) -> None:
    person = await pages.person()
    await pages.keys.add_resource(Resource("bot", "102"))
    assert (await person.post("/resources/bot/102/protect")).status_code == 303
    assert (await pages.keys.resource(Resource("bot", "102"))).is_protected
    for act in ("unprotect", "remove"):
        page = await person.get(f"/resources/bot/102/{act}")
        assert {"confirm", "token"} <= {one["name"] for one in Outline(page.text).forms[0]["fields"]}
        assert (await person.post(f"/resources/bot/102/{act}")).status_code == 422
        wrong = {"confirm": "bot:102", "token": "sma_wrong"}
        assert (await person.post(f"/resources/bot/102/{act}", wrong)).status_code == 403
    confirmed = {"confirm": "bot:102", "token": person.token}
    assert (await person.post("/resources/bot/102/unprotect", confirmed)).status_code == 303
    assert not (await pages.keys.resource(Resource("bot", "102"))).is_protected
    page = await person.get("/resources/bot/102/remove")
    assert "confirm" not in {one["name"] for one in Outline(page.text).forms[0]["fields"]}
    assert (await person.post("/resources/bot/102/remove")).headers["location"] == "../../../resources"
    with pytest.raises(NotFoundError):
        await pages.keys.resource(Resource("bot", "102"))


async def test_with_keys_bound_a_resource_is_not_opened(pages: Pages) -> None:
    person = await pages.person()
    await pages.keys.create("holds", bind=[Resource("bot", "103")])
    answer = await person.post("/resources/bot/103/unprotect", {"confirm": "bot:103", "token": person.token})
    assert answer.status_code == 409
    assert (await pages.keys.resource(Resource("bot", "103"))).is_protected


async def test_a_key_is_bound_by_its_name(pages: Pages) -> None:
    person = await pages.person(Role.MANAGER)
    await pages.keys.add_resource(Resource("bot", "104"))
    minted = await pages.keys.create("by name")
    assert (await person.post("/resources/bot/104/bind", {"key": "no such key"})).status_code == 422
    assert (await person.post("/resources/bot/104/bind", {"key": "by name"})).status_code == 303
    assert (await pages.keys.key(minted.key.key_id)).bindings == (Resource("bot", "104"),)


async def test_resources_are_filtered_and_unknown_ones_are_not_found(pages: Pages) -> None:
    person = await pages.person()
    await pages.keys.add_resource(Resource("cat", "tom"))
    await pages.keys.add_resource(Resource("cat", "felix"), protect=True)
    text = (await person.get("/resources?kind=cat&state=open")).text
    assert ("cat:tom" in text, "cat:felix" in text) == (True, False)
    assert (await person.get("/resources?state=ajar")).status_code == 422
    for path in ("/resources/cat/none", "/resources/dog/1", "/resources/cat/" + "x" * 300, "/resources/cat/%00"):
        assert (await person.get(path)).status_code == 404


async def test_no_page_loads_all_keys_of_a_resource(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    person, resource = await pages.person(), Resource("cat", "slow-cat")
    key_id = (await pages.keys.create("of many", bind=[resource])).key.key_id

    find = Management.resource

    async def bounded(keys: Management, of: Resource, *, most: int | None = None) -> RegisteredResource:
        assert most is not None, "All keys of the resource were loaded."
        return await find(keys, of, most=most)

    monkeypatch.setattr(Management, "resource", bounded)
    for act in ("", "/edit", "/bind", "/protect", "/unprotect", "/remove", f"/keys/{key_id}/unbind"):
        assert (await person.get(f"/resources/cat/slow-cat{act}")).status_code == 200
    for act in ("revoke", "deactivate"):
        assert "1 key opens cat:slow-cat" in (await person.get(f"/keys/{key_id}/{act}")).text
