"""The cache in front of the database: one entry per resource, served only while fresh, filled by one query."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol, cast

from smarter_auth_mw.cache.admission import Admission
from smarter_auth_mw.cache.bounded import BoundedMemoryCache
from smarter_auth_mw.cache.changes import BORROWED, Changes, Snapshot, SnapshotRead
from smarter_auth_mw.cache.codec import SharedEntry
from smarter_auth_mw.cache.flights import Flight
from smarter_auth_mw.decision import Anonymous, Denial, Grant
from smarter_auth_mw.domain import Bindings, Target
from smarter_auth_mw.errors import UnavailableError
from smarter_auth_mw.tally import Tally

FILL_ATTEMPTS = 8
"""The number of attempts to fill an entry while changes keep arriving."""
NEVER = float("-inf")


class BindingsRead(Protocol):
    """The result of a read: the bindings, the snapshot they were read in, and the sources they depend on."""

    @property
    def bindings(self) -> Bindings: ...
    @property
    def snapshot(self) -> str: ...
    @property
    def sources(self) -> tuple[str, ...]: ...


class BindingReader(Protocol):
    """Reads the bindings of a resource."""

    async def read(self, target: Target) -> BindingsRead: ...


class SharedEntries(Protocol):
    """Entries that other workers have read; calls may lose or delay entries, but never raise."""

    async def get(self, lookup: str) -> SharedEntry | None: ...
    async def put(self, lookup: str, entry: SharedEntry) -> None: ...


class Entry(SnapshotRead):
    """Everything known about one resource, and the reading that it comes from; times are monotonic seconds.

    ``got_at_s`` is when its statement was sent, or when it was borrowed from another worker. ``serves_until_s`` was
    computed at the last check of its age: it serves at least until then, whatever the heartbeat does.

    Decisions that depend only on the bindings are made once per entry and used again, as the same objects:
    ``granted`` holds grants by the fingerprint of the token whose digest was compared, ``authorized`` the same grants
    by that of the whole ``Authorization`` header, so that it need not be parsed again. ``tokenless`` is the decision
    for requests without a token, ``tokenless_always`` the one for routes declared ``always``. They depend neither on
    the time nor on the request. ``Authenticator.warm`` reads them without a call.
    """

    __slots__ = (
        "authorized",
        "bindings",
        "got_at_s",
        "granted",
        "serves_until_s",
        "tokenless",
        "tokenless_always",
    )

    def __init__(
        self, bindings: Bindings, snapshot: Snapshot, sources: Collection[str], begun: int, server: int
    ) -> None:
        super().__init__(snapshot, sources, begun, server)
        self.bindings = bindings
        self.got_at_s = self.serves_until_s = NEVER
        self.granted: Mapping[bytes, Grant] = _NO_GRANTS
        self.authorized: Mapping[bytes, Grant] = _NO_GRANTS
        self.tokenless: Anonymous | Denial | None = None
        self.tokenless_always: Anonymous | Denial | None = None

    @property
    def read_at_s(self) -> float:
        """Return when its statement was sent, or never if another worker sent it."""
        return NEVER if self.begun == BORROWED else self.got_at_s

    def granted_before(self, fingerprint: bytes, now_s: float) -> Grant | None:
        """Return the grant that the token of this fingerprint was given, unless it has expired."""
        grant = self.granted.get(fingerprint)
        return grant if grant is not None and grant.is_valid_at(now_s) else None

    def keep_granted(self, fingerprint: bytes, grant: Grant) -> None:
        """Keep the grant for the token of this fingerprint, whose digest was compared."""
        self.granted = _with(self.granted, fingerprint, grant)

    def keep_authorized(self, fingerprint: bytes, grant: Grant) -> None:
        """Keep the grant for the ``Authorization`` header of this fingerprint, which must be spelled as usual.

        A token has few usual spellings; of the others, the holder of one key could make any number.
        """
        self.authorized = _with(self.authorized, fingerprint, grant)

    def keep_tokenless(self, decision: Anonymous | Denial, *, always: bool) -> None:
        """Keep the decision for requests without a token, for routes with the same value of ``always``."""
        if always:
            self.tokenless_always = decision
        else:
            self.tokenless = decision


_NO_GRANTS: Mapping[bytes, Grant] = {}
"""Shared by all entries without a grant, which are most of them."""


def _with(grants: Mapping[bytes, Grant], fingerprint: bytes, grant: Grant) -> Mapping[bytes, Grant]:
    """Return the grants with one more, in a dict of the entry's own."""
    own = {} if grants is _NO_GRANTS else cast("dict[bytes, Grant]", grants)
    own[fingerprint] = grant
    return own


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of age and size; the fields are those of ``Settings``."""

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
    """Counters of the cache, which only increase."""

    negative_hits: int = 0
    misses: int = 0
    fills: int = 0
    outdated_fills: int = 0
    shared_hits: int = 0
    stale: int = 0


class Sizes(NamedTuple):
    """The numbers of cached resources and bindings, of negative entries, and of evictions."""

    known: int
    unknown: int
    bindings: int
    evictions: int


class Cache:
    """Caches the bindings of resources while they are known to be current.

    An entry serves while no known change invalidates it and it is younger than ``max_staleness_s``. Its age is counted
    from the statement that read it or from the last answered heartbeat, whichever is later.
    """

    def __init__(
        self, reader: BindingReader, limits: Limits, changes: Changes, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.counts = CacheCounts()
        self.hits = Tally()
        """The number of cache hits for known resources; ``hit`` counts one, on any thread."""
        self.hit = self.hits.once_more
        self.shared: SharedEntries | None = None
        self.is_store_down = False
        """True if the last look-up in the database failed."""
        self._reader = reader
        self._limits = limits
        self.changes = changes
        self.clock = clock
        self._known = BoundedMemoryCache(limits.max_entries, limits.max_bindings, _weight)
        self.at_hand: Mapping[str, Entry] = self._known.values
        """The entries of known resources by look-up, for callers that cannot afford a ``peek``.

        An entry serves while its ``checked`` equals ``changes.heard`` and its ``serves_until_s`` is in the future;
        otherwise call ``peek``. Such a use counts as a hit, but does not mark the entry as recently used: ``peek``
        does, every few seconds.
        """
        self._unknown = BoundedMemoryCache(max(limits.max_entries // 10, 1))
        self._flights: dict[str, Flight[Entry]] = {}
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
        """Return the entry if it is cached and current, without waiting."""
        entry: Entry | None = self._known.peek(target.lookup) or self._unknown.peek(target.lookup)
        now_s = self.clock()
        if entry is None or now_s >= self._kept_until_s(entry) or not self._is_fresh(entry, now_s):
            return None
        if entry.bindings.account is None:
            self.counts.negative_hits += 1
        else:
            self.hit()
        return entry

    def stale(self, target: Target) -> Entry | None:
        """Return the entry that may still grant while the store is down, unless a known change invalidates it."""
        entry: Entry | None = self._known.peek(target.lookup) or self._unknown.peek(target.lookup)
        if entry is None or entry.bindings.on_error == "deny" or not self.changes.is_current(entry):
            return None
        allowed_s = self._limits.max_staleness_s + self._limits.stale_if_error_s
        return entry if self.clock() - max(entry.read_at_s, self._vouched_at_s) < allowed_s else None

    async def get(self, target: Target, peer: str = "") -> Entry:
        """Return the entry, if needed from the shared tier or the database; concurrent callers share one query.

        ``peer`` is the client's network. Raises ``UnavailableError`` if the database is down or overloaded.
        """
        for _ in range(FILL_ATTEMPTS):
            flight: Flight[Entry] | Entry | None = self._flights.get(target.lookup)
            if flight is None:
                has_place = self.admission.try_enter(peer)
                flight = self._take_off(target, peer) if has_place else await self._in_turn(target, peer)
            entry = await flight.wait() if isinstance(flight, Flight) else flight
            if self._is_fresh(entry, self.clock()):  # False if the event loop was blocked before this line.
                return entry
        raise UnavailableError(f"{target.names} changes faster than it can be read.")

    async def refresh(self, target: Target) -> Entry:
        """Read the entry from the database, ignoring what is cached; raises ``UnavailableError``."""
        entry = await self._read_current(target)
        self._keep(target, entry)
        return entry

    def probe(self, target: Target) -> None:
        """Check in the background whether the store answers again, with one look-up at a time."""
        if not self._flights and self.admission.try_enter(""):
            self._take_off(target, "").start()

    async def _in_turn(self, target: Target, peer: str) -> Flight[Entry] | Entry:
        """Return a new look-up, or what another caller started or found while this one waited for its turn."""
        # Do not queue for a store that is down: no place will be free soon.
        if await self.admission.enter(peer, waits=not self.is_store_down):
            begun = self.peek(target) or self._flights.get(target.lookup)
            if begun is not None:
                self.admission.leave(peer)
                return begun
        return self._take_off(target, peer)

    def _take_off(self, target: Target, peer: str) -> Flight[Entry]:
        self.counts.misses += 1
        flight = self._flights[target.lookup] = Flight(self._fill(target), partial(self._landed, target, peer))
        return flight

    def _landed(self, target: Target, peer: str) -> None:
        # A flight that is over was checked only against earlier changes: no further caller may join it.
        del self._flights[target.lookup]
        self.admission.leave(peer)

    def _is_fresh(self, entry: Entry, now_s: float) -> bool:
        young_until_s = max(self._vouched_at_s, entry.read_at_s) + self._limits.max_staleness_s
        entry.serves_until_s = min(young_until_s, self._kept_until_s(entry))
        return now_s < young_until_s and self.changes.is_current(entry)

    def _kept_until_s(self, entry: Entry) -> float:
        is_known = entry.bindings.account is not None
        return entry.got_at_s + (self._limits.cache_ttl_s if is_known else self._limits.negative_ttl_s)

    async def _fill(self, target: Target) -> Entry:
        entry = None if self.shared is None else await self._borrow(target, self.shared)
        if entry is None:
            entry = await self._read_current(target)
        self._keep(target, entry)
        return entry

    async def _read_current(self, target: Target) -> Entry:
        for _ in range(FILL_ATTEMPTS):
            self.counts.fills += 1
            entry, read = await self._read(target)
            # False if a change arrived, or too much time passed, meanwhile.
            if self._is_fresh(entry, self.clock()):
                if self.shared is not None:
                    self._lend(target, read, self.shared)
                return entry
            self.counts.outdated_fills += 1
        raise UnavailableError(f"{target.names} changes faster than it can be read, or is read too slowly.")

    async def _read(self, target: Target) -> tuple[Entry, BindingsRead]:
        begun, server, sent_at_s = self.changes.heard, self.changes.server, self.clock()
        try:
            read = await self._reader.read(target)
        except UnavailableError:
            self.is_store_down = True
            raise
        self.is_store_down = False
        return self._entry(read, sent_at_s, begun, server), read

    def _entry(self, read: BindingsRead, got_at_s: float, begun: int, server: int) -> Entry:
        entry = Entry(read.bindings, Snapshot.parse(read.snapshot), read.sources, begun, server)
        entry.got_at_s = got_at_s
        return entry

    async def _borrow(self, target: Target, shared: SharedEntries) -> Entry | None:
        """Return the entry that another worker shared, if the heartbeat vouches for it."""
        if self.heartbeat_age_s >= self._limits.max_staleness_s:
            return None
        server = self.changes.server
        read = await shared.get(target.lookup)
        if read is None:
            return None
        entry = self._entry(read, self.clock(), BORROWED, server)
        if not self._is_fresh(entry, self.clock()):
            return None
        self.counts.shared_hits += 1
        return entry

    def _lend(self, target: Target, read: BindingsRead, shared: SharedEntries) -> None:
        # Without a heartbeat, another server's answer may be accepted, which must not be stored in this tier.
        holds = self.heartbeat_age_s < self._limits.max_staleness_s
        if not holds or read.bindings.account is None:
            return
        entry = SharedEntry(read.bindings, read.snapshot, read.sources)
        write = asyncio.get_running_loop().create_task(shared.put(target.lookup, entry))
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)

    def _keep(self, target: Target, entry: Entry) -> None:
        is_known = entry.bindings.account is not None
        keep, drop = (self._known, self._unknown) if is_known else (self._unknown, self._known)
        drop.drop(target.lookup)
        keep.put(target.lookup, entry)


def _weight(entry: Entry) -> int:
    return max(len(entry.bindings.bindings), 1)
