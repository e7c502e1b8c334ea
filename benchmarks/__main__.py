"""Everything that the project promises about speed, side by side in one run; exit 1 where a target is missed.

    python -m benchmarks [in_process instructions served kept cold memory imports] [--rounds 40] [--json FILE]

Ratios of one run, medians over its rounds, the sides in turn: the machine may be busy, as long as it is fair.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sys
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from pathlib import Path

from benchmarks import cold, imports, in_process, instructions, kept, memory, served
from benchmarks.measuring import Row, show

MEASURES: Mapping[str, Callable[[int], Awaitable[list[Row]]]] = {
    "in_process": lambda rounds: in_process.measure(10 * rounds),
    "instructions": lambda _: instructions.measure(),
    "served": served.measure,
    "kept": lambda rounds: kept.measure(rounds // 2),
    "cold": lambda rounds: cold.measure(rounds, 1_000_000),
    "memory": lambda _: memory.measure(100_000),
    "imports": lambda rounds: imports.measure(rounds // 2),
}
WITH = ("starlette", "fastapi", "uvicorn", "granian", "asyncpg", "django", "django-rest-knox")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", nargs="*", choices=[[], *MEASURES])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[Row] = []
    for name in arguments.which or MEASURES:
        print(f"{name} …", file=sys.stderr, flush=True)
        found = asyncio.run(_rows(MEASURES[name], arguments.rounds))
        show(found)
        rows += found
        if arguments.json:  # After each part: the next one may fail.
            told = {"with": _versions(), "rows": [row.as_json() for row in rows]}
            arguments.json.write_text(json.dumps(told, indent=1))
    return 0 if all(row.is_met for row in rows) else 1


async def _rows(measure: Callable[[int], Awaitable[list[Row]]], rounds: int) -> list[Row]:
    return await measure(rounds)


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in WITH}}


if __name__ == "__main__":
    sys.exit(main())
