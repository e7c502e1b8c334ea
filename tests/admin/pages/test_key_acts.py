"""What is done to keys, by forms."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from smarter_auth_mw.admin import AdminApp
from smarter_auth_mw.admin.pages import acts
from smarter_auth_mw.admin.pages.visit import Visit
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.management.operators import Role
from smarter_auth_mw.tokens import mint
from tests.support.admin import FOREIGN, OWN, settings
from tests.support.asgi import lifespan
from tests.support.pages import Outline, Pages, Person, token_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_key_is_made_and_its_token_shown_once(pages: Pages) -> None:
    person = await pages.person()
    fields = {
        "name": "made",
        "bind": "bot:10 bot:11",
        "expires": "30d",
        "labels": "team=sales",
        "description": "for\r\nus",
    }
    made = await person.post("/keys/new", fields)
    assert made.status_code == 201
    token = token_of(made.text)
    assert token.startswith("sm_")
    key = (await pages.keys.keys(Resource("bot", "10")))[0]
    assert token.startswith(key.token_keys[0])
    assert (key.name, key.labels, key.description) == ("made", {"team": "sales"}, "for\nus")
    same = r"smarter-auth key create --name made --format checked --description $'for\nus' --expires-in 30d"
    assert f"{same} --label team=sales --bind bot:10 --bind bot:11" in Outline(made.text).text
    again = await person.post("/keys/new", fields)
    assert again.status_code == 409
    assert "its token was shown" in again.text
    assert f"/keys/{key.key_id}" in again.text
    assert token not in again.text
    assert {field["name"]: field.get("value") for field in Outline(again.text).forms[0]["fields"]}["name"] == "made"


async def test_what_was_typed_is_kept_beside_what_is_wrong(pages: Pages) -> None:
    person = await pages.person()
    for field, value in (("expires", "soon"), ("bind", "nonsense"), ("labels", "x"), ("account", "x" * 300)):
        fields = {"name": "kept <b>", "description": "typed", field: value}
        answer = await person.post("/keys/new", fields)
        assert answer.status_code == 422
        shown = {one["name"]: one for one in Outline(answer.text).forms[0]["fields"]}
        assert shown["name"]["value"] == "kept <b>"
        assert "aria-invalid" in shown[field], field


async def test_a_name_of_10_000_characters_is_kept(pages: Pages) -> None:
    person = await pages.person()
    name = "\u202e" + "x" * 10_000
    answer = await person.post("/keys/new", {"name": name})
    assert answer.status_code == 422
    assert {one["name"]: one.get("value") for one in Outline(answer.text).forms[0]["fields"]}["name"] == name


async def test_a_key_is_rotated_and_a_reload_is_told_so(pages: Pages) -> None:
    person = await pages.person()
    minted = await pages.keys.create("rotated")
    path = f"/keys/{minted.key.key_id}/rotate"
    fields = {"token_key": minted.key.token_keys[0], "overlap": "1h"}
    answer = await person.post(path, fields)
    assert answer.status_code == 200
    assert token_of(answer.text) != minted.token.reveal()
    assert f"smarter-auth key wait {minted.key.key_id}" in Outline(answer.text).text
    assert f"smarter-auth key rotate {minted.key.key_id} --overlap 1h" in Outline(answer.text).text
    reload = await person.post(path, fields)
    assert reload.status_code == 409
    assert "was already rotated, and its new token was shown" in reload.text
    assert "Wait until then, or rotate it again" in reload.text
    alert = Outline(reload.text).text.partition("is being rotated")[2]
    assert re.match(r": its previous token, \S+, is valid until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\.", alert), alert
    fresh = await person.get(path)
    assert "earlier rotation still overlaps" in fresh.text
    newest = (await pages.keys.key(minted.key.key_id)).token_keys[-1]
    assert (await person.post(path, {"token_key": newest, "overlap": "0"})).status_code == 409
    assert (await person.post(path, {"token_key": newest, "overlap": "0", "force": "true"})).status_code == 200


async def test_a_key_is_changed_and_a_change_in_between_is_refused(pages: Pages) -> None:
    person = await pages.person()
    minted = await pages.keys.create("changed", labels={"a": "1", "b": "2"})
    path = f"/keys/{minted.key.key_id}/edit"
    shown = {one["name"]: one.get("value", "") for one in Outline((await person.get(path)).text).forms[0]["fields"]}
    fields = {"etag": shown["etag"], "name": "changed too", "labels": "b=3\nc=4", "expires": "2035-01-31"}
    assert (await person.post(path, fields)).headers["location"] == f"../../keys/{minted.key.key_id}"
    key = await pages.keys.key(minted.key.key_id)
    assert (key.name, key.labels, key.description) == ("changed too", {"b": "3", "c": "4"}, "")
    assert key.expires_at is not None
    assert key.expires_at.isoformat() == "2035-01-31T00:00:00+00:00"
    late = await person.post(path, fields | {"name": "lost"})
    assert late.status_code == 412
    assert 'value="lost"' in late.text


async def test_keys_are_deactivated_activated_and_revoked(pages: Pages) -> None:
    person = await pages.person()
    minted = await pages.keys.create("ended", bind=[Resource("bot", "20")])
    path = f"/keys/{minted.key.key_id}"
    says = "1 key opens bot:20. After this, no key does, and it stays closed."
    assert says in (await person.get(f"{path}/deactivate")).text
    assert (await person.post(f"{path}/deactivate")).status_code == 303
    assert not (await pages.keys.key(minted.key.key_id)).is_active
    assert (await person.post(f"{path}/activate")).status_code == 303
    assert says in (await person.get(f"{path}/revoke")).text
    assert (await person.post(f"{path}/revoke")).headers["location"] == f"../../keys/{minted.key.key_id}"
    page = await person.get(path)
    assert "refused everywhere since" in page.text
    assert "Rotate</a>" not in page.text
    for act in ("rotate", "edit", "activate", "deactivate", "bind"):
        assert (await person.post(f"{path}/{act}", {"name": "x", "resource": "bot:21"})).status_code in (409, 422)


async def test_chosen_keys_are_revoked_together(pages: Pages) -> None:
    person = await pages.person()
    made = [str((await pages.keys.create(f"chosen {number}")).key.key_id) for number in range(3)]
    unknown = "00000000-0000-0000-0000-000000000000"
    asked = await person.get("/keys/revoke", params={"key_id": [*made[:2], unknown]})
    assert "Revoke 2 keys?" in asked.text
    assert "1 of the chosen keys does not exist" in asked.text
    assert (await pages.keys.key(UUID(made[0]))).revoked_at is None
    done = await person.post("/keys/revoke", {"key_id": made[:2]})
    assert "2 keys are revoked" in done.text
    states = [(await pages.keys.key(UUID(one))).revoked_at is None for one in made]
    assert states == [False, False, True]
    assert (await person.get("/keys/revoke")).status_code == 200


async def test_a_key_is_bound_and_unbound(pages: Pages) -> None:
    person = await pages.person()
    one, two = await pages.keys.create("bound one"), await pages.keys.create("bound two")
    for minted in (one, two):
        answer = await person.post(f"/keys/{minted.key.key_id}/bind", {"resource": "bot:30"})
        assert answer.status_code == 303
    path = f"/resources/bot/30/keys/{one.key.key_id}/unbind"
    assert "2 keys open bot:30. After this 1 does." in (await person.get(path)).text
    assert (await person.post(path)).headers["location"] == "../../../../../resources/bot/30"
    for wrong in ("nonsense", "", "dog:1", "bot:x"):
        answer = await person.post(f"/keys/{one.key.key_id}/bind", {"resource": wrong})
        assert answer.status_code == 422, wrong


async def test_what_opens_wants_an_admin_the_name_and_the_own_token(pages: Pages) -> None:
    admin, manager, other = await pages.person(), await pages.person(Role.MANAGER), await pages.new_person()
    minted = await pages.keys.create("last one", bind=[Resource("bot", "40")])
    path = f"/resources/bot/40/keys/{minted.key.key_id}/unbind"
    page = await admin.get(path)
    assert "After this, no key does, and it is open to anyone, without a token." in page.text
    assert {"confirm", "token"} <= {field["name"] for field in Outline(page.text).forms[0]["fields"]}
    assert (await manager.post(path, {"confirm": "bot:40", "token": manager.token})).status_code == 403
    attempts = [
        ({}, 409),
        ({"confirm": "bot:41", "token": admin.token}, 422),
        ({"confirm": "bot:40"}, 403),
        ({"confirm": "bot:40", "token": other.token}, 403),
        ({"confirm": "bot:40", "token": minted.token.reveal()}, 403),
    ]
    for fields, status in attempts:
        answer = await admin.post(path, fields)
        assert answer.status_code == status, fields
        assert "sma_" not in answer.text.replace("begins with sma_", "")
        assert (await pages.keys.resource(Resource("bot", "40"))).is_protected
    assert (await admin.post(path, {"confirm": "bot:40", "token": admin.token})).status_code == 303
    assert not (await pages.keys.resource(Resource("bot", "40"))).is_protected


async def test_no_token_is_in_any_later_page(pages: Pages) -> None:
    person = await pages.new_person()
    made = await person.post("/keys/new", {"name": "oracle", "bind": "bot:50"})
    token = token_of(made.text)
    key_id = str((await pages.keys.keys(Resource("bot", "50")))[0].key_id)
    person.seen.clear()
    await person.post("/check", {"url": "/bots/50", "token": token})
    await person.post("/keys/new", {"name": "oracle", "description": token, "token": token})
    for path in ("/", "/keys", f"/keys/{key_id}", f"/keys/{key_id}/rotate", "/resources/bot/50", "/audit", "/usage"):
        await person.get(path)
    await person.get("/usage", params={"key": key_id})
    assert "Granted" in person.seen[0]
    assert [page for page in person.seen if person.token in page] == []
    assert [page for page in [person.seen[0], *person.seen[2:]] if token in page] == []


async def test_a_session_that_ends_in_a_form_loses_nothing_but_tokens(pages: Pages) -> None:
    person = await pages.new_person()
    fields = {"name": "long typed <i>", "description": "a\nb", "bind": "bot:60", "token": "sma_secret"}
    other = Person(pages.app)
    await other.sign_in(person.token)
    await other.post("/sign-out", {"everywhere": "true"})
    over = await person.post("/keys/new", fields)
    assert over.status_code == 401
    form = Outline(over.text).forms[0]
    kept = {field["name"]: field.get("value", "") for field in form["fields"]}
    assert kept == {"name": fields["name"], "description": "a\nb", "bind": "bot:60", "sign_in_token": ""}
    wrong = await person.post("/keys/new", kept | {"sign_in_token": "sma_wrong"})
    assert (wrong.status_code, "sma_wrong" in wrong.text) == (401, False)
    back = await person.post("/keys/new", kept | {"sign_in_token": person.token})
    assert back.status_code == 200
    typed = {field["name"]: field.get("value") for field in Outline(back.text).forms[0]["fields"]}
    assert (typed["name"], typed["bind"]) == (fields["name"], "bot:60")
    assert person.token not in back.text
    assert (await person.post("/keys/new", {name: kept[name] for name in ("name", "bind")})).status_code == 201


async def test_where_deactivating_opens_it_wants_name_and_token_too(pages: Pages) -> None:
    app = AdminApp(settings(pages.database, require="active"))
    minted = await pages.keys.create("only", bind=[Resource("bot", "70"), Resource("bot", "71")])
    idle = await pages.keys.create("idle")
    await pages.keys.deactivate(idle.key.key_id)
    await pages.keys.add_resource(Resource("bot", "72"), protect=False)
    admin = await pages.new_person()
    async with lifespan(app):
        person, manager = Person(app), Person(app)
        await person.sign_in(admin.token)
        await manager.sign_in((await pages.new_person(Role.MANAGER)).token)
        path = f"/keys/{minted.key.key_id}/deactivate"
        page = await person.get(path)
        assert "After this, no key does, and it is open to anyone" in page.text
        assert "Type bot:70 bot:71 to confirm" in page.text
        refused = await manager.post(path)
        assert refused.status_code == 409
        assert "This needs the role admin" in refused.text
        assert (await person.post(path, {"confirm": "bot:70", "token": admin.token})).status_code == 422
        assert (await pages.keys.key(minted.key.key_id)).is_active
        confirmed = {"confirm": "bot:70 bot:71", "token": admin.token}
        assert (await person.post(path, confirmed)).status_code == 303
        assert not (await pages.keys.key(minted.key.key_id)).is_active


async def test_what_was_not_confirmed_is_not_opened_whatever_changes_in_between(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody deactivates another key after the first one was confirmed: two resources would be open now."""
    app = AdminApp(settings(pages.database, require="active"))
    one, other = Resource("bot", "75"), Resource("bot", "76")
    minted = await pages.keys.create("opens one", bind=[one, other])
    second = await pages.keys.create("opens other", bind=[other])
    admin = await pages.new_person()

    async def confirmed(visit: Visit, opened: Sequence[Resource]) -> None:
        assert list(opened) == [one]
        await pages.keys.deactivate(second.key.key_id)

    monkeypatch.setattr(acts, "confirmed", confirmed)
    async with lifespan(app):
        person = Person(app)
        await person.sign_in(admin.token)
        answer = await person.post(f"/keys/{minted.key.key_id}/deactivate", {"confirm": "bot:75", "token": "x"})
    assert answer.status_code == 409
    assert "This would open bot:76" in answer.text
    assert (await pages.keys.key(minted.key.key_id)).is_active


