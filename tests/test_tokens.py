"""Tokens as django-rest-knox makes them, and how they hide."""

from __future__ import annotations

import hashlib
import pickle
import re
import runpy
import string
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smarter_auth_mw import tokens
from smarter_auth_mw.tokens import (
    TOKEN_FORMATS,
    MintedToken,
    StoredToken,
    Token,
    TokenFormat,
    fingerprint_of,
    form_of,
    hidden,
    holds_token,
    is_prefix,
    mint,
    mint_operator_token,
    prefix_of,
    same_digest,
    shortened,
    without_tokens,
)

KNOX_TOKEN = b"0123456789abcdef" * 4
KNOX_DIGEST = (
    "ad2981aa58beca63a49b8831274b89d81766a23d7932474f03e55cf00cbe2700"
    "4e66fd0912aed0b3cb1afee2aa904115c89db49d6c9bad785523023a9c309561"
)


def test_the_digest_is_the_one_that_knox_stores() -> None:
    assert Token(KNOX_TOKEN).digest.hex() == KNOX_DIGEST
    assert Token(KNOX_TOKEN).token_key == "0123456789abcde"


def test_a_token_is_found_again_by_what_no_other_has() -> None:
    found = {fingerprint_of(value) for value in (b"", b"a", KNOX_TOKEN, KNOX_TOKEN + b"0", KNOX_TOKEN.upper())}
    assert len(found) == 5
    assert Token(KNOX_TOKEN).fingerprint == fingerprint_of(KNOX_TOKEN) == hashlib.blake2b(KNOX_TOKEN).digest()


def test_where_policy_forbids_the_quicker_hash_it_is_found_by_its_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise ValueError("unsupported hash type")

    monkeypatch.setattr(hashlib, "blake2b", forbidden)
    there = runpy.run_path(tokens.__file__)
    assert there["fingerprint_of"](KNOX_TOKEN).hex() == there["Token"](KNOX_TOKEN).fingerprint.hex() == KNOX_DIGEST


def test_a_minted_token_looks_like_one_of_knox_and_never_repeats() -> None:
    minted = {mint().reveal() for _ in range(100)}
    assert len(minted) == 100
    assert all(re.fullmatch("[0-9a-f]{64}", token) for token in minted)


def test_a_checked_token_tells_its_origin_and_carries_a_checksum() -> None:
    minted = {mint("checked").reveal() for _ in range(100)}
    assert len(minted) == 100
    assert all(re.fullmatch("sm_[0-9A-Za-z]{49}", token) for token in minted)
    assert not any(Token(token.encode()).is_mistyped for token in minted)


@pytest.mark.parametrize("prefix", ["test", "t", "staging1"])
def test_a_checked_token_begins_with_its_prefix_and_keeps_its_rules(prefix: str) -> None:
    token = mint("checked", prefix)
    value = token.reveal()
    assert re.fullmatch(f"sm_{prefix}_[0-9A-Za-z]{{49}}", value)
    assert (form_of(token.token_key), prefix_of(token.token_key)) == ("checked", prefix)
    assert not token.is_mistyped
    for place in range(3, len(value)):
        wrong = "0" if value[place] != "0" else "1"
        assert Token(f"{value[:place]}{wrong}{value[place + 1 :]}".encode()).is_mistyped
    assert hidden(f"/bots/{value}/x") == "/bots/sm_" + f"{prefix}_"[0] + "…/x"


def signed(body: bytes) -> Token:
    """A token of these bytes and their checksum."""
    return Token(body + tokens._checksum(body))


def test_an_operators_token_is_known_by_its_form_and_its_checksum() -> None:
    value = mint_operator_token().reveal().encode()
    assert value.startswith(b"sma_")
    assert Token(value).is_operators is True
    wrong = value[:-1] + (b"0" if value[-1:] != b"0" else b"1")
    assert signed(b"sma_" + b"a" * 43).is_operators
    for token in (Token(wrong), mint("checked"), mint(), signed(b"sma_"), signed(b"sma_" + b"-" * 43)):
        assert token.is_operators is False


def test_a_checksum_alone_makes_no_checked_token() -> None:
    assert not signed(b"sm_" + b"a" * 43).is_mistyped
    for body in (b"sm_", b"sm_" + b"a" * 42, b"sm_" + b"-" * 43, b"sm_A_" + b"a" * 43):
        assert signed(body).is_mistyped


