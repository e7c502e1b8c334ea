"""Readiness: whether requests can be decided, and what is wrong, from what the parts already know."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from smarter_auth_mw.cache.entries import Cache
from smarter_auth_mw.cache.listener import Listener
from smarter_auth_mw.cache.shared import SharedBackend
from smarter_auth_mw.errors import SchemaError, SmarterAuthError
from smarter_auth_mw.http.status_pages import StatusPage

Status = Literal["ready", "degraded", "not_ready"]

STORE, SCHEMA = "store_unreachable", "schema_mismatch"
STALE, LATE, HEARTBEAT_ONLY = "stale_served", "heartbeat_late", "heartbeat_only"
CLOCK = "clock_skewed"
TRIGGERS, SHARED, UNROUTED = "triggers_missing", "shared_cache_unreachable", "kinds_unrouted"


@dataclass(frozen=True, slots=True)
class Readiness:
    """A worker's readiness, with its reasons: fixed words of this module, which reveal no secret."""

    can_decide: bool = True
    reasons: tuple[str, ...] = ()

    @property
    def status(self) -> Status:
        if not self.can_decide:
            return "not_ready"
        return "degraded" if self.reasons else "ready"

    def and_also(self, reasons: Iterable[str]) -> Readiness:
        """Return a copy with more reasons that do not prevent decisions."""
        return Readiness(self.can_decide, (*self.reasons, *reasons))

    def page(self) -> StatusPage:
        document = {"status": self.status} | ({"reasons": list(self.reasons)} if self.reasons else {})
        return StatusPage(json.dumps(document).encode("ascii"), 200 if self.can_decide else 503)


class Answering(Protocol):
    """The part of the store that health checks use."""

    async def check(self) -> None: ...


class Health:
    """The health of the parts of one event loop.

    While heartbeats are answered and the database answered recently, no query is sent, so probes may be frequent.
    Otherwise all callers share one query at a time.

    After ``stale_after_s`` without a heartbeat, readiness is degraded; after ``gone_after_s`` without one, or
    ``kept_s`` without the database, requests cannot be decided. ``skew_s`` returns the difference between the
    machine's clock and the database's, 0 if they agree.
    """

    def __init__(
        self,
        store: Answering,
        cache: Cache,
        listener: Listener,
        *,
        listens: bool,
        stale_after_s: float,
        gone_after_s: float,
        kept_s: float,
        shared: SharedBackend | None = None,
        skew_s: Callable[[], float] = lambda: 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._cache = cache
        self._listener = listener
        self._listens = listens
        self._stale_after_s = stale_after_s
        self._gone_after_s = gone_after_s
        self._kept_s = kept_s
        self._skew_s = skew_s
        self._shared = shared
        self._clock = clock
        self._answered_at_s = clock()
        self._asking: asyncio.Task[str] | None = None

    async def readiness(self) -> Readiness:
        """Return whether requests can be decided now, and what is wrong."""
        is_late = self._listener.silent_s >= self._stale_after_s
        is_doubtful = is_late or self._cache.is_store_down or self._unanswered_s >= self._stale_after_s
        failed = await self._ask() if is_doubtful else ""
        if failed and (self._listener.silent_s >= self._gone_after_s or self._unanswered_s >= self._kept_s):
            return Readiness(can_decide=False, reasons=(failed,))
        return Readiness(reasons=tuple(self._troubles(failed, is_late=is_late)))

    def _troubles(self, failed: str, *, is_late: bool) -> Iterable[str]:
        if failed:
            yield failed
            if is_late:
                yield STALE
        elif is_late:
            yield LATE
        if not self._listens or self._listener.is_flooded:
            yield HEARTBEAT_ONLY
        if self._skew_s():
            yield CLOCK
        if not self._listener.is_coherent:
            yield TRIGGERS
        if self._shared is not None and self._shared.is_down:
            self._shared.look()  # With a warm cache, no look-up would check it for a long time.
            yield SHARED

    @property
    def _unanswered_s(self) -> float:
        return self._clock() - self._answered_at_s

    async def _ask(self) -> str:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._check())
        return await asyncio.shield(self._asking)

    async def _check(self) -> str:
        try:
            await self._store.check()
        except SmarterAuthError as error:
            return reason_of(error)
        self._answered_at_s = self._clock()
        return ""


def reason_of(error: SmarterAuthError) -> str:
    """Return the word for an error of the store; its own message may reveal too much."""
    return SCHEMA if isinstance(error, SchemaError) else STORE
