"""Lists of usage: one total per resource and key, ordered by these, for a period of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, NamedTuple, Self
from uuid import UUID

from smarter_auth_mw.decision import Reason
from smarter_auth_mw.errors import RefusedError
from smarter_auth_mw.management.listings.cursors import CursorError
from smarter_auth_mw.management.listings.filters import CANDIDATES, UsageFilters
from smarter_auth_mw.management.listings.pages import NIL, Slice, by_lookup, moment
from smarter_auth_mw.management.usage import Consumer, Total, Traffic, sum_of, totals
from smarter_auth_mw.observers.usage import ANONYMOUS, GRANTED
from smarter_auth_mw.postgres.lists import Lists
from smarter_auth_mw.postgres.reports import Used
from smarter_auth_mw.postgres.storable import is_storable

POINTS = 30
"""The approximate number of points into which a period is divided."""
MAX_SERIES = 20_000
"""The most series, each a token and an outcome, that are added up for one figure."""

_GRAINS = (
    (timedelta(hours=2), timedelta(hours=47), "minute", timedelta(minutes=1)),
    (timedelta(days=14), timedelta(days=89), "hour", timedelta(hours=1)),
)
"""The longest period that each grain is used for, and how long it is kept."""


class UsagePlace(NamedTuple):
    """The resource and key where a page begins."""

    kind: str = ""
    lookup: str = ""
    key_id: UUID = NIL

    @property
    def parts(self) -> Sequence[Any]:
        return self.kind, self.lookup, str(self.key_id)

    @classmethod
    def of_parts(cls, parts: Sequence[Any]) -> Self:
        """Parse the parts of a cursor; raises CursorError."""
        if not all(isinstance(part, str) and is_storable(part) for part in parts):
            raise CursorError()
        try:
            return cls(parts[0], parts[1], UUID(parts[2]))
        except ValueError:
            raise CursorError() from None

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Self:
        return cls(row["kind"], row["ref"].replace("_", "-"), row["key_id"] or NIL)


@dataclass(frozen=True, slots=True)
class Span:
    """A period in equal steps, by the database's clock unless it begins at a given time."""

    grain: str
    width: timedelta
    size: int
    since: datetime | None
    length: timedelta
    until: datetime | None

    @classmethod
    def of(cls, filters: UsageFilters, now: datetime) -> Self:
        begins, until = moment(filters.since, now), now if filters.until is None else moment(filters.until, now)
        length = max(until - begins, timedelta(0))
        fine = ((grain, step) for longest, kept, grain, step in _GRAINS if length <= longest and now - begins <= kept)
        grain, step = next(fine, ("day", timedelta(days=1)))
        width = step * max(1, -(-length // (step * POINTS)))
        size = -(-(length + step) // width)  # The first step may begin before the period.
        is_ago = isinstance(filters.since, timedelta)
        end = None if filters.until is None else until
        return cls(grain, width, size, None if is_ago else begins, now - begins, end)

    @property
    def arguments(self) -> dict[str, Any]:
        return {
            "grain": self.grain,
            "width": self.width,
            "since": self.since,
            "span": self.length,
            "until": self.until,
        }

    def used(self, series: Mapping[str, Any], counted: Mapping[str, Any], scope: str | None) -> Used:
        """Sort the counts of a series into the steps; those of another account's key as an unknown token's."""
        points = [0] * self.size
        for point, count in zip(counted["points"], counted["counts"], strict=True):
            points[min(point, self.size - 1)] += count
        values = {name: series[name] for name in ("kind", "ref", "key_id", "key_name", "token_key", "outcome")}
        if scope is not None and series["key_id"] is not None and series["key_account"] != scope:
            outcome = values["outcome"]
            is_denial = outcome not in (GRANTED, ANONYMOUS)
            outcome = Reason.UNKNOWN_TOKEN.value if is_denial else outcome
            values |= {"key_id": None, "key_name": None, "token_key": "", "outcome": outcome}
        return Used(**values, begins=counted["begins"], points=tuple(points), width=self.width)


_TWO_DAYS = Span("day", timedelta(days=1), 2, None, timedelta(days=1), None)
MAX_BY_HOUR, MAX_BY_DAY = 1_000, 10_000
"""The most series of all resources that are added up by hours, and by days since yesterday: some 25,000 rows."""


class UsageList:
    """The usage of a resource, of a key, or of everything."""

    place_type = UsagePlace

    def __init__(self, filters: UsageFilters, scope: str | None, now: datetime) -> None:
        self.filters = filters
        self._scope = scope
        self._span = Span.of(filters, now)

    def begins(self) -> UsagePlace:
        return UsagePlace()

    async def read(self, lists: Lists, place: UsagePlace, limit: int) -> Slice[Total]:
        rows = await lists.series(self._arguments(place, CANDIDATES))
        groups = [(subject, list(group)) for subject, group in groupby(rows, UsagePlace.of_row)]
        is_cut = len(rows) >= CANDIDATES and self._driver != "both"
        end = None
        if len(groups) > limit:
            end = groups[limit][0]
        elif is_cut and len(groups) > 1:
            end = groups.pop()[0]  # It may be incomplete.
        elif is_cut:
            subject, _ = groups[0]
            groups, end = [(subject, await self._whole(lists, subject))], _behind(subject)
        shown = [row for _, group in groups[:limit] for row in group]
        return Slice(totals(await self._used(lists, shown)), end)

    async def sum_up(self, lists: Lists) -> Total | None:
        """Add up everything, for all keys; None if there was nothing. Raises RefusedError for too many keys."""
        rows = await lists.series(self._arguments(UsagePlace(), MAX_SERIES + 1))
        if len(rows) > MAX_SERIES:
            raise RefusedError(
                f"Usage is added up over {MAX_SERIES:,} series at most, and there are more.",
                hint="Request the usage of a key.",
            )
        used = [replace(one, key_id=None, key_name=None) for one in await self._used(lists, rows)]
        return sum_of(used)

    async def _whole(self, lists: Lists, subject: UsagePlace) -> list[Any]:
        """Read all series of one resource and key, for all tokens that the key has had."""
        return await lists.series({**self._arguments(subject, None), **subject._asdict(), "driver": "both"})

    async def _used(self, lists: Lists, rows: Sequence[Any]) -> list[Used]:
        shown = [row for row in rows if row["is_shown"]]
        counted = await lists.count_usage([row["id"] for row in shown], self._span.arguments)
        return [self._span.used(row, counted[row["id"]], self._scope) for row in shown if row["id"] in counted]

    @property
    def _driver(self) -> str:
        if self.filters.resource is None:
            return "all" if self.filters.key_id is None else "key"
        return "resource" if self.filters.key_id is None else "both"

    def _arguments(self, place: UsagePlace, most: int | None) -> dict[str, Any]:
        return {
            "driver": self._driver,
            "account": self._scope,
            **by_lookup(self.filters.resource),
            "key_id": self.filters.key_id,
            "from_kind": place.kind,
            "from_lookup": place.lookup,
            "from_key_id": place.key_id,
            "most": most,
        }


def _behind(place: UsagePlace) -> UsagePlace:
    return place._replace(key_id=UUID(int=min(place.key_id.int + 1, 2**128 - 1)))


async def traffic(lists: Lists, scope: str | None, now: datetime, most: int) -> Traffic:
    """Add up everything: by hours for a few series, by days for more; raises RefusedError for too many."""
    for span, most_series in ((Span.of(UsageFilters(), now), MAX_BY_HOUR), (_TWO_DAYS, MAX_BY_DAY)):
        asked = {"account": scope, "grain": span.grain, "span": span.length, "width": span.width, "top": most}
        rows = await lists.sum_usage({**asked, "most": most_series + 1})
        if not rows[0]["is_cut"]:
            return _traffic(rows, span)
    raise RefusedError(
        f"Usage is added up over {MAX_BY_DAY:,} series at most, and there are more.",
        hint="Request the usage of a resource or a key.",
    )


def _traffic(rows: Sequence[Any], span: Span) -> Traffic:
    points, refused = [0] * span.size, [0] * span.size
    for row in rows:
        if row["point"] is not None:
            step = min(row["point"], span.size - 1)
            points[step] += row["granted"] + row["refused"]
            refused[step] += row["refused"]
    keys = [Consumer(*(row[3:])) for row in rows if row["key_id"] is not None]
    return Traffic(Total("", None, None, rows[0]["begins"], span.width, points, refused), keys)
