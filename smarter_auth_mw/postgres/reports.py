"""Records of reports: events of the audit, and usage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One change or request; ``before`` and ``after`` are the record in the audit's form.

    ``database_role`` is the role that was logged in to the database; None before schema 0008.
    """

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
    database_role: str | None


@dataclass(frozen=True, slots=True)
class KeyCounts:
    """The numbers of keys that need attention, each at most the limit of the statement."""

    expiring_1d: int
    expiring_7d: int
    expiring_30d: int
    unused_30d: int
    unused_90d: int
    rotating: int


@dataclass(frozen=True, slots=True)
class Used:
    """The number of requests of a series; ``points`` counts them in equal steps from ``begins`` on."""

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
