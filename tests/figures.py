"""Print which pages have figures that are older than the code that they speak of.

    python -m tests.figures

A page's figures are those that a ``{from-code}`` brings from docs/benchmarks.json, which says when each was measured,
and the rows with numbers in tables that a colon introduces; git blame says when each of these was written. The code is
that of the commands on the page (`python -m benchmarks.X`, `make X`) and of what these measure. Exits 1 if the git
history is missing.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/**/*.md")
CODE = "smarter_auth_mw"
MEASURED = {
    "revocation": (f"{CODE}/cache", f"{CODE}/postgres"),
    "notifications": (f"{CODE}/cache", f"{CODE}/postgres/notifications.py"),
    "bounds": (f"{CODE}/cache", f"{CODE}/authentication", f"{CODE}/postgres"),
    "capacity": (f"{CODE}/postgres", f"{CODE}/cache"),
    "path_cost": (f"{CODE}/routing", f"{CODE}/http"),
    "lists": (f"{CODE}/management", f"{CODE}/postgres"),
    "pages": (f"{CODE}/admin", f"{CODE}/management", f"{CODE}/postgres"),
    "flooded": (f"{CODE}/http/websocket.py", f"{CODE}/asgi.py"),
    "protocol": (f"{CODE}/asgi.py", f"{CODE}/guard.py", f"{CODE}/gate", f"{CODE}/routing", f"{CODE}/authentication"),
    "in_process": (f"{CODE}/asgi.py", f"{CODE}/guard.py", f"{CODE}/routing", f"{CODE}/authentication"),
    "model": ("model",),
}
"""What a benchmark measures; one that is not listed measures the whole package."""

UNMEASURED = f":!{CODE}/postgres/embedded"
"""What gives some benchmarks their PostgreSQL, and changes no figure."""

PUBLISHED = "docs/benchmarks.json"
"""Where tables of pages come from; the one named ``benchmarks`` has the parts that have none of their own."""

_COMMAND = re.compile(r"python -m (?:benchmarks(?:\.(\w+))?|(model)\b)|make (bench|revocation|bounds|soak|model)\b")
_TABLE = re.compile(r"^```\{from-code\} (\w+)", re.MULTILINE)
_FIGURE = re.compile(r"^\|.*\|[^|`]*\d[^|]*\|")


class Figures(NamedTuple):
    """The figures of a page: when the oldest was measured, and the code that they speak of."""

    page: str
    measured: datetime
    rows: int
    code: tuple[str, ...]

    def commits_since(self) -> list[str]:
        """Return the commits that changed the code after the oldest figure was measured, newest first."""
        told = _git("log", "--format=%at %h %s", "--", *self.code, UNMEASURED)
        commits = (line.split(" ", 1) for line in told.splitlines())
        return [commit for time, commit in commits if int(time) > self.measured.timestamp()]


def figures() -> Iterator[Figures]:
    """Find the pages that name a command and have figures in their tables."""
    pages = {path: path.read_text("utf-8") for pattern in PAGES for path in sorted(ROOT.glob(pattern))}
    tables = {path: set(_TABLE.findall(text)) for path, text in pages.items()}
    rows = json.loads((ROOT / PUBLISHED).read_text("utf-8"))["rows"]
    published = [(row["part"], datetime.fromisoformat(row["measured"])) for row in rows]
    for path, text in pages.items():
        page, own = str(path.relative_to(ROOT)), tables[path]
        others = set().union(*tables.values()) if "benchmarks" in own else set()
        parts = {part for part, _ in published if part in own or (others and part not in others)}
        times = [*_written(page), *(at for part, at in published if part in parts)]
        commands = {command for found in _COMMAND.findall(text) for command in (*found, "__main__") if command}
        if times and (commands or parts):
            yield Figures(page, min(times), len(times), tuple(sorted(code_of(commands | (parts & own)))))


def code_of(commands: set[str]) -> set[str]:
    """Return the paths that these commands measure, and those of the benchmarks themselves."""
    named = commands - {"__main__", "bench"} or {"__main__"}
    scripts = {script for name in named if (ROOT / (script := f"benchmarks/{name}.py")).exists()}
    return scripts | {path for name in named for path in MEASURED.get(name, (CODE,))}


def are_figures(lines: Iterable[str]) -> list[bool]:
    """Return for each line whether it is a row with a number after its first column, in a table after a colon."""
    told, introduced = [], ""
    for line in lines:
        told.append(introduced.endswith(":") and bool(_FIGURE.match(line)))
        if line and not line.startswith("|"):
            introduced = line
    return told


def _written(page: str) -> Iterator[datetime]:
    """Yield when each figure in a table of this page was written; what is not committed yet is new."""
    blamed = _git("blame", "-w", "--line-porcelain", "--", page).splitlines()
    times = [int(line.split()[1]) for line in blamed if line.startswith("author-time ")]
    for time, is_figure in zip(times, are_figures(line[1:] for line in blamed if line.startswith("\t")), strict=True):
        if is_figure:
            yield datetime.fromtimestamp(time, UTC)


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"git {arguments[0]}: {done.stderr.strip()}. This needs a clone with its history.")
    return done.stdout


def main() -> int:
    for found in figures():
        commits = found.commits_since()
        counted = "1 commit" if len(commits) == 1 else f"{len(commits)} commits"
        state = f"older than {counted}" if commits else "up to date"
        print(f"{found.page:36} {found.rows:3} figures, the oldest of {found.measured:%Y-%m-%d %H:%M}: {state}")
        for commit in commits[:5]:
            print(f"    {commit}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
