"""Foldings: what a lenient reader would make of a path."""

from __future__ import annotations

import string
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smarter_auth_mw.routing.folding import MAX_CHARS, MAX_SEGMENTS, Reading, UnreadableError, fold, unquoted


def folded(path: str) -> list[str]:
    """As the paths that a lenient reader may see: folded, ended early, and without a host."""
    folding = fold(path)
    readings = [folding.reading, *(folding.reading.less_host(at) for at in folding.reading.hosts)]
    readings += [folding.ended] if folding.ended else []
    return ["/" + "/".join(reading.words) for reading in readings]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/bots/42",
        "/bots/42/",
        "/a.b/c_d-e~f",
        "/...",
        "/.well-known/x",
        "/a" * 2000,
    ],
)
def test_plain_path_has_itself_as_its_only_folding(path: str) -> None:
    folding = fold(path)
    assert folding.is_plain
    assert folded(path) == [path.removesuffix("/") or "/"]


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
        "/bots\x7f/42",
        "/bots%ff/42",
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
    assert "/bots/42" in folded(path)


@pytest.mark.parametrize("path", ["/publ\u0131c", "/PUBL\u0130C", "/publ\u0130c"])
def test_letters_that_regular_expressions_take_for_an_i_are_one(path: str) -> None:
    assert folded(path) == ["/public"]


def test_sign_that_stands_for_a_sentence_counts_as_one_letter() -> None:
    assert folded("/\ufdfa/\ufdfb") == ["/\u0635/\u0635"]


def test_first_segment_of_two_slashes_may_be_taken_for_a_host() -> None:
    assert set(folded("//evil.example/bots/42")) == {"/evil.example/bots/42", "/bots/42"}


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
        "..\x00x",
        "..?v=1",
        "..#x",
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
    assert folded("/%25252562ots")[-1] == "/bots"
    with pytest.raises(UnreadableError, match="encoded"):
        fold("/%2525252562ots")


def test_word_stays_one_after_all_steps_that_a_reader_may_take() -> None:
    # What a reader of fewer steps sees, the folding sees too: the deeper escapes only split what is no word yet.
    assert folded("/bots/x%2525252Fy") == ["/bots/x/y"]
    assert fold("/bots/x%2525252Fy").hides_slashes
    assert fold("//x%255Cy/bots").dropped_at == 1
    assert fold("/a;b%2Fc/bots").dropped_at == 1
    assert fold("/bots/42").dropped_at is None


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/bots/%20", ["bots", "/"]),
        ("/bots/%20/", ["bots", "/"]),
        ("/bots/;x", ["bots", "/"]),
        ("/bots/%00", ["bots", "/"]),
        ("/bots%2F%20", ["bots", "/"]),
        ("/bots%2Fx/%20", ["bots", "x", "/"]),
        ("/%20", ["/"]),
        ("/bots/%20/x", ["bots", "x"]),
        ("/%20/X", ["x"]),
        ("/bots%2Fx", ["bots", "x"]),
        ("/bots//", ["bots"]),
        ("//", []),
    ],
)
def test_last_segment_that_may_vanish_is_kept_as_one_that_is_no_word(path: str, words: list[str]) -> None:
    assert fold(path).reading.words == words


def test_router_that_splits_before_it_decodes_sees_longer_segments() -> None:
    plain, folded, cut, alone = (
        fold("/a/b/c", [1, 2, 1]),
        fold("/a/b/\u00e9", [1, 2, 1]),
        fold("/a;x/b", [1, 2]),
        fold("/a;x/b"),
    )
    assert plain.unsplit == Reading(["a|b", "c"], ["a|b", "c"])
    assert folded.unsplit == Reading(["a|b", "e"], ["a|b", "e"])
    assert cut.unsplit is alone.unsplit is None
    assert [one.is_plain for one in (plain, folded, cut, alone)] == [False] * 4
    assert [one.hides_slashes for one in (plain, folded, cut, alone)] == [False, False, True, False]


