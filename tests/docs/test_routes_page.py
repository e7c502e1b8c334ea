"""The page about routes names every placeholder, and its examples are what the routes say."""

from __future__ import annotations

import re

import pytest

from smarter_auth_mw.decision import Denial
from smarter_auth_mw.domain import Target
from smarter_auth_mw.management.check import request_scope
from smarter_auth_mw.routing.references import FORMS
from smarter_auth_mw.routing.routes import Routes
from tests.support.documents import ROOT

PAGE = (ROOT / "docs" / "reference" / "routes.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")
LINES = re.findall(r"`([^`]+)`", PAGE.split("With the lines ")[1].split("`smarter-auth check` says")[0])
EXAMPLES = re.findall(r"^\| `([^`]+)` \| (\S+) \| ([^|]+) \|$", PAGE.split("## Ten examples")[1], re.MULTILINE)


def placeholders() -> list[str]:
    """Every placeholder, as it is written in a pattern."""
    return [*(f"{{{form.placeholder}}}" for form in FORMS.values()), "{account}"]


@pytest.mark.parametrize("page", [PAGE, README], ids=["docs/reference/routes.md", "README.md"])
def test_every_placeholder_is_on_the_page(page: str) -> None:
    assert [placeholder for placeholder in placeholders() if f"`{placeholder}`" not in page] == []


def test_there_are_ten_examples() -> None:
    assert len(EXAMPLES) == 10


@pytest.mark.parametrize(("url", "resource", "result"), EXAMPLES)
def test_an_example_is_what_the_routes_say(url: str, resource: str, result: str) -> None:
    found = Routes.parse(LINES).resolve(request_scope(url))
    if isinstance(found, Target):
        assert str(found.names) == resource
        assert result.startswith("decided by its bindings")
        assert found.always == ("refused if it has none" in result)
    else:
        assert resource == "none"
        status = "passes" if found is None else str(found.reason.status)
        assert result.startswith(status)
        assert found is None or isinstance(found, Denial)
