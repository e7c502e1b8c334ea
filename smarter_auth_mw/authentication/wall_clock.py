"""The clock that decides when keys expire: this machine's, without steps back, unless it was wrong from the start."""

from __future__ import annotations

import time
from collections.abc import Callable

MAX_SKEW_S = 1.0
"""The largest difference between clocks that are considered equal."""


class WallClock:
    """Unix time that does not step back: an expired token stays expired if the clock is set back.

    It steps back only if the machine's clock was ahead and now agrees with the database's.
    """

    def __init__(self) -> None:
        wall_s, steady_s = time.time, time.monotonic
        offset_s = [wall_s() - steady_s()]
        self.now_s: Callable[[], float] = lambda: max(wall_s(), steady_s() + offset_s[0])
        self.skew_s = 0.0
        """The seconds that this machine's clock is ahead of the database's, as exactly as the round trip allows."""
        self._wall_s, self._steady_s, self._offset_s = wall_s, steady_s, offset_s

    def compare(self, database_s: float, took_s: float) -> None:
        """Record the database's time, which arrived in a response that took this long."""
        wall_s = self._wall_s()
        ahead_s = wall_s - took_s / 2 - database_s
        self.skew_s = ahead_s if abs(ahead_s) > MAX_SKEW_S + took_s / 2 else 0.0
        if not self.skew_s and self.now_s() - wall_s > MAX_SKEW_S:
            self._offset_s[0] = wall_s - self._steady_s()
