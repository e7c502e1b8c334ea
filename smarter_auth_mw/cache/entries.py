"""One entry per resource, in front of the database: fresh or not served, and one query however many ask."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast

from smarter_auth_mw.cache.admission import Admission
from smarter_auth_mw.cache.bounded import BoundedMemoryCache
from smarter_auth_mw.cache.changes import Changes, Snapshot, SnapshotRead
from smarter_auth_mw.cache.codec import SharedEntry
from smarter_auth_mw.decision import Anonymous, Denial, Grant
from smarter_auth_mw.domain import Bindings, Target
from smarter_auth_mw.errors import UnavailableError
from smarter_auth_mw.tally import Tally

FILL_ATTEMPTS = 8
"""How often a fill is repeated because a change arrived while it was in progress."""
NEVER = float("-inf")


class BindingsRead(Protocol):
    """What a source answers: the facts, the snapshot they were read in, and what they depend on."""

    @property
    def bindings(self) -> Bindings: ...
    @property
    def snapshot(self) -> str: ...
    @property
    def sources(self) -> tuple[str, ...]: ...


class BindingSource(Protocol):
    """Where the facts come from."""

    async def read(self, target: Target) -> BindingsRead: ...


class SharedEntries(Protocol):
    """What other workers have read; it loses and delays as it likes, but raises nothing."""

    async def get(self, lookup: str) -> SharedEntry | None: ...
    async def put(self, lookup: str, entry: SharedEntry) -> None: ...


class Entry(SnapshotRead):
    """All that is known of one resource, and the reading that it comes from; times are monotonic seconds.

    ``read_at_s`` is when its statement was sent, or never where another worker read it. ``serves_until_s`` is what was
    found when its age was looked at last: it serves until then at the least, whatever the heartbeat does.

    Decisions that depend on nothing but the bindings are made once an entry and given again, the same objects:
    ``granted`` holds grants by the fingerprint of the token whose digest was compared, ``tokenless`` the decision for
    requests without a token, ``tokenless_always`` the one where a route is declared ``always``. These depend on neither
    the time nor the request. ``Authenticator.warm`` reads all three without a call.
    """

    __slots__ = ("bindings", "granted", "kept_until_s", "read_at_s", "serves_until_s", "tokenless", "tokenless_always")

    def __init__(
        self, bindings: Bindings, snapshot: Snapshot, sources: Collection[str], begun: int, server: int
    ) -> None:
        super().__init__(snapshot, sources, begun, server)
        self.bindings = bindings
        self.read_at_s = self.kept_until_s = self.serves_until_s = NEVER
        self.granted: Mapping[bytes, Grant] = _NO_GRANTS
        self.tokenless: Anonymous | Denial | None = None
        self.tokenless_always: Anonymous | Denial | None = None

    def granted_before(self, fingerprint: bytes, now_s: float) -> Grant | None:
        """Return the grant that the token of this fingerprint was given, unless it has expired."""
        grant = self.granted.get(fingerprint)
        return None if grant is None or grant.binding is None or grant.binding.expires_at_s < now_s else grant

    def keep_granted(self, fingerprint: bytes, grant: Grant) -> None:
        """Give this grant again to the token of this fingerprint, whose digest has been compared."""
        if self.granted is _NO_GRANTS:
            self.granted = {}
        cast("dict[bytes, Grant]", self.granted)[fingerprint] = grant

    def keep_tokenless(self, decision: Anonymous | Denial, *, always: bool) -> None:
        """Give this decision again to requests without a token, by routes that are as this one ``always`` or not."""
        if always:
            self.tokenless_always = decision
        else:
            self.tokenless = decision


_NO_GRANTS: Mapping[bytes, Grant] = {}
"""Shared by all entries that have granted nothing yet, since most resources are asked for by few."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how much is kept; the fields are those of ``Settings``."""

    cache_ttl_s: float = 300
    negative_ttl_s: float = 30
    max_staleness_s: float = 5
    stale_if_error_s: float = 0
    max_entries: int = 100_000
    max_bindings: int = 1_000_000
    max_lookups: int = 1000
    max_lookups_per_peer: int = 250


@dataclass(slots=True)
class CacheCounts:
    """What the cache did: plain numbers that only grow."""

    negative_hits: int = 0
    misses: int = 0
    fills: int = 0
    outdated_fills: int = 0
    shared_hits: int = 0
    stale: int = 0


