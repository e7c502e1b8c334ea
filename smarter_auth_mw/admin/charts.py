"""Charts of usage, drawn as SVG by the server, with the rows of a table that holds the same figures.

Granted requests are drawn above a base line and refused ones below it, so that colour alone carries no meaning. The
SVG has classes and attributes only: the pages' Content-Security-Policy allows neither inline styles nor scripts in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from markupsafe import Markup

from smarter_auth_mw.management.usage import Total

STEP, BAR = 10, 8
"""The width of a time step and of its bar; the browser stretches the whole chart to the available width."""
HEIGHT, LOWEST = 100, 2
"""The height of a chart, and the least height of a bar, so that one request among millions is still visible."""
SPARK_HEIGHT = 20


@dataclass(frozen=True, slots=True)
class Step:
    """The requests of one step of time: granted ones, with a token or on an open resource, and refused ones."""

    begins: datetime
    ends: datetime
    granted: int
    refused: int

    @property
    def label(self) -> str:
        """Name the step as an axis does: an hour of a day, or a day."""
        is_day = (self.ends - self.begins) >= timedelta(days=1)
        return f"{self.begins:%Y-%m-%d}" if is_day else f"{self.begins:%Y-%m-%d %H:%M}"


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart, and the texts around it."""

    svg: Markup
    steps: Sequence[Step]
    granted: int
    refused: int

    @property
    def peak(self) -> str:
        """Say how many requests the highest step holds, and how long a step is."""
        most, step = max(step.granted + step.refused for step in self.steps), self.steps[0]
        return f"at most {most:,} in {_length(step.ends - step.begins)}"

    @property
    def rows(self) -> list[Step]:
        """The steps that have requests, the latest first: the rows of the table below the chart."""
        return [step for step in reversed(self.steps) if step.granted or step.refused]


def chart(total: Total | None, subject: str) -> Chart | None:
    """Draw the usage of ``subject``; None: there was none."""
    if total is None or not total.count:
        return None
    steps = list(_steps(total))
    refused = sum(total.denied_points)
    return Chart(_drawn(steps, subject), steps, total.count - refused, refused)


def sparkline(points: Sequence[int]) -> Markup:
    """Draw points as small bars. The figures next to the chart say the same to screen readers."""
    highest = max(points, default=0) or 1
    bars = (
        _bar(place, SPARK_HEIGHT, _scaled(count, SPARK_HEIGHT / highest), "bar") for place, count in enumerate(points)
    )
    size = f"0 0 {STEP * max(len(points), 1)} {SPARK_HEIGHT}"
    opening = Markup('<svg class="spark" viewBox="{}" preserveAspectRatio="none" aria-hidden="true">').format(size)
    return opening + Markup().join(bars) + Markup("</svg>")


def _length(span: timedelta) -> str:
    for unit, words in (
        (timedelta(days=1), "a day"),
        (timedelta(hours=1), "an hour"),
        (timedelta(minutes=1), "a minute"),
    ):
        count = span // unit
        if count:
            return words if count == 1 else f"{count} {words.split()[1]}s"
    return f"{span.seconds} seconds"


def _steps(total: Total) -> Iterator[Step]:
    for place, (count, refused) in enumerate(zip(total.points, total.denied_points, strict=True)):
        begins = total.begins.astimezone(UTC) + place * total.width
        yield Step(begins, begins + total.width, count - refused, refused)


def _drawn(steps: Sequence[Step], subject: str) -> Markup:
    most, worst = max(step.granted for step in steps), max(step.refused for step in steps)
    scale = HEIGHT / (most + worst)
    width, base = STEP * len(steps), most * scale
    bars = (_step(place, step, base, scale) for place, step in enumerate(steps))
    return Markup(
        '<svg class="chart" role="img" viewBox="0 {} {} {}" preserveAspectRatio="none">'
        "<title>{}</title><desc>{}</desc>"
        '{}<path class="base" d="M0 {}H{}"/></svg>'
    ).format(
        -LOWEST,
        width,
        HEIGHT + 2 * LOWEST,
        f"Requests for {subject}",
        _in_words(steps),
        Markup().join(bars),
        _short(base),
        width,
    )


def _step(place: int, step: Step, base: float, scale: float) -> Markup:
    """Draw both bars of a step, in a group whose title a pointer shows."""
    granted, refused = _scaled(step.granted, scale), _scaled(step.refused, scale)
    title = f"{step.label}: {step.granted:,} granted, {step.refused:,} refused"
    bars = _bar(place, base, granted, "granted") + _bar(place, base + refused, refused, "refused")
    return Markup("<g><title>{}</title>{}</g>").format(title, bars) if bars else Markup()


def _bar(place: int, foot: float, height: float, name: str) -> Markup:
    if not height:
        return Markup()
    left = place * STEP + (STEP - BAR) // 2
    return Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(
        name, left, _short(foot - height), BAR, _short(height)
    )


def _scaled(count: int, scale: float) -> float:
    return max(count * scale, LOWEST) if count else 0


def _short(length: float) -> str:
    return f"{length:.1f}".removesuffix(".0")


def _in_words(steps: Sequence[Step]) -> str:
    """Say in words what the chart shows."""
    granted, refused = sum(step.granted for step in steps), sum(step.refused for step in steps)
    busiest = max(steps, key=lambda step: step.granted + step.refused)
    return (
        f"{granted:,} granted and {refused:,} refused from {steps[0].label} to {steps[-1].label} (UTC), "
        f"most of them at {busiest.label}: {busiest.granted:,} granted, {busiest.refused:,} refused."
    )
