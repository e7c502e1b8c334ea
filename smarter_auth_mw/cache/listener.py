"""Receives changes: notifications for speed, heartbeats for certainty."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from secrets import SystemRandom
from typing import Protocol

from smarter_auth_mw.cache.attention import DOUBTFUL, Attention
from smarter_auth_mw.cache.changes import Changes, Snapshot
from smarter_auth_mw.cache.lag import Lag
from smarter_auth_mw.errors import SmarterAuthError
from smarter_auth_mw.log import log

MAX_HEARD = 100_000
"""Beyond this number of changes, the floor is raised to the newest snapshot instead (a flush)."""
MAX_TIMED = 1_000
"""Beyond this many notifications between two heartbeats, the heartbeat reports the rest."""
FIRST_PAUSE_S, MAX_BACK_OFF_S = 0.1, 5.0
MAX_TX_DIGITS = 20
"""A transaction's number has 64 bits."""


@dataclass(frozen=True, slots=True)
class Beat:
    """The result of a heartbeat: its snapshot, and the changes that the previous heartbeat did not see.

    ``server`` identifies the server: its incarnation, which changes with every crash and restart, its epoch, system and
    timeline. ``is_complete`` is False if some of the changes were purged already, ``is_coherent`` if a trigger that
    reports changes is missing, or a crash would go unnoticed. ``guard`` changes whenever a trigger is created, dropped,
    disabled or enabled, since writes in between were not reported.
    """

    snapshot: str
    server: str
    changes: Sequence[tuple[str, int]] = ()
    is_complete: bool = True
    is_coherent: bool = True
    guard: str = ""
    ages_s: Sequence[float] = ()
    """The age of each change at the time of the heartbeat, by the server's clock."""
    now_s: float | None = None
    """The time by the server's clock."""


Notified = Callable[[str], bool | None]
"""Takes the payload of a notification; returns False to stop listening."""
Connect = Callable[[Notified | None], AbstractAsyncContextManager["Wire"]]
"""Opens a wire, which is closed when the callable returns False; with None it does not listen."""


class Wire(Protocol):
    """A connection to the primary that notifies and answers heartbeats."""

    async def beat(self, previous: str | None) -> Beat: ...


