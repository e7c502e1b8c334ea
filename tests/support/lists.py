"""What operators see of what has happened: usage and the audit, whole."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from smarter_auth_mw.management.listings import AuditFilters, Listings, UsageFilters
from smarter_auth_mw.management.usage import Total
from smarter_auth_mw.postgres.reports import AuditEvent
from smarter_auth_mw.postgres.store import Store


async def used(store: Store, since: timedelta = timedelta(hours=1), **filters: Any) -> list[Total]:
    """All usage, by resource and key."""
    return [total async for total in Listings(store).every_total(UsageFilters(since=since, **filters))]


async def audited(store: Store, **filters: Any) -> list[AuditEvent]:
    """All events, in order of time."""
    return [event async for event in Listings(store).every_event(AuditFilters(**filters))]
