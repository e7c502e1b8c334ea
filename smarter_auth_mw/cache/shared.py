"""The shared tier: what one worker has read, the others need not. It may lose everything, and makes nothing true."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from aiocache.base import BaseCache

from smarter_auth_mw.cache.codec import MAX_VALUE_BYTES, Codec, SharedEntry
from smarter_auth_mw.config.origins import PREFIX
from smarter_auth_mw.config.settings import mask_url
from smarter_auth_mw.errors import ConfigurationError, Mistake, UsageError
from smarter_auth_mw.log import log

DEADLINE_S = 0.05
"""How long the backend may take with one call; one nearby takes a tenth of a millisecond."""
CLOSE_DEADLINE_S = 1.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
"""How long a backend that failed is left alone: twice as long with each failure, within these."""
TTL_JITTER = 0.1
"""By which part of their time to live, either way, entries that were written together expire apart."""
MAX_TTL_S = 30 * 24 * 3600
"""Memcached takes a larger number for a date."""

CACHE_URLS = (
    "one of memory://, redis://[[USER]:PASSWORD@]HOST[:PORT][/DB], rediss://… for TLS, "
    "unix://[[USER]:PASSWORD@]/SOCKET[?db=DB], memcached://HOST[:PORT]; special characters percent-encoded"
)


@dataclass(slots=True)
class SharedCounts:
    """What the shared tier did. Each get is a hit or a miss; the other numbers say why, and count puts too.

    ``errors`` are calls that failed or took too long, ``skipped`` those spared while the backend was left alone,
    ``rejected`` values that are no entry (garbage, forged, moved), ``too_large`` entries that were not stored.
    """

    hits: int = 0
    misses: int = 0
    errors: int = 0
    skipped: int = 0
    rejected: int = 0
    too_large: int = 0


class Outage:
    """Whether one kind of call fails, and when it is tried again: by one caller at a time, ever less often."""

    def __init__(self, done: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.done = done
        self._clock = clock
        self._pause_s = 0.0
        self._next_try_at_s = 0.0

    @property
    def is_on(self) -> bool:
        return self._pause_s > 0

    def allows_call(self) -> bool:
        """Whether to make the call; who is told so during an outage is the only one for another pause."""
        if not self.is_on:
            return True
        now_s = self._clock()
        if now_s < self._next_try_at_s:
            return False
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._next_try_at_s = now_s + self._pause_s
        return True

    def begin(self) -> bool:
        """Take note of a failure; whether it is the first one."""
        if self.is_on:
            return False
        self._pause_s = FIRST_PAUSE_S
        self._next_try_at_s = self._clock() + FIRST_PAUSE_S
        return True

    def end(self) -> bool:
        """Take note of an answer; whether there was an outage until now."""
        was_on = self.is_on
        self._pause_s = 0.0
        return was_on


class SharedTier:
    """Entries in a backend that the workers share, sealed by a ``Codec`` with one database's secret and epoch.

    No call raises, and none takes longer than ``deadline_s``: a backend that is down, slow, or full of garbage makes
    misses, which ``counts`` tells apart. Whether an entry is current is for the cache to say. Opened, used and closed
    in one event loop.
    """

    def __init__(
        self,
        backend: BaseCache,
        secret: bytes,
        epoch: str,
        ttl_s: float,
        deadline_s: float = DEADLINE_S,
        counts: SharedCounts | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts = counts or SharedCounts()
        self._backend = backend
        self._codec = Codec(secret, epoch)
        self._ttl_s = ttl_s
        self._deadline_s = deadline_s
        self._reading = Outage("read", clock)
        self._writing = Outage("written", clock)  # Apart: a full or read-only Redis may still be read.
        self._is_closed = False

    @property
    def is_down(self) -> bool:
        """Whether the last call of one kind failed: the backend is left alone for a while."""
        return self._reading.is_on or self._writing.is_on

    async def get(self, lookup: str) -> SharedEntry | None:
        """The entry that was put for this look-up, or None."""
        entry = await self._find(lookup)
        if entry is None:
            self.counts.misses += 1
        else:
            self.counts.hits += 1
        return entry

    async def put(self, lookup: str, entry: SharedEntry) -> None:
        """Share the entry, unless it is too large."""
        # No put where no get is answered: a server that does not even read would keep the socket open.
        if self._is_closed or self._reading.is_on or not self._writing.allows_call():
            self.counts.skipped += 1
            return
        try:
            sealed = self._codec.seal(lookup, entry)
        except ValueError:
            self.counts.rejected += 1
            return
        if len(sealed) > MAX_VALUE_BYTES:
            self.counts.too_large += 1
            return
        call = self._backend.set(self._codec.key(lookup), sealed, ttl=self._ttl(), timeout=0)
        await self._answer(call, self._writing)

    async def close(self) -> None:
        """Close the backend's connections; what is still under way is a miss."""
        self._is_closed = True
        try:
            async with asyncio.timeout(CLOSE_DEADLINE_S):
                await self._backend.close()
        except Exception as error:
            log("shared.not_closed", "%r: %s", self._backend, type(error).__name__)

    async def _find(self, lookup: str) -> SharedEntry | None:
        if self._is_closed or not self._reading.allows_call():
            self.counts.skipped += 1
            return None
        sealed = await self._answer(self._backend.get(self._codec.key(lookup), timeout=0), self._reading)
        if sealed is None:
            return None
        try:
            return self._codec.unseal(lookup, sealed)
        except ValueError:
            self.counts.rejected += 1
            return None

    async def _answer(self, call: Awaitable[Any], outage: Outage) -> Any:
        """What the backend answers, or None where it does not.

        aiocache's own timeout is off in each call: it makes a task of it, at several times the price.
        """
        try:
            async with asyncio.timeout(self._deadline_s):
                answer = await call
        except Exception as error:
            self.counts.errors += 1
            if outage.begin():
                # Not the error's text, which may quote what the server sent.
                kind = type(error).__name__
                log("shared.unavailable", "%r cannot be %s (%s)", self._backend, outage.done, kind)
            return None
        if outage.end():
            log("shared.recovered", "%r can be %s again", self._backend, outage.done)
        return answer

    def _ttl(self) -> int:
        """In whole seconds, since memcached knows no others."""
        ttl_s = self._ttl_s * random.uniform(1 - TTL_JITTER, 1 + TTL_JITTER)  # noqa: S311
        return max(1, min(round(ttl_s), MAX_TTL_S))


def backend_of(url: str) -> BaseCache | None:
    """The aiocache backend that the URL names, not connected yet; None for ``memory://``, where nothing is shared.

    ``redis://``, ``rediss://`` and ``unix://`` are read as redis-py does, with its options behind ``?``. Raises
    ``ConfigurationError``, also where the client is not installed.
    """
    try:
        return _backend_of(url)
    except ImportError:
        extra = "memcached" if url.startswith("memcached:") else "redis"
        rule = f"its client is not installed: pip install 'smarter_auth_mw[{extra}]'"
    except UsageError as error:
        rule = f"{error.message}; {CACHE_URLS}"
    except Exception:  # Not its text, which may hold a piece of the password.
        rule = CACHE_URLS
    raise ConfigurationError([Mistake(f"{PREFIX}CACHE_URL", mask_url(url), rule)])


def _backend_of(url: str) -> BaseCache | None:
    match urlsplit(url).scheme:
        case "memory":
            return None
        case "redis" | "rediss" | "unix":
            from smarter_auth_mw.cache.redis import RedisBackend

            return RedisBackend(url)
        case "memcached":
            from smarter_auth_mw.cache.memcached import MemcachedBackend

            return MemcachedBackend(url)
    raise ValueError("Another scheme.")