async def test_where_binding_opens_the_form_asks_for_name_and_token(pages: Pages) -> None:
    """A key that is deactivated, bound to a resource that another binding closed before."""
    app = AdminApp(settings(pages.database, require="active"))
    gone = await pages.keys.create("gone", bind=[Resource("bot", "80")])
    idle = await pages.keys.create("idle too")
    await pages.keys.deactivate(idle.key.key_id)
    await pages.keys.unbind(gone.key.key_id, Resource("bot", "80"), allow_anonymous=True)
    await pages.keys.create("revoked", bind=[Resource("bot", "81")])
    admin = await pages.new_person()
    async with lifespan(app):
        person = Person(app)
        await person.sign_in(admin.token)
        bound = await pages.keys.create("closes", bind=[Resource("bot", "82")])
        await pages.keys.revoke(bound.key.key_id, unbind=True)
        path = f"/keys/{idle.key.key_id}/bind"
        refused = await person.post(path, {"resource": "bot:82"})
        assert refused.status_code == 409
        assert "allow_anonymous" not in refused.text
        assert {"resource", "confirm", "token"} <= {one["name"] for one in Outline(refused.text).forms[0]["fields"]}
        confirmed = {"resource": "bot:82", "confirm": "bot:82", "token": admin.token}
        assert (await person.post(path, confirmed)).status_code == 303


