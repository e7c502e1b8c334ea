"""Lists of keys, resources and the audit: in pages, filtered, and of one account or of all.

``scope`` is the one place where an account limits what is visible: with None everything is, with an account's name only
what belongs to that account. Everything else is not found, as if it did not exist.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import UUID

from smarter_auth_mw.domain import Key, RegisteredResource
from smarter_auth_mw.errors import NotFoundError, RefusedError, UsageError
from smarter_auth_mw.management.listings import cursors
from smarter_auth_mw.management.listings.audit import AuditList, Order
from smarter_auth_mw.management.listings.filters import (
    MAX_PAGE,
    PAGE,
    AuditFilters,
    KeyFilters,
    Page,
    ResourceFilters,
    UsageFilters,
)
from smarter_auth_mw.management.listings.following import BEGINNING, AuditStream, Readable
from smarter_auth_mw.management.listings.keys import KeyList
from smarter_auth_mw.management.listings.pages import EARLIEST, Listing, ago, ahead
from smarter_auth_mw.management.listings.resources import ResourceList
from smarter_auth_mw.management.listings.usage import UsageList, traffic
from smarter_auth_mw.management.usage import Total, Traffic
from smarter_auth_mw.postgres.lists import AttentionCounts
from smarter_auth_mw.postgres.reports import AuditEvent

Item = TypeVar("Item")


STREAMED = 500
"""The number of items in memory at once while a whole list is read."""
_LIST = "To list the keys: smarter-auth key list"
ALL_KEYS, ALL_RESOURCES, ALL_EVENTS = KeyFilters(), ResourceFilters(), AuditFilters()


class Listings:
    """Pages of lists, each read in one transaction. Raises ``UsageError``, ``UnavailableError`` and ``SchemaError``.

    ``limit`` is the maximum number of items, and ``cursor`` the ``next`` of the previous page with the same filters.
    ``inner``: the most entries that are loaded of a list inside an item, plus one that shows that there are more.
    """

    def __init__(
        self,
        store: Readable,
        *,
        scope: str | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._scope = scope
        self._clock = clock

    async def keys(
        self,
        filters: KeyFilters = ALL_KEYS,
        *,
        limit: int = PAGE,
        cursor: str | None = None,
        inner: int | None = None,
    ) -> Page[Key]:
        """Return a page of keys."""
        account = self._account(filters.account)
        listing = KeyList(filters, account, self._clock(), inner, scope=self._scope)
        return await self._page(listing, filters.account, limit, cursor)

    async def key(self, text: str, *, inner: int | None = None) -> Key:
        """Return the key with this id, or the only unrevoked one with this name.

        Raises NotFoundError, and RefusedError if several accounts have a key with this name.
        """
        try:
            filters = KeyFilters(key_id=UUID(text))
        except ValueError:
            # In this order, the name itself comes before longer names that begin with it.
            filters = KeyFilters(find=text)
        page = await self.keys(filters, inner=inner)
        found = [key for key in page.items if filters.key_id or key.name == text]
        if len(found) > 1:
            accounts = ", ".join(sorted(key.account for key in found))
            raise RefusedError(f"Several keys are named {text!r}, in the accounts {accounts}.", hint=_LIST)
        if not found:
            what = f"key {text}" if filters.key_id else f"unrevoked key named {text!r}"
            raise NotFoundError(f"There is no {what}.", hint=_LIST)
        return found[0]

    def every_key(self, filters: KeyFilters = ALL_KEYS) -> AsyncGenerator[Key]:
        """Yield all keys, read page by page."""
        return _every(lambda cursor: self.keys(filters, limit=STREAMED, cursor=cursor))

    async def attention(self, *, expiring_within: timedelta, unused_for: timedelta, most: int = 101) -> AttentionCounts:
        """Count what needs attention, each up to ``most``: own keys and registered resources."""
        now = self._clock()
        asked = {"now": now, "expires_until": ahead(expiring_within, now), "idle_before": ago(unused_for, now)}
        async with self._store.lists() as lists:
            return await lists.attention({"account": self._scope, "most": most, **asked})

    async def resources(
        self,
        filters: ResourceFilters = ALL_RESOURCES,
        *,
        limit: int = PAGE,
        cursor: str | None = None,
        inner: int | None = None,
    ) -> Page[RegisteredResource]:
        """Return a page of resources; an attached platform's are listed only if they are protected."""
        account = self._account(filters.account)
        listing = ResourceList(filters, account, inner, scope=self._scope)
        return await self._page(listing, filters.account, limit, cursor)

    def every_resource(self, filters: ResourceFilters = ALL_RESOURCES) -> AsyncGenerator[RegisteredResource]:
        """Yield all resources, read page by page."""
        return _every(lambda cursor: self.resources(filters, limit=STREAMED, cursor=cursor))

    async def audit(
        self,
        filters: AuditFilters = ALL_EVENTS,
        *,
        order: Order = "newest",
        limit: int = PAGE,
        cursor: str | None = None,
    ) -> Page[AuditEvent]:
        """Return a page of the audit, sorted by the time of the events."""
        is_scoped, account = self._scope is not None, self._account(filters.account)
        listing = AuditList(filters, account, self._clock(), order, is_scoped=is_scoped)
        return await self._page(listing, filters.account, limit, cursor)

    def every_event(self, filters: AuditFilters = ALL_EVENTS, *, order: Order = "oldest") -> AsyncGenerator[AuditEvent]:
        """Yield all events, read page by page."""
        return _every(lambda cursor: self.audit(filters, order=order, limit=STREAMED, cursor=cursor))

    def stream(self, filters: AuditFilters = ALL_EVENTS, *, after: str = BEGINNING) -> AuditStream:
        """Follow the audit without loss: after an event's cursor, from the ``beginning``, or from ``now`` on."""
        account = self._account(filters.account)
        if self._is_foreign(filters.account):
            account = None  # Nothing can match both.
            filters = replace(filters, until=EARLIEST)
        listing = AuditList(filters, account, self._clock(), "oldest", is_scoped=self._scope is not None)
        return AuditStream(self._store, listing, after)

    async def usage(self, filters: UsageFilters, *, limit: int = PAGE, cursor: str | None = None) -> Page[Total]:
        """Return a page of usage, one total for each resource and key."""
        return await self._page(UsageList(filters, self._scope, self._clock()), None, limit, cursor)

    def every_total(self, filters: UsageFilters) -> AsyncGenerator[Total]:
        """Yield all usage, read page by page."""
        return _every(lambda cursor: self.usage(filters, limit=STREAMED, cursor=cursor))

    async def usage_in_all(self, filters: UsageFilters) -> Total | None:
        """Add up all requests for a resource, or with a key; raises RefusedError if there are too many keys."""
        async with self._store.lists() as lists:
            return await UsageList(filters, self._scope, self._clock()).sum_up(lists)

    async def traffic(self, *, most: int = 5) -> Traffic:
        """Add up all requests of the last 24 hours, or of the last two days where there are many resources and tokens.

        Name at most that many keys that were used most. Raises RefusedError if there is too much to add up.
        """
        async with self._store.lists() as lists:
            return await traffic(lists, self._scope, self._clock(), most)

    async def _page(self, listing: Listing[Item], account: str | None, limit: int, cursor: str | None) -> Page[Item]:
        if not 1 <= limit <= MAX_PAGE:
            raise UsageError(f"A page has 1 to {MAX_PAGE} items, not {limit}.")
        if self._is_foreign(account):
            return Page(())
        place = listing.begins()
        if cursor is not None:
            place = listing.place_type.of_parts(cursors.decode(listing.filters, cursor, len(place.parts)))
        async with self._store.lists() as lists:
            items, end = await listing.read(lists, place, limit)
        return Page(tuple(items), None if end is None else cursors.encode(listing.filters, end.parts))

    def _account(self, asked: str | None) -> str | None:
        return self._scope or asked

    def _is_foreign(self, asked: str | None) -> bool:
        return self._scope is not None and asked not in (None, self._scope)


async def _every(page: Callable[[str | None], Awaitable[Page[Item]]]) -> AsyncGenerator[Item]:
    cursor = None
    while True:
        found = await page(cursor)
        for item in found.items:
            yield item
        if (cursor := found.next) is None:
            return
