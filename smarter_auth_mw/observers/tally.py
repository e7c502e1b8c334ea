"""A count that any number of threads take part in, and that costs one call of the interpreter's own."""

from __future__ import annotations

from itertools import count


class Tally:
    """Counts up with every ``once_more()``: a count of ``itertools`` cannot be interrupted, and needs no lock."""

    __slots__ = ("_reads", "once_more")

    def __init__(self) -> None:
        self.once_more = count().__next__
        self._reads = 0

    def total(self) -> int:
        """How often it has been counted; not to be asked by two threads at a time."""
        counted = self.once_more() - self._reads  # which counts as one itself
        self._reads += 1
        return counted
