"""The API as a program uses it: mint, bind, rotate, revoke, retry after a lost answer, and read what happened."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from smarter_auth_mw.admin import AdminApp
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.management.operators import Role
from smarter_auth_mw.observers.usage import GRANTED, Batch, Series
from smarter_auth_mw.tokens import mint, mint_operator_token
from tests.support.admin import FOREIGN, OWN, Caller, Site, settings
from tests.support.asgi import client, guarded, lifespan
from tests.support.database import OUTSIDE_THE_CALENDAR, Database

BOT = Resource("bot", "1")


async def _key(admin: Caller, name: str = "customer", **more: Any) -> Any:
    return await admin.json("POST", "/keys", {"name": name, **more})


async def test_key_of_the_api_opens_its_bot_until_it_is_revoked(admin: Caller, database: Database) -> None:
    async with lifespan(guarded(database.runtime)) as app, client(app) as bots:
        assert (await bots.get("/bots/1")).status_code == 200
        minted = await _key(admin, bind=["bot:1"])
        headers = {"Authorization": f"Token {minted['token']}"}
        await _until(bots, 401)
        assert (await bots.get("/bots/1", headers=headers)).status_code == 200
        revoked = await admin.json("POST", f"/keys/{minted['key_id']}/revoke")
        assert (revoked["state"], revoked["within_s"]) == ("revoked", 5.0)
        assert datetime.fromisoformat(revoked["revoked_at"]) <= datetime.now(UTC)
        await _until(bots, 401, headers)


async def _until(bots: httpx.AsyncClient, status: int, headers: dict[str, str] | None = None) -> None:
    async with asyncio.timeout(30):
        while (await bots.get("/bots/1", headers=headers)).status_code != status:
            await asyncio.sleep(0.02)


async def test_minted_key_is_answered_whole_and_never_again_with_its_token(admin: Caller) -> None:
    response = await admin(
        "POST",
        "/keys",
        {
            "name": "customer",
            "description": "signed up",
            "expires_in": "30d",
            "labels": {"plan": "gold"},
            "bind": ["bot:1", "cat:tom"],
            "account": OWN,
        },
    )
    minted = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"keys/{minted['key_id']}"
    assert minted["bindings"] == ["bot:1", "cat:tom"]
    assert (minted["labels"], minted["account"], minted["created"]) == ({"plan": "gold"}, OWN, True)
    left = datetime.fromisoformat(minted["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=29) < left <= timedelta(days=30)
    shown = await admin("GET", f"/keys/{minted['key_id']}")
    assert shown.headers["etag"] == response.headers["etag"]
    assert shown.json() == {name: value for name, value in minted.items() if name not in ("token", "created")}
    assert minted["token"] not in shown.text


async def test_statements_of_a_create_do_not_grow_in_number_unnoticed(site: Site, admin: Caller) -> None:
    """With the operator's look-up, two checks of the connection, BEGIN and COMMIT; so many more for each binding."""
    asked: list[str] = []
    services = await site.app._services.get()
    async with services.store._pool.acquire() as connection:
        connection.add_query_logger(lambda one: asked.append(one.query))
    counts = []
    for name, bind in (("first", ["bot:1"]), ("none", []), ("one", ["bot:1"]), ("two", ["bot:1", "bot:2"])):
        await admin.json("POST", "/resources", {"kind": "bot", "ref": "2"}) if name == "two" else None
        await asyncio.sleep(0)  # The last statement is noted by a callback.
        asked.clear()
        await admin.json("POST", "/keys", {"name": name, "bind": bind})
        await asyncio.sleep(0)
        counts.append(len(asked))
    assert counts[1:] == [12, 18, 24]


async def test_repeated_create_is_a_conflict_that_names_the_key(admin: Caller) -> None:
    minted = await _key(admin)
    response = await admin("POST", "/keys", {"name": "customer"})
    assert (response.status_code, response.json()["code"]) == (409, "conflict")
    assert response.json()["key_id"] == minted["key_id"]


async def test_rotation_names_the_token_that_it_replaces(admin: Caller) -> None:
    minted = await _key(admin)
    path, body = f"/keys/{minted['key_id']}/rotate", {"token_key": minted["token_key"]}
    first = await admin.json("POST", path, body)
    assert first["token"].startswith(first["token_key"])
    again = await admin("POST", path, body)
    assert (again.status_code, again.json()["code"]) == (409, "rotation_overlaps")
    assert again.json()["token_key"] == first["token_key"]
    assert await admin.code("POST", path, body | {"force": True}) == (409, "rotation_overlaps")
    second = await admin.json("POST", path, {"token_key": first["token_key"], "force": True, "overlap": "0s"})
    assert await admin.code("POST", path, {"token_key": first["token_key"]}) == (409, "conflict")
    assert (await admin.json("GET", f"/keys/{minted['key_id']}"))["token_key"] == second["token_key"]


