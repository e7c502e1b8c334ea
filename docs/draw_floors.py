"""Draw the floors of the package as pyproject.toml has them: ``python docs/draw_floors.py`` writes ``floors.svg``."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).parent
NOTES = {
    "cli": "people: keys, resources, serve, gate, doctor",
    "asgi": "doors: scope, environ or sub-request in",
    "guard": "a request in, a decision out",
    "metrics": "counters for Prometheus",
    "engine": "what is open on one event loop; the write side",
    "authentication": "the read side; the database",
    "cache": "entries, changes, shared tier",
    "http": "one request: credentials, resource, observers",
    "decision": "pure: nothing here waits",
    "errors": "nouns and secrets",
}
WIDTH, TOP, ROW, ROOM, CHAR = 1180, 44, 32, 26, 7.8
NOTES_FROM = 830


def floors() -> list[list[str]]:
    """The rooms, the highest floor first."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text("utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    return [[room.strip(" ()") for room in layer.split("|")] for layer in layers]


def rows(rooms: Sequence[str]) -> Iterator[list[str]]:
    """The rooms of a floor, as many in a row as fit."""
    row: list[str] = []
    for room in rooms:
        if row and _width([*row, room]) > NOTES_FROM:
            yield row
            row = []
        row.append(room)
    yield row


def _width(rooms: Sequence[str]) -> float:
    return sum(len(room) * CHAR + 30 for room in rooms)


def drawn() -> str:
    """The picture, as SVG that is read in the light and in the dark."""
    parts, y = [], TOP
    for rooms in floors():
        lines = list(rows(rooms))
        height = ROW * len(lines) + 8
        parts.append(f'<rect class="floor" x="20" y="{y}" width="{WIDTH - 40}" height="{height}"/>')
        for number, line in enumerate(lines):
            parts += _rooms(line, y + 7 + ROW * number)
        note = NOTES.get(rooms[0], "")
        parts.append(f'<text class="note end" x="{WIDTH - 30}" y="{y + height / 2 + 4:g}">{note}</text>')
        y += height + 4
    return _FRAME.format(width=WIDTH, height=y + 16, style=_STYLE, floors="\n  ".join(parts))


def _rooms(names: Sequence[str], y: int) -> Iterator[str]:
    x = 30.0
    for name in names:
        width = len(name) * CHAR + 22
        yield f'<rect class="room" x="{x:g}" y="{y}" width="{width:g}" height="{ROOM}" rx="5"/>'
        yield f'<text class="name mono" x="{x + 11:g}" y="{y + 18}">{name}</text>'
        x += width + 8


_FRAME = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="Helvetica, Arial, sans-serif" font-size="15" role="img">
  <title>The floors of smarter_auth_mw: its rooms by layer, the command line at the top, errors at the bottom</title>
  {style}
  <rect class="paper" width="{width}" height="{height}" rx="8"/>
  <text class="head" x="20" y="30">The floors of the package: arrows of import point down only</text>
  {floors}
</svg>
"""  # noqa: E501
_STYLE = """<style>
    svg{--ink:#1c2740;--note:#56627a;--line:#7484a6;--fill:#fff;--floor:#eef1f7;--edge:#c3cad8;--paper:#fff}
    @media (prefers-color-scheme:dark){svg{--ink:#e8ecf5;--note:#a9b4ca;--line:#8ea0c6;--fill:#232b3d;--floor:#1a2130;--edge:#3a4560;--paper:#131822}}
    .paper{fill:var(--paper)}.floor{fill:var(--floor);stroke:var(--edge)}.room{fill:var(--fill);stroke:var(--line)}
    .name{fill:var(--ink)}.head{fill:var(--ink);font-weight:bold}.note{fill:var(--note);font-size:12.5px}.end{text-anchor:end}
    .mono{font-family:ui-monospace,Menlo,Consolas,monospace;font-size:13px}
  </style>"""  # noqa: E501

if __name__ == "__main__":
    (HERE / "floors.svg").write_text(drawn(), "utf-8")