@pytest.mark.parametrize(
    ("path", "has_gaps"),
    [
        ("/a//b", True),
        ("//a", True),
        ("/a/%20/b", True),
        ("/a/;x/b", True),
        ("/a/\u00e9/", False),
        ("/X/\u00e9", False),
    ],
)
def test_gap_is_an_empty_segment_with_others_around_it(path: str, has_gaps: bool) -> None:
    assert fold(path).has_gaps is has_gaps


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/a/b;c/d", 2),
        ("/a\\b;c/d", 2),
        ("/a/b%00c/d", 2),
        ("/a/b%3Fc/d", 2),
        ("/a/./b;c", 2),
        ("/a/%20;x/b", 1),
        ("/a/b//c/d//e", 3),
        ("/a//b/c;d", 2),
        ("/a;b//c", 1),
        ("/a/\u00e9", None),
    ],
)
def test_words_are_counted_up_to_the_first_that_a_reader_may_drop(path: str, words: int | None) -> None:
    assert fold(path).dropped_at == words


def test_hashed_id_keeps_its_case_beside_the_folded_word() -> None:
    reading = fold("/LLMs/r%4DTAwMDA0Mgx%20/\u00c9").reading
    assert reading.words == ["llms", "rmtawmda0mgx", "e"]
    assert reading.cased == ["LLMs", "rMTAwMDA0Mgx", "E"]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/é" + "a" * MAX_CHARS, "characters"),
        ("/" + "机" * 342, "not ASCII"),
        ("/é" * (MAX_SEGMENTS + 1), "segments"),
        ("/é" + "\\x" * (MAX_SEGMENTS + 1), "segments"),
        ("/x//" * 6, "empty segments"),
        ("/" + "%" * 100, "percent signs"),
        ("/a" + "\u0301\u0316" * 100, "in a row"),
        ("/%6\x002", "NUL within an escape"),
        ("/\uff05EF\uff05BC\uff058562ots", "in too many ways"),
    ],
)
def test_what_would_take_long_is_not_folded(path: str, why: str) -> None:
    with pytest.raises(UnreadableError, match=why):
        fold(path)


@pytest.mark.parametrize(
    ("fits", "is_too_much"),
    [
        ("/\u00e9" + "a" * 2046, "/\u00e9" + "a" * 2047),
        ("/" + "机" * 340 + "\u00e9\u00e9", "/" + "机" * 341 + "\u00e9"),
        ("/" + "\u0400" * 512, "/" + "\u0400" * 513),
        ("/\u00e9" * 64, "/\u00e9" * 65),
        ("/\\" * 32, "/\\" * 32 + "/"),
        ("//a" * 4, "//a" * 5),
        ("/" + "%" * 16, "/" + "%" * 17),
        ("/%41" + "%" * 16, "/%41" + "%" * 17),
        ("/a" + "\u0301" * 64, "/a" + "\u0301" * 65),
        ("/%25252562", "/%2525252562"),
    ],
)
def test_limit_of_what_is_folded_is_exact(fits: str, is_too_much: str) -> None:
    assert not fold(fits).is_plain
    with pytest.raises(UnreadableError):
        fold(is_too_much)


@pytest.mark.parametrize(
    "path",
    [
        "/" + "a" * 64_000,
        "/a" * 32_000,
        "/A-._~!$&'()*+,=:@" * 4000,
        "/segment" * 8000,
        f"/{string.ascii_letters}/{string.digits}",
        "/X",
        "/X/a/X",
    ],
)
def test_plain_path_may_have_any_length(path: str) -> None:
    assert fold(path).is_plain
    assert fold(path).reading.cased == path.split("/")[1:]


@given(st.binary(max_size=60) | st.from_regex(rb"(?:%[0-9A-Fa-f]{0,2}|[a-z\\])*", fullmatch=True))
def test_bytes_are_decoded_as_the_standard_library_does_it(raw: bytes) -> None:
    try:
        assert unquoted(raw) == unquote_to_bytes(raw)
    except UnreadableError:
        assert raw.count(b"%") > 16


@given(st.text(max_size=60))
def test_no_text_breaks_a_folding_and_a_folding_is_its_own(text: str) -> None:
    try:
        words = fold("/" + text).reading.words
        again = fold("/" + "/".join(words)).reading.words
    except UnreadableError:
        return
    assert again == [word for word in words if word != "/"]