async def test_two_rotations_at_once_give_one_token(admin: Caller) -> None:
    minted = await _key(admin)
    path, body = f"/keys/{minted['key_id']}/rotate", {"token_key": minted["token_key"], "overlap": "0s"}
    responses = await asyncio.gather(*(admin("POST", path, body) for _ in range(4)))
    assert sorted(response.status_code for response in responses) == [200, 409, 409, 409]


async def test_key_is_changed_by_a_merge_patch(admin: Caller) -> None:
    minted = await _key(admin, expires_in="30d", labels={"plan": "gold", "team": "x"}, description="old")
    path = f"/keys/{minted['key_id']}"
    changed = await admin.json("PATCH", path, {"name": "renamed", "labels": {"team": None, "tier": "1"}})
    assert (changed["name"], changed["labels"]) == ("renamed", {"plan": "gold", "tier": "1"})
    assert (changed["expires_at"], changed["description"]) == (minted["expires_at"], "old")
    changed = await admin.json("PATCH", path, {"expires_at": None, "description": None})
    assert (changed["expires_at"], changed["description"], changed["name"]) == (None, "", "renamed")
    assert await admin.code("PATCH", path, {"name": None}) == (422, "invalid")
    assert await admin.code("PATCH", path, {"account": "x"}) == (422, "invalid")


async def test_if_match_refuses_what_was_changed_meanwhile(admin: Caller) -> None:
    minted = await _key(admin)
    path = f"/keys/{minted['key_id']}"
    first = (await admin("GET", path)).headers["etag"]
    assert await admin.json("PATCH", path, {"description": "one"}, headers={"If-Match": f'"0", {first}'})
    for act, body in (("", {"description": "two"}), ("/revoke", None), ("/deactivate", None)):
        method = "PATCH" if body else "POST"
        assert await admin.code(method, path + act, body, headers={"If-Match": first}) == (412, "changed_meanwhile")
    assert (await admin.json("GET", path))["description"] == "one"
    assert await admin.json("PATCH", path, {"description": "three"}, headers={"If-Match": "*"})
    lines = [("If-Match", (await admin("GET", path)).headers["etag"]), ("If-Match", '"0"')]
    headers = [("Authorization", f"Bearer {admin.token}"), ("Content-Type", "application/json"), *lines]
    answer = await admin.client.patch(f"/api/v1{path}", headers=headers, content=b'{"description": "four"}')
    assert answer.status_code == 200, "Several lines are one list."


async def test_two_changes_at_once_with_one_etag_make_one(admin: Caller) -> None:
    minted = await _key(admin)
    path = f"/keys/{minted['key_id']}"
    headers = {"If-Match": (await admin("GET", path)).headers["etag"]}
    changes = (admin("PATCH", path, {"description": f"{number}"}, headers=headers) for number in range(4))
    assert sorted(response.status_code for response in await asyncio.gather(*changes)) == [200, 412, 412, 412]


async def test_key_is_deactivated_and_activated(admin: Caller) -> None:
    minted = await _key(admin)
    for act, state in (("deactivate", "inactive"), ("deactivate", "inactive"), ("activate", "active")):
        assert (await admin.json("POST", f"/keys/{minted['key_id']}/{act}"))["state"] == state


async def test_revoked_key_stays_so(admin: Caller) -> None:
    minted = await _key(admin)
    path = f"/keys/{minted['key_id']}"
    first = await admin.json("POST", f"{path}/revoke")
    assert (await admin.json("POST", f"{path}/revoke"))["revoked_at"] == first["revoked_at"]
    for method, act, body in (("POST", "/activate", None), ("PATCH", "", {"name": "x"})):
        assert await admin.code(method, path + act, body) == (409, "refused")
    assert (await _key(admin))["key_id"] != minted["key_id"]


async def test_binding_is_put_and_deleted(admin: Caller) -> None:
    minted = await _key(admin)
    path = f"/resources/bot/1/keys/{minted['key_id']}"
    statuses = [(await admin("PUT", path)).status_code for _ in range(2)]
    assert statuses == [201, 200]
    assert (await admin.json("GET", "/resources/bot/1"))["protected"] is True
    assert await admin.code("DELETE", path) == (409, "would_open")
    unbound = await admin.json("DELETE", f"{path}?allow_anonymous=true")
    assert unbound["bindings"] == []
    assert await admin.code("DELETE", path) == (404, "not_found")
    assert (await admin.json("GET", "/resources/bot/1"))["protected"] is False


