"""Overview, usage, audit, and why a request is let through or refused."""

from __future__ import annotations

import time
from uuid import uuid4

import pytest

from smarter_auth_mw.domain import Resource
from smarter_auth_mw.management.operators import Role
from smarter_auth_mw.observers.usage import GRANTED, Batch, Series
from tests.support.pages import Outline, Pages

pytestmark = pytest.mark.asyncio(loop_scope="module")


NOBODYS = "00000000-0000-4000-8000-000000000000"


async def test_the_overview_sums_up_requests_and_names_the_keys_used_most(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, scoped = await pages.person(), await pages.person(account="traffic")
    assert "No requests in the last 24 hours" in (await scoped.get("/")).text
    bot, other = Resource("bot", "70"), Resource("bot", "71")
    busy, calm = [await pages.keys.create(name, account="traffic", bind=[bot]) for name in ("busy", "calm")]
    foreign = await pages.keys.create("foreign", account="elsewhere", bind=[other])
    counts = {
        Series("bot", "70", GRANTED, str(busy.key.key_id), busy.token.token_key, busy.token.digest): 1200,
        Series("bot", "70", GRANTED, str(calm.key.key_id), calm.token.token_key, calm.token.digest): 30,
        Series("bot", "70", "revoked", str(calm.key.key_id), calm.token.token_key): 5,
        Series("bot", "70", "unknown_token"): 4,
        Series("bot", "70", "foreign_account", str(foreign.key.key_id), foreign.token.token_key): 2,
        Series("bot", "71", GRANTED, str(foreign.key.key_id), foreign.token.token_key, foreign.token.digest): 90_000,
    }
    await pages.store.write_usage(Batch(counts, uuid4(), time.monotonic()))
    text = Outline((await scoped.get("/")).text).text
    assert "1,230 granted 11 refused" in text
    assert "Keys that are used most Key Granted Refused busy 1,200 0 calm 30 5" in text
    assert "foreign" not in text
    assert "Granted Refused foreign 90,000" in Outline((await person.get("/")).text).text
    monkeypatch.setattr("smarter_auth_mw.management.listings.usage.MAX_BY_HOUR", 3)
    text = Outline((await scoped.get("/")).text).text
    assert "Requests since yesterday, UTC 1,230 granted 11 refused" in text
    monkeypatch.setattr("smarter_auth_mw.management.listings.usage.MAX_BY_DAY", 3)
    for one in (person, scoped):
        text = Outline((await one.get("/")).text).text
        assert ("Too many resources and tokens to add up here" in text, "used most" in text) == (True, False)


async def test_the_audit_shows_acts_of_people_with_what_changed(pages: Pages) -> None:
    person = await pages.person()
    minted = await pages.keys.create("before")
    await pages.keys.set_key(minted.key.key_id, name="after", description="token " + minted.token.reveal())
    page = await person.get(f"/audit?key={minted.key.key_id}")
    assert "<del>before</del>" in page.text
    assert "<ins>after</ins>" in page.text
    assert f'keys/{minted.key.key_id}">before</a>' in page.text, "An act names the key as it was then."
    assert minted.token.reveal() not in page.text
    assert f"audit --key {minted.key.key_id} --acts --limit 50" in Outline(page.text).text
    assert (await person.get("/audit?since=yesterday")).status_code == 422
    assert (await person.get("/audit?requests=true&action=request.*")).status_code == 200


async def test_why_explains_as_nobody_and_with_a_token_and_repeats_no_token(pages: Pages) -> None:
    person = await pages.person(Role.VIEWER)
    minted = await pages.keys.create("asks", bind=[Resource("bot", "5")])
    nobody = await person.post("/check", {"url": "/bots/5"})
    assert "Refused" in nobody.text
    assert "missing_credentials" in nobody.text
    as_key = await person.post("/check", {"url": "/bots/5", "token": minted.token.reveal()})
    assert "Granted" in as_key.text
    assert minted.token.reveal() not in as_key.text
    key_id = str(minted.key.key_id)
    assert "Granted" in (await person.post("/check", {"url": "/bots/5", "key_id": key_id})).text
    await pages.keys.deactivate(minted.key.key_id)
    inactive = await person.post("/check", {"url": "/bots/5", "key_id": key_id})
    assert ("Refused" in inactive.text, "inactive" in inactive.text) == (True, True)
    both = {"url": "/bots/5", "key_id": key_id, "token": minted.token.reveal()}
    for wrong, status in (
        (both, 422),
        ({"url": "/bots/5", "key_id": "x"}, 422),
        ({"url": "/x", "key_id": NOBODYS}, 404),
    ):
        answer = await person.post("/check", wrong)
        assert answer.status_code == status
        assert minted.token.reveal() not in answer.text
    other = await person.post("/check", {"url": "/bots/6", "token": minted.token.reveal(), "method": "POST"})
    assert "the resource is open" in other.text
    for fields in (
        {"url": ""},
        {"url": "nonsense"},
        {"url": "/x", "headers": "no colon"},
        {"url": "/x", "method": "?"},
    ):
        assert (await person.post("/check", fields)).status_code in (200, 422)
    assert (await person.post("/check", {"url": ""})).status_code == 422


async def test_a_chart_that_cannot_be_drawn_says_why(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    person, resource = await pages.person(), Resource("bot", "55")
    minted = await pages.keys.create("drawn", bind=[resource])
    assert "No requests in the last 24 hours." in (await person.get("/resources/bot/55")).text
    batch = {Series("bot", "55", outcome): 1 for outcome in (GRANTED, "unknown_token")}
    await pages.store.write_usage(Batch(batch, uuid4(), time.monotonic()))
    assert '<svg class="chart"' in (await person.get("/resources/bot/55")).text
    monkeypatch.setattr("smarter_auth_mw.management.listings.usage.MAX_SERIES", 1)
    for path in ("/resources/bot/55", "/usage?resource=bot%3A55"):
        text = (await person.get(path)).text
        assert "too many to add up for a chart" in text
        assert "No requests" not in text
    assert "No requests in the last 24 hours." in (await person.get(f"/keys/{minted.key.key_id}")).text


async def test_usage_asks_for_a_resource_or_a_key(pages: Pages) -> None:
    person = await pages.person(Role.VIEWER)
    minted = await pages.keys.create("used", bind=[Resource("bot", "7")])
    assert "Name a resource or a key" in (await person.get("/usage")).text
    assert "No requests in the last 24 hours" in (await person.get("/usage?resource=bot:7")).text
    assert (await person.get(f"/usage?key={minted.key.key_id}&since=7d")).status_code == 200
    assert (await person.get("/usage?resource=nonsense")).status_code == 422
    assert (await person.get("/usage?resource=bot:77")).status_code == 404
