"""A process that is forked from a warm interpreter is like one that a fresh interpreter runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.embedded import wait_for
from tests.support.warm import PYTHON, interpreter

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every process starts cold")

SAYS = """
import json, os, signal, sys
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGCHLD)
print(json.dumps({
    "arguments": sys.argv, "folder": os.getcwd(), "own": os.environ.get("OWN"), "read": sys.stdin.read(),
    "imports from": sys.path[0], "is main": __name__, "descriptors": sorted(map(int, os.listdir("/proc/self/fd")))[:-1],
    "streams": [[one.encoding, one.errors, one.line_buffering, one.write_through] for one in (sys.stdout, sys.stderr)],
    "signals": [getattr(signal.getsignal(one), "__name__", str(signal.getsignal(one))) for one in SIGNALS],
}))
print("and more", file=sys.stderr)
sys.exit(7)
"""
IS_WARM = "import sys; print('uvicorn' in sys.modules)"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return tmp_path / "script.py"


def ran(command: list[str], env: Mapping[str, str], folder: Path, kept: int) -> tuple[int, str, str]:
    done = subprocess.run(
        command, input="hello", env=env, cwd=folder, pass_fds=[kept], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("way", [["script.py"], ["-m", "script"]])
def test_it_finds_what_a_fresh_one_finds(way: list[str], unbuffered: str, script: Path) -> None:
    script.write_text(SAYS)
    reading, writing = os.pipe()
    env = os.environ | {"OWN": "value", "PYTHONUNBUFFERED": unbuffered}
    try:
        warm, fresh = [ran([*how, *way, "a b", "c"], env, script.parent, reading) for how in (PYTHON, [sys.executable])]
    finally:
        os.close(reading)
        os.close(writing)
    assert warm == fresh
    assert warm[0] == 7


def is_warm(*arguments: str, **variables: str) -> str:
    command, env = [*PYTHON, *arguments], os.environ | variables
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout


def test_what_an_interpreter_reads_when_it_starts_gets_one_of_its_own(script: Path) -> None:
    script.write_text(IS_WARM)
    assert is_warm(str(script)) == "True\n"
    assert is_warm("-c", IS_WARM) == is_warm("-W", "error", str(script)) == "False\n"
    assert is_warm(str(script), PYTHONPATH=str(script.parent)) == is_warm(str(script), TESTS_WARM="/none") == "False\n"


def test_processes_start_cold_when_the_interpreter_has_ended(script: Path) -> None:
    script.write_text(IS_WARM)
    with tempfile.TemporaryDirectory() as folder, interpreter(Path(folder)) as server:
        assert is_warm(str(script), TESTS_WARM=f"{folder}/socket") == "True\n"
        server.kill()
        server.wait(60)
        assert is_warm(str(script), TESTS_WARM=f"{folder}/socket") == "False\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_it_and_it_ends_with_the_program_that_stands_for_it(number: signal.Signals, script: Path) -> None:
    script.write_text("import os, signal; print(os.getpid(), flush=True); signal.pause()")
    with subprocess.Popen([*PYTHON, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert pid != process.pid
        process.send_signal(number)
        assert process.wait(60) == -number
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "its end")
