"""The shared tier: entries that one worker has read, for the others. It may lose all of them, and is never trusted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from secrets import SystemRandom
from typing import Any

from aiocache.base import BaseCache

from smarter_auth_mw.cache.availability import DEADLINE_S, Availability, cause_of
from smarter_auth_mw.cache.codec import MAX_VALUE_BYTES, Codec, SharedEntry
from smarter_auth_mw.log import log

CLOSE_DEADLINE_S = 1.0
TTL_JITTER = 0.1
"""Spread of the time to live, as a fraction, so that entries written together do not expire together."""
MAX_TTL_S = 30 * 24 * 3600
"""Memcached treats a larger number as a date."""
PROBED = "smarter_auth:probe"
"""The key that probes read and write; nothing else is ever stored there."""


@dataclass(slots=True)
class SharedCounts:
    """Counters of the shared tier. Each get is a hit or a miss; the other numbers say why, and also count puts.

    ``errors`` are calls that failed or timed out, ``skipped`` calls not made while the backend was down,
    ``rejected`` invalid values (garbage, forged, moved), ``too_large`` entries that were not stored.
    """

    hits: int = 0
    misses: int = 0
    errors: int = 0
    skipped: int = 0
    rejected: int = 0
    too_large: int = 0


class SharedBackend:
    """Calls an aiocache backend that may be slow or lose data: a call without an answer in time counts as a miss.

    No call raises. Reading and writing fail separately: a full or read-only Redis may still be read. Use it in one
    event loop only.
    """

    def __init__(
        self,
        backend: BaseCache,
        counts: SharedCounts | None = None,
        deadline_s: float = DEADLINE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts = counts or SharedCounts()
        self._backend = backend
        # aiocache's own timeout is disabled: it creates a task for each call, which costs several times as much.
        reading, writing = partial(backend.get, PROBED, timeout=0), partial(backend.set, PROBED, b"", ttl=1, timeout=0)
        self._reading = Availability(reading, partial(self._report, "read"), deadline_s, clock)
        self._writing = Availability(writing, partial(self._report, "written"), deadline_s, clock)
        self._is_closed = False

    @property
    def is_down(self) -> bool:
        """Return whether reads or writes fail, so that the backend is not called for now."""
        return self._reading.is_down or self._writing.is_down

    def look(self) -> None:
        """Start probes for failed reads or writes, without waiting."""
        self._reading.look()
        self._writing.look()

    async def get(self, key: str) -> Any:
        """Return the value, or None if it is missing or cannot be read."""
        if self._is_closed or not self._reading.allows_call():
            self.counts.skipped += 1
            return None
        return await self._answer(self._reading, self._backend.get(key, timeout=0))

    def allows_set(self) -> bool:
        """Return whether to store a value now; count a skipped call if not."""
        # No set while gets fail: a server that does not even read would keep the socket open.
        is_allowed = not self._is_closed and self._reading.allows_call() and self._writing.allows_call()
        self.counts.skipped += not is_allowed
        return is_allowed

    async def set(self, key: str, value: bytes, ttl_s: int) -> None:
        """Store the value, if that is possible."""
        await self._answer(self._writing, self._backend.set(key, value, ttl=ttl_s, timeout=0))

    async def close(self) -> None:
        """Close the backend's connections and abandon running calls."""
        self._is_closed = True
        try:
            async with asyncio.timeout(CLOSE_DEADLINE_S):
                await self._reading.close()
                await self._writing.close()
                await self._backend.close()
        except Exception as error:
            log("shared.not_closed", "%r: %s", self._backend, type(error).__name__)

    async def _answer(self, availability: Availability, call: Awaitable[Any]) -> Any:
        try:
            return await availability.answer(call)
        except Exception:
            self.counts.errors += 1
            return None

    def _report(self, done: str, error: Exception | None) -> None:
        if error is None:
            log("shared.recovered", "%r can be %s again", self._backend, done)
        else:
            log("shared.unavailable", "%r cannot be %s (%s)", self._backend, done, cause_of(error))


class SharedTier:
    """Entries in a backend shared by workers, sealed by a ``Codec`` with the database's secret and epoch.

    No call raises: garbage counts as a miss, and ``counts`` records why. The cache decides whether an entry is current.
    """

    def __init__(self, backend: SharedBackend, secret: bytes, epoch: str, ttl_s: float) -> None:
        self.counts = backend.counts
        self.backend = backend
        self._codec = Codec(secret, epoch)
        self._ttl_s = ttl_s

    async def get(self, lookup: str) -> SharedEntry | None:
        """Return the entry stored for this look-up, or None."""
        entry = await self._find(lookup)
        if entry is None:
            self.counts.misses += 1
        else:
            self.counts.hits += 1
        return entry

    async def put(self, lookup: str, entry: SharedEntry) -> None:
        """Share the entry, unless it is too large."""
        if not self.backend.allows_set():
            return
        try:
            sealed = self._codec.seal(lookup, entry)
        except ValueError:
            self.counts.rejected += 1
            return
        if len(sealed) > MAX_VALUE_BYTES:
            self.counts.too_large += 1
            return
        await self.backend.set(self._codec.key(lookup), sealed, self._ttl())

    async def _find(self, lookup: str) -> SharedEntry | None:
        sealed = await self.backend.get(self._codec.key(lookup))
        if sealed is None:
            return None
        try:
            return self._codec.unseal(lookup, sealed)
        except ValueError:
            self.counts.rejected += 1
            return None

    def _ttl(self) -> int:
        """Return the time to live in whole seconds, as memcached requires."""
        ttl_s = self._ttl_s * SystemRandom().uniform(1 - TTL_JITTER, 1 + TTL_JITTER)
        return max(1, min(round(ttl_s), MAX_TTL_S))
