"""The platform's names on the command line: each becomes the one reference that requests reach."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.cli import Commands

ACCOUNT = "3141-5926-5359"


@pytest.fixture
def platform(run: Commands) -> Commands:
    run.set(routes="preset:smarter", api_domains="api.example.com", default_account=ACCOUNT)
    run.json("resource", "add", "llm_client:42", "--name", "hr_bot", "--domain", "sales.example.net", "--protect")
    return run


@pytest.mark.parametrize("name", ["42", "rMTAwMDA0Mgx", "hr_bot", "hr-bot"])
def test_every_name_of_a_resource_becomes_its_reference(platform: Commands, name: str) -> None:
    assert platform.json("resource", "show", f"llm_client:{name}")["ref"] == "42"


def test_a_key_is_bound_by_name(platform: Commands) -> None:
    assert platform.json("key", "create", "--name", "k", "--bind", "llm_client:hr_bot")["bindings"] == ["llm_client:42"]


@pytest.mark.parametrize("name", ["nobody", "042", "r!x"])
def test_what_names_nothing_is_refused(platform: Commands, name: str) -> None:
    ran = platform("resource", "show", f"llm_client:{name}")
    assert ran.exit_code == 2
    assert "is not a reference of a llm_client" in ran.error


def test_a_name_that_two_have_is_refused(platform: Commands) -> None:
    platform.json("resource", "add", "llm_client:43", "--name", "hr-bot")
    ran = platform("resource", "show", "llm_client:hr_bot")
    assert ran.exit_code == 1
    assert "Several resources are named llm_client:hr_bot." in ran.error


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"https://hr-bot.{ACCOUNT}.api.example.com/config/",
         {"resource": "llm_client:42", "status": 401, "alias": f"llm_client:label=hr-bot@{ACCOUNT}",
          "route": "llm_client host:{label}.{account}.api.example.com",
          "reading": f"hr-bot.{ACCOUNT}.api.example.com"}),
        ("https://jobs.sales.example.net/", {"resource": "llm_client:42", "status": 401,
                                             "alias": "llm_client:domain=sales.example.net"}),
        ("/api/v1/llm-clients/rMTAwMDA0Mgx/prompt/", {"resource": "llm_client:42", "status": 401, "alias": None}),
        (f"https://nobody.{ACCOUNT}.api.example.com/", {"resource": None, "status": 404, "reason": "not_found"}),
        ("/api/v1/llm-clients/00042/", {"resource": None, "status": 400, "reason": "not_canonical"}),
        ("https://www.example.net/", {"resource": None, "status": 200, "decision": "pass"}),
    ],
)  # fmt: skip
def test_check_explains_by_which_line_reading_and_alias(platform: Commands, url: str, expected: dict[str, Any]) -> None:
    found = platform("check", url, "--json").json
    assert {name: found[name] for name in expected} == expected
