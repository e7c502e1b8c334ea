"""Charts: what is drawn, what is said beside it, and that a browser with our policy shows it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest

from smarter_auth_mw.admin.charts import LOWEST, Chart, chart, sparkline
from smarter_auth_mw.management.usage import Total, sum_of
from smarter_auth_mw.observers.usage import ANONYMOUS, GRANTED
from smarter_auth_mw.postgres.reports import Used

BEGINS = datetime(2026, 11, 3, 13, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
EXPIRED, UNKNOWN = "expired", "unknown_token"
ALLOWED = {"svg", "title", "desc", "g", "rect", "path"} | {
    *("class", "role", "viewBox", "preserveAspectRatio", "x", "y", "d", "width", "height")
}


def total(counts: Mapping[str, tuple[int, ...]], width: timedelta = HOUR) -> Total:
    """Usage with these counts by outcome."""
    found = sum_of(
        Used("bot", "1", None, None, "", outcome, BEGINS, points, width) for outcome, points in counts.items()
    )
    assert found is not None
    return found


def drawn(usage: Total, subject: str = "bot:1") -> tuple[Chart, ElementTree.Element]:
    found = chart(usage, subject)
    assert found is not None
    return found, ElementTree.fromstring(found.svg)


def bars(svg: ElementTree.Element, name: str) -> list[tuple[float, float, float]]:
    """Where the bars of a class are, from which height to which."""
    found = [bar.attrib for bar in svg.iter("rect") if bar.attrib["class"] == name]
    return [(float(bar["x"]), float(bar["y"]), float(bar["y"]) + float(bar["height"])) for bar in found]


def test_granted_requests_stand_on_the_line_and_refused_ones_hang_below_it() -> None:
    _, svg = drawn(total({GRANTED: (30, 0, 10), ANONYMOUS: (0, 0, 20), EXPIRED: (0, 6, 4), UNKNOWN: (0, 4, 0)}))
    assert bars(svg, "granted") == [(1, 0, 75), (21, 0, 75)]
    assert bars(svg, "refused") == [(11, 75, 100), (21, 75, 85)]
    assert svg.find("path").attrib["d"] == "M0 75H30"  # type: ignore[union-attr]


def test_one_request_among_millions_is_seen() -> None:
    _, svg = drawn(total({GRANTED: (1_000_000, 0), EXPIRED: (0, 1)}))
    ((_, top, foot),) = bars(svg, "refused")
    assert foot - top == pytest.approx(LOWEST, abs=0.1)


def test_it_says_in_words_what_it_shows() -> None:
    found, svg = drawn(total({GRANTED: (1200, 3), EXPIRED: (7, 0)}))
    assert svg.attrib["role"] == "img"
    assert svg.findtext("title") == "Requests for bot:1"
    assert svg.findtext("desc") == (
        "1,203 granted and 7 refused from 2026-11-03 13:00 to 2026-11-03 14:00 (UTC), "
        "most of them at 2026-11-03 13:00: 1,200 granted, 7 refused."
    )
    titles = [title.text for title in svg.findall("g/title")]
    assert titles == ["2026-11-03 13:00: 1,200 granted, 7 refused", "2026-11-03 14:00: 3 granted, 0 refused"]
    assert (found.granted, found.refused) == (1203, 7)


def test_its_table_has_the_latest_step_first_and_no_empty_ones() -> None:
    found, _ = drawn(total({GRANTED: (5, 0, 0, 8), EXPIRED: (1, 0, 0, 0)}, DAY))
    rows = [(row.label, row.granted, row.refused) for row in found.rows]
    assert rows == [("2026-11-06", 8, 0), ("2026-11-03", 5, 1)]


def test_nothing_is_drawn_of_nothing() -> None:
    assert chart(None, "bot:1") is None
    assert chart(total({GRANTED: (0, 0)}), "bot:1") is None


def test_nothing_in_it_is_a_style_a_script_or_markup_of_a_name() -> None:
    found, svg = drawn(total({GRANTED: (1, 2)}), "bot:<script>&\"'")
    assert svg.findtext("title") == "Requests for bot:<script>&\"'"
    names = {name for element in svg.iter() for name in (element.tag, *element.attrib)}
    assert names <= ALLOWED
    assert found.svg.__html__() == found.svg


def test_a_month_is_small() -> None:
    found, _ = drawn(total({GRANTED: tuple(range(1, 32)), EXPIRED: tuple(range(1, 32))}, DAY))
    assert len(found.svg) < 8_000


@pytest.mark.parametrize(
    ("points", "heights"),
    [((), []), ((0, 0), []), ((1, 0, 4), [5, 20]), ((1, 1_000_000), [LOWEST, 20])],
)
def test_a_sparkline_has_a_bar_for_each_point_that_counts(points: tuple[int, ...], heights: list[float]) -> None:
    svg = ElementTree.fromstring(sparkline(points))
    assert svg.attrib["aria-hidden"] == "true"
    assert [foot - top for _, top, foot in bars(svg, "bar")] == heights