async def test_only_an_admin_opens(site: Site, admin: Caller) -> None:
    minted = await _key(admin, bind=["bot:1"])
    manager = await site.caller(Role.MANAGER)
    path = f"/resources/bot/1/keys/{minted['key_id']}?allow_anonymous=true"
    refused = await manager("DELETE", path)
    assert (refused.status_code, refused.json()["role"]) == (403, "admin")
    assert await manager.code("DELETE", "/resources/bot/1?allow_anonymous=true") == (403, "forbidden")
    assert await manager.code("POST", "/resources/bot/1/unprotect", {"confirm": "bot:1"}) == (403, "forbidden")
    assert (await admin.json("GET", "/resources/bot/1"))["protected"] is True


async def test_resource_is_registered_changed_protected_opened_and_forgotten(admin: Caller) -> None:
    made = await admin("POST", "/resources", {"kind": "bot", "ref": "7", "name": "seven"})
    assert (made.status_code, made.headers["location"]) == (201, "resources/bot/7")
    assert await admin.code("POST", "/resources", {"kind": "bot", "ref": "7"}) == (409, "conflict")
    changed = await admin.json("PATCH", "/resources/bot/7", {"name": None, "on_error": "deny"})
    assert (changed["name"], changed["on_error"]) == (None, "deny")
    assert (await admin.json("POST", "/resources/bot/7/protect"))["protected"] is True
    assert await admin.code("DELETE", "/resources/bot/7") == (409, "refused")
    assert await admin.code("POST", "/resources/bot/7/unprotect", {"confirm": "bot:8"}) == (422, "invalid")
    assert (await admin.json("POST", "/resources/bot/7/unprotect", {"confirm": "bot:7"}))["protected"] is False
    assert await admin.json("DELETE", "/resources/bot/7") == {}
    assert await admin.code("GET", "/resources/bot/7") == (404, "not_found")


@pytest.mark.parametrize(
    ("kind", "ref", "code"),
    [("bot", "042", "invalid_reference"), ("dog", "1", "unknown_kind"), ("Bot", "1", "unknown_kind")],
)
async def test_resource_that_no_request_reaches_is_refused(admin: Caller, kind: str, ref: str, code: str) -> None:
    assert await admin.code("POST", "/resources", {"kind": kind, "ref": ref}) == (422, code)
    assert await admin.code("GET", f"/resources/{kind}/{ref}") == (404, "not_found")
    assert (await admin.json("GET", "/resources"))["items"] == []


async def test_pages_follow_their_links_and_lose_nothing(admin: Caller, writes: Management) -> None:
    for number in range(7):
        await writes.create(f"key {number}")
    names, url = [], "?limit=3&find=key%20"
    for _ in range(10):
        response = await admin("GET", f"/keys{url}")
        names += [key["name"] for key in response.json()["items"]]
        assert ("link" in response.headers) == (response.json()["next"] is not None)
        if "link" not in response.headers:
            break
        url = response.headers["link"].removeprefix("<").partition(">")[0]
    assert names == [f"key {number}" for number in range(7)]
    first = await admin.json("GET", "/keys?limit=3")
    assert await admin.code("GET", f"/keys?limit=3&state=active&cursor={first['next']}") == (422, "cursor")


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("label=team%3Dx&label=team%3Dy", "query.label: each label name may be given once"),
        (f"find={'x' * 256}", "query.find: String should have at most 255 characters"),
        (f"token_key={'x' * 16}", "query.token_key: String should have at most 15 characters"),
    ],
)
async def test_filter_that_fits_no_key_says_why(admin: Caller, query: str, says: str) -> None:
    response = await admin("GET", f"/keys?{query}")
    assert response.status_code == 422
    assert response.json()["detail"] == f"{says}."


async def test_lists_filter(admin: Caller) -> None:
    one = await _key(admin, "one", bind=["bot:1"], labels={"team": "x"}, expires_in="5d")
    two = await _key(admin, "two", bind=["bot:2"], account=OWN)
    await admin.json("POST", f"/keys/{two['key_id']}/deactivate")

    async def found(query: str) -> list[str]:
        return [key["name"] for key in (await admin.json("GET", f"/keys?{query}"))["items"]]

    queries = ["resource=bot:1", "label=team%3Dx", "expiring_within=10d", f"key_id={one['key_id']}", "find=ON"]
    assert [await found(query) for query in queries] == [["one"]] * len(queries)
    queries = [
        "state=inactive",
        f"account={OWN}",
        "never_expires=true&never_used=true",
        f"token_key={two['token_key']}",
    ]
    assert [await found(query) for query in queries] == [["two"]] * len(queries)
    assert await found("resource=bot:3") == []
    resources = (await admin.json("GET", "/resources?state=protected&kind=bot"))["items"]
    assert [resource["ref"] for resource in resources] == ["1", "2"]
    resources = (await admin.json("GET", f"/resources?key_id={two['key_id']}"))["items"]
    assert [resource["ref"] for resource in resources] == ["2"]