async def test_leaked_tokens_are_found_and_ended_and_never_shown(pages: Pages) -> None:
    person, viewer = await pages.person(Role.MANAGER), await pages.person(Role.VIEWER)
    minted = await pages.keys.create("leaked", bind=[Resource("bot", "90")])
    operator = await pages.operators.create("leaked operator", Role.VIEWER)
    tokens = [minted.token.reveal(), operator.token.reveal(), "sm_of_nobody"]
    pasted = {"tokens": "\r\n".join([*tokens, f"Authorization: Token {tokens[0]}"])}
    assert (await viewer.post("/leaks", pasted | {"act": "end"})).status_code == 403
    found = await person.post("/leaks", pasted | {"act": "find"})
    text = Outline(found.text).text
    assert "1 key found for 3 tokens" in text
    assert "1 is written as the token of an operator" in text
    assert "1 belongs to no key" in text
    assert str(minted.key.key_id) in found.text
    assert (await pages.keys.key(minted.key.key_id)).revoked_at is None
    ended = await person.post("/leaks", pasted | {"act": "end"})
    text = Outline(ended.text).text
    assert "1 key revoked" in text
    assert "1 operator token is ended" in text
    assert "1 of the 3 tokens belongs to no key" in text
    assert (await pages.keys.key(minted.key.key_id)).revoked_at is not None
    assert (await Person(pages.app).sign_in(tokens[1])).status_code == 401
    over = await Person(pages.app).post("/leaks", pasted)
    assert not [page for page in (found.text, ended.text, over.text) if any(token in page for token in tokens)]


