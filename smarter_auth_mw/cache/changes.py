"""What was heard to change, and whether something read from the database is older than that: without any clock."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache

DIRECTORY = "directory:"
"""The prefix of the sources for the aliases of a kind."""
FEW_SOURCES = 8
EVERYTHING = "*"
"""The source that stands for all others: a truncated table."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """PostgreSQL's ``pg_snapshot``: which transactions a statement could see.

    All below ``xmin`` have ended and are seen, none from ``xmax`` on is, nor is any of ``in_progress`` between them.
    """

    xmin: int
    xmax: int
    in_progress: frozenset[int] = frozenset()

    @staticmethod
    @lru_cache(maxsize=1024)  # Fills of one moment share their snapshot.
    def parse(text: str) -> Snapshot:
        """Read ``xmin:xmax:xip,…`` as PostgreSQL writes it; a ValueError where it is not that."""
        xmin, xmax, in_progress = text.split(":")
        return Snapshot(
            int(xmin), int(xmax), frozenset(map(int, in_progress.split(","))) if in_progress else frozenset()
        )

    def sees(self, tx: int) -> bool:
        return tx < self.xmin or (tx < self.xmax and tx not in self.in_progress)

    def saw_all_of(self, other: Snapshot) -> bool:
        """Return whether everything that the other snapshot saw is seen by this one."""
        if self.xmin >= other.xmax:
            return True
        return self.xmax >= other.xmax and all(tx >= other.xmax or tx in other.in_progress for tx in self.in_progress)

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, sorted(self.in_progress)))}"


class SnapshotRead:
    """One read of the database: the snapshot it was made in and the sources that what it found depends on.

    ``begun`` is ``Changes.heard`` when its statement was sent to the primary, 0 for a reading of somebody else's;
    ``server`` is ``Changes.server`` at that time.
    """

    __slots__ = ("begun", "checked", "server", "snapshot", "sources")

    def __init__(self, snapshot: Snapshot, sources: Collection[str], begun: int = 0, server: int = 0) -> None:
        self.snapshot = snapshot
        self.sources = (
            sources if len(sources) <= FEW_SOURCES else frozenset(sources)
        )  # A set weighs three times as much.
        self.begun = begun
        self.server = server
        self.checked = -1
        """Up to which change it was found to be current; -1: never looked at."""


class Changes:
    """The changes heard since the floor, and the floor: a snapshot which every reading must have seen all of.

    Hearing is idempotent and its order does not matter. A change counts against a reading that depends on its source,
    does not see its transaction, and did not begin after it was last heard: what begins later on the primary sees every
    transaction whose notification is out, so that a forged notification costs one reading and no more.
    """

    def __init__(self) -> None:
        self.heard = 0
        """Counts up with every change heard and every new floor."""
        self.floor: Snapshot | None = None
        self.directory_changed = asyncio.Event()
        """Set by each change that may affect an alias; cleared before aliases are looked up again."""
        self.server = 0
        """Counts the servers met: the transaction numbers of one mean nothing to another."""
        self.forged = 0
        self._log: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._by_source: dict[str, dict[int, int]] = {}
        self._unproven: dict[tuple[str, int], int] = {}

    def __len__(self) -> int:
        return len(self._log)

    def hear(self, source: str, tx: int, *, is_proven: bool = False) -> None:
        """Take note of a change: from a heartbeat, which proves it, or from a notification, which anyone may send.

        One heard again counts from now on: the first time may have been a forgery ahead of the real commit, and a
        reading that began in between was excused from it.
        """
        number, change = self.heard + 1, (source, tx)
        if is_proven:
            self._unproven.pop(change, None)
        elif change not in self._log or change in self._unproven:
            self._unproven[change] = number
        self._log[change] = number
        self._log.move_to_end(change)
        self._by_source.setdefault(source, {})[tx] = number
        if source == EVERYTHING or source.startswith(DIRECTORY):
            self.directory_changed.set()
        self.heard = number  # Last: a thread that sees the number finds the change.

    def prove(self, begun: int) -> int:
        """Drop the changes that a heartbeat shows to be forged, and return how many there were.

        The heartbeat was sent at ``begun``, and what it reported was heard already. PostgreSQL delivers a notification
        after its transaction has committed, so a heartbeat sent later reports the change, unless an earlier one did.
        """
        forged = [change for change, number in self._unproven.items() if number <= begun]
        for change in forged:
            self._forget(*change)
        self.forged += len(forged)
        return len(forged)

    def raise_floor(self, floor: Snapshot) -> None:
        """Ask every reading to have seen all that ``floor`` saw, and forget the changes that it saw.

        With the newest snapshot this is a flush; with one older than any entry's life it only forgets.
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
        """Whether no change heard counts against the reading; looks only at what was heard since it was last asked."""
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
        """The transactions that the reading was not yet held against, by whichever is the shorter way."""
        after = max(reading.checked, reading.begun)
        if self.heard - after > len(reading.sources):
            for source in (EVERYTHING, *reading.sources):
                yield from (tx for tx, number in self._by_source.get(source, {}).items() if number > after)
            return
        for (source, tx), number in reversed(self._log.items()):
            if number <= after:
                return
            if source in reading.sources or source == EVERYTHING:
                yield tx

    def _forget(self, source: str, tx: int) -> None:
        self._log.pop((source, tx), None)
        self._unproven.pop((source, tx), None)
        transactions = self._by_source.get(source, {})
        transactions.pop(tx, None)
        if not transactions:
            self._by_source.pop(source, None)
