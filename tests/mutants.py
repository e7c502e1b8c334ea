"""Plant small mistakes in the heart of the package, one at a time, and report those that no test notices.

    python -m tests.mutants [MODULE …] [--jobs 2] [--only TEXT]

A module is a name of ``tests/mutants.toml``, for example ``decision`` or ``cache.entries``; without one, all are tried.
The file names the tests that concern a module, and the mutants that are the same program, each with the reason. A
mutant is killed by the first test that fails, and by a run that takes ten times as long as without it. Exits 1 if one
survives that is not listed, or if one is listed that does not survive.

Each mutant is a process that is forked when all libraries are imported, so that one takes about a second. That, and
that methods of decorated classes, properties and tables are mutated too, is why this is neither mutmut nor cosmic-ray.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

import pytest

import tests.support.examples  # noqa: F401  # Loads the profile.
from tests.support.mutation import Mutant, mutants

ROOT = Path(__file__).parent.parent
PACKAGE = "smarter_auth_mw"
LISTED = Path(__file__).with_suffix(".toml")
SLOWER = 10
"""How many times longer than without a mistake a run may take, before the mistake counts as an endless loop."""
PATIENCE_S = 30.0
PYTEST = ("-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "--timeout=20", "--assert=plain")
"""Plain, because pytest would load the package itself, to rewrite its assertions, before a mutant could be found."""
NOT_BEFORE = {PACKAGE, "tests", "pytest_asyncio", "pytest_cov", "pytest_timeout", "xdist", "_hypothesis_pytestplugin"}
"""What a mutant's process imports itself: the code under test, and plugins of pytest."""


@dataclass(frozen=True, slots=True)
class Module:
    """A module of the package, the tests that concern it, and the mutants that no test can kill.

    ``options`` are those of pytest: by default no fixtures of the suite, which take as long to load as a mutant's run.
    ``then`` are slower tests, which are run if no test has failed; all share one PostgreSQL.
    """

    name: str
    tests: list[str]
    options: Sequence[str] = ("--noconftest",)
    then: Sequence[str] = ()
    same: dict[str, str] = field(default_factory=dict)

    @property
    def arguments(self) -> list[str]:
        """The arguments of pytest."""
        return [*PYTEST, *self.options, *self.tests]

    def run(self) -> int:
        """Run the tests; returns what pytest does, which is 0 if all pass."""
        return int(pytest.main(self.arguments)) or (int(pytest.main([*PYTEST, *self.then])) if self.then else 0)

    @property
    def path(self) -> Path:
        return ROOT / PACKAGE / f"{self.name.replace('.', '/')}.py"


class Mistaken(SourceFileLoader):
    """Loads a module with other code."""

    def __init__(self, module: Module, code: CodeType) -> None:
        super().__init__(f"{PACKAGE}.{module.name}", str(module.path))
        self._code = code

    def get_code(self, fullname: str) -> CodeType:
        return self._code


class Planted(MetaPathFinder):
    """Finds one module, and has its mutant loaded."""

    def __init__(self, module: Module, code: CodeType) -> None:
        self._loader = Mistaken(module, code)

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        loader = self._loader
        return spec_from_file_location(fullname, loader.path, loader=loader) if fullname == loader.name else None


class Run(NamedTuple):
    """A process that runs tests against a mutant."""

    mutant: Mutant
    deadline_s: float


def modules() -> dict[str, Module]:
    return {name: Module(name, **entry) for name, entry in tomllib.loads(LISTED.read_text("utf-8")).items()}


def started(module: Module, code: CodeType | None) -> int:
    """Start a process that runs the module's tests, with this code if there is any; returns its id."""
    if pid := os.fork():
        return pid
    os.setpgid(0, 0)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    if code is not None:
        sys.meta_path.insert(0, Planted(module, code))
    os._exit(module.run())