async def test_leaked_tokens_of_another_account_count_as_unknown(pages: Pages) -> None:
    person = await pages.person(Role.MANAGER, OWN)
    minted = await pages.keys.create("foreign leak", account=FOREIGN)
    answers = [
        Outline((await person.post("/leaks", {"tokens": token, "act": act})).text).text
        for token in (minted.token.reveal(), "sm_of_nobody")
        for act in ("find", "end")
    ]
    assert answers[:2] == answers[2:]
    assert (await pages.keys.key(minted.key.key_id)).revoked_at is None


@pytest.mark.parametrize(
    ("state", "acts"),
    [
        ("active", {"activate": "already active"}),
        ("inactive", {"deactivate": "already inactive"}),
        ("expired", {"rotate": "has expired", "activate": "has expired"}),
        (
            "revoked",
            dict.fromkeys(("rotate", "edit", "bind", "activate", "deactivate", "revoke"), "is revoked for good"),
        ),
    ],
)
async def test_an_impossible_act_has_no_form_and_says_why(pages: Pages, state: str, acts: dict[str, str]) -> None:
    person = await pages.person()
    expires_at = datetime.now(UTC) + timedelta(milliseconds=300) if state == "expired" else None
    key = (await pages.keys.create(f"impossible {state}", expires_at=expires_at)).key
    if state == "inactive":
        await pages.keys.deactivate(key.key_id)
    if state == "revoked":
        await pages.keys.revoke(key.key_id)
    while state == "expired" and (await pages.keys.key(key.key_id)).state(datetime.now(UTC)).value != "expired":
        await asyncio.sleep(0.05)
    shown = {}
    for act in ("rotate", "edit", "bind", "activate", "deactivate", "revoke"):
        page = await person.get(f"/keys/{key.key_id}/{act}")
        outline = Outline(page.text)
        assert page.status_code == 200
        if not [form for form in outline.forms if form.get("method") == "post"]:
            shown[act] = outline.text
    assert shown.keys() == acts.keys()
    assert all(acts[act] in text for act, text in shown.items())


