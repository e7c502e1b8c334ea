"""What operators ask about what has happened: the audit, and usage."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from smarter_auth_mw.domain import Resource
from smarter_auth_mw.postgres.queries import QUERIES

NEWEST = 2**63 - 1
PAGE = 1_000
POINTS = 30
"""Into about how many points a span of time is divided."""

_GRAINS = (
    (timedelta(hours=2), "minute", timedelta(minutes=1)),
    (timedelta(days=14), "hour", timedelta(hours=1)),
    (timedelta.max, "day", timedelta(days=1)),
)
"""How long a span each grain serves; minutes are kept for two days, hours for ninety."""


@dataclass(frozen=True, slots=True)
class About:
    """What a report is about: a resource, a key, both, or everything."""

    resource: Resource | None = None
    key_id: UUID | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        kind, lookup = (None, None) if self.resource is None else (self.resource.kind, self.resource.lookup_ref)
        return {"kind": kind, "lookup": lookup, "key_id": self.key_id}


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One thing that was done or asked; ``before`` and ``after`` are what the audit tells of a record."""

    id: int
    at: datetime
    actor: str
    action: str
    kind: str | None
    ref: str | None
    account: str | None
    key_id: UUID | None
    reason: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Used:
    """How often something was asked; ``points`` tells it in equal steps of time, the first one where it ``begins``."""

    kind: str
    ref: str
    key_id: UUID | None
    key_name: str | None
    token_key: str
    outcome: str
    begins: datetime
    points: tuple[int, ...]

    width: timedelta

    @property
    def count(self) -> int:
        return sum(self.points)


class Reports:
    """Reading statements on one connection, in one transaction."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def audit(
        self, about: About, *, since: datetime | None = None, most: int | None = None
    ) -> AsyncIterator[AuditEvent]:
        """Events, the newest ones first: all of them, or at the ``most`` so many."""
        before, left = NEWEST, most
        while left is None or left > 0:
            size = PAGE if left is None else min(left, PAGE)
            found = QUERIES.find_audit_events(
                self._connection, **about.arguments, since=since, before=before, most=size
            )
            page = [_event(row) async for row in found]
            for event in page:
                yield event
            if len(page) < size:
                return
            before, left = page[-1].id, None if left is None else left - size

    async def usage(self, about: About, span: timedelta) -> list[Used]:
        """What was asked in this span of time until now, by resource, key, token and outcome."""
        grain, step = next((grain, step) for longest, grain, step in _GRAINS if span <= longest)
        width = step * max(1, -(-span // (step * POINTS)))
        size = -(-(span + step) // width)  # The first grain may begin before the span does.
        found = QUERIES.find_usage(self._connection, **about.arguments, grain=grain, span=span, width=width)
        return [_used(row, width, size) async for row in found]


def _event(row: Any) -> AuditEvent:
    values = dict(row)
    return AuditEvent(**values | {name: values[name] and json.loads(values[name]) for name in ("before", "after")})


def _used(row: Any, width: timedelta, size: int) -> Used:
    values = dict(row)
    points = [0] * size
    for point, count in zip(values.pop("points"), values.pop("counts"), strict=True):
        points[min(point, size - 1)] += count
    return Used(**values, points=tuple(points), width=width)
