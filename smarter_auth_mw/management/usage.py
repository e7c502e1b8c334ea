"""Usage, added up to one total per resource and key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from smarter_auth_mw.observers.usage import ANONYMOUS, GRANTED, OTHER, UNKNOWN
from smarter_auth_mw.postgres.reports import Used

_PLACES = {UNKNOWN: "(unknown)", OTHER: "(other)"}


@dataclass
class Total:
    """All requests for one resource with one key, or without one.

    ``points`` counts them in steps of ``width``, and ``denied_points`` those of them that were denied.
    """

    resource: str
    key_id: str | None
    key_name: str | None
    begins: datetime
    width: timedelta
    points: list[int]
    denied_points: list[int]
    outcomes: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)

    def add(self, used: Used) -> None:
        """Count these requests too."""
        self.points = _added(self.points, used.points)
        if used.outcome not in (GRANTED, ANONYMOUS):
            self.denied_points = _added(self.denied_points, used.points)
        self.outcomes[used.outcome] += used.count
        if used.outcome == GRANTED and used.token_key:
            self.tokens[used.token_key] += used.count

    @property
    def count(self) -> int:
        return sum(self.points)


class Consumer(NamedTuple):
    """A key, and how many of its requests were granted and refused."""

    key_id: UUID
    key_name: str | None
    granted: int
    refused: int


class Traffic(NamedTuple):
    """All requests of a period, without their resources and keys, and the keys with the most granted ones."""

    total: Total
    consumers: Sequence[Consumer]


def sum_of(found: Iterable[Used]) -> Total | None:
    """Add up everything; None if there is nothing."""
    total = None
    for used in found:
        total = total or _empty(used)
        total.add(used)
    return total


def totals(found: Iterable[Used]) -> list[Total]:
    """Add up by resource and key, keeping the order of the first row of each."""
    by_subject: dict[tuple[str, str | None], Total] = {}
    for used in found:
        empty = _empty(used)
        by_subject.setdefault((empty.resource, empty.key_id), empty).add(used)
    return list(by_subject.values())


def _empty(used: Used) -> Total:
    key_id = None if used.key_id is None else str(used.key_id)
    resource = f"{used.kind}:{_PLACES.get(used.ref, used.ref)}" if used.kind else "(none)"
    nothing = [0] * len(used.points)
    return Total(resource, key_id, used.key_name, used.begins, used.width, nothing, nothing)


def _added(points: Iterable[int], others: Iterable[int]) -> list[int]:
    return [one + other for one, other in zip(points, others, strict=True)]
