"""A counter for any number of threads that costs one built-in call."""

from __future__ import annotations

from itertools import count


class Tally:
    """Increases with every ``once_more()``: an ``itertools.count`` is atomic and needs no lock.

    ``is_kept`` means that an observer reads the total from time to time and needs nothing else.
    """

    __slots__ = ("_reader", "_reads", "_taken", "is_kept", "once_more")

    def __init__(self) -> None:
        self.once_more = count().__next__
        self.is_kept = False
        self._reads = self._taken = 0
        self._reader: object = None

    def total(self) -> int:
        """Return the count; two threads must not call this at the same time."""
        counted = self.once_more() - self._reads  # the call itself counts as one
        self._reads += 1
        return counted

    def begin(self, reader: object) -> None:
        """Let a reader begin with the present count; if it was the last one to read, it continues where it stopped."""
        if self._reader is not reader:
            self._reader, self._taken = reader, self.total()

    def take(self) -> int:
        """Return the count since the last call; two threads must not call this at the same time."""
        now = self.total()
        counted, self._taken = now - self._taken, now
        return counted
