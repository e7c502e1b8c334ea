"""Leaked tokens are found in text as people copy it, and their keys are revoked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from smarter_auth_mw.domain import Key
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.management.leaks import Ended, copied_token, copied_words, end_leaked
from smarter_auth_mw.management.many_keys import ManyKeys
from smarter_auth_mw.postgres.store import Store
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
        "' {} ' ,",
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


def test_words_keep_their_own_letters_at_both_ends() -> None:
    assert copied_words(b"XaX ; bearerb") == [b"XaX", b"bearerb"]


async def test_leaked_keys_are_revoked_and_those_of_the_platform_are_counted(
    keys: Management, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, theirs = [await keys.create(name) for name in ("one", "two", "theirs")]
    owners = keys.owners

    async def owners_and_platform(digests: Sequence[bytes]) -> dict[bytes, Key]:
        found = await owners(digests)
        return found | {theirs.token.digest: replace(found[theirs.token.digest], is_platforms=True)}

    monkeypatch.setattr(keys, "owners", owners_and_platform)
    leaked = [one.token.digest, theirs.token.digest, bytes(64), two.token.digest, bytes(63)]
    ended = await end_leaked(keys, ManyKeys(store, "tester"), leaked)
    assert ended == Ended(ended.key_ids, platform=1, unknown=2)
    assert set(ended.key_ids) == {one.key.key_id, two.key.key_id}
    assert {key.name for key in await keys.keys() if key.revoked_at is not None} == {"one", "two"}
