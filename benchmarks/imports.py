"""Measure what `import smarter_auth_mw` adds to an app that has imported its framework.

    python -m benchmarks.imports [--rounds 20]

Each import is a process of its own; the sides take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys

from benchmarks.measuring import Block, Row, in_turn, row, show

BASE = "import starlette.applications, asyncpg, pydantic_settings"
TIMED = "import time; began = time.process_time(); {}; print(time.process_time() - began)"
COMPILED = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}
"""An installation has its bytecode: here the first round writes it, whatever the environment says."""


def importing(what: str) -> Block:
    async def run() -> float:
        command = [sys.executable, "-c", TIMED.format(what)]
        return float(subprocess.run(command, env=COMPILED, stdout=subprocess.PIPE, check=True).stdout) * 1e3

    return run


async def measure(rounds: int) -> list[Row]:
    taken = await in_turn({"base": importing(BASE), "ours": importing(f"{BASE}, smarter_auth_mw")}, rounds, warm_up=1)
    added = [ours - base for ours, base in zip(taken["ours"], taken["base"], strict=True)]
    return [row("import smarter_auth_mw, over starlette, asyncpg and pydantic-settings, in ms", added, 60)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    show(asyncio.run(measure(parser.parse_args().rounds)))


if __name__ == "__main__":
    main()
