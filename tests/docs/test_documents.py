"""Every block of code in what people read is run as it stands there, and what it prints is compared."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from tests.support.database import Database
from tests.support.documents import ROOT, Block, blocks, commands, conversations, matches, pages
from tests.support.reader import Reader, Terminal, environment

DATABASE = "SMARTER_AUTH_DATABASE_URL="
MIGRATES = "smarter-auth db migrate"
RUN = [page for page in pages() if any(block.reason is None for block in blocks(page))]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", RUN, ids=named)
def test_a_page_does_what_it_says(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    code = "\n".join(block.text for block in blocks(page) if block.reason is None)
    if MIGRATES in code:
        database: Database = request.getfixturevalue("empty_database")
        url = database.owner
    else:
        database = request.getfixturevalue("database")
        url = database.manager
    settings = {} if DATABASE in code else {"database_url": url, "routes": "bot /bots/{ref:int}"}
    with Terminal(tmp_path, url, environment(tmp_path, **settings)) as terminal:
        faults = Reader(terminal).follow(page)
    assert not faults, "\n".join(faults)


def test_every_reason_not_to_run_a_block_says_something() -> None:
    assert [
        str(block) for page in pages() for block in blocks(page) if block.reason is not None and len(block.reason) < 10
    ] == []


@pytest.mark.parametrize(
    ("expected", "printed", "is_match"),
    [
        ("one", "one\n", True),
        ("one", "two\n", False),
        ("one", "one\ntwo\n", False),
        ("o…e", "orange\n", True),
        ("one\n…", "one\ntwo\nthree\n", True),
        ("one\n…\nthree", "one\nthree\n", True),
        ("one\n…\nthree", "one\ntwo\n", False),
        ("", "", True),
        ("", "one\n", False),
    ],
)
def test_an_ellipsis_stands_for_anything_and_nothing_else_does(expected: str, printed: str, is_match: bool) -> None:
    assert matches(expected, printed) == is_match


def test_a_command_may_go_on_in_the_next_line() -> None:
    assert list(commands("# a comment\na \\\n  b\nc 'd\ne'  # f\n\ncat <<EOF\n'x\nEOF\n")) == [
        "a \\\n  b",
        "c 'd\ne'  # f",
        "cat <<EOF\n'x\nEOF",
    ]


def test_a_conversation_is_a_command_and_what_it_prints() -> None:
    assert list(conversations("$ a \\\n>   b\none\n\ntwo\n$ c\n")) == [("a \\\n  b", "one\n\ntwo"), ("c", "")]


def test_a_page_that_does_something_else_is_told_of(tmp_path: Path) -> None:
    page = ROOT / "docs" / "nowhere.md"
    with Terminal(tmp_path, "", environment(tmp_path)) as terminal:
        reader = Reader(terminal)
        assert list(reader._console("echo one", "two"))
        assert list(reader._shell("false"))
        assert not list(reader._shell("export WORD=said"))
        assert not list(reader._console("echo $WORD", "said"))
        assert list(reader._shell("pip install 'smarter_auth_mw[nothing]'"))
        assert list(reader._shell("make nothing"))
        assert list(reader._file(Block(page, 1, "cobol", "STOP RUN.")))


def test_the_picture_of_the_floors_is_true() -> None:
    scope = runpy.run_path(str(ROOT / "docs" / "draw_floors.py"))
    assert (ROOT / "docs" / "floors.svg").read_text("utf-8") == scope["drawn"](), "Run: python docs/draw_floors.py"


def test_the_chart_of_the_benchmarks_is_that_of_their_figures() -> None:
    scope = runpy.run_path(str(ROOT / "docs" / "draw_benchmarks.py"))
    chart = ROOT / "docs" / "pictures" / "benchmarks.svg"
    assert chart.read_text("utf-8") == scope["drawn"](), "Run: python docs/draw_benchmarks.py"
