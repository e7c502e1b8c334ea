"""Pages of lists: a place to start after, rows up to a limit, and the place where they end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar
from uuid import UUID

from smarter_auth_mw.domain import Resource
from smarter_auth_mw.management.listings.filters import CANDIDATES
from smarter_auth_mw.postgres.lists import FoundRows, Lists

Item = TypeVar("Item")

NIL, LAST = UUID(int=0), UUID(int=2**128 - 1)
EARLIEST, LATEST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
LAST_TEXT = "\U0010ffff" * 256
"""Sorts after every name; appended to a text, after all names that begin with it."""


class Place(Protocol):
    """A place in a list, which can be written as the parts of a cursor."""

    @property
    def parts(self) -> Sequence[Any]: ...

    @classmethod
    def of_parts(cls, parts: Sequence[Any]) -> Self: ...


class Slice(NamedTuple, Generic[Item]):
    """Items, and the place after the last row that was read; None at the end of the list."""

    items: list[Item]
    end: Any | None


class Listing(Protocol[Item]):
    """One list: its filters, its beginning, and how to read on from a place."""

    @property
    def filters(self) -> object: ...
    @property
    def place_type(self) -> type[Place]: ...

    def begins(self) -> Place: ...

    async def read(self, lists: Lists, place: Any, limit: int) -> Slice[Item]: ...


def cut(found: FoundRows, limit: int, place_of: Callable[[Any], Place]) -> tuple[Sequence[Any], Any | None]:
    """Return the rows of a page, of which ``limit`` + 1 were read, and the place to continue from."""
    if len(found.rows) > limit:
        return found.rows[:limit], place_of(found.rows[limit - 1])
    is_cut = found.end is not None and found.end["number"] >= CANDIDATES
    return found.rows, place_of(found.end) if is_cut else None


def by_lookup(resource: Resource | None) -> dict[str, str | None]:
    """Return a resource as the two columns for look-ups."""
    if resource is None:
        return {"kind": None, "lookup": None}
    return {"kind": resource.kind, "lookup": resource.lookup_ref}


def folded(text: str) -> str:
    """Fold upper and lower case as the index on names does: ASCII letters only, whatever the locale."""
    return "".join(char.lower() if char.isascii() else char for char in text)


def ago(span: timedelta | None, now: datetime) -> datetime:
    """Return the time that long ago; without a span, the end of time."""
    if span is None:
        return LATEST
    return now - span if span < now - EARLIEST else EARLIEST


def ahead(span: timedelta, now: datetime) -> datetime:
    return now + span if span < LATEST - now else LATEST


def moment(time: datetime | timedelta | None, now: datetime) -> datetime:
    """Return a time that is given directly, or as a duration ago."""
    return time if isinstance(time, datetime) else ago(time, now)
