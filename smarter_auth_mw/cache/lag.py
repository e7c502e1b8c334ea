"""A histogram, as Prometheus defines it, of the time until a change arrives."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Lag:
    """Counts each value in the smallest of ``BOUNDS_S`` that it does not exceed, or else in ``+Inf``."""

    def __init__(self) -> None:
        self.sum_s = 0.0
        self._counts = [0] * (len(BOUNDS_S) + 1)

    def note(self, lag_s: float) -> None:
        """Count one change; a negative lag counts as zero."""
        self._counts[bisect_left(BOUNDS_S, lag_s)] += 1
        self.sum_s += max(lag_s, 0.0)

    def buckets(self) -> Iterator[tuple[str, int]]:
        """Yield each bound, and the number of changes that arrived within it; ``+Inf`` counts all."""
        yield from zip((*map(str, BOUNDS_S), "+Inf"), accumulate(self._counts), strict=True)
