"""A new token has the format and the prefix that were asked for, or those of the token that it replaces."""

from __future__ import annotations

import pytest

from smarter_auth_mw.errors import UsageError
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.management.token_formats import minter
from smarter_auth_mw.tokens import TokenFormat, form_of, prefix_of
from tests.support.store import pytest_generate_tests, store, store_url

__all__ = ["pytest_generate_tests", "store", "store_url"]

PLAIN, TEST, KNOX = "sm_0aA0aA0aA0aA", "sm_test_0aA0aA0", "0123456789abcde"


@pytest.mark.parametrize(
    ("previous", "form", "prefix", "expected"),
    [
        ("", None, None, ("knox", "")),
        ("", "checked", None, ("checked", "")),
        ("", None, "test", ("checked", "test")),
        ("", "checked", "test", ("checked", "test")),
        (KNOX, None, None, ("knox", "")),
        (KNOX, None, "test", ("checked", "test")),
        (PLAIN, None, None, ("checked", "")),
        (TEST, None, None, ("checked", "test")),
        (TEST, "checked", None, ("checked", "test")),
        (TEST, None, "live", ("checked", "live")),
        (TEST, None, "", ("checked", "")),
        (TEST, "knox", None, ("knox", "")),
    ],
)
def test_what_is_not_asked_for_stays_as_it_was(
    previous: str, form: TokenFormat | None, prefix: str | None, expected: tuple[str, str]
) -> None:
    token = minter(form, prefix, previous)()
    assert (form_of(token.token_key), prefix_of(token.token_key)) == expected
    assert not token.is_mistyped


@pytest.mark.parametrize(
    ("form", "prefix", "hint"),
    [
        (None, "Test", "a to z"),
        (None, "production", "1 to 8 characters"),
        (None, "a_b", "a to z"),
        ("knox", "test", "--format"),
    ],
)
def test_what_no_token_can_have_is_refused_with_what_to_do(form: TokenFormat | None, prefix: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        minter(form, prefix)
    assert hint in refused.value.hint


async def test_keys_are_made_and_rotated_with_a_prefix(keys: Management) -> None:
    minted = await keys.create("one", prefix="test")
    rotated = await keys.rotate(minted.key.key_id)
    moved = await keys.rotate(minted.key.key_id, prefix="live", force=True)
    assert [token.token_key[:8] for token in (minted.token, rotated.token, moved.token)] == 2 * ["sm_test_"] + [
        "sm_live_"
    ]
