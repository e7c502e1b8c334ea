"""Lists of the audit's events, in order of time or the newest one first."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal, NamedTuple

from smarter_auth_mw.decision import Reason
from smarter_auth_mw.management.listings.cursors import CursorError, read_time
from smarter_auth_mw.management.listings.filters import AuditFilters
from smarter_auth_mw.management.listings.pages import EARLIEST, LATEST, Slice, by_lookup, cut, moment
from smarter_auth_mw.postgres.lists import Lists, event_of
from smarter_auth_mw.postgres.reports import AuditEvent

Order = Literal["oldest", "newest"]
"""The order of events: the oldest or the newest first."""
LAST_ID = 2**63 - 1


class AuditPlace(NamedTuple):
    """A place in a list of events."""

    at: datetime
    id: int

    @property
    def parts(self) -> Sequence[Any]:
        return self.at.isoformat(), self.id

    @classmethod
    def of_parts(cls, parts: Sequence[Any]) -> AuditPlace:
        """Parse the parts of a cursor; raises CursorError."""
        try:
            place = cls(read_time(parts[0]), parts[1])
        except (TypeError, ValueError):
            raise CursorError() from None
        if type(place.id) is not int or abs(place.id) > LAST_ID:
            raise CursorError()
        return place

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> AuditPlace:
        return cls(row["at"], row["id"])


class AuditList:
    """The events of one account, or of all; an account sees nothing of another account's keys."""

    place_type = AuditPlace

    def __init__(
        self, filters: AuditFilters, account: str | None, now: datetime, order: Order, *, is_scoped: bool
    ) -> None:
        self.filters = (filters, order)
        self._asked = filters
        self._account = account
        self._since = EARLIEST if filters.since is None else moment(filters.since, now)
        self._until = LATEST if filters.until is None else moment(filters.until, now)
        self._is_newest_first = order == "newest"
        self._is_scoped = is_scoped

    def begins(self) -> AuditPlace:
        return AuditPlace(self._until, -1) if self._is_newest_first else AuditPlace(self._since, -1)

    async def read(self, lists: Lists, place: AuditPlace, limit: int) -> Slice[AuditEvent]:
        rows, end = await self.rows(lists, place, limit)
        return Slice(await self.shown(lists, rows), end)

    async def rows(self, lists: Lists, place: AuditPlace, limit: int) -> tuple[Sequence[Any], Any | None]:
        """Read the rows of a page, and the place after them."""
        driver = _driver(await self._driving(lists), self._account)
        return cut(await lists.audit(self._arguments(driver, place, limit + 1)), limit, AuditPlace.of_row)

    async def _driving(self, lists: Lists) -> AuditFilters:
        """Return the filters that may drive the list: other accounts' events must not decide where a page ends."""
        if not self._is_scoped or self._account is None:
            return self._asked
        driving = replace(self._asked, actor=None)
        if driving.resource is None and driving.key_id is None:
            return driving
        is_own = await lists.is_of_account(self._account, driving.resource, driving.key_id)
        return driving if is_own else replace(driving, resource=None, key_id=None)

    async def committed(self, lists: Lists, place: Mapping[str, Any], limit: int) -> tuple[Sequence[Any], Any | None]:
        """Read the rows committed between two snapshots, after a place, and the last row."""
        found = await lists.follow(
            {**self.tests, **place, "since": self._since, "until": self._until, "most": limit + 1}
        )
        return cut(found, limit, lambda row: row)

    async def shown(self, lists: Lists, rows: Sequence[Any]) -> list[AuditEvent]:
        """Turn rows into events as this account may see them."""
        events = [event_of(row) for row in rows]
        return await self._masked(lists, events) if self._is_scoped else events

    async def _masked(self, lists: Lists, events: list[AuditEvent]) -> list[AuditEvent]:
        """Remove what the events tell about other accounts' keys, and the database roles."""
        accounts = await lists.accounts_of_keys(list({event.key_id for event in events if event.key_id}))
        own = {None, *(key_id for key_id, account in accounts.items() if account == self._account)}
        return [replace(event if event.key_id in own else masked(event), database_role=None) for event in events]

    def _arguments(self, driver: str, place: AuditPlace, most: int) -> dict[str, Any]:
        return {
            "driver": f"{'-' if self._is_newest_first else ''}{driver}",
            "after_time": place.at,
            "after_id": place.id,
            "end_time": self._since if self._is_newest_first else self._until,
            **self.tests,
            "most": most,
        }

    @property
    def tests(self) -> dict[str, Any]:
        """Return the conditions that are tested on every event."""
        asked = self._asked
        return {
            "account": self._account,
            **by_lookup(asked.resource),
            "key_id": asked.key_id,
            "actor": asked.actor,
            "action": None if asked.action is None else _like(asked.action),
            "reason": asked.reason,
            "is_act": _is_of_people(asked),
            "is_scoped": self._is_scoped,
        }


def masked(event: AuditEvent) -> AuditEvent:
    """Return the event of a request with another account's key as if its token were unknown."""
    status = (event.after or {}).get("status")
    reason = Reason.UNKNOWN_TOKEN.value if event.reason else ""
    return replace(event, key_id=None, reason=reason, before=None, after=None if status is None else {"status": status})


_DRIVERS: Sequence[tuple[str, str, Callable[[AuditFilters, str | None], object]]] = (
    ("key", "acts on key", lambda filters, _: filters.key_id),
    ("resource", "acts of resource", lambda filters, _: filters.resource),
    ("", "acts by actor", lambda filters, _: filters.actor),
    ("account", "acts of account", lambda _, account: account),
    ("time", "acts", lambda *_: True),
)
"""The first one whose filter is given drives the list, of all events or of changes."""


def _driver(filters: AuditFilters, account: str | None) -> str:
    is_act = _is_of_people(filters)
    drivers = ((acts if is_act else every, is_given) for every, acts, is_given in _DRIVERS)
    return next(driver for driver, is_given in drivers if driver and is_given(filters, account))


def _is_of_people(filters: AuditFilters) -> bool:
    """Return whether the requested action matches only changes, and no request."""
    begins = (filters.action or "*").partition("*")[0]
    return filters.acts or not ("request.".startswith(begins) or begins.startswith("request."))


def _like(action: str) -> str:
    """Return an action, or a prefix with a ``*``, as a LIKE pattern."""
    return re.sub(r"([\\%_])", r"\\\1", action).replace("*", "%")