async def test_a_token_in_a_name_is_shown_nowhere_and_stays_until_somebody_changes_it(pages: Pages) -> None:
    person = await pages.new_person()
    checked, knox = mint("checked").reveal(), mint().reveal()
    await pages.keys.add_resource(Resource("bot", "95"), name=f"of {knox}")
    key = (await pages.keys.create(f"my {checked}!", description=knox, bind=[Resource("bot", "95")])).key
    await pages.keys.set_key(key.key_id, description=f"{knox} {checked}")
    path = f"/keys/{key.key_id}"
    person.seen.clear()
    acts = ("", "/rotate", "/edit", "/bind", "/deactivate", "/revoke")
    for one in (*(f"{path}{act}" for act in acts), "/", "/keys", "/resources", "/resources/bot/95", "/audit"):
        assert (await person.get(one)).status_code == 200
    await person.get("/keys/revoke", params={"key_id": str(key.key_id)})
    form = Outline((await person.get(f"{path}/edit")).text).forms[0]
    kept = {field["name"]: field.get("value", "") for field in form["fields"]}
    assert (await person.post(f"{path}/edit", kept | {"labels": "team=x"})).status_code == 303
    assert [text for text in person.seen if checked in text or knox in text] == []
    assert "my sm_" in person.seen[0]
    assert (await pages.keys.key(key.key_id)).name == f"my {checked}!"


async def test_consequences_are_right_where_more_keys_are_bound_than_a_page_shows(pages: Pages) -> None:
    person, resource = await pages.person(), Resource("bot", "97")
    for number in range(13):
        ended = await pages.keys.create(f"a{number:02} ended", bind=[resource])
        await pages.keys.revoke(ended.key.key_id)
    key = (await pages.keys.create("z opens", bind=[resource])).key
    text = (await person.get(f"/keys/{key.key_id}/revoke")).text
    assert "1 key opens bot:97. After this, no key does, and it stays closed." in text
    for number in range(13):
        await pages.keys.create(f"b{number:02} opens", bind=[resource])
    text = (await person.get(f"/resources/bot/97/keys/{key.key_id}/unbind")).text
    assert "more than 10 keys open bot:97. After this more than 10 do." in text