class Sizes(NamedTuple):
    """How much is cached: known resources and their bindings, negative entries, and evictions."""

    known: int
    unknown: int
    bindings: int
    evictions: int


class Cache:
    """The bindings of resources, kept while they are known to be current.

    An entry serves while no change heard counts against it and it is younger than ``max_staleness_s``. Its age is that
    of the statement that read it, or of the last heartbeat that was answered, whichever is less.
    """

    def __init__(
        self, source: BindingSource, limits: Limits, changes: Changes, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.counts = CacheCounts()
        self.hits = Tally()
        """How often the entry of a known resource was at hand; ``hit`` counts it, on whatever thread."""
        self.hit = self.hits.once_more
        self.shared: SharedEntries | None = None
        self.is_store_down = False
        """Whether the last look-up in the database failed."""
        self._source = source
        self._limits = limits
        self.changes = changes
        self.clock = clock
        self._known = BoundedMemoryCache(limits.max_entries, limits.max_bindings, _weight, clock)
        self.at_hand: Mapping[str, Entry] = self._known.values
        """The entries of known resources by look-up, for who cannot wait for a ``peek``.

        One serves while its ``checked`` is ``changes.heard`` and its ``serves_until_s`` is to come; else a ``peek``
        tells. Used so it counts as a hit, but not as used lately: ``peek`` notes that, every few seconds.
        """
        self._unknown = BoundedMemoryCache(max(limits.max_entries // 10, 1), clock=clock)
        self._flights: dict[str, asyncio.Task[Entry]] = {}
        self.admission = Admission(limits.max_lookups, limits.max_lookups_per_peer, clock)
        self._writes: set[asyncio.Task[None]] = set()
        self._vouched_at_s = NEVER

    def vouch(self, sent_at_s: float) -> None:
        """Record that a heartbeat sent at this time was answered and that its changes were received."""
        self._vouched_at_s = max(self._vouched_at_s, sent_at_s)

    @property
    def heartbeat_age_s(self) -> float:
        """Return how long ago the last heartbeat was sent that was answered; infinity before the first one."""
        return self.clock() - self._vouched_at_s

    @property
    def sizes(self) -> Sizes:
        evictions = self._known.evictions + self._unknown.evictions
        return Sizes(len(self._known), len(self._unknown), self._known.weight, evictions)

    def peek(self, target: Target) -> Entry | None:
        """Return the entry if it is here and current: no waiting."""
        entry: Entry | None = self._known.peek(target.lookup) or self._unknown.peek(target.lookup)
        now_s = self.clock()
        if entry is None or now_s >= entry.kept_until_s or not self._is_fresh(entry, now_s):
            return None
        if entry.bindings.account is None:
            self.counts.negative_hits += 1
        else:
            self.hit()
        return entry

    def stale(self, target: Target) -> Entry | None:
        """Return the entry that may still grant while the store is down: one that no change heard counts against."""
        entry: Entry | None = self._known.peek(target.lookup) or self._unknown.peek(target.lookup)
        if entry is None or entry.bindings.on_error == "deny" or not self.changes.is_current(entry):
            return None
        allowed_s = self._limits.max_staleness_s + self._limits.stale_if_error_s
        return entry if self.clock() - max(entry.read_at_s, self._vouched_at_s) < allowed_s else None

    async def get(self, target: Target, peer: str = "") -> Entry:
        """Return the entry, from the shared tier or the database if need be; any number of callers make one query.

        ``peer`` is the network that asks. Raises ``UnavailableError`` where they cannot be known, or too many ask.
        """
        for _ in range(FILL_ATTEMPTS):
            flight: asyncio.Future[Entry] | None = self._flights.get(target.lookup)
            if flight is None or flight.done():  # What is done was judged by what had been heard until then.
                flight = await self._in_turn(target, peer)
            entry = await asyncio.shield(flight)  # A caller who goes away leaves the flight to the others.
            if self._is_fresh(entry, self.clock()):  # Not so if the loop was held up before this line.
                return entry
        raise UnavailableError(f"{target.names} changes faster than it can be read.")

    async def refresh(self, target: Target) -> Entry:
        """Return the entry by a statement sent from now on, whatever is cached; raises ``UnavailableError``."""
        entry = await self._read_current(target)
        self._keep(target, entry)
        return entry

    def probe(self, target: Target) -> None:
        """See whether the store is back, without waiting: by one look-up at a time."""
        if not self._flights and self.admission.try_enter(""):
            self._take_off(target, "")

    async def _in_turn(self, target: Target, peer: str) -> asyncio.Future[Entry]:
        """Take off, or return what somebody else has begun or found while this one waited for its turn."""
        # Nobody waits for a store that is down: it frees no place soon.
        if await self.admission.enter(peer, waits=not self.is_store_down):
            begun = _found(entry) if (entry := self.peek(target)) else self._flights.get(target.lookup)
            if begun is not None:
                self.admission.leave(peer)
                return begun
        return self._take_off(target, peer)

    def _take_off(self, target: Target, peer: str) -> asyncio.Task[Entry]:
        self.counts.misses += 1
        # Its own context: the flight is nobody's request.
        flight = asyncio.get_running_loop().create_task(self._fill(target), context=contextvars.Context())
        self._flights[target.lookup] = flight
        flight.add_done_callback(lambda done: self._landed(target, peer, done))
        return flight

    def _landed(self, target: Target, peer: str, flight: asyncio.Task[Entry]) -> None:
        if self._flights.get(target.lookup) is flight:
            del self._flights[target.lookup]
        self.admission.leave(peer)
        if not flight.cancelled():
            flight.exception()  # Seen, though all who waited may be gone.

    def _is_fresh(self, entry: Entry, now_s: float) -> bool:
        young_until_s = max(self._vouched_at_s, entry.read_at_s) + self._limits.max_staleness_s
        entry.serves_until_s = min(young_until_s, entry.kept_until_s)
        return now_s < young_until_s and self.changes.is_current(entry)

    async def _fill(self, target: Target) -> Entry:
        entry = await self._borrow(target)
        if entry is None:
            entry = await self._read_current(target)
        self._keep(target, entry)
        return entry

    async def _read_current(self, target: Target) -> Entry:
        for _ in range(FILL_ATTEMPTS):
            self.counts.fills += 1
            entry, read = await self._read(target)
            # Not so if a change was heard, or too much time passed, while it was on its way.
            if self._is_fresh(entry, self.clock()):
                self._lend(target, read)
                return entry
            self.counts.outdated_fills += 1
        raise UnavailableError(f"{target.names} changes faster than it can be read, or is read too slowly.")

    async def _read(self, target: Target) -> tuple[Entry, BindingsRead]:
        begun, server, read_at_s = self.changes.heard, self.changes.server, self.clock()
        try:
            read = await self._source.read(target)
        except UnavailableError:
            self.is_store_down = True
            raise
        self.is_store_down = False
        return self._entry(read, read_at_s, begun, server), read

    def _entry(self, read: BindingsRead, read_at_s: float, begun: int, server: int) -> Entry:
        entry = Entry(read.bindings, Snapshot.parse(read.snapshot), read.sources, begun, server)
        is_known = read.bindings.account is not None
        entry.read_at_s = read_at_s
        entry.kept_until_s = self.clock() + (self._limits.cache_ttl_s if is_known else self._limits.negative_ttl_s)
        return entry

    async def _borrow(self, target: Target) -> Entry | None:
        """The entry of another worker, if the heartbeat vouches for it."""
        if self.shared is None or self.heartbeat_age_s >= self._limits.max_staleness_s:
            return None
        server = self.changes.server
        read = await self.shared.get(target.lookup)
        if read is None:
            return None
        entry = self._entry(read, NEVER, 0, server)
        if not self._is_fresh(entry, self.clock()):
            return None
        self.counts.shared_hits += 1
        return entry

    def _lend(self, target: Target, read: BindingsRead) -> None:
        # Without a heartbeat another server's answer may be accepted, which does not belong under this tier's name.
        holds = self.heartbeat_age_s < self._limits.max_staleness_s
        if self.shared is None or not holds or read.bindings.account is None:
            return
        entry = SharedEntry(read.bindings, read.snapshot, read.sources)
        write = asyncio.get_running_loop().create_task(self.shared.put(target.lookup, entry))
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)

    def _keep(self, target: Target, entry: Entry) -> None:
        is_known = entry.bindings.account is not None
        keep, drop = (self._known, self._unknown) if is_known else (self._unknown, self._known)
        drop.drop(target.lookup)
        keep.put(target.lookup, entry)


def _found(entry: Entry) -> asyncio.Future[Entry]:
    found: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
    found.set_result(entry)
    return found


def _weight(entry: Entry) -> int:
    return max(len(entry.bindings.bindings), 1)
