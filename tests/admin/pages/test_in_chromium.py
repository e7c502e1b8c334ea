"""The pages in a real Chromium: whole tours by mouse, by keyboard and without JavaScript, and every page by axe-core.

Each visit fails if a page asked another origin, broke its own Content-Security-Policy or had an error in a script.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Error, Page

from smarter_auth_mw.postgres.embedded.cluster import Cluster
from tests.support.browser import browser, violations
from tests.support.database import Database, copied
from tests.support.tour import House, furnished

__all__ = ["browser"]

pytestmark = pytest.mark.asyncio(loop_scope="session")
NARROW: dict[str, Any] = {"viewport": {"width": 320, "height": 640}}
WIDE: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
DIFFERENT = ("overview", "keys", "key", "new key", "revoke key", "resource, open", "usage", "audit", "account")
"""Pages that look different from one another: all colours and shapes are on one of them."""
DEPENDING = ("color-contrast", "link-in-text-block", "target-size", "scrollable-region-focusable")
"""The rules whose outcome depends on colours or on the width; the others read the document, which is the same."""
WIDEST = """[...document.querySelectorAll("main *")].filter(one => one.getBoundingClientRect().right > innerWidth)
    .map(one => one.tagName + "." + one.className + ": " + one.textContent.slice(0, 30)).slice(0, 8).join(" | ")"""
WITHOUT_EDGE = """[...document.querySelectorAll(".badge, .button, button, input, select, textarea")]
    .filter(one => !["hidden", "checkbox"].includes(one.type))
    .filter(one => one.checkVisibility() && getComputedStyle(one).borderTopStyle === "none")
    .map(one => one.tagName + "." + one.className + ": " + one.textContent.slice(0, 30)).join(" | ")"""
"""What forced colours, which take backgrounds away, leave without a shape."""
STORED = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href, history.state])"


@pytest.fixture(scope="module")
def owned(cluster: Cluster, template: str) -> Iterator[Database]:
    yield from copied(cluster, template)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def house(owned: Database) -> AsyncIterator[House]:
    async with furnished(owned) as made:
        yield made


@pytest.mark.parametrize(
    ("look", "rules", "examined"),
    [
        ({"color_scheme": "light", **WIDE}, (), None),
        ({"color_scheme": "dark", **NARROW}, DEPENDING, (*DIFFERENT, "token")),
    ],
    ids=["light and wide", "dark and narrow"],
)
async def test_axe_finds_nothing_on_any_page_and_no_page_is_wider_than_its_window(
    browser: Browser, house: House, look: dict[str, Any], rules: tuple[str, ...], examined: tuple[str, ...] | None
) -> None:
    found: dict[str, list[str]] = {}
    async with house.visit(browser, **look) as page:
        for name, path in house.stops().items():
            await page.goto(path)
            found[name] = await (faults(page, *rules) if examined is None or name in examined else too_wide(page))
        for name, act in house.acts().items():
            await act(page)
            found[name] = await (faults(page, *rules) if examined is None or name in examined else too_wide(page))
        await page.context.clear_cookies()
        await page.goto("/sign-in")
        found["sign in"] = await faults(page, *rules)
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


async def faults(page: Page, *rules: str) -> list[str]:
    return [*await too_wide(page), *await violations(page, *rules)]


async def too_wide(page: Page) -> list[str]:
    await page.wait_for_load_state()  # A form that was sent leads to a page that has nothing in it yet.
    wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return [f"{wide} px too wide: {await page.evaluate(WIDEST)}"] if wide > 0 else []


async def test_in_forced_colours_bars_badges_and_the_focus_are_seen(browser: Browser, house: House) -> None:
    async with house.visit(browser, forced_colors="active", **WIDE) as page:
        await page.goto("/resources/bot/1")
        for selector, name in ((".chart .granted", "fill"), (".chart .refused", "fill"), (".badge", "borderTopColor")):
            colour, behind = await page.evaluate(
                """([selector, name]) => [getComputedStyle(document.querySelector(selector))[name],
                    getComputedStyle(document.body).backgroundColor]""",
                [selector, name],
            )
            assert colour != behind, selector
        await page.keyboard.press("Tab")
        assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        unseen: dict[str, str] = {}
        for name in DIFFERENT:
            await page.goto(house.stops()[name])
            unseen[name] = await page.evaluate(WITHOUT_EDGE)
    assert {name: parts for name, parts in unseen.items() if parts} == {}


@pytest.mark.parametrize("has_script", [True, False], ids=["with JavaScript", "without JavaScript"])
async def test_a_key_is_made_rotated_and_revoked_by_mouse(browser: Browser, house: House, has_script: bool) -> None:
    name = f"tour {uuid4().hex[:6]}"
    tokens: list[str] = []
    later: list[str] = []
    async with house.visit(browser, java_script_enabled=has_script, **WIDE) as page:
        await page.get_by_role("link", name="Keys", exact=True).first.click()
        await page.get_by_role("link", name="New key", exact=True).click()
        await page.get_by_role("textbox", name="Name").fill(name)
        await page.get_by_label("Opens").fill("bot:7")
        await page.get_by_role("button", name="Make key", exact=True).click()
        tokens.append(await shown_token(page))
        page.on("response", lambda response: later.append(response.url))
        await page.get_by_role("link", name="I have copied it").click()
        await page.get_by_role("link", name="Rotate", exact=True).click()
        await page.get_by_role("button", name="Rotate", exact=True).click()
        tokens.append(await shown_token(page))
        await page.get_by_role("link", name="I have copied it").click()
        await page.get_by_role("link", name="Revoke…", exact=True).click()
        await page.get_by_role("button", name="Revoke", exact=True).click()
        await page.locator(".badge.revoked").wait_for()
        await page.get_by_role("link", name="Audit", exact=True).click()
        assert "key.revoke" in await page.content()
    assert len(set(tokens)) == 2
    assert [token for token in tokens if any(token in url for url in later)] == []


async def shown_token(page: Page) -> str:
    """The token that the page shows, alone in its box."""
    box = page.locator("#token")
    await box.wait_for()
    token = await box.inner_text()
    assert token.startswith("sm_")
    assert token == token.strip()
    return token


async def test_a_token_is_nowhere_after_its_one_page(browser: Browser, house: House) -> None:
    html: list[str] = []
    async with house.visit(browser, **WIDE) as page:
        await house.make_key(page)
        token = await shown_token(page)
        key = page.get_by_role("link", name="I have copied it")
        path = await key.get_attribute("href")
        assert token not in await page.evaluate(STORED)
        await key.click()
        with suppress(Error):  # Chromium asks whether to send the form again: the answer was not stored.
            await page.go_back()
        await page.wait_for_function("document.readyState == 'complete'")
        assert token not in await page.content(), "Going back shows the token again."
        with suppress(Error):
            await page.go_forward()
        for stop in (f"/keys/{(path or '').rpartition('/')[2]}", "/audit", "/keys", "/usage?resource=bot%3A5", "/"):
            await page.goto(stop)
            html.append(await page.content())
        assert token not in await page.evaluate(STORED)
        state = json.dumps(await page.context.storage_state())
    assert [one for one in (*html, state) if token in one or house.token in one] == []


async def test_everything_can_be_done_by_keyboard_alone(browser: Browser, house: House) -> None:
    async with house.visit(browser, signs_in=False, **WIDE) as page:
        await page.goto("/keys")  # Leads to sign-in, and back.
        await tab_to(page, "Operator token")
        await page.keyboard.type(house.token)
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"{house.origin}/keys")
        await page.keyboard.press("Tab")
        assert await focused(page) == "Skip to content"
        await page.keyboard.press("Enter")
        await tab_to(page, "New key")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/keys/new")
        await tab_to(page, "Name")
        await page.keyboard.type(f"typed {uuid4().hex[:6]}")
        await page.keyboard.press("Enter")
        first = await shown_token(page)
        for name in ("I have copied it", "Rotate", "Rotate"):
            await tab_to(page, name)
            async with page.expect_navigation():
                await page.keyboard.press("Enter")
        assert await shown_token(page) != first
        for name in ("I have copied it", "Revoke…", "Revoke"):
            await tab_to(page, name)
            async with page.expect_navigation():
                await page.keyboard.press("Enter")
        await page.locator(".badge.revoked").wait_for()


async def tab_to(page: Page, name: str) -> None:
    """Press Tab until what has this name or label is focused."""
    for _ in range(60):
        await page.keyboard.press("Tab")
        if await focused(page) == name:
            return
    raise AssertionError(f"Tab does not lead to {name!r}.")


async def focused(page: Page) -> str:
    """The name of what is focused, which is outlined."""
    name, style = await page.evaluate(
        """() => { const one = document.activeElement;
            return [one.labels?.[0]?.textContent || one.getAttribute("aria-label") || one.textContent.trim(),
                    getComputedStyle(one).outlineStyle]; }"""
    )
    assert style != "none" or name == "", f"The focus on {name!r} is not seen."
    return str(name)


async def test_a_mistake_stands_beside_its_field_and_what_was_typed_stays(browser: Browser, house: House) -> None:
    async with house.visit(browser, **NARROW) as page:
        await page.goto("/keys/new")
        long = "\u202e" + "words " * 1_666 + "end"  # One long word would pass for a token, and not be shown again.
        await page.evaluate(
            "name => { const one = document.getElementById('name'); one.maxLength = 20000; one.value = name; }", long
        )
        await page.get_by_label("Expires", exact=True).fill("90d")
        await page.get_by_role("button", name="Make key", exact=True).click()
        await page.locator("[aria-invalid]").first.wait_for()
        assert await page.get_by_role("textbox", name="Name").input_value() == long
        assert await page.get_by_label("Expires", exact=True).input_value() == "90d"
        assert await faults(page) == []
        await page.goto("/keys")
        assert "\u202e" not in await page.content()
        assert "b\\u202eidi <b>" in await page.get_by_role("main").inner_text()


async def test_what_one_tab_has_revoked_another_one_cannot_change(browser: Browser, house: House) -> None:
    async with house.visit(browser, **WIDE) as page:
        await house.make_key(page)
        await page.get_by_role("link", name="I have copied it").click()
        key = page.url
        other = await page.context.new_page()
        await page.goto(f"{key}/edit")
        await other.goto(f"{key}/revoke")
        await other.get_by_role("button", name="Revoke", exact=True).click()
        await other.locator(".badge.revoked").wait_for()
        await page.locator("main form button").first.click()
        await page.get_by_role("alert").wait_for()
        assert "It was changed after you read it" in await page.get_by_role("main").inner_text()


async def test_a_session_that_ends_in_the_middle_of_a_form_loses_nothing_but_the_token(
    browser: Browser, house: House
) -> None:
    async with house.visit(browser, **WIDE) as page:
        await page.goto("/keys/new")
        name = f"kept {uuid4().hex[:6]}"
        await page.get_by_role("textbox", name="Name").fill(name)
        await page.get_by_label("Opens").fill("bot:8")
        await page.context.clear_cookies()
        await page.get_by_role("button", name="Make key", exact=True).click()
        await page.get_by_label("Operator token", exact=True).fill(house.token)
        assert await faults(page) == []
        await page.get_by_role("button", name="Sign in and continue", exact=True).click()
        assert await page.get_by_role("textbox", name="Name").input_value() == name
        assert await page.get_by_label("Opens").input_value() == "bot:8"
        await page.get_by_role("button", name="Make key", exact=True).click()
        await shown_token(page)
