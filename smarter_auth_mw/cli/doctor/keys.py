"""Findings about keys that need attention: they expire soon, are being rotated, or are unused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from smarter_auth_mw.cli.doctor.routes import Finding, Level
from smarter_auth_mw.management.listings import KeyFilters, Listings
from smarter_auth_mw.management.listings.following import Readable

NAMED = 5
"""The most keys that one finding names."""


@dataclass(frozen=True, slots=True)
class KeyFinding:
    """A finding about keys: how to find them, what to say, and what to do."""

    level: Level
    check: str
    filters: KeyFilters
    subject: str
    hint: str


SORTS: Sequence[KeyFinding] = (
    KeyFinding(
        "warning",
        "expiring",
        KeyFilters(expiring_within=timedelta(days=7)),
        "Keys that expire within 7 days",
        "Extend a key: smarter-auth key set KEY --expires-in 90d. To see all: smarter-auth key list --expiring 7d",
    ),
    KeyFinding(
        "note",
        "rotating",
        KeyFilters(rotating=True),
        "Keys whose previous token is still valid after a rotation",
        "To see whether clients still use the previous token: smarter-auth key wait KEY",
    ),
    KeyFinding(
        "note",
        "unused",
        KeyFilters(unused_for=timedelta(days=90)),
        "Keys that have not been used for 90 days",
        "Revoke unneeded keys: smarter-auth key revoke KEY. To see all: smarter-auth key list --unused-for 90d",
    ),
)


async def check_keys(store: Readable) -> AsyncIterator[Finding]:
    """Yield findings that name the keys that need attention, a few of each sort."""
    lists = Listings(store)
    for sort in SORTS:
        page = await lists.keys(sort.filters, limit=NAMED, inner=0)
        if page.items:
            names = ", ".join(key.name for key in page.items)
            more = " and others" if page.next else ""
            yield Finding(sort.level, sort.check, f"{sort.subject}: {names}{more}.", sort.hint)
