"""One entry per resource, in front of the database: fresh or not served, and one query however many ask."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from smarter_auth_mw.changes import Changes, Reading, Snapshot
from smarter_auth_mw.domain import Bindings, Target
from smarter_auth_mw.errors import UnavailableError
from smarter_auth_mw.memory import BoundedMemoryCache

FILL_ATTEMPTS = 8
"""How often a fill is begun anew because a change was heard while it was on its way."""


class Read(Protocol):
    """What a source answers: the facts, the snapshot they were read in, and what they depend on."""

    @property
    def bindings(self) -> Bindings: ...
    @property
    def snapshot(self) -> str: ...
    @property
    def sources(self) -> tuple[str, ...]: ...


class BindingSource(Protocol):
    """Where the facts come from."""

    async def read(self, target: Target) -> Read: ...


@dataclass(slots=True)
class Entry:
    """All that is known of one resource, with the reading that it comes from; times are monotonic seconds."""

    bindings: Bindings
    reading: Reading
    read_at_s: float
    kept_until_s: float


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how much is kept; the fields are those of ``Settings``."""

    cache_ttl_s: float = 300
    negative_ttl_s: float = 30
    max_staleness_s: float = 5
    max_entries: int = 100_000
    max_bindings: int = 1_000_000


class Cache:
    """The bindings of resources, kept while they are known to be current.

    An entry serves while no change heard counts against it and it is younger than ``max_staleness_s``, its age being
    that of the statement that read it or of the last heartbeat that was answered, whichever is later.
    """

    def __init__(
        self, source: BindingSource, limits: Limits, changes: Changes, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._source = source
        self._limits = limits
        self._changes = changes
        self._clock = clock
        self._known = BoundedMemoryCache(limits.max_entries, limits.max_bindings, _weight, clock)
        self._unknown = BoundedMemoryCache(max(limits.max_entries // 10, 1), clock=clock)
        self._flights: dict[str, asyncio.Task[Bindings]] = {}
        self.heartbeat_sent_at_s = float("-inf")

    def peek(self, target: Target) -> Bindings | None:
        """The bindings if they are here and current: no waiting."""
        entry: Entry | None = self._known.peek(target.lookup) or self._unknown.peek(target.lookup)
        return entry.bindings if entry is not None and self._serves(entry) else None

    async def get(self, target: Target) -> Bindings:
        """The bindings, from the database if need be; any number of callers make one query.

        Raises ``UnavailableError`` where they cannot be known.
        """
        flight = self._flights.get(target.lookup)
        if flight is None:
            flight = asyncio.get_running_loop().create_task(self._fill(target), context=contextvars.Context())
            self._flights[target.lookup] = flight
            flight.add_done_callback(lambda done: self._landed(target, done))
        return await asyncio.shield(flight)  # A caller who goes away leaves the flight to the others.

    def _serves(self, entry: Entry) -> bool:
        now_s = self._clock()
        age_s = now_s - max(entry.read_at_s, self.heartbeat_sent_at_s)
        return age_s < self._limits.max_staleness_s and now_s < entry.kept_until_s and self._is_current(entry)

    def _is_current(self, entry: Entry) -> bool:
        return self._changes.is_current(entry.reading)

    async def _fill(self, target: Target) -> Bindings:
        for _ in range(FILL_ATTEMPTS):
            entry = await self._read(target)
            if self._is_current(entry):  # Not so if a change was heard while the answer was on its way.
                self._keep(target, entry)
                return entry.bindings
        raise UnavailableError(f"{target.names} changes faster than it can be read.")

    async def _read(self, target: Target) -> Entry:
        begun, server, read_at_s = self._changes.heard, self._changes.server, self._clock()
        read = await self._source.read(target)
        reading = Reading(Snapshot.parse(read.snapshot), frozenset(read.sources), begun, server)
        is_known = read.bindings.account is not None
        ttl_s = self._limits.cache_ttl_s if is_known else self._limits.negative_ttl_s
        return Entry(read.bindings, reading, read_at_s, read_at_s + ttl_s)

    def _keep(self, target: Target, entry: Entry) -> None:
        is_known = entry.bindings.account is not None
        keep, drop = (self._known, self._unknown) if is_known else (self._unknown, self._known)
        drop.drop(target.lookup)
        keep.put(target.lookup, entry)

    def _landed(self, target: Target, flight: asyncio.Task[Bindings]) -> None:
        del self._flights[target.lookup]
        if not flight.cancelled():
            flight.exception()  # Seen, though all who waited may be gone.


def _weight(entry: Entry) -> int:
    return max(len(entry.bindings.bindings), 1)
