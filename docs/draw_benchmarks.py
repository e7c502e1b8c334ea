"""Draw what a request costs in five systems: ``python docs/draw_benchmarks.py`` writes ``pictures/benchmarks.svg``.

It is made from the figures in ``benchmarks.json``. One measure, one linear axis that begins at zero.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

HERE = Path(__file__).parent
PREFIX = "processor time of a request, in µs: "
BASE = "bare app"
BARS = {
    "smarter_auth_mw": "smarter_auth_mw",
    "AuthenticationMiddleware": "AuthenticationMiddleware, no hash",
    "hand-written floor": "hand-written, no revocation",
    "FastAPI with a query": "FastAPI, one query a request",
    "django-rest-knox": "django-rest-knox",
}
"""Each system, and what is written beside its bar."""
WIDTH, LEFT, RIGHT, TOP, ROW, BAR = 960, 330, 90, 74, 38, 22


def figures() -> Mapping[str, float]:
    """Return the microseconds of each system."""
    rows = json.loads((HERE / "benchmarks.json").read_text("utf-8"))["rows"]
    return {row["what"].removeprefix(PREFIX): row["median"] for row in rows if row["what"].startswith(PREFIX)}


def drawn() -> str:
    """The picture, as SVG that is read in the light and in the dark."""
    costs = figures()
    most = max(costs[name] for name in BARS)
    scale = (WIDTH - LEFT - RIGHT) / most
    height = TOP + ROW * len(BARS) + 52
    parts = [*_axis(most, scale, height - 46), *_bars(costs, scale)]
    note = (
        f"the app alone: {costs[BASE]:.0f} µs · one worker each, on the same machine · without the database's own time"
    )
    parts.append(f'<text class="note" x="20" y="{height - 14}">{note}</text>')
    return _FRAME.format(width=WIDTH, height=height, style=_STYLE, parts="\n  ".join(parts))


def _bars(costs: Mapping[str, float], scale: float) -> Iterator[str]:
    for number, (name, label) in enumerate(BARS.items()):
        y, width = TOP + ROW * number, costs[name] * scale
        ours = " ours" if name == "smarter_auth_mw" else ""
        yield f'<text class="name end{ours}" x="{LEFT - 12}" y="{y + 16}">{label}</text>'
        yield f'<rect class="bar{ours}" x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}"/>'
        yield f'<text class="name{ours}" x="{LEFT + width + 8:.1f}" y="{y + 16}">{costs[name]:,.0f} µs</text>'


def _axis(most: float, scale: float, bottom: float) -> Iterator[str]:
    step = next(step for step in (100, 200, 500, 1_000, 2_000, 5_000, 10_000) if most / step <= 8)
    for mark in range(0, int(most) + 1, step):
        x = LEFT + mark * scale
        yield f'<path class="grid" d="M{x:.1f} {TOP - 8}V{bottom:g}"/>'
        yield f'<text class="note mid" x="{x:.1f}" y="{TOP - 14}">{mark:,}</text>'


_FRAME = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="Helvetica, Arial, sans-serif" font-size="15" role="img">
  <title>Processor time of a request with a valid key, in microseconds, for five systems: see the table of the benchmarks</title>
  {style}
  <rect class="paper" width="{width}" height="{height}" rx="8"/>
  <text class="head" x="20" y="30">Processor time of a request with a valid key, in µs</text>
  {parts}
</svg>
"""  # noqa: E501
_STYLE = """<style>
    svg{--ink:#1c2740;--note:#56627a;--grid:#dde2ec;--bar:#9aa7c0;--ours:#1d7a46;--paper:#fff}
    @media (prefers-color-scheme:dark){svg{--ink:#e8ecf5;--note:#a9b4ca;--grid:#2a3346;--bar:#66758f;--ours:#6fd39a;--paper:#131822}}
    .paper{fill:var(--paper)}.bar{fill:var(--bar)}.bar.ours{fill:var(--ours)}.name{fill:var(--ink)}.name.ours{font-weight:bold}
    .head{fill:var(--ink);font-weight:bold}.note{fill:var(--note);font-size:12.5px}.mid{text-anchor:middle}.end{text-anchor:end}
    .grid{stroke:var(--grid)}
  </style>"""  # noqa: E501

if __name__ == "__main__":
    (HERE / "pictures" / "benchmarks.svg").write_text(drawn(), "utf-8")
