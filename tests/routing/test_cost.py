"""Whatever a stranger writes takes few steps, however long it is and however many lines ROUTES has.

A step is one instruction of ours: they are counted, not timed. ``python -m benchmarks.path_cost`` measures the time.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from benchmarks.path_cost import MANY, PRESETS, README, Surface, mutated, paths, surfaces, written

MAX_STEPS = 25_000
STEPS_A_SLASH = 16
"""A plain path of any length passes, and each of its words is looked at once."""
LENGTHS = (500, 2000, 8000, 64_000)
TRIES = 40

GAPS = "".join(f"//g{number}" for number in range(8))
WORST = [
    "/a" * 2000 + "/bots" + GAPS + "/%2525252562\\c#z",
    "/bots/42" * 500,
    "/bots%2F42" * 300,
    "/x/bots/x" * 12 + "/%C3%A9//",
    "/api/v1/word1/%2F/more1/x" * 20,
    "/" + "e%CC%81%CC%96" * 200,
    "/" + "%EF%B7%BA" * 600,
    "/" + "%2525252541" * 100,
    "/" + "%" * 3000,
    "/;x/" * 500 + "bots/42",
    "\\" * 2000,
    "/" * 64_000,
]


def steps_of(call: Callable[[], object]) -> int:
    """How many instructions of the package ran."""
    count, before = 0, sys.gettrace()

    def step(_: FrameType, event: str, __: Any) -> Any:
        nonlocal count
        count += event == "opcode"
        return step

    def enter(frame: FrameType, _: str, __: Any) -> Any:
        if "smarter_auth_mw" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return step

    sys.settrace(enter)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def allowed(text: str) -> int:
    return MAX_STEPS + STEPS_A_SLASH * text.count("/")


@pytest.mark.parametrize("lines", [README, PRESETS, MANY], ids=["README", "presets", "200 lines"])
@pytest.mark.parametrize("text", WORST, ids=range(len(WORST)))
def test_awkward_path_takes_few_steps(lines: list[str], text: str) -> None:
    for surface in paths("", lines, root_path="/svc", mounts=["/a", "/u/{user}"]):
        assert 0 < steps_of(surface.take(text)) <= allowed(text), surface.name


@pytest.mark.parametrize("surface", surfaces(), ids=lambda surface: surface.name)
@pytest.mark.parametrize("length", LENGTHS)
def test_nothing_that_a_search_puts_together_takes_many_steps(surface: Surface, length: int) -> None:
    rng = random.Random(f"{surface.name} {length}")
    best: list[tuple[int, list[str]]] = [(0, [])]
    for _ in range(TRIES):
        genome = mutated(rng, mutated(rng, rng.choice(best)[1], surface.fragments), surface.fragments)
        text = written(genome, length)
        steps = steps_of(surface.take(text))
        assert steps <= allowed(text), text[:300]
        best = sorted([*best, (steps, genome)], reverse=True)[:6]


def test_steps_of_a_plain_path_do_not_grow_with_its_length() -> None:
    (surface, *_) = paths("", MANY)
    short, long = (steps_of(surface.take(surface.plain(length))) for length in (500, 64_000))
    assert 0 < long <= short