async def test_inner_lists_are_cut_and_say_so(admin: Caller, writes: Management) -> None:
    keys = [(await writes.create(f"key {number:02}", bind=[BOT])).key for number in range(12)]
    shown = await admin.json("GET", "/resources/bot/1")
    assert (len(shown["bindings"]), shown["more"]) == (10, True)
    for number in range(2, 13):
        await writes.bind(keys[0].key_id, Resource("bot", f"{number}"))
    shown = await admin.json("GET", f"/keys/{keys[0].key_id}")
    assert (len(shown["bindings"]), shown["more"]) == (10, True)


async def test_times_that_no_calendar_has_break_no_answer(admin: Caller, owner: asyncpg.Connection) -> None:
    made = {name: await _key(admin, name, bind=["bot:1"]) for name in ("never", "far", "long ago")}
    for statement in OUTSIDE_THE_CALENDAR:
        await owner.execute(statement)
    listed = await admin.json("GET", "/keys?limit=2")
    more = await admin.json("GET", "/keys?limit=2&cursor=" + listed["next"])
    states = {key["name"]: key["state"] for key in (*listed["items"], *more["items"])}
    assert states == {"never": "active", "far": "active", "long ago": "expired"}
    for path in ("/resources", "/resources/bot/1", "/audit", *(f"/keys/{key['key_id']}" for key in made.values())):
        await admin.json("GET", path)


async def test_many_keys_are_revoked_in_one_transaction(site: Site, admin: Caller, writes: Management) -> None:
    own = [(await writes.create(f"key {number}", account=OWN)).key.key_id for number in range(3)]
    foreign = (await writes.create("foreign", account=FOREIGN)).key.key_id
    ids = [str(key_id) for key_id in [*own, foreign, uuid4()]]
    manager = await site.caller(Role.MANAGER, OWN)
    dry = await manager.json("POST", "/keys/revoke", {"key_ids": ids, "dry_run": True})
    assert (dry["count"], sorted(dry["unknown"])) == (3, sorted(ids[3:]))
    assert (await admin.json("GET", f"/keys/{own[0]}"))["state"] == "active"
    done = await manager.json("POST", "/keys/revoke", {"key_ids": ids})
    assert (done["count"], done["key_ids"], sorted(done["unknown"])) == (3, sorted(map(str, own)), sorted(ids[3:]))
    states = [(await admin.json("GET", f"/keys/{key_id}"))["state"] for key_id in ids[:4]]
    assert states == ["revoked"] * 3 + ["active"]


async def test_leaked_tokens_are_ended_and_counted_and_none_comes_back(site: Site, writes: Management) -> None:
    own, other = await writes.create("own", account=OWN), await writes.create("other", account=FOREIGN)
    by_digest = await writes.create("by digest", account=OWN)
    operator = await site.operators.create("leaky", Role.ADMIN, account=OWN)
    only_copied = await writes.create("only copied", account=OWN)
    tokens = [only_copied.token, own.token, other.token, mint(), mint_operator_token(), operator.token]
    copied = f"\ufeffAuthorization: Bearer {tokens[0].reveal()}\r\n"
    body = {"tokens": [copied, *(token.reveal() for token in tokens[1:])], "digests": [by_digest.token.digest.hex()]}
    manager = await site.caller(Role.MANAGER, OWN)
    response = await manager("POST", "/leaks", body)
    assert response.json() == {
        "tokens": 7,
        "keys_revoked": 3,
        "operator_tokens_ended": 1,
        "platform": 0,
        "unknown": 3,
        "within_s": 5.0,
    }
    assert not [token for token in tokens if token.reveal() in response.text]
    assert (await writes.key(own.key.key_id)).revoked_at is not None
    assert (await writes.key(other.key.key_id)).revoked_at is None
    assert await Caller(site.client, operator.token.reveal()).code("GET", "/me") == (401, "unauthorized")
    assert (await manager.json("POST", "/leaks", body))["keys_revoked"] == 0


