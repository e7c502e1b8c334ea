"""Input from a browser: query parameters and form fields, and the checks that a form must pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl

from starlette.types import Receive

from smarter_auth_mw.admin.bodies import MAX_QUERY, is_sent_as, read_bytes
from smarter_auth_mw.admin.problems import InvalidError, RequestError, status_of
from smarter_auth_mw.errors import SmarterAuthError
from smarter_auth_mw.tokens import holds_token

MAX_FORM = 65_536
MAX_FIELDS = 1_000
FORM = "application/x-www-form-urlencoded"
SECRETS = ("token", "tokens", "sign_in_token")
"""Fields that hold tokens: no response repeats what was typed there."""


class FormTypeError(RequestError):
    """The form was not sent as a browser sends it."""

    code = "not_a_form"
    status = 415
    default_hint = f"Send Content-Type: {FORM}, in UTF-8. Programs use the API below /api/v1."


class FieldError(RequestError):
    """A field of the form has a mistake."""

    code = "invalid"

    def __init__(self, field: str, cause: SmarterAuthError | str, *, status: int = 422, **data: Any) -> None:
        known = {"hint": cause.hint if isinstance(cause, SmarterAuthError) else "", "by_field": {field: str(cause)}}
        super().__init__(str(cause), **known | data, status=status)


@contextmanager
def beside(field: str, *kinds: type[SmarterAuthError], unknown: int = 422) -> Iterator[None]:
    """Raise errors of these kinds as a mistake in a field, unless they name one themselves.

    ``unknown`` is the status where the field names something that is not there.
    """
    try:
        yield
    except kinds as error:
        if getattr(error, "by_field", {}):
            raise
        status = status_of(error)
        raise FieldError(field, error, status=unknown if status == 404 else status) from None


class TokenInUrlError(InvalidError):
    """A token does not belong in a URL: browsers and proxies store URLs."""

    default_hint = "Look for its first 15 characters. If others may have seen the address, report the token as leaked."


class Given(dict[str, Any]):
    """Values by name; a template shows a missing name as an empty field."""

    def __missing__(self, name: str) -> str:
        return ""


class Fields:
    """The names and values of a query or a form; a name may appear more than once."""

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value.replace("\r\n", "\n"))

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __bool__(self) -> bool:
        return bool(self._values)

    def get(self, name: str, default: str = "") -> str:
        """Return the first value, without white space around it."""
        return self._values[name][0].strip() if name in self._values else default

    def all(self, name: str) -> list[str]:
        """Return all values that are not empty."""
        return [value.strip() for value in self._values.get(name, ()) if value.strip()]

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Go through all names and values."""
        for name, values in self._values.items():
            yield from ((name, value) for value in values)

    def without_tokens(self) -> Fields:
        """Return what may be shown again: values that hold a token are left out, wherever they were typed."""
        shown = (pair for pair in self.pairs() if pair[0] not in SECRETS)
        return Fields((name, value) for name, value in shown if not holds_token(f"{name} {value}"))

    def given(self) -> Given:
        """Return the non-empty values by name; a list if a name appears more than once."""
        found = {name: self.all(name) for name in self._values}
        return Given({name: values[0] if len(values) == 1 else values for name, values in found.items() if values})


def read_query(query: bytes) -> Fields:
    """Read the query of a page; raises InvalidError."""
    if len(query) > MAX_QUERY:
        raise InvalidError(f"The query may have at most {MAX_QUERY:,} bytes.")
    fields = _parsed(query)
    # A cursor is as long as a token would be, and no page repeats it.
    if any(holds_token(f"{name} {value}") for name, value in fields.pairs() if name != "cursor"):
        raise TokenInUrlError()
    return fields


async def read_form(receive: Receive, headers: Mapping[str, str]) -> Fields:
    """Read the form that a browser sends; raises FormTypeError, TooLargeError or InvalidError."""
    if not is_sent_as(FORM, headers):
        raise FormTypeError()
    return _parsed(await read_bytes(receive, headers, MAX_FORM))


def _parsed(text: bytes) -> Fields:
    try:
        pairs = parse_qsl(text.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError:
        raise InvalidError("This is not written as name=value&name=value, in percent-encoded UTF-8.") from None
    return Fields(pairs)
