"""Counts the keys that expire soon, are being rotated or are unused, every few minutes, for the metrics."""

from __future__ import annotations

import asyncio
from secrets import SystemRandom
from typing import Protocol

from smarter_auth_mw.errors import SmarterAuthError
from smarter_auth_mw.log import log
from smarter_auth_mw.postgres.reports import KeyCounts

COUNT_EVERY_S = 300.0
MOST_COUNTED = 1000
"""The most keys of each sort that are counted, so that the statement stays cheap."""


class CountableKeys(Protocol):
    """The part of the store that counting needs."""

    async def count_keys(self, most: int) -> KeyCounts: ...


class KeyCounter:
    """The last counts; None before the first count, and while the store is not reachable."""

    def __init__(self, store: CountableKeys) -> None:
        self.latest: KeyCounts | None = None
        self._store = store

    async def run(self) -> None:
        """Count now, and every five minutes from then on."""
        while True:
            self.latest = await self._count()
            await asyncio.sleep(COUNT_EVERY_S * SystemRandom().uniform(0.9, 1.1))  # spreads the fleet

    async def _count(self) -> KeyCounts | None:
        try:
            return await self._store.count_keys(MOST_COUNTED)
        except SmarterAuthError as error:
            log("keys.not_counted", "%s", error)
            return None