def survivors(module: Module, chosen: Sequence[Mutant], jobs: int, allowed_s: float) -> Iterator[Mutant]:
    """Run the tests against each mutant, ``jobs`` at a time, and yield those that pass."""
    waiting, running = list(reversed(chosen)), dict[int, Run]()
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            running[started(module, mutant.code)] = Run(mutant, time.monotonic() + allowed_s)
        for pid, run in list(running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended and time.monotonic() < run.deadline_s:
                continue
            with suppress(ProcessLookupError):  # And the servers that a test left behind when it failed.
                os.killpg(pid, signal.SIGKILL)
            if not ended:
                os.waitpid(pid, 0)
            elif os.waitstatus_to_exitcode(status) == 0:
                yield run.mutant
            del running[pid]
        time.sleep(0.02)


def baseline_s(module: Module) -> float:
    """Run the tests without a mistake, and return how long that took; they have to pass."""
    began_s = time.monotonic()
    if os.waitpid(started(module, None), 0)[1]:
        raise SystemExit(f"{module.name}: its tests fail without a mutant: pytest {' '.join(module.tests)}")
    took_s = time.monotonic() - began_s
    if not os.waitpid(started(module, compile("raise ImportError", module.name, "exec")), 0)[1]:
        raise SystemExit(
            f"{module.name}: its tests do not load it, or something loads it before a mutant can be found."
        )
    return took_s


def judge(module: Module, jobs: int, only: str) -> bool:
    """Try each mutant of the module, print the result, and return whether it is as the list says."""
    chosen = [mutant for mutant in mutants(module.path) if only in mutant.name]
    allowed_s = baseline_s(module) * SLOWER + PATIENCE_S
    print(f"{module.name}: {len(chosen)} mutants, at most {allowed_s:.0f} s each", flush=True)
    alive = set()
    for mutant in survivors(module, chosen, jobs, allowed_s):
        alive.add(mutant.name)
        if mutant.name not in module.same:
            print(f"    survived, line {mutant.line}: {mutant.name}", flush=True)
    gone = [name for name in module.same if only in name and name not in alive]
    news = alive - module.same.keys()
    counted = len(chosen) - len(alive) + len(news)
    share = 100 * (counted - len(news)) / counted if counted else 100.0
    same = len(alive) - len(news)
    print(f"{module.name}: {counted - len(news)} of {counted} killed, {share:.1f} %; {same} are the same program")
    for name in gone:
        print(f"    listed, but killed or no mutant: {name}")
    sys.stdout.flush()
    return not news and not gone


def import_libraries(module: Module) -> None:
    """Import what the tests will import, but not the package: what a mutant's process need not do."""
    reading, writing = os.pipe()
    if not (pid := os.fork()):
        write_names(module, writing)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as names:
        libraries = names.read().split()
    os.waitpid(pid, 0)
    for name in libraries:
        with suppress(Exception):
            importlib.import_module(name)
    gc.freeze()


def write_names(module: Module, writing: int) -> None:
    """Collect the module's tests, and write the names of the libraries that this imports."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    pytest.main([*module.arguments, "--collect-only"])
    names = [name for name in sys.modules if name.partition(".")[0] not in NOT_BEFORE]
    with os.fdopen(writing, "w") as pipe:
        pipe.write("\n".join(names))


@contextmanager
def postgresql() -> Iterator[None]:
    """Have a PostgreSQL, which would take each mutant's process seconds to start."""
    command = [sys.executable, "-m", "tests.support.database"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        os.environ["TESTS_CLUSTER"] = server.stdout.readline().strip()
        yield


def main(arguments: Any = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", metavar="MODULE")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="try the mutants whose name has this text")
    options = parser.parse_args(arguments)
    known = modules()
    if unknown := set(options.modules) - set(known):
        parser.error(f"no such module: {', '.join(unknown)}; there are {', '.join(known)}")
    os.chdir(ROOT)
    chosen = [known[name] for name in options.modules or known]
    import_libraries(chosen[0])
    with postgresql() if any(module.then for module in chosen) else nullcontext():
        verdicts = [judge(module, options.jobs, options.only) for module in chosen]
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
