"""Decides whether to listen to notifications: after a flood or forgeries the heartbeat alone is used for a while."""

from __future__ import annotations

import math
from collections.abc import Callable

from smarter_auth_mw.log import log

MOST_A_SECOND = 1_000
"""Notifications taken in one second. Each takes some microseconds of the event loop, so more would slow requests."""
MOST_UNFOUNDED = 20
"""Malformed or forged notifications that are tolerated between two heartbeats."""
DOUBTFUL = 100
"""After this many notifications the next heartbeat is sent early, since it separates real changes from forged ones."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 64.0
RECURS_WITHIN_S = 60.0
"""A flood that follows a pause within this time doubles the next pause."""


class Attention:
    """Counts notifications, and stops listening for a while when there are too many or too many forged ones.

    Any role that may connect to the database may notify. A worker that does not listen loses nothing but time, because
    each heartbeat reports every change.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._second_began_s = self._away_until_s = -math.inf
        self._in_this_second = 0
        self._away_s = 0.0
        self.since_beat = 0
        """The number of notifications since ``beaten``."""

    @property
    def is_given(self) -> bool:
        """Return whether to listen now."""
        return self._clock() >= self._away_until_s

    def takes(self) -> bool:
        """Count one notification, and return whether to keep listening."""
        now_s = self._clock()
        if now_s < self._away_until_s:
            return False
        if now_s - self._second_began_s >= 1:
            self._second_began_s, self._in_this_second = now_s, 0
        self._in_this_second += 1
        self.since_beat += 1
        if self._in_this_second <= MOST_A_SECOND:
            return True
        self._turn_away(f"more than {MOST_A_SECOND:,} notifications in a second")
        return False

    def beaten(self, unfounded: int) -> None:
        """Note a heartbeat, and how many notifications it showed to be malformed or forged."""
        self.since_beat = 0
        if unfounded > MOST_UNFOUNDED and self.is_given:
            self._turn_away(f"{unfounded:,} malformed or forged notifications between two heartbeats")

    def _turn_away(self, why: str) -> None:
        now_s = self._clock()
        recurs = now_s - self._away_until_s < RECURS_WITHIN_S
        self._away_s = min(2 * self._away_s, LONGEST_PAUSE_S) if recurs else FIRST_PAUSE_S
        self._away_until_s = now_s + self._away_s
        log(
            "listener.flooded", "%s: notifications are ignored for %.0f s, heartbeats report changes", why, self._away_s
        )
