"""Lists of keys: which filter drives a list, where its order begins and ends, and what the others test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from smarter_auth_mw.domain import Key, KeyState
from smarter_auth_mw.errors import UsageError
from smarter_auth_mw.management.listings.cursors import CursorError, read_time
from smarter_auth_mw.management.listings.filters import CANDIDATES, KeyFilters
from smarter_auth_mw.management.listings.pages import (
    EARLIEST,
    LAST,
    LAST_TEXT,
    LATEST,
    NIL,
    Slice,
    ago,
    ahead,
    by_lookup,
    cut,
    folded,
)
from smarter_auth_mw.postgres.lists import Lists
from smarter_auth_mw.postgres.storable import is_storable


class KeyPlace(NamedTuple):
    """A place in a list of keys; keys of an attached platform come last, in the order of their ids."""

    text: str = ""
    time: datetime = EARLIEST
    key_id: UUID = NIL
    is_platforms: bool = False

    @property
    def parts(self) -> Sequence[Any]:
        return self.text, self.time.isoformat(), str(self.key_id), self.is_platforms

    @classmethod
    def of_parts(cls, parts: Sequence[Any]) -> KeyPlace:
        """Parse the parts of a cursor; raises CursorError."""
        try:
            text, time, key_id, is_platforms = parts
            place = cls(text, read_time(time), UUID(key_id), is_platforms)
            is_sound = is_storable(text) and isinstance(is_platforms, bool)
        except (TypeError, ValueError, AttributeError):
            raise CursorError() from None
        if not is_sound:
            raise CursorError()
        return place

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> KeyPlace:
        return cls(row["place"], row["place_time"] or EARLIEST, row["key_id"])


class KeyList:
    """The keys of one account, or of all: own keys in the order of the driving filter, then a platform's.

    A list within a scope leaves out the platform's keys.
    """

    place_type = KeyPlace

    def __init__(
        self,
        filters: KeyFilters,
        account: str | None,
        now: datetime,
        inner: int | None = None,
        *,
        scope: str | None = None,
    ) -> None:
        _check(filters)
        self._scope = scope
        self.filters = filters
        self._account = account
        self._now = now
        self._most_bound = None if inner is None else inner + 1

    def begins(self) -> KeyPlace:
        return _begins(self.filters, self._now)

    async def read(self, lists: Lists, place: KeyPlace, limit: int) -> Slice[Key]:
        keys: list[Key] = []
        end: KeyPlace | None = place
        if not place.is_platforms:
            found = await lists.keys(arguments(self.filters, self._account, place, self._now, limit + 1))
            rows, end = cut(found, limit, KeyPlace.of_row)
            keys = await lists.load_keys([row["key_id"] for row in rows], self._most_bound)
            place = KeyPlace(is_platforms=True)
        if end is None or end.is_platforms:
            platforms = await self._platforms(lists, place, limit - len(keys))
            return Slice(keys + platforms.items, platforms.end)
        return Slice(keys, end)

    async def _platforms(self, lists: Lists, place: KeyPlace, limit: int) -> Slice[Key]:
        """Test a platform's keys one by one, since it has no index for lists."""
        if self.filters.token_key is not None or self._scope is not None:
            return Slice([], None)
        asked = [self.filters.key_id] if self.filters.key_id else await lists.platform_keys(place.key_id, CANDIDATES)
        looked_at = [key for key in await lists.load_keys(asked, None) if key.is_platforms]
        found = [
            key for key in looked_at if self._account in (None, key.account) and holds(self.filters, key, self._now)
        ]
        if len(found) > limit:
            return Slice(found[:limit], KeyPlace(key_id=found[limit - 1].key_id, is_platforms=True) if limit else place)
        is_cut = self.filters.key_id is None and len(asked) == CANDIDATES
        return Slice(found, KeyPlace(key_id=asked[-1], is_platforms=True) if is_cut else None)


_DRIVERS: Sequence[tuple[str, Callable[[KeyFilters], object]]] = (
    ("key_id", lambda filters: filters.key_id),
    ("token_key", lambda filters: filters.token_key),
    ("name", lambda filters: filters.sort == "name"),
    ("created", lambda filters: filters.sort == "created_at"),
    ("-created", lambda filters: filters.sort == "-created_at"),
    ("resource", lambda filters: filters.resource),
    ("-revoked", lambda filters: filters.state == "revoked"),
    ("expires", lambda filters: filters.expiring_within or filters.expiring_after or filters.state == "expired"),
    ("never used", lambda filters: filters.never_used),
    ("idle", lambda filters: filters.unused_for is not None),
    ("label", lambda filters: filters.labels),
    ("rotating", lambda filters: filters.rotating),
    ("created", lambda filters: filters.older_than is not None),
    ("name", lambda _: True),
)
"""The first one whose filter is given drives the list."""

