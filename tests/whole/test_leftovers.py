"""What a killed run of the tests leaves, the next one removes."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.memory import NAME, remove_leftovers

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="it is the kernel who says who lives")


@pytest.mark.parametrize("lives", [False, True])
def test_place_and_server_of_a_process_that_was_killed_go_and_those_of_others_stay(lives: bool, tmp_path: Path) -> None:
    home, left = tmp_path / "home", tmp_path / f"{NAME}-{os.getpid() if lives else dead()}-random"
    (home / "data").mkdir(parents=True)
    left.mkdir()
    (left / "elsewhere").symlink_to(home)
    with subprocess.Popen(["sleep", "600"], cwd=home / "data") as server:
        (home / "data" / "postmaster.pid").write_text(f"{server.pid}\n")
        remove_leftovers([tmp_path])
        assert [home.exists(), left.exists()] == [lives, lives]
        if lives:
            server.kill()
        assert server.wait(60) == -(signal.SIGKILL if lives else signal.SIGQUIT)


def dead() -> int:
    """A process that is no more."""
    with subprocess.Popen(["true"]) as process:
        return process.pid
