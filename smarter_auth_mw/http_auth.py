"""Credentials in, challenge and rejection out (RFC 9110 §11, RFC 9457)."""

from __future__ import annotations

import http
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from smarter_auth_mw.decision import Denial, Reason
from smarter_auth_mw.tokens import MAX_TOKEN_BYTES, Token

Headers = Sequence[tuple[bytes, bytes]]

API_KEY_HEADER = b"x-api-key"
RETRY_AFTER_S = {429: 60, 503: 1}
DETAILS = {
    400: "The request or its credentials can be read in more than one way.",
    401: "This resource asks for a valid API key.",
    404: "There is no such resource.",
    429: "Too many failed attempts.",
    503: "The request cannot be decided at the moment.",
}
_TOKEN68 = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")


@dataclass(frozen=True, slots=True)
class Malformed:
    """Credentials of ours that nobody can read in one way; ``detail`` is for operators and shows none of them."""

    detail: str


Credentials = Token | Malformed | None


class Extractor:
    """Finds our credentials in the headers of a request; foreign schemes are none of ours.

    ``ways`` are those of ``SMARTER_AUTH_CREDENTIALS``. An ``Authorization`` header that stands twice, with one of our
    schemes in it, and an ``X-API-Key`` that does are malformed, as are two ways that bring different tokens.
    """

    def __init__(self, ways: Iterable[str]) -> None:
        ways = set(ways)
        self.schemes = frozenset(way.encode() for way in ways & {"token", "bearer"})
        self.names = frozenset(
            name
            for name, is_accepted in ((b"authorization", bool(self.schemes)), (API_KEY_HEADER, "x-api-key" in ways))
            if is_accepted
        )

    def __call__(self, headers: Headers) -> Credentials:
        found: list[tuple[bytes, bytes]] = [header for header in headers if header[0] in self.names]
        if not found:
            return None
        if len(found) == 1:
            return self._read(*found[0])
        return self._read_several(found)

    def _read_several(self, found: list[tuple[bytes, bytes]]) -> Credentials:
        read = [self._read(name, value) for name, value in found]
        ours = [credentials for credentials in read if credentials is not None]
        if ours and len({name for name, _ in found}) < len(found):
            return Malformed("a header with credentials stands more than once")
        for credentials in ours:
            if isinstance(credentials, Malformed):
                return credentials
        if any(credentials != ours[0] for credentials in ours):
            return Malformed("two ways bring different credentials")
        return ours[0] if ours else None

    def _read(self, name: bytes, value: bytes) -> Credentials:
        if name == API_KEY_HEADER:
            return _token(value.strip(b" \t"))
        scheme, *words = value.split(None, 2) or [b""]
        if scheme.lower() not in self.schemes:
            return None
        return _token(words[0]) if len(words) == 1 else Malformed("a scheme is followed by exactly one token")

    def hide(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        """The headers less our credentials; everything else as it came."""
        return [header for header in headers if header[0] not in self.names or self._read(header[0], header[1]) is None]


def _token(value: bytes) -> Token | Malformed:
    if len(value) > MAX_TOKEN_BYTES:
        return Malformed(f"a token has {MAX_TOKEN_BYTES} bytes at the most")
    if not _TOKEN68.fullmatch(value):
        return Malformed("a token is made of letters, digits and -._~+/ (RFC 9110 token68)")
    return Token(value)


@dataclass(frozen=True, slots=True)
class Rejection:
    """A complete refusal, built once: the same bytes for every reason that shares its status."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Rejections:
    """All refusals, prebuilt; they tell the status and nothing of the reason."""

    def __init__(self, ways: Sequence[str], realm: str, error_format: Literal["problem", "smarter"]) -> None:
        self._by_status = {
            status: Rejection(status, *_built(status, _challenges(ways, realm), error_format)) for status in DETAILS
        }
        self._by_reason = {reason: self._by_status[reason.status] for reason in Reason}

    def __getitem__(self, denial: Denial) -> Rejection:
        return self._by_reason[denial.reason]


def _challenges(ways: Sequence[str], realm: str) -> list[tuple[bytes, bytes]]:
    """One challenge for each accepted way, each a field of its own (RFC 9110 §11.6.1)."""
    forms = {
        "token": f'Token realm="{realm}"',
        "bearer": f'Bearer realm="{realm}"',
        "x-api-key": f'ApiKey realm="{realm}", header="X-API-Key"',
    }
    return [(b"www-authenticate", forms[way].encode("ascii")) for way in ways]


def _built(
    status: int, challenges: list[tuple[bytes, bytes]], error_format: str
) -> tuple[tuple[tuple[bytes, bytes], ...], bytes]:
    media_type, document = _problem(status) if error_format == "problem" else _journaled(status)
    body = json.dumps(document, separators=(",", ":")).encode("ascii")
    headers = [
        (b"content-type", media_type),
        (b"content-length", str(len(body)).encode("ascii")),
        (b"cache-control", b"no-store"),
    ]
    if status == http.HTTPStatus.UNAUTHORIZED:
        headers += challenges
    if status in RETRY_AFTER_S:
        headers.append((b"retry-after", str(RETRY_AFTER_S[status]).encode("ascii")))
    return tuple(headers), body


def _problem(status: int) -> tuple[bytes, dict[str, Any]]:
    title = http.HTTPStatus(status).phrase
    document = {"type": "about:blank", "title": title, "status": status, "detail": DETAILS[status]}
    return b"application/problem+json", document


def _journaled(status: int) -> tuple[bytes, dict[str, Any]]:
    """The platform's shape (``SmarterJournaledJsonErrorResponse``), less its stack trace and its echo of the URL."""
    error = {
        "errorClass": "SmarterTokenAuthenticationError",
        "description": DETAILS[status],
        "status": status,
        "args": "",
        "cause": "",
        "context": "thing=None, command=None",
        "thing": "None",
        "command": "None",
    }
    return b"application/json", {
        "error": error,
        "api": "smarter.sh/v1",
        "metadata": {"command": "None", "thing": "None"},
    }
