"""Run the suite again and again under conditions that a newcomer's machine may have, and report what failed how often.

    python -m tests.endurance [--runs 20] [--from 7] [--only TEXT] [-- PYTEST ARGUMENTS]

Half of the runs have one busy process for each core beside them, the other half run the tests in another order, each
with a seed of its own, which is printed. Then the suite runs once on one core, once with ``fsync`` on, once in a folder
whose name has a blank, and once as an ordinary user without HOME; the last needs root, and is skipped without it.
Exits 1 if any test failed in any run. What pytest printed in each is kept in build/endurance. What follows ``--`` goes
to pytest, to try a few files.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
OUTPUTS = ROOT / "build" / "endurance"
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"
USER = "nobody"
LEFT_OUT = shutil.ignore_patterns(".venv", ".matrix", ".git", ".*_cache", "__pycache__", "build", "dist")
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S.*?)(?: - .*)?$", re.MULTILINE)


@dataclass
class Run:
    """How to start pytest once: its variables, its folder, and further arguments of Popen and pytest."""

    name: str
    env: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    folder: Path = ROOT
    workers: str = "auto"
    plugins: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def outcome(self, arguments: Sequence[str], kept: Path) -> tuple[list[str], str]:
        """Run pytest, keep what it prints in that file, and return the tests that failed and its last line."""
        plugins = [option for plugin in self.plugins for option in ("-p", plugin)]
        command = [sys.executable, "-m", "pytest", "-q", "-rfE", "--numprocesses", self.workers]
        with kept.open("w") as printed:
            status = subprocess.run(
                [*command, "--dist", "loadfile", "--no-loadscope-reorder", *plugins, *arguments],
                cwd=self.folder,
                env=self.env,
                stdout=printed,
                stderr=subprocess.STDOUT,
                check=False,
                **self.options,
            ).returncode
        output = kept.read_text()
        lines, failed = output.strip().splitlines() or [""], _FAILED.findall(output)
        if status and not failed:
            why = next((line for line in lines if line.startswith("ERROR")), lines[-1])
            failed = [f"pytest itself, exit status {status}: {why}"]
        return failed, lines[-1]


@contextmanager
def busy(run: Run) -> Iterator[None]:
    """Keep each core busy with a process that does nothing else."""
    del run
    loops = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@contextmanager
def shuffled(run: Run, seed: int) -> Iterator[None]:
    run.plugins = ("tests.support.shuffled",)
    run.env["SHUFFLE_SEED"] = str(seed)
    yield


@contextmanager
def on_one_core(run: Run) -> Iterator[None]:
    """Let this process and what it starts use one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    run.workers = "1"
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


@contextmanager
def on_a_slow_disk(run: Run) -> Iterator[None]:
    run.env["TESTS_FSYNC"] = "on"
    yield


@contextmanager
def in_a_folder_with_a_blank(run: Run) -> Iterator[None]:
    """Run a copy of the project from there."""
    with tempfile.TemporaryDirectory() as place:
        run.folder = Path(place, "with a blank")
        shutil.copytree(ROOT, run.folder, ignore=LEFT_OUT)
        run.env["PYTHONPATH"] = str(run.folder)
        yield


@contextmanager
def as_an_ordinary_user(run: Run) -> Iterator[None]:
    """Run a copy of the project that belongs to this user."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        run.folder, temporary = Path(place, "project"), Path(place, "temporary")
        shutil.copytree(ROOT, run.folder, ignore=LEFT_OUT)
        temporary.mkdir()  # Not in the project, whose settings pytest would find there.
        run.env.pop("HOME", None)
        run.env |= {"PYTHONPATH": str(run.folder), "USER": USER, "TMPDIR": str(temporary)}
        run.options = {"user": USER, "group": "nogroup", "extra_groups": []}
        subprocess.run(["chown", "-R", USER, run.folder, temporary], check=True)
        if subprocess.run([sys.executable, "-c", ""], env=run.env, check=False, **run.options).returncode:
            raise OSError(f"{USER} may not run {sys.executable}")
        yield


Condition = Callable[[Run], Any]


def conditions(runs: int) -> Iterator[tuple[str, Condition]]:
    for number in range(runs):
        if number % 2:
            yield f"shuffled, seed {number}", partial(shuffled, seed=number)
        else:
            yield "busy cores", busy
    yield "one core", on_one_core
    yield "fsync on", on_a_slow_disk
    yield "folder with a blank", in_a_folder_with_a_blank
    yield "ordinary user, HOME unset", as_an_ordinary_user


def endure(numbered: Iterable[tuple[int, tuple[str, Condition]]], arguments: Sequence[str]) -> Mapping[str, list[str]]:
    """Run the tests under each condition, print a line for each, and return the runs in which each test failed."""
    failures: dict[str, list[str]] = defaultdict(list)
    OUTPUTS.mkdir(parents=True, exist_ok=True)
    for number, (name, condition) in numbered:
        run, began_s = Run(name), time.monotonic()
        with ExitStack() as stack:
            try:
                stack.enter_context(condition(run))
            except (OSError, AttributeError) as error:  # Not on this system, or not without root.
                print(f"{number:2} {name:28} skipped: {error}", flush=True)
                continue
            failed, last = run.outcome(arguments, OUTPUTS / f"{number:02} {name}.txt")
        for test in failed:
            failures[test].append(f"{number} {name}")
        print(f"{number:2} {name:28} {time.monotonic() - began_s:6.0f} s  {len(failed)} failed  ({last})", flush=True)
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="how many runs with busy cores or in another order")
    parser.add_argument("--from", type=int, default=1, dest="first", help="the number of the first run, to go on")
    parser.add_argument("--only", default="", metavar="TEXT", help="run only the conditions whose name has this text")
    parser.add_argument("arguments", nargs="*", help="what pytest gets")
    options = parser.parse_args()
    numbered = enumerate(conditions(options.runs), start=1)
    chosen = [one for one in numbered if one[0] >= options.first and options.only in one[1][0]]
    failures = endure(chosen, options.arguments)
    for test, runs in sorted(failures.items(), key=lambda one: -len(one[1])):
        print(f"failed {len(runs)} times: {test}  ({'; '.join(runs)})")
    print(f"{len(failures)} tests failed." if failures else "Nothing failed.", f"What pytest printed is in {OUTPUTS}.")
    return 1 if failures or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
