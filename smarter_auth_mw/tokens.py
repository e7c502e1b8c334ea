"""Tokens: created in the format of django-rest-knox 5 or with a checksum; masked, hashed and compared in one place."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import zlib
from collections.abc import Callable
from typing import Any, Literal, get_args

TokenFormat = Literal["knox", "checked"]
"""``knox``: 64 lower-case hexadecimal characters. ``checked``: ``sm_`` or ``sm_PREFIX_``, then 43 characters of base62
and 6 of checksum."""
TOKEN_FORMATS: tuple[TokenFormat, ...] = get_args(TokenFormat)

CHECKED_PREFIX = b"sm_"
OPERATOR_PREFIX = b"sma_"
"""The prefix of operators' tokens, which are otherwise written like checked tokens."""
TOKEN_KEY_LENGTH = 15
"""The length of a token's public head, which is stored as plain text (knox ``TOKEN_KEY_LENGTH``)."""
MAX_TOKEN_BYTES = 512
"""The longest token that is hashed; a knox token has 64 characters."""

_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_SECRET_CHARS, _CHECKSUM_CHARS = 43, 6  # 62**43 > 2**256, and 62**6 > 2**32
_PREFIX = "[a-z][a-z0-9]{0,7}"  # Short enough to leave three random characters in the public head.
_CHECKED_HEAD = re.compile(f"sm_(?:({_PREFIX})_)?")
_CHECKED = re.compile(rb"sm_(?:%b_)?[0-9A-Za-z]{49}" % _PREFIX.encode())
_OPERATORS = re.compile(rb"sma_[0-9A-Za-z]{49}")
_TOKEN_CHARS = 64
_LOOKS_SECRET = re.compile(
    rf"((?:sma?_(?:{_PREFIX}_)?[0-9A-Za-z]{{40,}}|(?<![0-9A-Za-z])[0-9A-Za-z]{{{_TOKEN_CHARS},}})[0-9A-Za-z_]*)"
)
"""Matches each run of letters and digits once, from its beginning, so it takes linear time.

What follows behind ``_`` is matched too: such a run may end in the ``sma`` of another token.
"""
_ENCODED = "%(?:25)*+"
_ENCODED_CHARS = 7
"""The length of a character that is percent-encoded three times over."""
_ANY_CHAR = f"(?:[0-9A-Za-z]|{_ENCODED}(?:3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa]))"
_ANY_UNDERSCORE = f"(?:_|{_ENCODED}5[Ff])"
_ANY_HEAD = f"(?:s|{_ENCODED}73)(?:m|{_ENCODED}6[Dd])(?:a|{_ENCODED}61)?{_ANY_UNDERSCORE}"
_LOOKS_SECRET_ENCODED = re.compile(
    rf"((?:{_ANY_HEAD}(?:{_ANY_CHAR}{{1,8}}{_ANY_UNDERSCORE})?{_ANY_CHAR}{{40,}}+|{_ANY_CHAR}{{{_TOKEN_CHARS - 4},}}+)"
    rf"(?:{_ANY_CHAR}|{_ANY_UNDERSCORE})*+)"
    rf"|(?:(?!{_ANY_HEAD}){_ANY_CHAR})++"
)
"""Matches what ``_LOOKS_SECRET`` does, also where characters are percent-encoded, once or more often.

A token behind ``%`` or ``%25`` loses characters that could be the code of another, so four fewer are enough. Short runs
are matched too, without a group, since nothing else shows where a run begins.
"""
_RUN_CHARS = f"{_BASE62}%_"
"""The characters of which everything that is matched consists."""
_OWN_TOKENS = re.compile(rf"sma?_(?:{_PREFIX}_)?[0-9A-Za-z]{{49,}}[0-9A-Za-z_]*|[0-9a-f]{{64,}}")
"""Matches text that has the form of a token of this package, or contains one."""
_PREFIXED_KNOX = re.compile(rb"sm_(?:%b_)?[0-9a-f]+" % _PREFIX.encode())


class Token:
    """The secret string, as the bytes that were received; its repr shows at most four characters."""

    __slots__ = ("_digest", "_value", "fingerprint")

    def __init__(self, value: bytes, fingerprint: bytes = b"") -> None:
        self._value = value
        self._digest = b""
        self.fingerprint = fingerprint or fingerprint_of(value)

    @property
    def digest(self) -> bytes:
        """Return the digest that is stored."""
        if not self._digest:
            self._digest = digest_of(self._value)
        return self._digest

    @property
    def token_key(self) -> str:
        return self._value[:TOKEN_KEY_LENGTH].decode("latin-1")

    @property
    def is_mistyped(self) -> bool:
        """Return whether it begins like a checked token but is not valid: mistyped, cut, or made up.

        Tokens of knox with ``TOKEN_PREFIX = "sm_"`` also begin like this, and continue with hexadecimal digits.
        """
        value = self._value
        if not value.startswith(CHECKED_PREFIX) or _PREFIXED_KNOX.fullmatch(value):
            return False
        return not (_CHECKED.fullmatch(value) and _has_checksum(value))

    @property
    def is_operators(self) -> bool:
        """Return whether it has the form of an operator's token, with a valid checksum."""
        return bool(_OPERATORS.fullmatch(self._value)) and _has_checksum(self._value)

    def reveal(self) -> str:
        """Return the secret itself, for the one place that prints a new token."""
        return self._value.decode("ascii")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and same_digest(self.digest, other.digest)

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def masked(self) -> str:
        """Return the part that may be shown: the first four characters, which are those of its ``token_key``."""
        return (self._value[:4].decode("latin-1") if len(self._value) > TOKEN_KEY_LENGTH else "") + "…"

    def __repr__(self) -> str:
        return f"Token({self.masked!r})"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("A token cannot be pickled: it would leave the process as plain text.")


