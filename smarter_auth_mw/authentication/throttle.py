"""Failed attempts, counted for each peer network and resource: 429 instead of 401 once there are too many."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from limits import RateLimitItem, parse
from limits.aio.storage import RedisStorage, Storage
from limits.aio.strategies import FixedWindowRateLimiter

from smarter_auth_mw.cache.availability import DEADLINE_S, Availability, cause_of
from smarter_auth_mw.cache.backends import backend_of
from smarter_auth_mw.cache.bounded import BoundedMemoryCache
from smarter_auth_mw.decision import Denial, Reason
from smarter_auth_mw.log import log

MAX_COUNTERS = 65_536
"""The most counters in a process: a flood of peers only evicts the counts of other peers."""
KEY_PREFIX = "smarter_auth:failed"
PROBED = "probe"
"""The counter that probes increase by zero."""

GUESSES = frozenset(reason for reason in Reason if reason.status == 401) - {Reason.MISSING_CREDENTIALS}
"""The reasons that count as a guess: a missing token is no guess, and a malformed one cannot be right."""


class Throttle:
    """Counts denials, after the token was checked, so that a valid token is never throttled.

    ``shared`` counts for all workers together. Attempts that it does not count in time are counted in ``local``
    instead, and in ``failures``.
    """

    def __init__(
        self,
        rate: RateLimitItem,
        local: Storage,
        shared: Storage | None = None,
        deadline_s: float = DEADLINE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.failures = 0
        """The number of attempts that the shared storage did not count."""
        self._rate = rate
        self._local = FixedWindowRateLimiter(local)
        self._shared: tuple[FixedWindowRateLimiter, Availability] | None
        if shared is None:
            self._shared = None
            return
        # The probe uses the counting command itself: a Redis may answer PING but not allow scripts.
        probe = partial(shared.incr, PROBED, 1, amount=0)
        self._shared = FixedWindowRateLimiter(shared), Availability(probe, _report, deadline_s, clock)

    async def judge(self, denial: Denial, peer: str) -> Denial:
        """Return the denial, or a "throttled" one if this peer has failed too often on this resource."""
        if denial.reason not in GUESSES or await self._counts(str(denial.resource), peer):
            return denial
        return replace(denial, reason=Reason.THROTTLED, detail=denial.reason.value)

    async def close(self) -> None:
        """Cancel running probes."""
        if self._shared is not None:
            await self._shared[1].close()

    async def _counts(self, resource: str, peer: str) -> bool:
        """Count an attempt; return whether it is within the rate."""
        if self._shared is not None:
            limiter, availability = self._shared
            with suppress(Exception):  # Reported once for each outage.
                if availability.allows_call():
                    return await availability.answer(limiter.hit(self._rate, resource, peer))
            self.failures += 1
        return await self._local.hit(self._rate, resource, peer)


def window_s(rate: str) -> int:
    """Return the longest time, in seconds, after which a throttled peer is let in again."""
    return int(parse(rate).get_expiry()) if rate else 0


@asynccontextmanager
async def open_throttle(
    rate: str, cache_url: str, *, deadline_s: float = DEADLINE_S, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[Throttle | None]:
    """Open the throttle for ``SMARTER_AUTH_FAILED_ATTEMPTS``; None if that is empty.

    It counts for all workers together if the shared cache is a Redis, or else for each worker by itself.
    """
    if not rate:
        yield None
    elif _is_shared(cache_url):
        async with _redis(cache_url) as storage:
            throttle = Throttle(parse(rate), BoundedCounters(), storage, deadline_s, clock)
            try:
                yield throttle
            finally:
                await throttle.close()
    else:
        yield Throttle(parse(rate), BoundedCounters())


async def try_counting(cache_url: str) -> None:
    """Increase a counter of the shared cache by zero, if attempts are counted there; raises the error."""
    if _is_shared(cache_url):
        async with _redis(cache_url) as storage:
            await storage.incr(PROBED, 1, amount=0)


def _is_shared(cache_url: str) -> bool:
    return urlsplit(cache_url).scheme in {"redis", "rediss", "unix"}


@asynccontextmanager
async def _redis(url: str) -> AsyncIterator[Storage]:
    backend: Any = backend_of(url)
    # limits accepts fewer URLs than redis-py, so it gets open connections and a URL that it does not use.
    ours: dict[str, Any] = {"connection_pool": backend.client.connection_pool}
    try:
        yield RedisStorage("redis://localhost:6379", implementation="redispy", key_prefix=KEY_PREFIX, **ours)
    finally:
        with suppress(Exception):
            await backend.close()


def _report(error: Exception | None) -> None:
    if error is None:
        log(
            "throttle.recovered",
            "failed attempts are counted for all workers together again, in the shared cache",
        )
    else:
        text = "each worker counts failed attempts by itself, because the shared cache does not answer (%s)"
        log("throttle.failed", text, cause_of(error))


class BoundedCounters(Storage):
    """Counters in the process for the library ``limits``, whose own are unbounded and swept at each count."""

    STORAGE_SCHEME = None

    def __init__(self, max_counters: int = MAX_COUNTERS, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._counters = BoundedMemoryCache(max_counters, clock=clock)

    def __len__(self) -> int:
        return len(self._counters)

    @property
    def base_exceptions(self) -> type[Exception]:
        return LookupError  # none of these raise it

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        count, ends_at_s = self._find(key, expiry)
        self._counters.put(key, (count + amount, ends_at_s), ends_at_s - self._clock())
        return count + amount

    async def get(self, key: str) -> int:
        return self._find(key)[0]

    async def get_expiry(self, key: str) -> float:
        return self._find(key)[1]

    async def check(self) -> bool:
        return True

    async def reset(self) -> int:
        count = len(self)
        self._counters.empty()
        return count

    async def clear(self, key: str) -> None:
        self._counters.drop(key)

    def _find(self, key: str, expiry: float = 0) -> tuple[int, float]:
        found: tuple[int, float] | None = self._counters.peek(key)
        return found or (0, self._clock() + expiry)
