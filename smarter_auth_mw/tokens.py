"""Tokens as django-rest-knox 5 makes them: minted, hidden, hashed, and compared in one place."""

from __future__ import annotations

import hashlib
import hmac
import secrets

TOKEN_KEY_LENGTH = 15
"""How much of a token is its public head, stored in the clear (knox ``TOKEN_KEY_LENGTH``)."""
MAX_TOKEN_BYTES = 512
"""Nothing longer is hashed: a token of knox has 64 characters."""


class Token:
    """The secret string, as the bytes that came in; it shows four characters of itself at the most."""

    __slots__ = ("_digest", "_value")

    def __init__(self, value: bytes) -> None:
        self._value = value
        self._digest: bytes | None = None

    @property
    def digest(self) -> bytes:
        """SHA-512 of the token's bytes, 64 bytes (knox 5: of its UTF-8 form; 4.x hashed something else)."""
        if self._digest is None:
            self._digest = hashlib.sha512(self._value).digest()
        return self._digest

    @property
    def token_key(self) -> str:
        return self._value[:TOKEN_KEY_LENGTH].decode("latin-1")

    def reveal(self) -> str:
        """Give the secret itself away: for the one place that prints a freshly minted token."""
        return self._value.decode("ascii")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and same_digest(self.digest, other.digest)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        head = self._value[:4].decode("latin-1") if len(self._value) > TOKEN_KEY_LENGTH else ""
        return f"Token({head + '…'!r})"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("A token is not pickled: it would leave the process in the clear.")


def mint() -> Token:
    """A new token: 32 random bytes as 64 lower-case hexadecimal characters (knox ``create_token_string``)."""
    return Token(secrets.token_hex(32).encode("ascii"))


def same_digest(one: bytes, other: bytes) -> bool:
    """Compare two digests in constant time; an empty one is never the same as anything."""
    return bool(one) and hmac.compare_digest(one, other)
