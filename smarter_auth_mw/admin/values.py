"""Types of values in requests: times, durations, ids and resources, each with its rule and JSON schema."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, WithJsonSchema

from smarter_auth_mw.config.durations import RULE, parse_duration
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.errors import UsageError
from smarter_auth_mw.management.naming import split
from smarter_auth_mw.postgres.storable import is_storable

UUID_TEXT = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
UUID_SCHEMA = {"type": "string", "format": "uuid"}


def checked_text(value: str) -> str:
    if not is_storable(value):
        raise ValueError("holds a character that cannot be stored")
    return value


def _uuid(value: str) -> str:
    if not UUID_TEXT.fullmatch(value):
        raise ValueError("a UUID in lower case, with hyphens")
    return value


def _duration(value: Any) -> timedelta:
    found = parse_duration(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(RULE)
    return found


def _overlap(value: Any) -> timedelta:
    return timedelta(0) if value in ("0", "0s") else _duration(value)


def _moment(value: Any) -> datetime | timedelta:
    """Read a time, or how long ago it was."""
    if not isinstance(value, str):
        raise ValueError(f"a time, or {RULE}")
    if (ago := parse_duration(value)) is not None:
        return ago
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"a time, for example 2026-01-31T12:00:00Z, or {RULE}") from None
    if time.tzinfo is None:
        raise ValueError("a time with its time zone, for example 2026-01-31T12:00:00Z")
    return _within_calendar(time)


def _within_calendar(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("a time between the years 1 and 9999") from None


def _resource(value: Any) -> Resource:
    if not isinstance(value, str):
        raise ValueError("KIND:REF, for example bot:42")
    try:
        return Resource(*split(checked_text(value)))
    except UsageError:
        raise ValueError("KIND:REF, for example bot:42") from None


def _label(value: str) -> str:
    name, equals, content = value.partition("=")
    if not (name and equals and content):
        raise ValueError("name=value")
    return checked_text(value)


Text = Annotated[str, Field(max_length=255), AfterValidator(checked_text)]
TokenKey = Annotated[str, Field(max_length=15), AfterValidator(checked_text)]
Cursor = Annotated[str, Field(max_length=8192), AfterValidator(checked_text)]
Name = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(checked_text)]
KeyId = Annotated[str, AfterValidator(_uuid), WithJsonSchema(UUID_SCHEMA)]
Duration = Annotated[
    Any, BeforeValidator(_duration), WithJsonSchema({"type": "string", "pattern": "^[1-9][0-9]{0,8}[smhd]$"})
]
Overlap = Annotated[
    Any, BeforeValidator(_overlap), WithJsonSchema({"type": "string", "pattern": "^(0s?|[1-9][0-9]{0,8}[smhd])$"})
]
Moment = Annotated[Any, BeforeValidator(_moment), WithJsonSchema({"type": "string", "examples": ["7d"]})]
ResourceName = Annotated[
    Any, BeforeValidator(_resource), WithJsonSchema({"type": "string", "pattern": "^[^:]+:.+$", "examples": ["bot:42"]})
]
Label = Annotated[str, AfterValidator(_label)]
Time = Annotated[AwareDatetime, AfterValidator(_within_calendar)]
