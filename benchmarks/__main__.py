"""Measure every promise about speed; exit with 1 if a target is missed.

    python -m benchmarks [PART …] [--rounds 40] [--runs 1] [--also PYTHON] [--publish] [--json FILE]

Each figure is the ratio of two sides that take turns within one run: the median over its rounds. Other load on the
machine affects both sides alike. A run takes about ten minutes. Parts that measure times and rates of one machine, or
fill databases with a million keys, run only if you name them. ``--publish`` writes the figures to docs/benchmarks.json,
from which the documentation is generated, and draws the chart. If you measure only some PARTs, the figures of the
others are kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import (
    admin_load,
    bounds,
    capacity,
    cold,
    first_requests,
    gate,
    imports,
    in_process,
    instructions,
    kept,
    lists,
    memory,
    notifications,
    pages,
    path_cost,
    protocol,
    revocation,
    served,
    soak,
)
from benchmarks.measuring import Row, over_runs, show

ROOT = Path(__file__).parent.parent
FIGURES = ROOT / "docs" / "benchmarks.json"
CHART = ROOT / "docs" / "draw_benchmarks.py"
PARTS: Mapping[str, Callable[[int], Awaitable[list[Row]]]] = {
    "in_process": lambda rounds: in_process.measure(10 * rounds),
    "instructions": lambda _: instructions.measure(),
    "served": served.measure,
    "gate": gate.measure,
    "kept": lambda rounds: kept.measure(rounds // 2),
    "cold": lambda rounds: cold.measure(rounds, 1_000_000),
    "first_requests": lambda rounds: first_requests.measure(rounds // 4),
    "memory": lambda _: memory.measure(100_000),
    "imports": lambda rounds: imports.measure(rounds // 2),
}
ONE_ROUND_S = 200
"""The time in which the soak test has each of its faults once."""
NAMED: Mapping[str, Callable[[int], Awaitable[list[Row]]]] = {
    "revocation": lambda _: revocation.run(),
    "notifications": lambda _: notifications.measure(),
    "bounds": lambda _: bounds.measure(),
    "capacity": lambda _: capacity.measure(),
    "soak": lambda _: soak.soak(ONE_ROUND_S),
    "cold_steps": cold.steps,
    "protocol": lambda rounds: protocol.measure(10 * rounds),
    "lists": lambda rounds: lists.ratios(4 * rounds),
    "pages": lambda rounds: pages.ratios(4 * rounds),
    "admin_load": lambda rounds: admin_load.ratios(rounds // 10),
    "path_cost": lambda _: path_cost.by_length(seconds=1),
}
"""Parts that run only if they are named, since they take long or their figures are those of one machine."""
EVERY = {**PARTS, **NAMED}
ON_OTHER_PYTHONS = ("in_process", "memory")
"""The parts whose figures depend on the Python version."""
WITH = ("starlette", "fastapi", "uvicorn", "granian", "asyncpg", "django", "django-rest-knox")

Figures = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *EVERY], metavar="PART", help=", ".join(EVERY))
    parser.add_argument("--rounds", type=int, default=40, help="how often the sides take turns in a run")
    parser.add_argument("--runs", type=int, default=1, help="number of runs; their medians count")
    parser.add_argument("--also", type=Path, metavar="PYTHON", help="measure what depends on Python with this one too")
    parser.add_argument("--publish", action="store_true", help="write docs/benchmarks.json and draw the chart")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures into this file")
    arguments = parser.parse_args()
    target = FIGURES if arguments.publish else arguments.json
    is_met = True
    for name in arguments.parts or PARTS:
        began = time.monotonic()
        print(f"{name} …", file=sys.stderr, flush=True)
        if arguments.parts == [name] and arguments.runs == 1 and not arguments.also:
            rows = run(name, arguments.rounds)
        else:
            rows = over_runs([run_apart(name, arguments.rounds, arguments.also) for _ in range(arguments.runs)])
        show(rows)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        is_met &= all(row.is_met for row in rows)
        if target is not None:  # After each part: the next one may fail.
            write(target, name, rows, arguments.runs)
    if arguments.publish:
        runpy.run_path(str(CHART), run_name="__main__")
    return 0 if is_met else 1


def run(part: str, rounds: int) -> list[Row]:
    async def measured() -> list[Row]:
        return await EVERY[part](rounds)

    return asyncio.run(measured())


def run_apart(part: str, rounds: int, other: Path | None) -> list[Row]:
    """Measure a part in a process of its own, since memory that one part has freed would be used by the next."""
    _, measured = run_with(Path(sys.executable), part, rounds)
    if other is None or part not in ON_OTHER_PYTHONS:
        return measured
    number, theirs = run_with(other, part, rounds)
    return [*measured, *(row.renamed(f"Python {number}: {row.what}") for row in theirs)]


def run_with(python: Path, part: str, rounds: int) -> tuple[str, list[Row]]:
    """Return the version of this interpreter, whose environment has the project, and what it measures."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [str(python), "-m", "benchmarks", part, "--rounds", str(rounds), "--json", file.name]
        subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
        measured = json.loads(Path(file.name).read_text("utf-8"))
    return measured["with"]["python"].rpartition(".")[0], [Row.from_json(row) for row in measured["rows"]]


def write(file: Path, part: str, rows: Iterable[Row], runs: int) -> None:
    """Replace the rows of this part in the file."""
    earlier: Sequence[Figures] = json.loads(text)["rows"] if file.exists() and (text := file.read_text("utf-8")) else ()
    by_part: dict[str, list[Figures]] = {name: [] for name in EVERY}
    for row in earlier:
        if row["part"] != part:
            by_part[row["part"]].append(row)
    told = {"part": part, "runs": runs, "measured": datetime.now(UTC).isoformat(timespec="minutes")}
    by_part[part] = [told | row.as_json() for row in rows]
    figures = {"with": _versions(), "rows": [row for rows in by_part.values() for row in rows]}
    file.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in WITH}}


if __name__ == "__main__":
    sys.exit(main())
