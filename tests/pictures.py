"""Take pictures of every page of the admin at two widths, light and dark: ``make pictures``, into ``build/pictures``.

With ``--docs`` those that the how-to shows go into ``docs/pictures`` too, smaller. Look at all of them after a change.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from playwright.async_api import Browser, Page

from smarter_auth_mw.postgres.embedded.cluster import Cluster
from smarter_auth_mw.postgres.migrations import migrate
from tests.support.browser import chromium
from tests.support.database import Database
from tests.support.documents import ROOT
from tests.support.tour import House, furnished

PLACE, DOCS = ROOT / "build" / "pictures", ROOT / "docs" / "pictures"
WIDTHS, SCHEMES = (1280, 390), ("light", "dark")
SHOWN = {
    ("overview", 1280, "light"): "pages_overview",
    ("resource", 1280, "light"): "pages_resource",
    ("key", 1280, "dark"): "pages_key",
    ("token", 1280, "light"): "pages_token",
    ("why refused", 390, "light"): "pages_why",
}
"""What the how-to shows, and the names of the files."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docs", action="store_true", help="also renew the pictures of the how-to")
    parser.add_argument("--only", default="", help="only states whose name contains this")
    arguments = parser.parse_args()
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir(parents=True)
    with _database() as database:
        asyncio.run(_take(database, arguments.only))
    if arguments.docs:
        for (name, width, scheme), file in SHOWN.items():
            _shrink(PLACE / _file(name, width, scheme), DOCS / f"{file}.png")
    print(f"{len(list(PLACE.iterdir()))} pictures in {PLACE}")
    return 0


@contextmanager
def _database() -> Iterator[Database]:
    with tempfile.TemporaryDirectory() as directory:
        with Cluster.start(Path(directory, "database")) as cluster:
            owner, runtime = cluster.url("owner"), cluster.url("runtime")
            asyncio.run(migrate(owner, manager_role=urlsplit(runtime).username))
            yield Database(owner, runtime, runtime)
        shutil.rmtree(cluster.home)  # For root it is no directory of ours.


async def _take(database: Database, only: str) -> None:
    async with furnished(database) as house, chromium() as browser:
        for width in WIDTHS:
            for scheme in SCHEMES:
                await _walk(house, browser, width, scheme, only)


async def _walk(house: House, browser: Browser, width: int, scheme: str, only: str) -> None:
    viewport = {"width": width, "height": 800}
    async with house.visit(browser, viewport=viewport, color_scheme=scheme) as page:
        for name, state in (house.stops() | dict.fromkeys(house.acts(), "")).items():
            if only not in name:
                continue
            if name in house.acts():
                await house.acts()[name](page)
            else:
                await page.goto(state)
            await _shoot(page, PLACE / _file(name, width, scheme))
        await page.goto("/sign-in")
        await _shoot(page, PLACE / _file("sign in", width, scheme))


async def _shoot(page: Page, file: Path) -> None:
    """Take the whole page, in a window of its height: what sticks to the window's edge is where it belongs."""
    size = page.viewport_size or {"width": 0, "height": 0}
    await page.set_viewport_size(size | {"height": await page.evaluate("document.documentElement.scrollHeight")})
    await page.screenshot(path=file, full_page=True, animations="disabled")
    await page.set_viewport_size(size)


def _shrink(picture: Path, file: Path) -> None:
    """Keep 64 colours, which a third of the bytes is enough for; without Pillow the picture stays as it is."""
    if find_spec("PIL") is None:
        shutil.copy(picture, file)
        return
    with import_module("PIL.Image").open(picture) as image:
        image.convert("RGB").quantize(64).save(file, optimize=True)


def _file(name: str, width: int, scheme: str) -> str:
    return f"{re.sub('[^a-z0-9]+', '_', name)}_{width}_{scheme}.png"


if __name__ == "__main__":
    sys.exit(main())
