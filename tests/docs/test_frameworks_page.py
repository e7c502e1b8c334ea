"""docs/how-to/frameworks.md does what it says: its apps run as they stand."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from tests.support.asgi import client
from tests.support.cli import Commands

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "frameworks.md").read_text("utf-8")
APPS = dict(re.findall(r"^```python\n# (\w+)\.py\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))


@pytest.fixture
def here(run: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with the page's apps, which can be imported."""
    for name, text in APPS.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in APPS:
        sys.modules.pop(name, None)


async def test_the_fastapi_app_hands_on_the_grant(here: Path) -> None:
    async with client(import_module("fastapi_bots").app) as http:
        assert (await http.get("/bots/2")).json() == {"bot": 2, "key": None}
        assert (await http.get("/bots/2/secrets")).status_code == 401
        assert (await http.get("/docs")).status_code == 200


async def test_the_two_apps_have_resources_of_their_own(here: Path) -> None:
    async with client(import_module("two_apps").app) as http:
        assert (await http.get("/chat/bots/sales")).text == "bot:sales"
        refused = await http.get("/tools/saw", headers={"host": "tools.example.com"})
        assert refused.status_code == 401
