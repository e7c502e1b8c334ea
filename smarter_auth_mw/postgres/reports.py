"""What has happened, as lists show it: events of the audit, and how often something was used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One thing that was done or asked; ``before`` and ``after`` are the record as the audit shows it.

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
    """How many keys need somebody's attention; no number is larger than what the statement was asked for at most."""

    expiring_1d: int
    expiring_7d: int
    expiring_30d: int
    unused_30d: int
    unused_90d: int
    rotating: int


@dataclass(frozen=True, slots=True)
class Used:
    """How often something was asked; ``points`` counts it in equal steps of time, the first one where it ``begins``."""

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
