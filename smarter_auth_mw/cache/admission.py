"""Limits the look-ups that run at once, in total and per peer network. Further ones wait briefly for their turn."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from smarter_auth_mw.errors import OverloadedError, counted
from smarter_auth_mw.log import log

WAIT_S = 1.0
"""The longest time that a look-up waits for its turn."""
PLACES = 4
"""The number of look-ups that may wait for each one that may run."""
LOG_PAUSE_S = 10.0
"""The log gets at most one line in this time, however many look-ups are refused."""

Turn = asyncio.Future[None]


class Admission:
    """Lets ``most`` look-ups run at once, and ``most_per_peer`` per peer network; used by one event loop.

    Further look-ups wait for up to ``WAIT_S``, in a queue whose length ``PLACES`` sets, so a burst is served in turn.
    Peers take turns too, so that no peer waits for another one's burst.
    """

    def __init__(self, most: int, most_per_peer: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.refused = 0
        self._most, self._most_per_peer = most, most_per_peer
        self._clock = clock
        self._running: dict[str, int] = {}
        self._all_running = self._all_waiting = 0
        self._waiting: OrderedDict[str, deque[Turn]] = OrderedDict()
        self._silent_until_s = float("-inf")
        self._reported = 0

    def try_enter(self, peer: str) -> bool:
        """Take a running place if one is free and no other look-up of this peer waits for it."""
        if peer in self._waiting or not self._has_room(peer):
            return False
        self._start(peer)
        return True

    async def enter(self, peer: str, *, waits: bool = True) -> bool:
        """Take a place, and return whether it had to wait; raises ``OverloadedError``."""
        if self.try_enter(peer):
            return False
        if not waits or not self._has_places(peer):
            raise self._refusal(peer)
        await self._wait(peer)
        return True

    def leave(self, peer: str) -> None:
        """Give the place to the next one."""
        self._all_running -= 1
        self._running[peer] -= 1
        if not self._running[peer]:
            del self._running[peer]
        for waiting in self._waiting:
            if self._has_room(waiting):
                self._admit(waiting)
                return

    def _has_room(self, peer: str) -> bool:
        return self._all_running < self._most and self._running.get(peer, 0) < self._most_per_peer

    def _has_places(self, peer: str) -> bool:
        from_peer = len(self._waiting.get(peer, ()))
        return from_peer < PLACES * self._most_per_peer and self._all_waiting < PLACES * self._most

    def _start(self, peer: str) -> None:
        self._all_running += 1
        self._running[peer] = self._running.get(peer, 0) + 1

    def _admit(self, peer: str) -> None:
        turn = self._waiting[peer][0]
        self._leave_queue(peer, turn)
        if peer in self._waiting:
            self._waiting.move_to_end(peer)
        self._start(peer)
        turn.set_result(None)

    def _leave_queue(self, peer: str, turn: Turn) -> None:
        self._all_waiting -= 1
        self._waiting[peer].remove(turn)
        if not self._waiting[peer]:
            del self._waiting[peer]

    async def _wait(self, peer: str) -> None:
        turn: Turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(peer, deque()).append(turn)
        self._all_waiting += 1
        try:
            async with asyncio.timeout(WAIT_S):
                await asyncio.shield(turn)
        except BaseException as error:
            self._give_up(peer, turn)
            if isinstance(error, TimeoutError):
                raise self._refusal(peer) from None
            raise

    def _give_up(self, peer: str, turn: Turn) -> None:
        if turn.done():  # Its turn came at this very moment.
            self.leave(peer)
        else:
            self._leave_queue(peer, turn)

    def _refusal(self, peer: str) -> OverloadedError:
        self.refused += 1
        now_s = self._clock()
        if now_s >= self._silent_until_s:
            self._silent_until_s = now_s + LOG_PAUSE_S
            refused, self._reported = self.refused - self._reported, self.refused
            text = "%s answered 503, the last one from %s: MAX_LOOKUPS_PER_PEER=%d, MAX_LOOKUPS=%d"
            answered = counted(refused, "look-up was", "look-ups were")
            log("lookups.refused", text, answered, peer or "unknown", self._most_per_peer, self._most)
        return OverloadedError()
