"""Errors as problem documents (RFC 9457), with one code for each class of errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, ClassVar

from smarter_auth_mw.errors import (
    ConfigurationError,
    NotFoundError,
    OutOfScopeError,
    RefusedError,
    SmarterAuthError,
    UnavailableError,
    UsageError,
    WouldOpenError,
)
from smarter_auth_mw.management.operators import Role
from smarter_auth_mw.tokens import hidden, shortened

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 2
_SHOWN_ORIGIN = 128


class RequestError(SmarterAuthError):
    """The request cannot be answered."""

    status: ClassVar[int] = 400
    headers: Sequence[tuple[str, str]] = ()


class UnauthorizedError(RequestError):
    """This needs the token of an operator."""

    code = "unauthorized"
    status = 401
    default_hint = "Send it as Authorization: Bearer sma_…. To create an operator: smarter-auth operator create"
    headers = (("WWW-Authenticate", 'Bearer realm="smarter_auth admin"'),)


class ThrottledError(RequestError):
    """Too many requests with tokens that are not valid came from here."""

    code = "throttled"
    status = 429


class ForbiddenError(RequestError):
    """This operator is not allowed to do that."""

    code = "forbidden"
    status = 403

    def __init__(self, role: Role, *, everywhere: bool = False, message: str = "") -> None:
        self.role = role
        scope = " of all accounts" if everywhere else ""
        super().__init__(
            message or f"This needs the role {role.value}{scope}.",
            hint="The owner of the schema can change the role: smarter-auth operator set",
        )


class PathError(RequestError):
    """There is nothing at this path."""

    code = "no_such_path"
    status = 404
    default_hint = "All paths are in /api/v1/openapi.json; none ends with a slash."


class MethodError(RequestError):
    """This path does not support this method."""

    code = "method_not_allowed"
    status = 405

    def __init__(self, methods: Sequence[str]) -> None:
        super().__init__()
        self.headers = (("Allow", ", ".join(methods)),)


class PreconditionError(RequestError):
    """It was changed after you read it."""

    code = "changed_meanwhile"
    status = 412
    default_hint = "Read it again, then repeat the change; programs send the new ETag as If-Match."


class TooLargeError(RequestError):
    """The body is too large."""

    code = "too_large"
    status = 413


class MediaTypeError(RequestError):
    """The body must be JSON."""

    code = "not_json"
    status = 415
    default_hint = "Send Content-Type: application/json, in UTF-8 and without a Content-Encoding."


class MisdirectedError(RequestError):
    """This host is not served here."""

    code = "misdirected"
    status = 421
    default_hint = "Behind a proxy, or to serve other machines: set SMARTER_AUTH_ADMIN_ORIGIN"


class OriginError(RequestError):
    """This form does not come from this site."""

    code = "foreign_origin"
    status = 403

    def __init__(self, own: str, sent: str, *, is_set: bool) -> None:
        come = (
            f"It comes from {shortened(sent, _SHOWN_ORIGIN)!a}"
            if sent
            else "The browser does not say where it comes from"
        )
        super().__init__(f"This form does not come from this site. {come}, and this site is {own}.")
        if is_set:
            self.hint = f"Open {own}, and send it there. Another address: set SMARTER_AUTH_ADMIN_ORIGIN"
        else:
            self.hint = "If you are behind a proxy: set SMARTER_AUTH_ADMIN_ORIGIN to what your browser shows: https://admin.example.com"


class PagesMissingError(RequestError):
    """The pages need an extra that is not installed."""

    code = "pages_not_installed"
    status = 501
    default_hint = "Run: pip install 'smarter_auth_mw[admin]'. The API, below /api/v1, works without it."


class InvalidError(RequestError):
    """The request does not match the schema of this operation."""

    code = "invalid"
    status = 422
    by_field: Mapping[str, str] = MappingProxyType({})
    """The mistake of each parameter or member that has one."""


_STATUS: Sequence[tuple[type[SmarterAuthError], int]] = (
    (NotFoundError, 404),
    (OutOfScopeError, 403),
    (RefusedError, 409),
    (UnavailableError, 503),
    (ConfigurationError, 503),
    (UsageError, 422),
)
"""The first class that an error belongs to; ConflictError is a RefusedError."""

_AWAY = "The database cannot be reached, or is not ready for this release. The log says why."
_WOULD_OPEN = (
    "If this is intended, an admin sends ?allow_anonymous=true. Otherwise, protect the resource first: POST …/protect"
)
DATA = ("role", "key_id", "token_key")
"""The attributes of errors that are sent to programs."""


def status_of(error: SmarterAuthError) -> int:
    """Return the status of the answer that this error becomes."""
    if isinstance(error, RequestError):
        return error.status
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def headers_of(error: SmarterAuthError) -> list[tuple[str, str]]:
    """Return the headers that belong to the error's status."""
    headers = list(error.headers) if isinstance(error, RequestError) else []
    return [*headers, ("Retry-After", str(RETRY_AFTER_S))] if status_of(error) == 503 else headers


def document_of(error: SmarterAuthError) -> dict[str, Any]:
    """Describe the error; anything that looks like a token in its words is hidden."""
    status = status_of(error)
    document = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "code": error.code}
    if status == 503:  # The database's own text names hosts and roles, which do not concern a caller.
        return document | {"detail": _AWAY}
    document["detail"] = hidden(error.message)
    hint = _WOULD_OPEN if isinstance(error, WouldOpenError) else error.hint
    if hint:
        document["hint"] = hidden(hint)
    data = {name: getattr(error, name) for name in DATA if hasattr(error, name)}
    return document | {name: str(value) for name, value in data.items()}
