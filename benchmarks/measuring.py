"""Measure sides in turn, in small blocks and many rounds, so that other work on the machine affects all alike."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

Block = Callable[[], Awaitable[float]]
"""Runs its side again, and returns the time of one call, in µs."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: a figure over the rounds of one run or over several runs, with its target."""

    what: str
    minimum: float
    median: float
    maximum: float
    target: float | None
    is_at_least: bool = False
    note: str = ""
    unit: str = ""
    """Empty for a ratio and for a count."""
    is_bound: bool = False
    """True if the greatest figure counts, and not the median."""

    @property
    def is_met(self) -> bool:
        """True if the figure meets the target, or if the row has none because it is there for comparison."""
        if self.target is None:
            return True
        counts = self.maximum if self.is_bound else self.median
        return counts >= self.target if self.is_at_least else counts <= self.target

    def as_json(self) -> dict[str, object]:
        return asdict(self) | {"is_met": self.is_met}

    @classmethod
    def from_json(cls, figures: Mapping[str, Any]) -> Self:
        return cls(**{field.name: figures[field.name] for field in fields(cls)})

    def renamed(self, what: str) -> Row:
        return replace(self, what=what)

    def noted(self, note: str) -> Row:
        return replace(self, note=note)


def row(
    what: str, figures: list[float], target: float | None, *, is_at_least: bool = False, note: str = "", unit: str = ""
) -> Row:
    """Return the row of these figures, one for each round."""
    return Row(what, min(figures), statistics.median(figures), max(figures), target, is_at_least, note, unit)


def bound(what: str, figure: float, unit: str = "", target: float | None = None) -> Row:
    """Return the row of one figure of which each run must stay below the target."""
    return Row(what, figure, figure, figure, target, unit=unit, is_bound=True)


class Found(list[Row]):
    """The rows of a run, each shown as soon as it is known."""

    def tell(self, what: str, figure: float, unit: str = "", target: float | None = None, note: str = "") -> None:
        self.append(bound(what, figure, unit, target).noted(note))
        show(self[-1:])


def over_runs(runs: Sequence[Sequence[Row]]) -> list[Row]:
    """Return the rows of one run as they are; of several, one row for each kind, over the medians of the runs."""
    if len(runs) == 1:
        return list(runs[0])
    by_what: dict[str, list[Row]] = {}
    for one in (one for run in runs for one in run):
        by_what.setdefault(one.what, []).append(one)
    return [_over(same) for same in by_what.values()]


def _over(same: Sequence[Row]) -> Row:
    figures = [one.median for one in same]
    return replace(same[-1], minimum=min(figures), median=statistics.median(figures), maximum=max(figures))


async def in_turn(sides: dict[str, Block], rounds: int, warm_up: int = 3) -> dict[str, list[float]]:
    """Return what each side took in each round, one block of each after the other."""
    for _ in range(warm_up):
        for block in sides.values():
            await block()
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, block in sides.items():
            taken[name].append(await block())
    return taken


def medians(taken: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(figures) for name, figures in taken.items()}


def less(figures: Iterable[float], others: Iterable[float]) -> list[float]:
    """Return what each figure is more than the other of its round."""
    return [figure - other for figure, other in zip(figures, others, strict=True)]


def show(rows: Iterable[Row]) -> None:
    """Print the table: median, target, whether it is met, minimum and maximum of the rounds, and the row's name."""
    for one in rows:
        if one.target is None:
            held = f"{'':18}"
        else:
            held = f"({'≥' if one.is_at_least else '≤'} {one.target:5.2f}, {'met' if one.is_met else 'MISSED':6})"
        spread = f"{one.minimum:7.2f} … {one.maximum:7.2f}"
        notes = ", ".join(filter(None, (one.unit, one.note)))
        print(f"{one.median:7.2f}  {held}  {spread}  {one.what}", f"({notes})" if notes else "", flush=True)