class StoredToken(Token):
    """A token of which only the stored digest is known; it is decided like the token itself."""

    __slots__ = ()

    def __init__(self, token_key: str, digest: bytes) -> None:
        super().__init__(token_key.encode("ascii"), fingerprint=digest)
        self._digest = digest

    @property
    def is_mistyped(self) -> bool:
        return False


class MintedToken(str):
    """A new token for its owner: the string itself, masked only in its repr."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(Token(self.encode("ascii")))


def mint(form: TokenFormat = "knox", prefix: str = "") -> Token:
    """Return a new token, of 256 random bits in either format (knox: ``create_token_string``).

    A checked token begins with ``sm_PREFIX_`` if there is a prefix, for example the name of an environment.
    """
    if form == "knox":
        return Token(secrets.token_hex(32).encode("ascii"))
    return _mint_checked(CHECKED_PREFIX + f"{prefix}_".encode("ascii") if prefix else CHECKED_PREFIX)


def mint_operator_token() -> Token:
    """Return a new token for an operator: ``sma_``, then like a checked token."""
    return _mint_checked(OPERATOR_PREFIX)


def _mint_checked(head: bytes) -> Token:
    body = head + "".join(secrets.choice(_BASE62) for _ in range(_SECRET_CHARS)).encode("ascii")
    return Token(body + _checksum(body))


def is_prefix(text: str) -> bool:
    """Return whether a checked token may have this prefix."""
    return re.fullmatch(_PREFIX, text) is not None


def digest_of(token: bytes) -> bytes:
    """Return the SHA-512 of the token's bytes, 64 bytes (as knox 5; knox 4 hashed something else)."""
    return hashlib.sha512(token).digest()


try:
    quick_hash: Callable[[bytes], Any] = hashlib.blake2b
    quick_hash(b"")
except ValueError:  # A policy may forbid algorithms that NIST has not approved.
    quick_hash = hashlib.sha512


def fingerprint_of(token: bytes) -> bytes:
    """Return the fingerprint of a granted token: BLAKE2b, as strong as its digest at two thirds of the cost.

    No other bytes have the same fingerprint, and it reveals no more of the token than the digest does.
    """
    found: bytes = quick_hash(token).digest()
    return found


def form_of(token_key: str) -> TokenFormat:
    """Return the format of the token with this public head."""
    return "checked" if token_key.startswith(CHECKED_PREFIX.decode("ascii")) else "knox"


def prefix_of(token_key: str) -> str:
    """Return the prefix of the checked token with this public head; empty if it has none."""
    head = _CHECKED_HEAD.match(token_key)
    return (head and head[1]) or ""


def hidden(text: str) -> str:
    """Return the text with everything that looks like a token masked, except for its first four characters."""
    return _looks_secret(text).sub(lambda found: f"{found[1][:4]}…" if found[1] else found[0], text)


def without_tokens(text: str) -> str:
    """Return the text with each token hidden that has the shape of one minted here; long words of others stay."""
    return _OWN_TOKENS.sub(lambda found: f"{found[0][:4]}…", text)


def holds_token(text: str) -> bool:
    """Return whether the text may contain a token: something that looks like one and is not too long."""
    most = MAX_TOKEN_BYTES * _chars_each(text)
    return any(found[1] and len(found[1]) <= most for found in _looks_secret(text).finditer(text))


def shortened(text: str, chars: int) -> str:
    """Return the first ``chars`` characters of the text, without tokens, and ``…`` if there are more.

    Tokens are masked before the cut: otherwise a part of a divided token would be shown.
    """
    if len(text) <= chars:
        return hidden(text)
    # Only a token in the run of characters around the cut can be divided.
    begins = len(text[:chars].rstrip(_RUN_CHARS))
    most = chars + _TOKEN_CHARS * _chars_each(text)
    found = _looks_secret(text).finditer(text, begins, most - len(text[chars:most].lstrip(_RUN_CHARS)))
    end = next((token.start() + 4 for token in found if token[1] and token.start() < chars <= token.end()), chars)
    return f"{hidden(text[: min(end, chars)])}…"


def _looks_secret(text: str) -> re.Pattern[str]:
    return _LOOKS_SECRET_ENCODED if "%" in text else _LOOKS_SECRET


def _chars_each(text: str) -> int:
    """Return how many characters of the text one character of a token may take."""
    return _ENCODED_CHARS if "%" in text else 1


def _checksum(body: bytes) -> bytes:
    """Return the CRC-32 (zlib) of everything before it, in base62, most significant digit first; it is not secret."""
    number, digits = zlib.crc32(body), ""
    for _ in range(_CHECKSUM_CHARS):
        number, digit = divmod(number, len(_BASE62))
        digits = _BASE62[digit] + digits
    return digits.encode("ascii")


def _has_checksum(token: bytes) -> bool:
    return _checksum(token[:-_CHECKSUM_CHARS]) == token[-_CHECKSUM_CHARS:]


def same_digest(one: bytes, other: bytes) -> bool:
    """Compare two digests in constant time; an empty digest never matches."""
    return bool(one) and hmac.compare_digest(one, other)
