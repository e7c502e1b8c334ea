"""Count the instructions of a warm request with valgrind; other load on the machine does not change them.

    python -m benchmarks.instructions

Each side runs twice, with few calls and with many; the difference is the cost of the calls. It takes a minute or two,
and needs valgrind.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys

from starlette.middleware.authentication import AuthenticationMiddleware

from benchmarks.apps import DictBackend, app
from benchmarks.in_process import CALLS, CREDENTIALS, GRANT, NO_RESOURCE, TOKEN, block, guarded
from benchmarks.measuring import Block, Row, row, show

FEW, MANY = 1, 6
COLLECTED = re.compile(r"Collected : (\d+)")
SIDES = ("bare", "AuthenticationMiddleware", "grant", "bare health", "health")


def side(name: str) -> Block:
    if name == "bare":
        return block(app(), "/bots/1", CREDENTIALS)
    if name == "AuthenticationMiddleware":
        return block(AuthenticationMiddleware(app(), DictBackend(TOKEN.reveal())), "/bots/1", CREDENTIALS)
    if name == "grant":
        return block(guarded(), "/bots/1", CREDENTIALS)
    return block(guarded() if name == "health" else app(), "/health")


async def run(name: str, blocks: int) -> None:
    called = side(name)
    for _ in range(blocks):
        await called()


async def counted(valgrind: str, name: str, blocks: int) -> int:
    """Return the instructions of a whole process."""
    process = await asyncio.create_subprocess_exec(
        *(valgrind, "--tool=callgrind", "--callgrind-out-file=/dev/null"),
        *(sys.executable, "-m", "benchmarks.instructions", name, str(blocks)),
        env=os.environ | {"PYTHONHASHSEED": "0"},
        stderr=asyncio.subprocess.PIPE,
    )
    told = (await process.communicate())[1].decode()
    found = COLLECTED.search(told)
    if found is None:
        raise RuntimeError(f"valgrind counted nothing: {told[-400:]}")
    return int(found[1])


async def per_call(valgrind: str) -> dict[str, float]:
    """Return the instructions of one call of each side; as many processes run at a time as there are processors."""
    free = asyncio.Semaphore(os.cpu_count() or 1)

    async def one(name: str, blocks: int) -> int:
        async with free:
            return await counted(valgrind, name, blocks)

    few, many = await asyncio.gather(
        *(asyncio.gather(*(one(name, blocks) for name in SIDES)) for blocks in (FEW, MANY))
    )
    return {name: (most - least) / (MANY - FEW) / CALLS for name, least, most in zip(SIDES, few, many, strict=True)}


async def measure() -> list[Row]:
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        print("valgrind is not installed: no instructions are counted", file=sys.stderr)
        return []
    found = await per_call(valgrind)
    told = ", ".join(f"{name} {figure:,.0f}" for name, figure in found.items())
    print(f"instructions a call: {told}", file=sys.stderr)
    theirs = found["AuthenticationMiddleware"] - found["bare"]
    return [
        row("instructions of a warm grant: added, over AuthenticationMiddleware's",
            [(found["grant"] - found["bare"]) / theirs], GRANT),
        row("instructions without a resource: added, over the same",
            [(found["health"] - found["bare health"]) / theirs], NO_RESOURCE),
    ]  # fmt: skip


def main() -> None:
    if len(sys.argv) == 3:
        asyncio.run(run(sys.argv[1], int(sys.argv[2])))
    else:
        show(asyncio.run(measure()))


if __name__ == "__main__":
    main()
