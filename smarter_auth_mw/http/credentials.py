"""Reads the credentials of a request from its headers (RFC 9110 §11)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from smarter_auth_mw.tokens import MAX_TOKEN_BYTES, Token

Header = tuple[bytes, bytes]
Headers = Sequence[Header]
Offered = TypeVar("Offered", bytes, str)

AUTHORIZATION_HEADER = b"authorization"
API_KEY_HEADER = b"x-api-key"
SUBPROTOCOL_HEADER = b"sec-websocket-protocol"
SUBPROTOCOL = "smarter-auth"
"""The subprotocol that browsers, which cannot set other headers, offer with the token: ``["smarter-auth", token]``."""
MAX_SUBPROTOCOLS = 64
"""The most subprotocols that a client may offer together with a token."""

_TOKEN68 = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")
_JOINED = rb",[ \t]*+(?:%s)[ \t]"
"""An accepted scheme after a comma: a proxy has joined two headers."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """Ambiguous or malformed credentials; ``detail`` is for operators and does not show them."""

    detail: str


Credentials = Token | Malformed | None


class Extractor:
    """Finds accepted credentials in the headers of a request; other schemes are ignored.

    ``ways`` are those of ``SMARTER_AUTH_CREDENTIALS``, and ``subprotocol`` for a WebSocket. A header with accepted
    credentials that appears more than once is malformed, as are two ways with different tokens.
    """

    def __init__(self, ways: Iterable[str]) -> None:
        ways = frozenset(ways)
        self._schemes = frozenset(way.encode("ascii") for way in ways & {"token", "bearer"})
        self._usual_schemes = {spelling for scheme in self._schemes for spelling in (scheme, scheme.title())}
        self._joined = re.compile(_JOINED % b"|".join(sorted(self._schemes)))
        self.readers: dict[bytes, Callable[[bytes], Credentials]] = {}
        if self._schemes:
            self.readers[AUTHORIZATION_HEADER] = self._read_authorization
        if "x-api-key" in ways:
            self.readers[API_KEY_HEADER] = _read_api_key
        if "subprotocol" in ways:
            self.readers[SUBPROTOCOL_HEADER] = _read_subprotocols

    def __call__(self, headers: Headers) -> Credentials:
        readers = self.readers
        found = [header for header in headers if header[0] in readers]
        if len(found) == 1:
            name, value = found[0]
            return readers[name](value)
        return self._read_several(found) if found else None

    def is_usual(self, authorization: bytes) -> bool:
        """Return whether the header has one of the few spellings that clients use: scheme, one space, token."""
        scheme, _, token = authorization.partition(b" ")
        return scheme in self._usual_schemes and token.split() == [token]

    def _read_several(self, found: Headers) -> Credentials:
        read = [self.readers[name](value) for name, value in found]
        ours = [credentials for credentials in read if credentials is not None]
        if ours and len({name for name, _ in found}) < len(found):
            return Malformed("a header with credentials appears more than once")
        for credentials in ours:
            if isinstance(credentials, Malformed):
                return credentials
        if any(credentials != ours[0] for credentials in ours):
            return Malformed("two places carry different credentials")
        return ours[0] if ours else None

    def _read_authorization(self, value: bytes) -> Credentials:
        scheme, *words = value.split(None, 2) or [b""]
        if scheme.lower() in self._schemes:
            return _token(words[0]) if len(words) == 1 else Malformed("a scheme is followed by exactly one token")
        return (
            Malformed("two headers with credentials have been joined") if self._joined.search(value.lower()) else None
        )

    def hide(self, headers: Headers) -> list[Header]:
        """Return the headers without accepted credentials; everything else, such as subprotocols, is unchanged."""
        return [header for header in headers if header[0] == SUBPROTOCOL_HEADER or not self._is_ours(*header)]

    def _is_ours(self, name: bytes, value: bytes) -> bool:
        return name in self.readers and self.readers[name](value) is not None


def _read_api_key(value: bytes) -> Credentials:
    return _token(value.strip(b" \t"))


def _read_subprotocols(value: bytes) -> Credentials:
    marker = SUBPROTOCOL.encode("ascii")
    if marker not in value:
        return None
    if value.count(b",") >= MAX_SUBPROTOCOLS:
        return Malformed(f"smarter-auth is one of more than {MAX_SUBPROTOCOLS} subprotocols")
    offered = _offered(value)
    if marker not in offered:
        return None
    behind = offered[offered.index(marker) + 1 :]
    if not behind or offered.count(marker) > 1:
        return Malformed("the subprotocol smarter-auth must appear once, followed by the token")
    return _token(behind[0])


def without_subprotocol(headers: Headers) -> list[Header]:
    """Return the headers without the token that a browser offers as a subprotocol; the rest is unchanged."""
    left = []
    for name, value in headers:
        if name == SUBPROTOCOL_HEADER and _read_subprotocols(value) is not None:
            offered = _offered(value) if value.count(b",") < MAX_SUBPROTOCOLS else []
            others = others_offered(offered, SUBPROTOCOL.encode("ascii"))
            left += [(name, b", ".join(others))] if others else []
        else:
            left.append((name, value))
    return left


def others_offered(offered: Sequence[Offered], marker: Offered) -> list[Offered]:
    """Return the offers without each ``marker`` and the next offer; nothing if there are too many."""
    if marker not in offered or len(offered) > MAX_SUBPROTOCOLS:
        return [] if marker in offered else list(offered)
    others, is_token = [], False
    for one in offered:
        if one != marker and not is_token:
            others.append(one)
        is_token = one == marker
    return others


def _offered(value: bytes) -> list[bytes]:
    return [one.strip(b" \t") for one in value.split(b",")]


def _token(value: bytes) -> Token | Malformed:
    if len(value) > MAX_TOKEN_BYTES:
        return Malformed(f"a token has {MAX_TOKEN_BYTES} bytes at most")
    if not _TOKEN68.fullmatch(value):
        return Malformed("a token is made of letters, digits and -._~+/ (RFC 9110 token68)")
    return Token(value)