class Listener:
    """Passes changes to ``changes``, and each answered heartbeat to ``held``: its time, and whether it vouches.

    ``met`` is called with each server that answers for the first time, or again after another one.

    ``kept_s`` is how long an entry may live, in this worker or another: changes older than that are forgotten.
    """

    def __init__(
        self,
        connect: Connect,
        changes: Changes,
        held: Callable[[float, bool], None],
        met: Callable[[str], Awaitable[None]],
        *,
        heartbeat_s: float,
        kept_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._changes = changes
        self._held = held
        self._met = met
        self._heartbeat_s = heartbeat_s
        self._kept_s = kept_s
        self._clock = clock
        self.tell_time: Callable[[float, float], object] = lambda *_: None
        """Called with the time of the server that answers, and how long its answer took."""
        self._server: str | None = None
        self._previous: str | None = None
        self._guarded = ("", True)
        self._answered_at_s = clock()
        self._is_awaited = asyncio.Event()
        self._has_begun = asyncio.Event()
        self._floors: deque[tuple[float, Snapshot]] = deque()
        self._notified_at_s: dict[tuple[str, int], float] = {}
        self._attention = Attention(clock)
        self.lag = Lag()
        self.beats = 0
        self.malformed = self._malformed_before = 0
        self.flushes = 0
        self.reconnects = 0

    @property
    def silent_s(self) -> float:
        """The time without an answered heartbeat: since the last one that was answered was sent, or since the start."""
        return self._clock() - self._answered_at_s

    @property
    def is_flooded(self) -> bool:
        """Return whether notifications are ignored for now, because there were too many or too many forged ones."""
        return not self._attention.is_given

    @property
    def is_coherent(self) -> bool:
        """Return whether all triggers that report changes were present when that was last checked."""
        return self._guarded[1]

    async def run(self) -> None:
        """Listen and send heartbeats until cancelled; replace a failed connection, after a growing pause."""
        pause_s = FIRST_PAUSE_S
        while True:
            listens = self._attention.is_given
            try:
                async with self._connect(self.notified if listens else None) as wire:
                    while listens is self._attention.is_given:
                        next_s = time.monotonic() + self._heartbeat_s
                        await self.beat(wire)
                        self._has_begun.set()
                        if pause_s > FIRST_PAUSE_S:
                            log("listener.recovered")
                        pause_s = FIRST_PAUSE_S
                        # However far away the database is, one heartbeat is sent per HEARTBEAT_S.
                        await self._rest(max(0.0, next_s - time.monotonic()))
                continue
            except Exception as error:  # Any error: without this, the worker would never receive changes again.
                self._has_begun.set()
                if listens and not self._attention.is_given:
                    continue  # The connection was closed because of a flood.
                if pause_s == FIRST_PAUSE_S:
                    is_known = isinstance(error, SmarterAuthError | OSError)
                    log("listener.lost", "%s", error, exc_info=not is_known)
            self.reconnects += 1
            await self._rest(pause_s * SystemRandom().uniform(0.5, 1.0))  # spreads the fleet, guards nothing
            pause_s = min(pause_s * 2, MAX_BACK_OFF_S)

    async def begun(self, patience_s: float) -> None:
        """Wait until the first heartbeat was answered or has failed, or for so long.

        What is read before it has to be read again: only the heartbeat shows which server answers.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._has_begun.wait()

    def meet_anew(self) -> None:
        """Treat the server that answers the next heartbeat as a new one; do not vouch for reads until then."""
        self._server = None

    def hurry(self) -> None:
        """Send the next heartbeat as soon as FIRST_PAUSE_S allows, because an unknown server has answered."""
        self._is_awaited.set()

    async def _rest(self, pause_s: float) -> None:
        await asyncio.sleep(min(pause_s, FIRST_PAUSE_S))
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s - FIRST_PAUSE_S):
                await self._is_awaited.wait()
        self._is_awaited.clear()

    def notified(self, payload: str) -> bool:
        """Process a notification, ``source:tx``, and return whether to keep listening.

        It is only a hint, since anyone may send one.
        """
        if not self._attention.takes():
            self.hurry()
            return False
        source, _, tx = payload.rpartition(":")
        if not (source and tx.isascii() and tx.isdigit() and len(tx) <= MAX_TX_DIGITS):
            self.malformed += 1
            return True
        self._changes.hear(source, int(tx))
        if len(self._notified_at_s) < MAX_TIMED:
            self._notified_at_s.setdefault((source, int(tx)), self._clock())
        if self._attention.since_beat == DOUBTFUL:
            self.hurry()
        return True

    async def beat(self, wire: Wire) -> None:
        """Send a heartbeat: record the changes that notifications missed, then vouch for the cache."""
        begun, sent_s, malformed = self._changes.heard, self._clock(), self.malformed
        beat = await wire.beat(self._previous)
        snapshot = Snapshot.parse(beat.snapshot)
        is_new_server = beat.server != self._server
        if is_new_server:
            self._flush(snapshot, is_new_server=True)
        elif not beat.is_complete or self._guarded != (beat.guard, beat.is_coherent):
            self._flush(snapshot)
        for source, tx in beat.changes:
            self._changes.hear(source, tx, is_proven=True)
        self._attention.beaten(self._changes.prove(begun) + malformed - self._malformed_before)
        self._malformed_before = malformed
        if is_new_server:
            await self._meet(beat.server)
        self._previous, self._answered_at_s = beat.snapshot, sent_s
        self._guarded = (beat.guard, beat.is_coherent)
        self._forget(snapshot)
        self._time(beat, sent_s)
        self.beats += 1
        self._held(sent_s, beat.is_coherent)

    async def _meet(self, server: str) -> None:
        self._server = server  # Set before the wait, so that a call of meet_anew meanwhile is not overwritten.
        try:
            await self._met(server)
        except BaseException:
            self._server = None
            raise

    def _time(self, beat: Beat, sent_s: float) -> None:
        """Record the server's time, and how long each change took to arrive."""
        now_s = self._clock()
        if beat.now_s is not None:
            self.tell_time(beat.now_s, now_s - sent_s)
        for change, age_s in zip(beat.changes, beat.ages_s, strict=False):
            self.lag.note(age_s + self._notified_at_s.get(change, now_s) - sent_s)
        # This heartbeat may not have seen later notifications.
        self._notified_at_s = {change: at_s for change, at_s in self._notified_at_s.items() if at_s >= sent_s}

    def _flush(self, floor: Snapshot, *, is_new_server: bool = False) -> None:
        self.flushes += 1
        self._floors.clear()
        if is_new_server:
            self._changes.restart(floor)
        else:
            self._changes.raise_floor(floor)

    def _forget(self, snapshot: Snapshot) -> None:
        """Raise the floor to a snapshot that is older than every entry that can still be alive."""
        now_s = self._clock()
        if len(self._changes) > MAX_HEARD:
            self._flush(snapshot)
        if not self._floors or now_s - self._floors[-1][0] >= self._kept_s / 4:
            self._floors.append((now_s, snapshot))
        if now_s - self._floors[0][0] > self._kept_s:
            self._changes.raise_floor(self._floors.popleft()[1])
