"""Cursors mark where a list continues: each holds the place of the last row read, and a hash of the filters.

A cursor grants no access: filters and scope are checked for every page, and the cursor only holds a place.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

from smarter_auth_mw.errors import UsageError

MAX_CURSOR = 8_192


class CursorError(UsageError):
    """This cursor belongs to another list."""

    code = "cursor"
    default_hint = "Request the first page again, without a cursor."


def encode(filters: object, place: Sequence[Any]) -> str:
    """Return the cursor for a place in the list with these filters."""
    text = json.dumps([_hash(filters), *place], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(filters: object, cursor: str, length: int) -> list[Any]:
    """Return the place in a cursor, which has this many parts; raises CursorError for an invalid one."""
    try:
        if len(cursor) > MAX_CURSOR:
            raise CursorError()
        found = json.loads(base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)))
    except (UnicodeError, binascii.Error, ValueError, RecursionError):
        raise CursorError() from None
    if not isinstance(found, list) or len(found) != length + 1 or found[0] != _hash(filters):
        raise CursorError()
    return found[1:]


def read_time(text: Any) -> datetime:
    """Read a time of a place; raises ValueError or TypeError for one that no database holds."""
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("a time without its zone")
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("a time outside the calendar") from None


def _hash(filters: object) -> str:
    return blake2b(repr(filters).encode("utf-8", "surrogatepass"), digest_size=9).hexdigest()
