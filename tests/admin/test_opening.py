"""What opens a resource asks for an admin who says so, whatever REQUIRE is and whichever act it is."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from smarter_auth_mw.admin import AdminApp
from smarter_auth_mw.management.operators import Operators, Role
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from tests.support.admin import Caller, Site, settings
from tests.support.asgi import lifespan
from tests.support.database import Database


@pytest.fixture
async def required(require: str, database: Database) -> AsyncIterator[Site]:
    """The API where REQUIRE has the value that the test is given."""
    async with (
        open_pool(database.owner) as pool,
        lifespan(AdminApp(settings(database, require=require))) as app,
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client,
    ):
        yield Site(app, client, Store(pool), Operators(Store(pool), "tester"))


UNBIND, BIND = ("DELETE", "/resources/bot/1/keys/KEY"), ("PUT", "/resources/bot/1/keys/KEY")
DEACTIVATE, REVOKE = ("POST", "/keys/KEY/deactivate"), ("POST", "/keys/KEY/revoke")
OPENS = [
    ("bound", UNBIND, ""),
    ("active", UNBIND, ""),
    ("active", DEACTIVATE, ""),
    ("active", UNBIND, "deactivated"),
    ("active", UNBIND, "revoked"),
]
"""Under this REQUIRE the act on a key opens the bot, if its only other key is in this state; empty: no other key."""
STAYS = [
    ("bound", DEACTIVATE, ""),
    ("bound", UNBIND, "deactivated"),
    ("bound", REVOKE, ""),
    ("active", REVOKE, ""),
    ("active", DEACTIVATE, "active"),
    ("active", UNBIND, "active"),
]


async def _prepared(admin: Caller, other: str) -> str:
    """Make a key of bot 1, and another one in this state; returns the first one's id."""
    key_id: str = (await admin.json("POST", "/keys", {"name": "one", "bind": ["bot:1"]}))["key_id"]
    if other:
        second = (await admin.json("POST", "/keys", {"name": "two", "bind": ["bot:1"]}))["key_id"]
        act = {"deactivated": "deactivate", "revoked": "revoke", "active": "activate"}[other]
        await admin.json("POST", f"/keys/{second}/{act}")
    return key_id


async def _is_protected(admin: Caller) -> bool:
    explained = await admin.json("POST", "/check", {"url": "/bots/1"})
    return bool(explained["decision"] == "deny")


@pytest.mark.parametrize(("require", "act", "other"), OPENS)
async def test_act_that_opens_needs_an_admin_who_says_so(required: Site, act: tuple[str, str], other: str) -> None:
    admin, manager = await required.caller(Role.ADMIN), await required.caller(Role.MANAGER)
    method, path = act[0], act[1].replace("KEY", await _prepared(admin, "" if other == "revoked" else other))
    if other == "revoked":
        await admin.json("POST", f"/keys/{path.rpartition('/')[2]}/revoke")
        second = (await admin.json("POST", "/keys", {"name": "two", "bind": ["bot:1"]}))["key_id"]
        await admin.json("POST", f"/keys/{second}/deactivate")
    assert await _is_protected(admin)
    for caller in (manager, admin):
        response = await caller(method, path)
        assert (response.status_code, response.json()["code"]) == (409, "would_open")
        assert "allow_anonymous=true" in response.json()["hint"]
    refused = await manager(method, f"{path}?allow_anonymous=true")
    assert (refused.status_code, refused.json()["role"]) == (403, "admin")
    assert await _is_protected(admin)
    await admin.json(method, f"{path}?allow_anonymous=true")
    assert not await _is_protected(admin)


@pytest.mark.parametrize(("require", "act", "other"), STAYS)
async def test_act_that_opens_nothing_needs_no_admin(required: Site, act: tuple[str, str], other: str) -> None:
    admin, manager = await required.caller(Role.ADMIN), await required.caller(Role.MANAGER)
    await manager.json(act[0], act[1].replace("KEY", await _prepared(admin, other)))
    assert await _is_protected(admin)