async def test_audit_names_the_operator_and_is_served_as_lines_too(admin: Caller) -> None:
    minted = await _key(admin, bind=["bot:1"])
    query = f"/audit?key={minted['key_id']}&order=oldest"
    events = (await admin.json("GET", query))["items"]
    assert [(event["actor"], event["action"]) for event in events] == [
        ("operator admin of None", "key.create"),
        ("operator admin of None", "key.bind"),
    ]
    response = await admin("GET", f"{query}&format=jsonl&limit=1")
    assert [json.loads(line) for line in response.text.splitlines()] == events[:1]
    assert "cursor=" in response.headers["link"]
    assert (await admin.json("GET", "/audit?action=key.*&resource=bot:1&since=1h"))["items"] == events[1:]


async def test_usage_is_shown_of_a_resource_and_of_a_key(site: Site, admin: Caller) -> None:
    minted = await _key(admin, bind=["bot:1"])
    series = Series("bot", "1", GRANTED, minted["key_id"], minted["token_key"])
    await site.store.write_usage(Batch({series: 3}, uuid4(), time.monotonic()))
    for query in ("resource=bot:1", f"key={minted['key_id']}", f"resource=bot:1&key={minted['key_id']}&since=7d"):
        (total,) = (await admin.json("GET", f"/usage?{query}"))["items"]
        assert (total["resource"], total["key_id"], total["granted"]) == ("bot:1", minted["key_id"], 3)
    assert await admin.code("GET", "/usage") == (422, "invalid")


async def test_check_explains_a_request_and_repeats_no_token(admin: Caller) -> None:
    minted = await _key(admin, bind=["bot:1"])
    asked = {"url": "https://example.com/bots/1"}
    assert (await admin.json("POST", "/check", asked))["reason"] == "missing_credentials"
    granted = await admin("POST", "/check", asked | {"token": minted["token"]})
    assert (granted.json()["decision"], minted["token"] in granted.text) == ("grant", False)
    headers = {"X-API-Key": minted["token"]}
    assert (await admin.json("POST", "/check", asked | {"headers": headers}))["decision"] == "grant"
    elsewhere = await admin("POST", "/check", {"url": "/cats/tom", "headers": headers})
    assert (elsewhere.json()["decision"], minted["token"] in elsewhere.text) == ("anonymous", False)
    assert await admin.code("POST", "/check", {"url": "nonsense"}) == (422, "usage")
    assert await admin.code("POST", "/check", asked | {"headers": {"x": "a\r\nb"}}) == (422, "invalid")


async def test_me_and_health(site: Site) -> None:
    viewer = await site.caller(Role.VIEWER, OWN)
    me = await viewer.json("GET", "/me")
    assert (me["name"], me["role"], me["account"]) == ("viewer of acme", "viewer", OWN)
    assert (await viewer.json("GET", "/health"))["status"] == "ready"
    assert (await viewer.json("GET", "/openapi.json"))["openapi"] == "3.1.0"


async def test_operator_revoked_or_demoted_between_two_requests_is_so_at_the_next(site: Site) -> None:
    caller = await site.caller(Role.ADMIN)
    await caller.json("POST", "/keys", {"name": "first"})
    await site.operators.set("admin of None", role=Role.VIEWER)
    assert await caller.code("POST", "/keys", {"name": "second"}) == (403, "forbidden")
    await site.operators.set("admin of None", role=Role.MANAGER, account=FOREIGN)
    assert (await caller.json("GET", "/keys"))["items"] == []
    await site.operators.revoke("admin of None")
    assert await caller.code("GET", "/me") == (401, "unauthorized")


async def test_two_admins_at_once_leave_one_key_of_a_name(site: Site, admin: Caller) -> None:
    other = Caller(site.client, (await site.operators.create("second", Role.ADMIN)).token.reveal())
    calls = (one("POST", "/keys", {"name": "one", "bind": ["bot:1", "bot:2"]}) for one in (admin, other, admin, other))
    assert sorted(response.status_code for response in await asyncio.gather(*calls)) == [201, 409, 409, 409]


async def test_policy_bounds_keys_of_the_api(database: Database, admin: Caller) -> None:
    app = AdminApp(settings(database, max_key_lifetime="30d"))
    async with lifespan(app), client(app) as http:
        http.base_url = httpx.URL("http://localhost")
        caller = Caller(http, admin.token)
        minted = await _key(caller)
        assert datetime.fromisoformat(minted["expires_at"]) - datetime.now(UTC) <= timedelta(days=30)
        assert await caller.code("POST", "/keys", {"name": "long", "expires_in": "31d"}) == (409, "refused")
        assert await caller.code("PATCH", f"/keys/{minted['key_id']}", {"expires_at": "2999-01-01T00:00:00Z"}) == (
            409,
            "refused",
        )
