"""Leaked tokens are found in text as people copy it."""

from __future__ import annotations

import pytest

from smarter_auth_mw.management.leaks import copied_token, copied_words
from smarter_auth_mw.tokens import mint

TOKEN = mint().reveal()


@pytest.mark.parametrize(
    "form",
    [
        "{}",
        " \t{}\r\n",
        "\ufeff{}",
        "\u00a0{}\u200b",
        "Token {}",
        "bearer\t{}",
        "Authorization: Token {}",
        "x-api-key: {}",
        '"{}",',
        "'Authorization: Bearer {}'",
        "`{}`",
    ],
)
def test_a_token_is_found_in_what_was_copied_with_it(form: str) -> None:
    assert copied_token(form.format(TOKEN).encode()).reveal() == TOKEN


@pytest.mark.parametrize("form", ["{0} {0}", "{} of Bob", "Token", "", "Bearer "])
def test_a_line_of_several_words_or_none_is_no_token(form: str) -> None:
    line = form.format(TOKEN)
    assert copied_token(line.encode()).reveal() == line


def test_the_words_of_many_lines_are_taken_without_those_of_headers() -> None:
    assert copied_words(b"Bearer a\r\nToken b\n\xef\xbb\xbf\n'c' \xff") == [b"a", b"b", b"c", b"\xff"]
