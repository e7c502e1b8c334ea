"""Figures are found where they stand, and so is the code that they speak of."""

from __future__ import annotations

import pytest

from tests.figures import MEASURED, PAGES, ROOT, code_of, is_figure


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("| p99 of warm requests | 4.78 ms |  |", True),
        ("| safety | one transaction | 29,529 | 527 | holds |", True),
        ('   "median": 0.98,', True),
        ("| what | figure | target |", False),
        ("|---|---|---|", False),
        ("A figure of 0 is a refusal that came before.", False),
        ("| `make model` | `-D` 1 is in code | `TXS=1` |", False),
    ],
)
def test_rows_with_numbers_are_figures(line: str, expected: bool) -> None:
    assert is_figure(line) is expected


@pytest.mark.parametrize("command", MEASURED)
def test_code_that_a_command_measures_is_there(command: str) -> None:
    paths = code_of({command})
    assert paths
    assert all((ROOT / path).exists() for path in paths)


def test_command_that_is_not_listed_measures_the_whole_package() -> None:
    assert code_of({"bench"}) == {"benchmarks/__main__.py", "smarter_auth_mw"}


def test_there_are_pages() -> None:
    assert all(list(ROOT.glob(pattern)) for pattern in PAGES)
