"""A counter that any number of threads take part in, and that costs one call of the interpreter's own."""

from __future__ import annotations

from itertools import count


class Tally:
    """Counts up with every ``once_more()``: a count of ``itertools`` cannot be interrupted, and needs no lock.

    ``is_kept`` says that an observer reads it from time to time, and wants to know no more than the total.
    """

    __slots__ = ("_reads", "is_kept", "once_more")

    def __init__(self) -> None:
        self.once_more = count().__next__
        self.is_kept = False
        self._reads = 0

    def total(self) -> int:
        """Return how often it has been counted; two threads must not ask at the same time."""
        counted = self.once_more() - self._reads  # which counts as one itself
        self._reads += 1
        return counted
