"""Figures are found where they stand, and so is the code that they speak of."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from tests.figures import MEASURED, PAGES, PUBLISHED, ROOT, are_figures, code_of

TABLES = """\
Two runs took, in ms, on 2 cores:

| what | figure | target |
|---|---|---|
| p99 of warm requests | 4.78 ms |  |
| safety 1 | holds | |

What to set.

| workers | 4 |
|---|---|
| `make model` | 8 |
"""


def test_rows_with_numbers_in_tables_that_a_colon_introduces_are_figures() -> None:
    lines = TABLES.splitlines()
    assert [line for line, is_one in zip(lines, are_figures(lines), strict=True) if is_one] == [lines[4]]


def test_published_figures_are_of_five_runs_or_more_and_say_when_they_were_measured() -> None:
    rows = json.loads((ROOT / PUBLISHED).read_text("utf-8"))["rows"]
    assert {row["part"] for row in rows if row["runs"] < 5} == set()
    assert all(datetime.fromisoformat(row["measured"]).tzinfo for row in rows)


@pytest.mark.parametrize("command", MEASURED)
def test_code_that_a_command_measures_is_there(command: str) -> None:
    paths = code_of({command})
    assert paths
    assert all((ROOT / path).exists() for path in paths)


def test_command_that_is_not_listed_measures_the_whole_package() -> None:
    assert code_of({"bench"}) == {"benchmarks/__main__.py", "smarter_auth_mw"}


def test_there_are_pages() -> None:
    assert all(list(ROOT.glob(pattern)) for pattern in PAGES)