def test_a_token_of_which_the_digest_is_known_is_the_token_itself_without_its_secret() -> None:
    for token in (mint(), mint("checked")):
        stored = StoredToken(token.token_key, token.digest)
        assert stored == token
        assert (stored.token_key, stored.fingerprint, stored.is_mistyped) == (token.token_key, token.digest, False)
        assert token.reveal()[5:20] not in repr(stored)


def test_a_minted_token_is_a_text_that_its_repr_hides() -> None:
    minted = MintedToken(KNOX_TOKEN.decode())
    assert f"{minted}" == KNOX_TOKEN.decode()
    assert repr(minted) == "Token('0123…')"


def test_a_token_without_a_prefix_has_none() -> None:
    for form in TOKEN_FORMATS:
        token = mint(form)
        assert (form_of(token.token_key), prefix_of(token.token_key)) == (form, "")


def test_only_few_small_letters_and_digits_are_a_prefix() -> None:
    assert all(map(is_prefix, ("a", "test", "eu1", "a2345678")))
    assert not any(map(is_prefix, ("", "1a", "Test", "a_b", "a-b", "a23456789", "é", "a\n")))


def test_the_checksum_is_the_crc_32_of_all_before_it_in_base62() -> None:
    body = b"sm_" + b"a" * 43
    digits = string.digits + string.ascii_uppercase + string.ascii_lowercase
    value = sum(digits.index(digit) * 62**place for place, digit in enumerate(reversed("0TFPp7")))
    assert value == zlib.crc32(body)
    assert not Token(body + b"0TFPp7").is_mistyped


@pytest.mark.parametrize("place", range(3, 52))
def test_one_wrong_character_anywhere_is_noticed(place: int) -> None:
    token = mint("checked").reveal().encode()
    wrong = b"0" if token[place : place + 1] != b"0" else b"1"
    assert Token(token[:place] + wrong + token[place + 1 :]).is_mistyped


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[:-1],
        lambda t: t + b"0",
        lambda t: t + b"\n",
        lambda t: b"sm_",
        lambda t: t.swapcase().replace(b"SM", b"sm"),
    ],
)
def test_a_checked_token_that_is_cut_or_changed_is_mistyped(change: Callable[[bytes], bytes]) -> None:
    assert Token(change(mint("checked").reveal().encode())).is_mistyped


@pytest.mark.parametrize(
    "token", [KNOX_TOKEN, b"", b"sm", b"Sm_" + b"x" * 49, b"sm_" + KNOX_TOKEN, b"sm_test_" + KNOX_TOKEN]
)
def test_what_does_not_begin_as_a_checked_token_or_may_be_one_of_knox_is_not_mistyped(token: bytes) -> None:
    assert not Token(token).is_mistyped


def test_a_token_shows_four_characters_at_the_most() -> None:
    assert repr(Token(KNOX_TOKEN)) == "Token('0123…')"
    assert [Token(b"0" * length).masked for length in (6, 15, 16)] == ["…", "…", "0000…"]
    assert KNOX_TOKEN.decode() not in f"{Token(KNOX_TOKEN)} {[Token(KNOX_TOKEN)]!r}"


def test_a_token_does_not_leave_the_process_by_pickle() -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
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


PIECE = 6
FILLINGS = st.text("/.-_%&=? abcXYZ0189", max_size=90)


@pytest.mark.parametrize(("form", "prefix"), [*((form, "") for form in TOKEN_FORMATS), ("checked", "a2345678")])
@given(before=FILLINGS, between=FILLINGS, after=FILLINGS, chars=st.integers(min_value=0, max_value=300))
@settings(max_examples=300, deadline=None)
def test_no_piece_of_a_token_is_shown_wherever_the_text_is_cut(
    form: TokenFormat, prefix: str, before: str, between: str, after: str, chars: int
) -> None:
    one, other = mint(form, prefix).reveal(), mint(form, prefix).reveal()
    text = f"{before}{one}{between}{other}{after}"
    said = shortened(text, chars)
    assert not [
        token
        for token in (one, other)
        for at in range(len(prefix) + 4, len(token) - PIECE)
        if token[at : at + PIECE] in said
    ]
    assert len(said) <= chars + 1
    assert hidden(said) == said


def test_a_text_without_tokens_is_only_cut() -> None:
    assert shortened("/bots/1", 7) == "/bots/1"
    assert shortened("/bots/12", 7) == "/bots/1…"


