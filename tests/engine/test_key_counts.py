"""The keys that need attention are counted as the lists find them, in the background, and as long as that works."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import asyncpg
import pytest

from smarter_auth_mw.engine import key_counts
from smarter_auth_mw.engine.assembly import running
from smarter_auth_mw.engine.key_counts import MOST_COUNTED, KeyCounter
from smarter_auth_mw.errors import UnavailableError
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.management.listings import KeyFilters, Listings
from smarter_auth_mw.postgres.reports import KeyCounts
from smarter_auth_mw.postgres.store import Store
from tests.support.many_keys import FILL
from tests.support.worker import PATIENCE_S

DAY = timedelta(days=1)
NOTHING = KeyCounts(0, 0, 0, 0, 0, 0)


async def test_keys_count_while_they_live_and_from_the_day_on_that_the_lists_show_them(
    store: Store, keys: Management, owner: asyncpg.Connection
) -> None:
    now = datetime.now(UTC)
    for days in (0.5, 3, 20, 40):
        await keys.create(f"{days} days", expires_at=now + days * DAY)
    gone = await keys.create("revoked", expires_at=now + DAY)
    rotated, twice = await keys.create("rotated"), await keys.create("rotated twice")
    for key in (gone, rotated, twice):
        await keys.rotate(key.key.key_id)
    await keys.rotate(twice.key.key_id, force=True)
    await keys.rotate((await keys.create("at once")).key.key_id, timedelta(0))
    await keys.revoke(gone.key.key_id)
    await owner.execute(
        "UPDATE smarter_auth.key_use SET idle_since = now() - interval '31 days' WHERE key_id = $1", rotated.key.key_id
    )
    await owner.execute(
        "UPDATE smarter_auth.key_use SET idle_since = now() - interval '91 days' WHERE key_id = $1", twice.key.key_id
    )
    counted = await store.count_keys(MOST_COUNTED)
    assert counted == KeyCounts(expiring_1d=1, expiring_7d=2, expiring_30d=3, unused_30d=2, unused_90d=1, rotating=2)


async def test_counts_are_those_of_the_lists_among_thousands_of_keys(store: Store, owner: asyncpg.Connection) -> None:
    await owner.execute(FILL.format(keys=5_000))
    lists = Listings(store)

    async def listed(filters: KeyFilters) -> int:
        return len([key async for key in lists.every_key(filters)])

    assert await store.count_keys(MOST_COUNTED) == KeyCounts(
        expiring_1d=await listed(KeyFilters(expiring_within=DAY)),
        expiring_7d=await listed(KeyFilters(expiring_within=7 * DAY)),
        expiring_30d=await listed(KeyFilters(expiring_within=30 * DAY)),
        unused_30d=await listed(KeyFilters(unused_for=30 * DAY)),
        unused_90d=await listed(KeyFilters(unused_for=90 * DAY)),
        rotating=await listed(KeyFilters(rotating=True)),
    )


async def test_no_count_is_larger_than_what_is_asked_for(store: Store, owner: asyncpg.Connection) -> None:
    await owner.execute(FILL.format(keys=5_000))
    counted = await store.count_keys(3)
    assert (counted.expiring_30d, counted.unused_30d, counted.rotating) == (3, 3, 3)


class Counted:
    """Keys that are counted as often as somebody asks, except while the store is away."""

    def __init__(self) -> None:
        self.is_away = False
        self.times = 0

    async def count_keys(self, most: int) -> KeyCounts:
        assert most == MOST_COUNTED
        self.times += 1
        if self.is_away:
            raise UnavailableError("It is away.")
        return NOTHING


@pytest.fixture(autouse=True)
def _often() -> Iterator[None]:
    with patch.object(key_counts, "COUNT_EVERY_S", 0.001):
        yield


async def test_keys_are_counted_again_and_not_told_while_the_store_is_away() -> None:
    counted = Counted()
    counter = KeyCounter(counted)

    async def comes_to(expected: KeyCounts | None) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while counter.latest != expected:
                await asyncio.sleep(0)

    assert counter.latest is None
    async with running(counter.run()):
        for is_away in (False, True, False):
            counted.is_away = is_away
            await comes_to(None if is_away else NOTHING)
    assert counted.times >= 3
