"""Foldings: what a lenient reader would make of a path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smarter_auth_mw.routing.folding import MAX_CHARS, Foldings, UnreadableError, fold, mentions


@pytest.mark.parametrize("path", ["/", "/bots/42", "/bots/42/", "/a.b/c_d-e~f", "/...", "/.well-known/x", "/a" * 2000])
def test_ordinary_path_has_itself_as_its_only_folding(path: str) -> None:
    assert fold(path) == Foldings((path,))


@pytest.mark.parametrize(
    "path",
    [
        "/BOTS/42",
        "//bots/42",
        "/bots//42",
        "/bots/42//",
        "/bots\\42",
        "\\bots\\42",
        "/bots;v=1/42",
        "/bots/42;v=1",
        "/bots;a/42;b;c",
        "/%62ots/42",
        "/%2562ots/42",
        "/bots%2f42",
        "/bots%252F42",
        "/bots%5C42",
        "/ bots /42",
        "/\tbots/42\x00",
        "/%00bots/42",
        "/\u200bbots/42",  # zero width space
        "/bo\u00adts/42",  # soft hyphen
        "/\ufeffbots/42",
        "/bots\ufffd/42",
        "/\uff42ots/42",  # full-width b
        "/bots\uff0f42",  # full-width slash
        "/bot\u017f/42",  # long s
        "/bo\u0301ts/42",  # a combining accent
        "/b\u00f3ts/42",  # the same in one character
        "/\uff05\uff16\uff12ots/42",  # %62 in full width
        "/\U000e0062bots/42",  # a tag character
        "/bots/\uff14\uff12",
    ],
)
def test_second_spelling_folds_to_the_first(path: str) -> None:
    assert "/bots/42" in fold(path).texts


@pytest.mark.parametrize("path", ["/publ\u0131c", "/PUBL\u0130C", "/publ\u0130c"])
def test_letters_that_regular_expressions_take_for_an_i_are_one(path: str) -> None:
    assert fold(path).texts == ("/public",)


def test_first_segment_of_two_slashes_may_be_taken_for_a_host() -> None:
    assert set(fold("//evil.example/bots/42").texts) == {"/evil.example/bots/42", "/bots/42"}


@pytest.mark.parametrize(
    "dots",
    [
        "..",
        ".",
        "%2e%2e",
        "%2E.",
        "%252e%252e",
        "..;",
        "..;v=1",
        "%2e%2e%3bv",
        "..\\x",
        "x\\..",
        "x%5c..",
        "x%2f..",
        "\u2025",  # two dots in one character
        "\uff0e\uff0e",
        "\uff0e.",
        ".\u200b.",
        "..\x00",
        ".. ",
        "%2e%2e%00",
        ".\u0308",
    ],
)
def test_dot_segment_is_seen_in_every_folding(dots: str) -> None:
    assert fold(f"/public/{dots}/bots/42").has_dots
    assert fold(f"/public/{dots}").has_dots


@pytest.mark.parametrize("name", ["...", "a..b", "..a", "a.", ".hidden", "..%41", "\u2026", "v1.0"])
def test_dots_in_a_name_are_no_dot_segment(name: str) -> None:
    assert not fold(f"/files/{name}/x").has_dots


def test_decoding_ends() -> None:
    assert fold("/%25252562ots").texts[-1] == "/bots"
    with pytest.raises(UnreadableError, match="encoded"):
        fold("/%2525252562ots")


def test_long_path_is_not_folded() -> None:
    with pytest.raises(UnreadableError, match="characters"):
        fold("/" + "a" * MAX_CHARS)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/v1/bots/42", True),
        ("/api/x/v1/y/bots", True),
        ("/x/api/v1/bots/z", True),
        ("/api/v1/bot", False),
        ("/v1/api/bots", False),
        ("/apiv1/bots", False),
    ],
)
def test_mention_is_all_words_in_their_order(path: str, expected: bool) -> None:
    assert mentions(("api", "v1", "bots"), path.split("/")) is expected


@given(st.text(max_size=60))
def test_no_text_breaks_a_folding_and_a_folding_is_its_own(text: str) -> None:
    try:
        folded = fold("/" + text)
    except UnreadableError:
        return
    assert all(fold(path).texts[-1].rstrip("/") == path.rstrip("/") for path in folded.texts[-1:])
