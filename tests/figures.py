"""Print which pages have figures that are older than the code that they speak of.

    python -m tests.figures

A page's figures are the rows with numbers in its tables; git blame says when each of them was written. The code is that
of the commands on the page (`python -m benchmarks.X`, `make X`) and of what these measure. Exits 1 if the git history
is missing.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
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
    "path_cost": (f"{CODE}/routing",),
    "flooded": (f"{CODE}/http/websocket.py", f"{CODE}/asgi.py"),
    "in_process": (f"{CODE}/asgi.py", f"{CODE}/guard.py", f"{CODE}/routing", f"{CODE}/authentication"),
    "model": ("model",),
}
"""What a benchmark measures; one that is not listed measures the whole package."""

GENERATED = {"docs/explanation/benchmarks.md": "docs/benchmarks.json"}
"""Pages whose tables are made of the figures in a file."""

_COMMAND = re.compile(r"python -m (?:benchmarks(?:\.(\w+))?|(model)\b)|make (bench|revocation|bounds|soak|model)\b")
_FIGURE = re.compile(r"^\|.*\|[^|`]*\d[^|]*\||^\s*\"median\":")


class Figures(NamedTuple):
    """The figures of a page: when the oldest was written, and the code that they speak of."""

    page: str
    written: datetime
    rows: int
    code: tuple[str, ...]

    def commits_since(self) -> list[str]:
        """Return the commits that changed the code after the oldest figure was written, newest first."""
        commits = (line.split(" ", 1) for line in _git("log", "--format=%at %h %s", "--", *self.code).splitlines())
        return [commit for time, commit in commits if int(time) > self.written.timestamp()]


def figures() -> Iterator[Figures]:
    """Find the pages that name a command and have figures in their tables."""
    for path in sorted(path for pattern in PAGES for path in ROOT.glob(pattern)):
        page, text = str(path.relative_to(ROOT)), path.read_text("utf-8")
        commands = {command for found in _COMMAND.findall(text) for command in (*found, "__main__") if command}
        if _COMMAND.search(text) and (times := list(_written(page))):
            yield Figures(page, min(times), len(times), tuple(sorted(code_of(commands))))


def code_of(commands: set[str]) -> set[str]:
    """Return the paths that these commands measure, and those of the benchmarks themselves."""
    named = commands - {"__main__", "bench"} or {"__main__"}
    scripts = {script for name in named if (ROOT / (script := f"benchmarks/{name}.py")).exists()}
    return scripts | {path for name in named for path in MEASURED.get(name, (CODE,))}


def is_figure(line: str) -> bool:
    """Tell whether this line is a row of a table with a number in a column after the first."""
    return bool(_FIGURE.match(line))


def _written(page: str) -> Iterator[datetime]:
    """Yield when each figure of the page was written; what is not committed yet is new."""
    written = datetime.now(UTC)
    for line in _git("blame", "-w", "--line-porcelain", "--", GENERATED.get(page, page)).splitlines():
        if line.startswith("author-time "):
            written = datetime.fromtimestamp(int(line.split()[1]), UTC)
        elif line.startswith("\t") and is_figure(line[1:]):
            yield written


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
        print(f"{found.page:36} {found.rows:3} figures, the oldest of {found.written:%Y-%m-%d %H:%M}: {state}")
        for commit in commits[:5]:
            print(f"    {commit}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
