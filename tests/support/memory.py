"""A place in memory for the databases of the tests, where the machine has one.

A copy of a database is hundreds of files, made and removed again for each test. ext4 gives out no inode that was freed
a few seconds ago, and looks at all of those for each new file: what takes 15 ms in memory takes 150 ms there.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

MEMORY = Path("/dev/shm")
NAME = "smarter-auth-tests"
ENOUGH = 2 << 30
"""Bytes that have to be free: several workers have several databases each, and servers of their own."""
FSYNC = os.environ.get("TESTS_FSYNC", "off")
"""``on`` to run the tests as on a slow disk, and then on the disk."""


@cache
def has_memory() -> bool:
    """Whether databases are kept in memory."""
    if FSYNC == "on" or not os.access(MEMORY, os.W_OK):
        return False
    return shutil.disk_usage(MEMORY).free >= ENOUGH


def fast_directory() -> Path:
    """A new directory, in memory if that can be; if this process is killed, the next that asks for one removes it."""
    _remove_leftovers()
    where = MEMORY if has_memory() else None
    return Path(tempfile.mkdtemp(prefix=f"{NAME}-{os.getpid()}-", dir=where))


def reminder(home: Path) -> Path:
    """A directory that has the same done to this place of a server, which lies elsewhere."""
    directory = fast_directory()
    (directory / "elsewhere").symlink_to(home)
    return directory


@cache
def _remove_leftovers() -> None:
    remove_leftovers((MEMORY, Path(tempfile.gettempdir())))


def remove_leftovers(places: Iterable[Path]) -> None:
    """Remove what processes have left there that were killed, and end the servers that run in it."""
    for left in [left for place in places for left in place.glob(f"{NAME}-*-*")]:
        if not Path("/proc", left.name.split("-")[-2]).exists() and Path("/proc/self").exists():
            for home in (left, (left / "elsewhere").resolve()):
                _end_server(home / "data")
                shutil.rmtree(home, ignore_errors=True)


def _end_server(data: Path) -> None:
    with suppress(OSError, ValueError):
        postmaster = int((data / "postmaster.pid").read_text().splitlines()[0])
        if Path(f"/proc/{postmaster}/cwd").resolve() == data.resolve():
            os.kill(postmaster, signal.SIGQUIT)
