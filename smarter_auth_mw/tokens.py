"""Tokens: minted as django-rest-knox 5 makes them or with a checksum, hidden, hashed, and compared in one place."""

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
"""Begins the tokens of operators, which are written as checked tokens otherwise."""
TOKEN_KEY_LENGTH = 15
"""How much of a token is its public head, stored in the clear (knox ``TOKEN_KEY_LENGTH``)."""
MAX_TOKEN_BYTES = 512
"""Nothing longer is hashed: a token of knox has 64 characters."""

_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_SECRET_CHARS, _CHECKSUM_CHARS = 43, 6  # 62**43 > 2**256, and 62**6 > 2**32
_PREFIX = "[a-z][a-z0-9]{0,7}"  # So short that three random characters are left in the public head.
_CHECKED_HEAD = re.compile(f"sm_(?:({_PREFIX})_)?")
_CHECKED = re.compile(rb"sm_(?:%b_)?[0-9A-Za-z]{49}" % _PREFIX.encode())
_OPERATORS = re.compile(rb"sma_[0-9A-Za-z]{49}")
_TOKEN_CHARS = 64
_LOOKS_SECRET = re.compile(rf"sma?_(?:{_PREFIX}_)?[0-9A-Za-z]{{40,}}|(?<![0-9A-Za-z])[0-9A-Za-z]{{{_TOKEN_CHARS},}}")
"""A run of letters and digits is looked at once, from its beginning: the cost is that of the text's length."""
_PREFIXED_KNOX = re.compile(rb"sm_(?:%b_)?[0-9a-f]+" % _PREFIX.encode())


class Token:
    """The secret string, as the bytes that came in; its repr shows at most four characters."""

    __slots__ = ("_digest", "_value", "fingerprint")

    def __init__(self, value: bytes, fingerprint: bytes = b"") -> None:
        self._value = value
        self._digest = b""
        self.fingerprint = fingerprint or fingerprint_of(value)

    @property
    def digest(self) -> bytes:
        """Return what is stored of it."""
        if not self._digest:
            self._digest = digest_of(self._value)
        return self._digest

    @property
    def token_key(self) -> str:
        return self._value[:TOKEN_KEY_LENGTH].decode("latin-1")

    @property
    def is_mistyped(self) -> bool:
        """Return whether it begins as a checked token and cannot be one: mistyped, cut, or made up.

        Tokens of a knox whose ``TOKEN_PREFIX`` is ``sm_`` begin so too, and are hexadecimal behind it.
        """
        value = self._value
        if not value.startswith(CHECKED_PREFIX) or _PREFIXED_KNOX.fullmatch(value):
            return False
        return not (_CHECKED.fullmatch(value) and _has_checksum(value))

    @property
    def is_operators(self) -> bool:
        """Return whether it is written as the token of an operator, with the right checksum."""
        return bool(_OPERATORS.fullmatch(self._value)) and _has_checksum(self._value)

    def reveal(self) -> str:
        """Give the secret itself away: for the one place that prints a freshly minted token."""
        return self._value.decode("ascii")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and same_digest(self.digest, other.digest)

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def masked(self) -> str:
        """Return what may be shown of it: the first four characters, which are those of its ``token_key``."""
        return (self._value[:4].decode("latin-1") if len(self._value) > TOKEN_KEY_LENGTH else "") + "…"

    def __repr__(self) -> str:
        return f"Token({self.masked!r})"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("A token is not pickled: it would leave the process in the clear.")


class StoredToken(Token):
    """A token of which no more is known than what is stored: requests with it are decided as with the token itself."""

    __slots__ = ()

    def __init__(self, token_key: str, digest: bytes) -> None:
        super().__init__(token_key.encode("ascii"), fingerprint=digest)
        self._digest = digest

    @property
    def is_mistyped(self) -> bool:
        return False


