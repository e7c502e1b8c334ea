"""Check the model exhaustively within bounds, and find a counterexample for each planted mistake.

    python -m model [--large] [--trace MISTAKE]

Needs spin and a C compiler (Debian: apt-get install spin gcc). Exits 1 if anything differs from what is expected.
``--large`` adds two transactions together with a crash or a failover, which takes several gigabytes of memory.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

PROTOCOL = Path(__file__).with_name("protocol.pml")
NEEDED = ("spin", "gcc")
DEPTH, MEMORY_MB = 2_000_000, 16_000

SMALL = ("TXS=1", "TROUBLES=0")
CRASHES = ("TXS=1", "TROUBLES=1")
WRITERS = ("TXS=2", "TROUBLES=0")
LARGE = ("TXS=2", "TROUBLES=1")

MISTAKES = {
    "a counter instead of snapshots": ("COUNTS", *SMALL),
    "a check only before the await": ("CHECKS_BEFORE", *SMALL),
    "a heartbeat taken for proof without its catch-up": ("NO_CATCH_UP", *SMALL),
    "the shared tier trusted without a live heartbeat": ("TRUSTS_SHARED", *SMALL),
    "no directory source for aliases": ("NO_DIRECTORY", *SMALL),
    "write-back of whole records": ("WRITES_BACK", *WRITERS),
    "the transactions of two servers taken for one another's": ("MIXES_SERVERS", *CRASHES),
    "a crash that gives transaction numbers out again, and is not noticed": ("UNNOTICED_CRASH", *CRASHES),
    "a trigger that joins bindings to name resources": ("JOINS_BINDINGS", *WRITERS),
}
"""What each mistake is defined by, with bounds that suffice to find it."""


class Found(NamedTuple):
    """What SPIN found: how many errors, in how many states, at which depth, and which steps it never took."""

    errors: int
    states: int
    depth: int
    unreached: int
    seconds: float


def check(*defined: str, liveness: bool = False) -> Found:
    """Explore every state within the bounds; with ``liveness`` check the temporal formula, and nothing else."""
    with _verifier(*defined, liveness=liveness) as pan:
        began_s = time.monotonic()
        # -A leaves the assertions out, -a looks for cycles that never refuse.
        output = _run(str(pan), f"-m{DEPTH}", *(("-a", "-A") if liveness else ()), cwd=pan.parent)
        return _found(output, time.monotonic() - began_s)


def trace(*defined: str) -> str:
    """Return the steps of a short counterexample."""
    with _verifier(*defined) as pan:
        _run(str(pan), f"-m{DEPTH}", "-i", cwd=pan.parent)
        return _run("spin", "-t", "-p", "-g", *_flags(defined), PROTOCOL.name, cwd=pan.parent)


@contextmanager
def _verifier(*defined: str, liveness: bool = False) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        shutil.copy(PROTOCOL, folder)
        _run("spin", "-a", *_flags((*defined, "LIVENESS") if liveness else defined), PROTOCOL.name, cwd=folder)
        kind = () if liveness else ("-DSAFETY",)
        # Compiling takes longer than the search within small bounds.
        effort = "-O0" if {*SMALL} <= {*defined} else "-O1"
        _run("gcc", effort, "-w", f"-DMEMLIM={MEMORY_MB}", *kind, "-o", "pan", "pan.c", cwd=folder)
        yield folder / "pan"


def _flags(defined: tuple[str, ...]) -> list[str]:
    return [f"-D{name}" for name in defined]


def _run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, check=False, capture_output=True, text=True)
    output = done.stdout + done.stderr
    if done.returncode and command[0] in NEEDED:
        raise SystemExit(f"{' '.join(command)}: {output}")
    return output


def _found(output: str, seconds: float) -> Found:
    if "search depth too small" in output or not (errors := re.search(r"errors: (\d+)", output)):
        raise SystemExit(f"The search is not complete: {output[-2000:]}")
    if "Search not completed" in output and not int(errors[1]):
        raise SystemExit("The search is not complete: it ran out of memory.")
    states, depth = re.search(r"(\d+) states, stored", output), re.search(r"depth reached (\d+)", output)
    assert states is not None
    assert depth is not None
    unreached = [line for line in re.findall(r"\.pml:\d+, state \d+, \"(.*)\"", output) if line != "-end-"]
    return Found(int(errors[1]), int(states[1]), int(depth[1]), len(unreached), seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="check two transactions with a crash or failover too")
    parser.add_argument("--trace", metavar="MISTAKE", help="print a counterexample for the mistake of this -D name")
    options = parser.parse_args()
    if missing := [program for program in NEEDED if not shutil.which(program)]:
        print(f"Not found: {', '.join(missing)}. On Debian: apt-get install spin gcc", file=sys.stderr)
        return 1
    if options.trace:
        defined = {names[0]: names for names in MISTAKES.values()}
        if options.trace not in defined:
            parser.error(f"--trace: one of {', '.join(defined)}")
        print(trace(*defined[options.trace]))
        return 0
    return _check_all(large=options.large)


def _check_all(*, large: bool) -> int:
    print(f"{'checked':68} {'bounds':18} {'states':>12} {'depth':>8} {'seconds':>8}")
    bounds = [SMALL, CRASHES, WRITERS, *([LARGE] if large else [])]
    right = [_line("safety", names, check(*names), errors=0) for names in bounds]
    right += [_line("liveness", names, check(*names, liveness=True), errors=0) for names in (SMALL, CRASHES)]
    right += [
        _line("liveness without the catch-up", SMALL, check("NO_CATCH_UP", *SMALL, liveness=True), errors=1),
        *(_line(mistake, names[1:], check(*names), errors=1) for mistake, names in MISTAKES.items()),
    ]
    return 0 if all(right) else 1


def _line(what: str, bounds: tuple[str, ...], found: Found, *, errors: int) -> bool:
    is_right = found.errors == errors
    verdict = ("holds" if not errors else "found") if is_right else f"WRONG: {found.errors} errors"
    figures = f"{' '.join(bounds):18} {found.states:12,} {found.depth:8,} {found.seconds:8.1f}"
    print(f"{what:68} {figures}  {verdict}", flush=True)
    return is_right


if __name__ == "__main__":
    sys.exit(main())
