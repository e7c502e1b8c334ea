"""Tokens as django-rest-knox makes them, and how they hide."""

from __future__ import annotations

import hashlib
import pickle
import re
import subprocess
from pathlib import Path

import pytest

from smarter_auth_mw.tokens import Token, mint, same_digest

KNOX_TOKEN = b"0123456789abcdef" * 4
KNOX_DIGEST = (
    "ad2981aa58beca63a49b8831274b89d81766a23d7932474f03e55cf00cbe2700"
    "4e66fd0912aed0b3cb1afee2aa904115c89db49d6c9bad785523023a9c309561"
)


def test_the_digest_is_the_one_that_knox_stores() -> None:
    assert Token(KNOX_TOKEN).digest.hex() == KNOX_DIGEST
    assert Token(KNOX_TOKEN).token_key == "0123456789abcde"


def test_a_minted_token_looks_like_one_of_knox_and_never_repeats() -> None:
    minted = {mint().reveal() for _ in range(100)}
    assert len(minted) == 100
    assert all(re.fullmatch("[0-9a-f]{64}", token) for token in minted)


def test_a_token_shows_four_characters_at_the_most() -> None:
    assert repr(Token(KNOX_TOKEN)) == "Token('0123…')"
    assert "abc" not in repr(Token(b"abcdef"))
    assert KNOX_TOKEN.decode() not in f"{Token(KNOX_TOKEN)} {[Token(KNOX_TOKEN)]!r}"


def test_a_token_does_not_leave_the_process_by_pickle() -> None:
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(Token(KNOX_TOKEN))


def test_tokens_are_equal_by_their_digests() -> None:
    assert Token(b"a") == Token(b"a")
    assert Token(b"a") != Token(b"b")
    assert Token(b"a") != b"a"
    assert len({Token(b"a"), Token(b"a")}) == 1


def test_an_empty_digest_is_the_same_as_nothing() -> None:
    assert not same_digest(b"", b"")
    assert not same_digest(b"", hashlib.sha512(b"").digest())
    assert same_digest(b"x", b"x")


def test_secrets_are_compared_in_one_place() -> None:
    package = Path(__file__).parent.parent / "smarter_auth_mw"
    found = subprocess.run(
        ["grep", "-rn", "compare_digest", "--include=*.py", str(package)], capture_output=True, text=True
    )
    assert [line.split(":")[0].rpartition("/")[2] for line in found.stdout.splitlines()] == ["tokens.py"]