class MintedToken(str):
    """A fresh token for its owner's eyes: the string itself, which hides only where an object is shown."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(Token(self.encode("ascii")))


def mint(form: TokenFormat = "knox", prefix: str = "") -> Token:
    """Return a new token, of 256 random bits in either format (knox: ``create_token_string``).

    A checked token begins with ``sm_PREFIX_`` if there is a prefix, for example that of an environment.
    """
    if form == "knox":
        return Token(secrets.token_hex(32).encode("ascii"))
    return _mint_checked(CHECKED_PREFIX + f"{prefix}_".encode("ascii") if prefix else CHECKED_PREFIX)


def mint_operator_token() -> Token:
    """Return a new token for an operator: ``sma_``, then as a checked token."""
    return _mint_checked(OPERATOR_PREFIX)


def _mint_checked(head: bytes) -> Token:
    body = head + "".join(secrets.choice(_BASE62) for _ in range(_SECRET_CHARS)).encode("ascii")
    return Token(body + _checksum(body))


def is_prefix(text: str) -> bool:
    """Return whether a checked token may have this prefix."""
    return re.fullmatch(_PREFIX, text) is not None


def digest_of(token: bytes) -> bytes:
    """SHA-512 of the token's bytes, 64 bytes (knox 5: of its UTF-8 form; 4.x hashed something else)."""
    return hashlib.sha512(token).digest()


try:
    quick_hash: Callable[[bytes], Any] = hashlib.blake2b
    quick_hash(b"")
except ValueError:  # Where a policy forbids what NIST has not approved.
    quick_hash = hashlib.sha512


def fingerprint_of(token: bytes) -> bytes:
    """What a granted token is found again by in this process: BLAKE2b, as strong as its digest at two thirds the cost.

    No other bytes have it, and it reveals no more of the token than the digest does.
    """
    found: bytes = quick_hash(token).digest()
    return found


def form_of(token_key: str) -> TokenFormat:
    """The format of the token with this public head."""
    return "checked" if token_key.startswith(CHECKED_PREFIX.decode("ascii")) else "knox"


def prefix_of(token_key: str) -> str:
    """Return the prefix of the checked token with this public head; empty if it has none."""
    head = _CHECKED_HEAD.match(token_key)
    return (head and head[1]) or ""


def hidden(text: str) -> str:
    """Return the text with all but the first four characters of each thing that looks like a token replaced."""
    return _LOOKS_SECRET.sub(lambda found: f"{found[0][:4]}…", text)


def holds_token(text: str) -> bool:
    """Whether something in the text may be a token: what looks like one, and is not too long for any."""
    return any(len(found[0]) <= MAX_TOKEN_BYTES for found in _LOOKS_SECRET.finditer(text))


def shortened(text: str, chars: int) -> str:
    """Return the first ``chars`` characters of the text, without tokens, and ``…`` if there are more.

    A token that the cut would divide is hidden too: hidden after the cut, most of it would be shown.
    """
    if len(text) <= chars:
        return hidden(text)
    found = _LOOKS_SECRET.finditer(text[: chars + _TOKEN_CHARS])
    end = next((token.start() + 4 for token in found if token.start() < chars < token.end()), chars)
    return f"{hidden(text[: min(end, chars)])}…"


def _checksum(body: bytes) -> bytes:
    """CRC-32 (as of zlib) of all that stands before it, in base62, most significant digit first: no secret."""
    number, digits = zlib.crc32(body), ""
    for _ in range(_CHECKSUM_CHARS):
        number, digit = divmod(number, len(_BASE62))
        digits = _BASE62[digit] + digits
    return digits.encode("ascii")


def _has_checksum(token: bytes) -> bool:
    return _checksum(token[:-_CHECKSUM_CHARS]) == token[-_CHECKSUM_CHARS:]


def same_digest(one: bytes, other: bytes) -> bool:
    """Compare two digests in constant time; an empty one is never the same as anything."""
    return bool(one) and hmac.compare_digest(one, other)