def test_a_text_is_cut_no_earlier_than_asked_for_a_short_word_or_a_token_before_the_cut() -> None:
    assert shortened("/%41bcdefghij", 9) == "/%41bcdef…"
    token = mint("checked").reveal()
    assert shortened(f"{token}%zz{'x' * 30}", len(token) + 10) == f"{token[:4]}…%zz{'x' * 7}…"


@pytest.mark.parametrize(("chars", "expected"), [(2, "a/…"), (6, "a/0123…"), (66, "a/0123…"), (70, "a/0123… and…")])
def test_a_token_that_is_cut_shows_four_characters_and_one_before_the_cut_is_hidden_whole(
    chars: int, expected: str
) -> None:
    assert shortened(f"a/{KNOX_TOKEN.decode()} and more", chars) == expected


def test_hiding_tokens_costs_no_more_than_the_length_of_the_text() -> None:
    hostile = ("a" * 63 + "-") * 1_000 + "sm_" * 20_000 + "sm_a2345678_" * 5_000
    assert hidden(hostile) == hostile


def percent_encoded(text: str, times: int = 1) -> str:
    """Every character of the text, encoded."""
    for _ in range(times):
        text = "".join(f"%{ord(char):02X}" for char in text) if "%" not in text else text.replace("%", "%25")
    return text


ENCODINGS: dict[str, Callable[[str], str]] = {
    "underscores": lambda token: token.replace("_", "%5F"),
    "underscores twice": lambda token: token.replace("_", "%255f"),
    "all of it": percent_encoded,
    "all of it twice": lambda token: percent_encoded(token, 2),
    "all of it three times": lambda token: percent_encoded(token, 3),
    "half of it": lambda token: token[:30] + percent_encoded(token[30:]),
    "behind an encoded sign": lambda token: f"next%3D%2Fbots%2F{token}%26x",
    "behind an encoded percent sign": lambda token: f"%25{token}",
    "behind half an escape": lambda token: f"a%3{percent_encoded(token)}",
    "behind another": lambda token: f"{mint('checked').reveal()}{token}",
    "behind a long word": lambda token: f"{'a' * 70}{token}",
    "behind a long encoded word": lambda token: f"{'%61' * 70}{token}",
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("token", [mint(), mint("checked"), mint("checked", "prod"), mint_operator_token()])
def test_token_is_hidden_however_it_is_encoded(token: Token, encoding: str) -> None:
    encoded = ENCODINGS[encoding](token.reveal())
    pieces = [encoded[at : at + 24] for at in range(20, len(encoded) - 48)]
    assert holds_token(encoded)
    for chars in range(1, len(encoded) + 40):
        for said in (hidden(f"/bots/{encoded}/x"), shortened(f"/bots/{encoded}/x", chars)):
            assert not [piece for piece in pieces if piece in said]


def test_what_is_encoded_and_no_token_is_shown() -> None:
    for text in ("%E4%B8%80" * 60, "%20" * 100, "%2Fbots" * 40, "%2525" * 50, "%41" * 59, "100%" + "a" * 59):
        assert hidden(text) == text


@pytest.mark.parametrize("token", [mint(), mint("checked"), mint("checked", "prod"), mint_operator_token()])
def test_only_what_has_the_form_of_a_token_of_ours_is_hidden_in_an_answer(token: Token) -> None:
    theirs = f"{token.reveal()[:48]} {'A' * 70} arn:aws:iam::123456789012:role/{'x' * 60}"
    assert without_tokens(theirs) == theirs
    assert without_tokens(f"name {token.reveal()}, {theirs}") == f"name {token.reveal()[:4]}…, {theirs}"
    assert token.reveal()[8:20] not in without_tokens(f"{token.reveal()}0")
    assert token.reveal()[8:20] not in without_tokens(f"{mint('checked').reveal()}{token.reveal()}")


def test_what_may_be_a_token_is_found_in_a_text_and_what_is_too_long_is_none() -> None:
    for token in (mint(), mint("checked"), mint("checked", "test"), mint_operator_token()):
        assert holds_token(f"before {token.reveal()}, behind")
        assert holds_token(f"{token.reveal()}x")
        assert not holds_token(token.token_key)
    assert [holds_token("x" * length) for length in (63, 64, 512, 513)] == [False, True, True, False]
    assert [holds_token("%41" * length) for length in (59, 60, 512)] == [False, True, True]
    assert not holds_token("a name of many words, " * 100)
