"""A place in memory for the databases of the tests, where the machine has one.

A copy of a database is hundreds of files, made and removed again for each test. ext4 gives out no inode that was freed
a few seconds ago, and looks at all of those for each new file: what takes 15 ms in memory takes 150 ms there.
"""

from __future__ import annotations

import os
import shutil
import tempfile
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
    """Whether databases are kept in memory; what processes that were killed have left there is removed."""
    if FSYNC == "on" or not os.access(MEMORY, os.W_OK):
        return False
    for left in MEMORY.glob(f"{NAME}-*"):
        if not Path("/proc", left.name.split("-")[-2]).exists():
            shutil.rmtree(left, ignore_errors=True)
    return shutil.disk_usage(MEMORY).free >= ENOUGH


def fast_directory() -> Path:
    """A new directory, in memory if that can be."""
    where = MEMORY if has_memory() else None
    return Path(tempfile.mkdtemp(prefix=f"{NAME}-{os.getpid()}-", dir=where))
