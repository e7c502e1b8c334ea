"""The filters of lists, and their pages.

All filters of a list apply together. One of them drives it: it sets the order, and an index is read in that order. The
others are tested on at most ``CANDIDATES`` rows per page, so a page may be short, or even empty, and have a ``next``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Generic, Literal, TypeVar
from uuid import UUID

from smarter_auth_mw.domain import Resource

Item = TypeVar("Item")
State = Literal["active", "inactive", "expired", "revoked", "any"]
Sort = Literal["name", "created_at", "-created_at"]

CANDIDATES = 1_000
"""The most rows that are read for one page; the SQL statements have the same number."""
MAX_PAGE = 1_000
PAGE = 50


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Items in order, and the cursor of the next page; None on the last page."""

    items: tuple[Item, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class KeyFilters:
    """Selects keys. Without a ``state``, a ``key_id`` or a ``token_key``, revoked keys are left out.

    ``find`` is the beginning of the name; A to Z match a to z, and other letters only themselves. ``expiring_after``:
    keys that expire later than that. ``unused_for`` counts from the last use, or from the creation of a key that was
    never used. ``older_than`` is the age of the key, ``token_older_than`` is the age of one of its valid tokens.
    ``rotating``: a token that was replaced is still valid. ``sort`` may be combined with filters that would set another
    order, which are then only tested. Revoked keys have an order of their own: the state ``any`` is possible for the
    keys of a resource.
    """

    key_id: UUID | None = None
    token_key: str | None = None
    resource: Resource | None = None
    account: str | None = None
    state: State | None = None
    find: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    expiring_within: timedelta | None = None
    expiring_after: timedelta | None = None
    never_expires: bool = False
    unused_for: timedelta | None = None
    never_used: bool = False
    older_than: timedelta | None = None
    token_older_than: timedelta | None = None
    rotating: bool = False
    sort: Sort | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", dict(sorted(self.labels.items())))


@dataclass(frozen=True, slots=True)
class ResourceFilters:
    """Selects resources, ordered by kind and reference; those of a key in the order of their registration.

    ``find`` is the beginning of the reference. ``open``: True for resources that anyone may use, False for protected.
    """

    kind: str | None = None
    account: str | None = None
    find: str | None = None
    open: bool | None = None
    key_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class AuditFilters:
    """Selects events. ``action`` may end in ``*``: ``key.*``. ``acts``: only changes, no requests.

    ``since`` and ``until`` are times, or durations ago.
    """

    resource: Resource | None = None
    key_id: UUID | None = None
    account: str | None = None
    actor: str | None = None
    action: str | None = None
    reason: str | None = None
    since: datetime | timedelta | None = None
    until: datetime | timedelta | None = None
    acts: bool = False


@dataclass(frozen=True, slots=True)
class UsageFilters:
    """Selects usage by resource, key and time: ``since`` and ``until`` as in ``AuditFilters``."""

    resource: Resource | None = None
    key_id: UUID | None = None
    since: datetime | timedelta = timedelta(days=1)
    until: datetime | timedelta | None = None
