"""Read a request's JSON body and query strictly, before anything acts on them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from starlette.types import Receive

from smarter_auth_mw.admin.problems import InvalidError, MediaTypeError, TooLargeError
from smarter_auth_mw.tokens import shortened

Model = TypeVar("Model", bound=BaseModel)

MAX_PARAMETERS = 64
MAX_QUERY = 16_384
_SHOWN_MISTAKES = 10
_SHOWN_NAME = 64


async def read_body(receive: Receive, headers: Mapping[str, str], most: int) -> bytes:
    """Return the body; raises MediaTypeError if it is not plain JSON, and TooLargeError beyond ``most`` bytes."""
    if not is_sent_as("application/json", headers):
        raise MediaTypeError()
    return await read_bytes(receive, headers, most)


def is_sent_as(wanted: str, headers: Mapping[str, str]) -> bool:
    """Return whether a body is of this media type, in UTF-8 and not compressed."""
    media_type, _, parameters = headers.get("content-type", "").partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    is_plain = headers.get("content-encoding", "identity").lower() == "identity"
    return is_plain and media_type.strip().lower() == wanted and charset in ("", "utf-8", "utf8")


async def read_bytes(receive: Receive, headers: Mapping[str, str], most: int) -> bytes:
    """Return the body of any media type; raises TooLargeError beyond ``most`` bytes."""
    length = headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 18 or int(length) > most):
        raise TooLargeError(f"The body may have at most {most:,} bytes.")
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise InvalidError("The body ends before it is complete.")
        body += message.get("body", b"")
        if len(body) > most:
            raise TooLargeError(f"The body may have at most {most:,} bytes.")
        if not message.get("more_body"):
            return bytes(body)


def parse_body(model: type[Model], body: bytes) -> Model:
    """Read a JSON document strictly: every member once, none that is unknown, no NaN; raises InvalidError."""
    try:
        json.loads(body, object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError:
        raise InvalidError("The body is nested too deeply.") from None
    except _RepeatedError as error:
        raise InvalidError(f"The body names {shortened(str(error), _SHOWN_NAME)!a} twice.") from None
    except ValueError:
        raise InvalidError("The body is not JSON in UTF-8.") from None
    try:
        return model.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise _explained("body", error) from None


def parse_query(model: type[Model], query: bytes) -> Model:
    """Read query parameters, each once unless the model has a list of it; raises InvalidError."""
    if len(query) > MAX_QUERY:
        raise InvalidError(f"The query may have at most {MAX_QUERY:,} bytes.")
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(query),
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except ValueError:
        raise InvalidError("The query is not written as name=value&name=value, in percent-encoded UTF-8.") from None
    try:
        return model.model_validate(_collected(pairs, _lists_of(model)))
    except ValidationError as error:
        raise _explained("query", error) from None


class _RepeatedError(ValueError):
    """A member appears twice in one object, and parsers do not agree which one counts."""


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _RepeatedError(name)
        found[name] = value
    return found


def _no_constant(_: str) -> None:
    raise ValueError("not a JSON number")


def _lists_of(model: type[BaseModel]) -> set[str]:
    return {name for name, field in model.model_fields.items() if field.default == []}


def _collected(pairs: Sequence[tuple[str, str]], lists: set[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in lists:
            found.setdefault(name, []).append(value)
        elif name in found:
            raise InvalidError(f"The query names {shortened(name, _SHOWN_NAME)!a} twice.")
        else:
            found[name] = value
    return found


def _explained(where: str, error: ValidationError) -> InvalidError:
    """Name the mistakes without the values, which may be secret."""
    mistakes = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{_place(where, one['loc'])}: {one['msg'].removeprefix('Value error, ')}" for one in mistakes]
    more = [f"and {len(lines) - _SHOWN_MISTAKES} more"] if len(lines) > _SHOWN_MISTAKES else []
    by_field = {str(one["loc"][0]): one["msg"].removeprefix("Value error, ") for one in mistakes if one["loc"]}
    return InvalidError("; ".join([*lines[:_SHOWN_MISTAKES], *more]) + ".", by_field=by_field)


def _place(where: str, location: Sequence[str | int]) -> str:
    return ".".join([where, *(shortened(str(part), _SHOWN_NAME) for part in location)])
