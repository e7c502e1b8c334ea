"""The changes received so far, and whether a reading of the database is older than one of them, without clocks."""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

DIRECTORY = "directory:"
"""The prefix of the source of a kind's aliases."""
EVERYTHING = "*"
"""The source that means all others, for a truncated table."""
BORROWED = -1
"""Instead of the number of a change: every change counts against a reading that another worker sent."""
_EVERYTHING_HASH = hash(EVERYTHING)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """PostgreSQL's ``pg_snapshot``: which transactions a statement could see.

    Transactions below ``xmin`` have ended and are visible. Those from ``xmax`` on, and ``in_progress`` ones, are not.
    """

    xmin: int
    xmax: int
    in_progress: frozenset[int] = frozenset()

    @staticmethod
    @lru_cache(maxsize=1024)  # Cache fills at the same moment share a snapshot.
    def parse(text: str) -> Snapshot:
        """Parse PostgreSQL's ``xmin:xmax:xip,…``; raises ValueError."""
        xmin, xmax, in_progress = text.split(":")
        return Snapshot(
            int(xmin), int(xmax), frozenset(map(int, in_progress.split(","))) if in_progress else frozenset()
        )

    def sees(self, tx: int) -> bool:
        return tx < self.xmin or (tx < self.xmax and tx not in self.in_progress)

    def saw_all_of(self, other: Snapshot) -> bool:
        """Return whether everything visible in the other snapshot is visible in this one."""
        if self.xmin >= other.xmax:
            return True
        return self.xmax >= other.xmax and all(tx >= other.xmax or tx in other.in_progress for tx in self.in_progress)

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, sorted(self.in_progress)))}"


class SnapshotRead:
    """One read of the database: its snapshot, and the sources that its result depends on.

    ``begun`` is ``Changes.heard`` when its statement was sent to the primary, or BORROWED for a reading of another
    worker; ``server`` is ``Changes.server`` at that time.
    """

    __slots__ = ("_hashes", "begun", "checked", "server", "snapshot")

    def __init__(self, snapshot: Snapshot, sources: Iterable[str], begun: int = 0, server: int = 0) -> None:
        self.snapshot = snapshot
        # The texts would take four times the memory. Two with one hash cost a read that was not needed.
        self._hashes = array("q", sorted({hash(source) for source in sources})).tobytes()
        self.begun = begun
        self.server = server
        self.checked = -1
        """The number of the last change that it was checked against; -1: never checked."""

    @property
    def source_hashes(self) -> Sequence[int]:
        """Return the hashes of its sources, in ascending order."""
        return memoryview(self._hashes).cast("q")


class Changes:
    """The changes received since the floor. The floor is a snapshot that every reading must be at least as new as.

    Changes may arrive repeatedly and in any order. A change invalidates a reading that depends on its source,
    does not see its transaction, and did not begin after it last arrived: a later reading of the primary sees every
    transaction whose notification was delivered, so a forged notification causes one more reading and nothing else.
    """

    def __init__(self) -> None:
        self.heard = 0
        """Increases with every change that arrives and every new floor."""
        self.floor: Snapshot | None = None
        self.directory_changed = asyncio.Event()
        """Set by each change that may affect an alias; cleared before aliases are looked up again."""
        self.server = 0
        """Increases with each new server, since transaction numbers of different servers cannot be compared."""
        self.forged = 0
        self._log: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._by_hash: dict[int, dict[tuple[str, int], int]] = {}
        self._unproven: dict[tuple[str, int], int] = {}

    def __len__(self) -> int:
        return len(self._log)

    def hear(self, source: str, tx: int, *, is_proven: bool = False) -> None:
        """Record a change from a heartbeat, which proves it, or from a notification, which anyone may send.

        A repeated change counts from now on: the first one may have been forged before the real commit, and a reading
        that began in between must not be exempt from it.
        """
        number, change = self.heard + 1, (source, tx)
        if is_proven:
            self._unproven.pop(change, None)
        elif change not in self._log or change in self._unproven:
            self._unproven[change] = number
        self._log[change] = number
        self._log.move_to_end(change)
        self._by_hash.setdefault(hash(source), {})[change] = number
        if source == EVERYTHING or source.startswith(DIRECTORY):
            self.directory_changed.set()
        self.heard = number  # Set last, so that a thread that sees the number finds the change.

    def prove(self, begun: int) -> int:
        """Drop the changes that a heartbeat proves to be forged, and return their number.

        The heartbeat was sent at ``begun``, and its changes are recorded already. PostgreSQL delivers a notification
        after its transaction has committed, so a heartbeat sent later reports the change, unless an earlier one did.
        """
        forged = [change for change, number in self._unproven.items() if number <= begun]
        for change in forged:
            self._forget(*change)
        self.forged += len(forged)
        return len(forged)

    def raise_floor(self, floor: Snapshot) -> None:
        """Require every reading to see everything that ``floor`` sees, and drop the changes that it sees.

        With the newest snapshot this is a flush; with one older than every entry it only frees memory.
        """
        self.floor = floor
        self.heard += 1
        self.directory_changed.set()
        for source, tx in [change for change in self._log if floor.sees(change[1])]:
            self._forget(source, tx)

    def restart(self, floor: Snapshot) -> None:
        """Start over with another server or a restored one: invalidate everything that was read before."""
        self.server += 1
        self.raise_floor(floor)

    def is_current(self, reading: SnapshotRead) -> bool:
        """Return whether no change invalidates the reading. Only changes since the last check are compared."""
        heard = self.heard  # Read this first: a change that arrives meanwhile is left for the next check.
        if reading.checked == heard:
            return True
        if reading.server != self.server:
            return False
        if self.floor is not None and not reading.snapshot.saw_all_of(self.floor):
            return False
        if not all(map(reading.snapshot.sees, self._since(reading))):
            return False
        reading.checked = heard
        return True

    def _since(self, reading: SnapshotRead) -> Iterator[int]:
        """Return the transactions that the reading was not yet compared with, found in the shorter way."""
        after, hashes = max(reading.checked, reading.begun), reading.source_hashes
        if self.heard - after > len(hashes):
            for hashed in (_EVERYTHING_HASH, *hashes):
                yield from (tx for (_, tx), number in self._by_hash.get(hashed, {}).items() if number > after)
            return
        for (source, tx), number in reversed(self._log.items()):
            if number <= after:
                return
            if source == EVERYTHING or _contains(hashes, hash(source)):
                yield tx

    def _forget(self, source: str, tx: int) -> None:
        self._log.pop((source, tx), None)
        self._unproven.pop((source, tx), None)
        changes = self._by_hash.get(hash(source), {})
        changes.pop((source, tx), None)
        if not changes:
            self._by_hash.pop(hash(source), None)


def _contains(ascending: Sequence[int], number: int) -> bool:
    place = bisect_left(ascending, number)
    return place < len(ascending) and ascending[place] == number