_WITH_REVOKED = ("key_id", "token_key", "resource")
"""Drivers whose lists hold revoked keys too."""


def driver_of(filters: KeyFilters) -> str:
    return next(driver for driver, is_given in _DRIVERS if is_given(filters))


def _check(filters: KeyFilters) -> None:
    """Refuse to look for revoked keys in a list that holds only keys that are not revoked."""
    places = {"revoked": (*_WITH_REVOKED, "-revoked"), "any": _WITH_REVOKED}
    if driver_of(filters) not in places.get(filters.state or "", (driver_of(filters),)):
        raise UsageError(
            "Revoked keys have a list of their own, the most recently revoked first.",
            hint="Filter by the state revoked, without an order; the keys of one resource can have any order.",
        )


def _begins(filters: KeyFilters, now: datetime) -> KeyPlace:
    """Return the place before the first key of the list."""
    match driver_of(filters):
        case "name":
            return KeyPlace(folded(filters.find or ""))
        case "-created":
            return KeyPlace(time=ago(filters.older_than, now), key_id=LAST)
        case "-revoked":
            return KeyPlace(time=LATEST, key_id=LAST)
        case "expires" if filters.state != "expired":
            return KeyPlace(time=ahead(filters.expiring_after or timedelta(0), now), key_id=NIL)
        case "rotating":
            return KeyPlace(time=now)
    return KeyPlace()


def arguments(
    filters: KeyFilters,
    account: str | None,
    place: KeyPlace,
    now: datetime,
    most: int,
    key_ids: Sequence[UUID] | None = None,
) -> dict[str, Any]:
    """Build the arguments of ``list_keys``; with ``key_ids`` only these keys are read, in any order."""
    driver, find = driver_of(filters) if key_ids is None else "key_ids", folded(filters.find or "")
    is_exact = driver in ("key_id", "token_key")
    expires_from = ahead(filters.expiring_after or timedelta(0), now)
    expires_until = None if filters.expiring_within is None else ahead(filters.expiring_within, now)
    if filters.expiring_after is not None:
        expires_until = expires_until or LATEST
    return {
        "driver": driver,
        "account": account,
        "after_text": place.text,
        "after_time": place.time,
        "after_id": place.key_id,
        "end_text": find + LAST_TEXT,
        "end_time": _ends(driver, filters, now),
        **by_lookup(filters.resource),
        "key_id": filters.key_id,
        "key_ids": key_ids,
        "token_key": filters.token_key,
        "label": next((f"{name}={value}" for name, value in filters.labels.items()), None),
        "labels": [f"{name}={value}" for name, value in filters.labels.items()],
        "now": now,
        "state": filters.state or ("any" if is_exact else "living"),
        "find_from": find,
        "find_until": find + LAST_TEXT,
        "created_before": ago(filters.older_than, now),
        "expires_from": None if expires_until is None else expires_from,
        "expires_until": expires_until,
        "is_endless": filters.never_expires,
        "idle_before": None if filters.unused_for is None else ago(filters.unused_for, now),
        "is_never_used": filters.never_used,
        "minted_before": None if filters.token_older_than is None else ago(filters.token_older_than, now),
        "is_rotating": filters.rotating,
        "most": most,
    }


def holds(filters: KeyFilters, key: Key, now: datetime) -> bool:
    """Return whether all filters match a key: the tests of ``list_keys``, for keys without own rows."""
    state = key.state(now)
    is_living = state is not KeyState.REVOKED
    is_asked = is_living if filters.state is None else filters.state in ("any", state.value)
    idle_since = key.last_used_at or key.created_at
    within, after = filters.expiring_within, filters.expiring_after
    return all(
        (
            is_asked or (filters.key_id is not None and filters.state is None),
            filters.key_id in (None, key.key_id),
            filters.token_key is None or filters.token_key in key.token_keys,
            filters.resource is None or filters.resource in key.bindings,
            folded(key.name).startswith(folded(filters.find or "")),
            filters.labels.items() <= key.labels.items(),
            within is None or key.expires_within(within, now),
            after is None or (key.expires_at is not None and key.expires_at >= ahead(after, now)),
            not filters.never_expires or key.expires_at is None,
            filters.unused_for is None or idle_since < ago(filters.unused_for, now),
            not filters.never_used or key.last_used_at is None,
            key.created_at < ago(filters.older_than, now),
            filters.token_older_than is None or key.is_older_than(filters.token_older_than, now),
            not filters.rotating or bool(key.previous_tokens(now)),
        )
    )


def _ends(driver: str, filters: KeyFilters, now: datetime) -> datetime:
    match driver:
        case "created":
            return ago(filters.older_than, now)
        case "expires" if filters.state == "expired":
            return now
        case "expires" if filters.expiring_within is not None:
            return ahead(filters.expiring_within, now)
        case "idle" | "never used":
            return ago(filters.unused_for, now)
    return LATEST
