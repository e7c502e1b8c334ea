"""Signing in and out, and the session between them."""

from __future__ import annotations

import pytest

from smarter_auth_mw.admin import AdminApp
from smarter_auth_mw.admin.pages.access import checked_target
from smarter_auth_mw.management.operators import Role
from smarter_auth_mw.metrics import samples
from tests.support.admin import settings
from tests.support.asgi import lifespan
from tests.support.pages import Outline, Pages, Person

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_signing_in_leads_to_the_page_that_was_asked_for(pages: Pages) -> None:
    minted = await pages.operators.create("to", Role.VIEWER)
    person = Person(pages.app)
    asked = await person.get("/keys?state=active")
    assert (asked.status_code, asked.headers["location"]) == (303, "./sign-in?to=keys%3Fstate%3Dactive")
    form = await person.get("/sign-in?to=keys%3Fstate%3Dactive")
    assert ("to", "keys?state=active") in {
        (field["name"], field.get("value", "")) for field in Outline(form.text).forms[0]["fields"]
    }
    signed_in = await person.sign_in(minted.token.reveal(), "keys?state=active")
    assert (signed_in.status_code, signed_in.headers["location"]) == (303, "./keys?state=active")
    cookie = signed_in.headers["set-cookie"]
    assert cookie.startswith("smarter_auth_8010=")
    assert cookie.endswith("; Path=/; HttpOnly; SameSite=Lax")
    assert (await person.get("/keys?state=active")).status_code == 200


async def test_with_an_https_origin_the_cookie_is_of_this_host_alone(pages: Pages) -> None:
    app = AdminApp(settings(pages.database, admin_origin="https://admin.example.com"))
    minted = await pages.operators.create("https", Role.VIEWER)
    async with lifespan(app):
        person = Person(app, "https://admin.example.com", client=("10.0.0.1", 1))
        cookie = (await person.sign_in(minted.token.reveal())).headers["set-cookie"]
        assert cookie.startswith("__Host-smarter_auth=")
        assert cookie.endswith("; Path=/; HttpOnly; SameSite=Lax; Secure")
        assert (await person.get("/account")).status_code == 200


async def test_two_programs_on_ports_of_one_machine_keep_their_sessions_apart(pages: Pages) -> None:
    minted = await pages.operators.create("two ports", Role.VIEWER)
    names = set()
    for origin in ("http://localhost:8011", "http://localhost:8012", "http://localhost"):
        person = Person(pages.app, origin)
        answer = await person.sign_in(minted.token.reveal())
        names.add(answer.headers["set-cookie"].partition("=")[0])
        assert (await person.get("/account")).status_code == 200
        assert names >= {(await person.post("/sign-out")).headers["set-cookie"].partition("=")[0]}
    assert names == {"smarter_auth_8011", "smarter_auth_8012", "smarter_auth_80"}


async def test_no_token_that_is_not_valid_opens_a_session(pages: Pages) -> None:
    minted = await pages.operators.create("revoked", Role.ADMIN)
    await pages.operators.revoke("revoked")
    key = await pages.keys.create("a key")
    answers = []
    for token in (minted.token.reveal(), "sma_" + "a" * 49, "", "x" * 10_000, key.token.reveal()):
        person = Person(pages.app)
        answers.append(await person.sign_in(token))
        assert "set-cookie" not in answers[-1].headers
        assert token not in answers[-1].text or not token
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1
    assert "no longer valid" in answers[0].text


async def test_failed_sign_ins_are_throttled_and_valid_tokens_never(pages: Pages) -> None:
    app = AdminApp(settings(pages.database, failed_attempts="3/minute"))
    minted = await pages.operators.create("throttled", Role.VIEWER)
    async with lifespan(app):
        person = Person(app)
        answers = [await person.sign_in("sma_" + "a" * 49) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [401, 401, 401, 429, 429]
        assert int(answers[-1].headers["retry-after"]) > 0
        assert app.figures()[samples.ADMIN_REFUSED.name] == {(): 5}
        assert app.figures()[samples.ADMIN_REQUESTS.name] == {("page_sign_in", "401"): 3, ("page_sign_in", "429"): 2}
        assert (await person.sign_in(minted.token.reveal())).status_code == 303


async def test_signing_out_ends_the_session_and_everywhere_all_of_them(pages: Pages) -> None:
    minted = await pages.operators.create("out", Role.VIEWER)
    one, two, three = Person(pages.app), Person(pages.app), Person(pages.app)
    for person in (one, two, three):
        await person.sign_in(minted.token.reveal())
    kept = dict(one.client.cookies)
    left = await one.post("/sign-out")
    assert (left.status_code, left.headers["location"]) == (303, "./sign-in")
    one.client.cookies.update(kept)
    assert (await one.get("/account")).status_code == 303
    assert (await two.get("/account")).status_code == 200
    await two.post("/sign-out", {"everywhere": "true"})
    assert (await three.get("/account")).status_code == 303


@pytest.mark.parametrize("target", ["keys", "keys?find=a%20b", "keys/0d5e", "account"])
async def test_targets_that_are_pages_are_kept(target: str) -> None:
    assert checked_target(target, _has_page) == target


@pytest.mark.parametrize(
    "target",
    [
        *("https://evil.example.com", "//evil.example.com", "/keys", "\\keys", "keys\\..", "javascript:alert(1)"),
        *("../keys", "keys/../..", "no-page", "sign-in", "keys\r\nSet-Cookie: a=b", "keys/", "./keys", "keys ", ""),
    ],
)
async def test_targets_that_are_none_lead_to_the_first_page(target: str) -> None:
    assert checked_target(target, _has_page) == ""


def _has_page(path: str) -> bool:
    return path in ("/", "/keys", "/account", "/keys/0d5e")


async def test_pages_take_no_token_and_the_api_takes_no_cookie(pages: Pages) -> None:
    person = await pages.new_person()
    assert (await person.get("/keys")).status_code == 200
    assert (await person.client.get("/api/v1/keys")).status_code == 401
    bearer = {"Authorization": f"Bearer {person.token}"}
    stranger = Person(pages.app)
    assert (await stranger.get("/keys", headers=bearer)).status_code == 303
    assert (await stranger.client.get("/api/v1/keys", headers=bearer)).status_code == 200
