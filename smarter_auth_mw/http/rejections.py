"""The responses to refused requests: status, challenge and body (RFC 9110 §11, RFC 9457)."""

from __future__ import annotations

import http
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from smarter_auth_mw.decision import Denial, Reason
from smarter_auth_mw.http.credentials import Header

OUTAGE_RETRY_AFTER_S = 1
DETAILS = {
    400: "The request or its credentials can be read in more than one way.",
    401: "This resource requires a valid API key.",
    404: "There is no such resource.",
    429: "Too many failed attempts.",
    503: "Access to this resource cannot be checked at the moment.",
}


@dataclass(frozen=True, slots=True)
class Rejection:
    """A complete refusal, built once: the same bytes for every reason that shares its status."""

    status: int
    headers: tuple[Header, ...]
    body: bytes


class Rejections:
    """All refusals, built in advance; they reveal the status and nothing of the reason."""

    def __init__(
        self,
        ways: Sequence[str],
        realm: str,
        error_format: Literal["problem", "smarter"],
        *,
        throttled_for_s: int = 60,
    ) -> None:
        more = {
            401: challenges(ways, realm),
            429: [_retry_after(throttled_for_s)],
            503: [_retry_after(OUTAGE_RETRY_AFTER_S)],
        }
        by_status = {status: _rejection(status, error_format, more.get(status, [])) for status in DETAILS}
        self.by_reason = {reason: by_status[reason.status] for reason in Reason}

    def __getitem__(self, denial: Denial) -> Rejection:
        return self.by_reason[denial.reason]


def challenges(ways: Sequence[str], realm: str) -> list[Header]:
    """Return one challenge per accepted way, each in its own header field (RFC 9110 §11.6.1)."""
    forms = {
        "token": f'Token realm="{realm}"',
        "bearer": f'Bearer realm="{realm}"',
        "x-api-key": f'ApiKey realm="{realm}", header="X-API-Key"',
    }
    return [(b"www-authenticate", forms[way].encode("ascii")) for way in ways]


def _retry_after(seconds: int) -> Header:
    return b"retry-after", str(seconds).encode("ascii")


def _rejection(status: int, error_format: str, more: list[Header]) -> Rejection:
    media_type, document = _problem(status) if error_format == "problem" else _journaled(status)
    body = json.dumps(document, separators=(",", ":")).encode("ascii")
    headers = (
        (b"content-type", media_type),
        (b"content-length", str(len(body)).encode("ascii")),
        (b"cache-control", b"no-store"),
    )
    return Rejection(status, (*headers, *more), body)


def _problem(status: int) -> tuple[bytes, dict[str, Any]]:
    title = http.HTTPStatus(status).phrase
    document = {"type": "about:blank", "title": title, "status": status, "detail": DETAILS[status]}
    return b"application/problem+json", document


def _journaled(status: int) -> tuple[bytes, dict[str, Any]]:
    """Return the platform's body (``SmarterJournaledJsonErrorResponse``), without stack trace and URL."""
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
