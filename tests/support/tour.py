"""A database worth looking at, served to a browser, and every page and state of the admin by name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from playwright.async_api import Browser, Page

from smarter_auth_mw import Settings
from smarter_auth_mw.admin import AdminApp
from smarter_auth_mw.cli.demo.traffic import add_traffic
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.management.operators import Operators, Role
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from tests.support.browser import served, visiting
from tests.support.database import Database

ROUTES = ["bot /bots/{ref:int}"]
BIDI = "b\u202eidi <b>"


@dataclass(frozen=True, slots=True)
class House:
    """The admin at an origin, an operator's token, and the ids of the keys by their names."""

    origin: str
    token: str
    keys: Mapping[str, str]

    @asynccontextmanager
    async def visit(self, browser: Browser, *, signs_in: bool = True, **options: Any) -> AsyncIterator[Page]:
        """A page of a fresh profile, whose owner is signed in."""
        async with visiting(browser, self.origin, **options) as page:
            if signs_in:
                await self.sign_in(page)
            yield page

    async def sign_in(self, page: Page, to: str = "") -> None:
        await page.goto(f"/sign-in?to={to}" if to else "/sign-in")
        await page.get_by_label("Operator token", exact=True).fill(self.token)
        await page.get_by_role("button", name="Sign in").click()
        await page.wait_for_url(f"{self.origin}/{to}")

    def acts(self) -> Mapping[str, Callable[[Page], Awaitable[None]]]:
        """What makes each state that only a form leads to, by name; nothing is changed that another one needs."""
        return {
            "token": self.make_key,
            "made twice": lambda page: self._make_key(page, "website"),
            "mistaken key": lambda page: self._make_key(page, "mistaken", "tomorrow"),
            "why refused": self._ask_why,
            "why, mistaken": lambda page: self._ask_why(page, "nowhere"),
            "leaks found": self._find_leak,
            "leaks, nothing pasted": self._find_no_leak,
            "session over": self._lose_session,
        }

    async def make_key(self, page: Page) -> None:
        """Make a key that opens bot 5, with another name each time."""
        await self._make_key(page, f"backup {uuid4().hex[:6]}")
        await page.locator("#token").wait_for()

    async def _make_key(self, page: Page, name: str, expires: str = "90d") -> None:
        await page.goto("/keys/new?bind=bot%3A5")
        await page.get_by_role("textbox", name="Name").fill(name)
        await page.get_by_label("Expires", exact=True).fill(expires)
        await page.get_by_role("button", name="Make key", exact=True).click()

    async def _ask_why(self, page: Page, url: str = "%2Fbots%2F1") -> None:
        await page.goto(f"/check?url={url}")
        await page.locator("main form").get_by_role("button").first.click()

    async def _find_leak(self, page: Page) -> None:
        await self.make_key(page)
        token = await page.locator("#token").inner_text()
        await page.goto("/leaks")
        await page.get_by_label("Tokens", exact=True).fill(f"{token}\nsm_nobodys")
        await page.get_by_role("button", name="Find their keys", exact=True).click()
        await page.get_by_role("button", name="Revoke these keys…", exact=True).wait_for()

    async def _find_no_leak(self, page: Page) -> None:
        await page.goto("/leaks")
        await page.get_by_label("Tokens", exact=True).fill(" ")
        await page.get_by_role("button", name="Find their keys", exact=True).click()
        await page.locator("[aria-invalid]").wait_for()

    async def _lose_session(self, page: Page) -> None:
        """Have the session end in the middle of a form; nobody is signed in after this."""
        await page.goto("/keys/new")
        await page.get_by_role("textbox", name="Name").fill("typed before")
        await page.context.clear_cookies()
        await page.get_by_role("button", name="Make key", exact=True).click()
        await page.get_by_role("button", name="Sign in and continue", exact=True).wait_for()

    def stops(self) -> dict[str, str]:
        """The path of each page, and of each state that a GET shows, by name."""
        key = f"/keys/{self.keys['mobile app']}"
        bot, free = "/resources/bot/1", "/resources/bot/2"
        acts = ["rotate", "edit", "bind", "activate", "deactivate", "revoke"]
        return {
            "overview": "/",
            "keys": "/keys",
            "keys, filtered": "/keys?state=active&label=team%3Dweb&sort=-created_at",
            "keys, revoked": "/keys?state=revoked",
            "keys, mistaken filter": "/keys?expiring_within=soon",
            "keys, filters that exclude each other": "/keys?state=revoked&sort=name",
            "keys, none matches": "/keys?find=nobodys",
            "key": key,
            "key, revoked": f"/keys/{self.keys['old laptop']}",
            "new key": "/keys/new?bind=bot%3A1",
            **{f"{act} key": f"{key}/{act}" for act in acts},
            "revoke keys": f"/keys/revoke?key_id={self.keys['website']}&key_id={self.keys['nightly report']}",
            "revoke keys, none chosen": "/keys/revoke",
            "leaks": "/leaks",
            "resources": "/resources",
            "resources, none matches": "/resources?kind=cat",
            "resource": bot,
            "resource, open": free,
            "new resource": "/resources/new",
            "edit resource": f"{bot}/edit",
            "bind to resource": f"{bot}/bind",
            "protect resource": f"{free}/protect",
            "unprotect resource": f"{bot}/unprotect",
            "remove resource": f"{bot}/remove",
            "unbind key": f"{bot}/keys/{self.keys['website']}/unbind",
            "unbind last key": f"/resources/bot/4/keys/{self.keys[BIDI]}/unbind",
            "usage": "/usage?resource=bot%3A1&since=7d",
            "usage, empty": "/usage",
            "usage, mistaken": "/usage?resource=bot",
            "audit": "/audit",
            "audit, none matches": "/audit?actor=nobody",
            "why": "/check?url=%2Fbots%2F1",
            "account": "/account",
            "sign out": "/sign-out",
            "not found": "/keys/00000000-0000-0000-0000-000000000000",
        }


async def populated(store: Store) -> Mapping[str, str]:
    """Make keys, resources and a week of traffic; returns the ids of the keys by their names."""
    keys = Management(store, "tester")
    await add_traffic(store, keys)
    soon = datetime.now(UTC) + timedelta(days=2)
    await keys.create(BIDI, expires_at=soon, bind=[Resource("bot", "4")])
    await keys.add_resource(Resource("bot", "2"), name="free for all")
    return {key.name: str(key.key_id) for key in await keys.keys()}


@asynccontextmanager
async def furnished(database: Database) -> AsyncIterator[House]:
    """The admin on a database with something in it."""
    async with open_pool(database.owner) as pool:
        ids = await populated(Store(pool))
        operator = await Operators(Store(pool), "tester").create("alice", Role.ADMIN)
    settings = Settings(database_url=database.manager, routes=ROUTES, failed_attempts="")
    with served(AdminApp(settings)) as origin:
        yield House(origin, operator.token.reveal(), ids)
