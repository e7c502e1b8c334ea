"""Fixtures that every test file may use."""

from __future__ import annotations

import os
import signal
import threading
from functools import cache

import httpx
import httpx._transports.default
import pytest

import tests.support.examples  # noqa: F401  # Loads the profile.

pytest_plugins = [
    "smarter_auth_mw.pytest_plugin",
    "tests.support.database",
    "tests.support.change",
    "tests.support.asgi",
    "tests.support.cli",
    "tests.support.faults",
    "tests.support.platform",
]

# A shell that starts the suite in the background has it ignore Ctrl-C, and so would every command that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Each client of httpx would read the certificates of all authorities, which costs more than most tests do.
vars(httpx._transports.default)["create_ssl_context"] = cache(httpx.create_ssl_context)

LONGEST = ("docs", "whole", "pages", "cli")
"""Rooms whose files take minutes: they begin first, so that no worker is busy with one while the others are idle."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two workers per core on small machines: half of the time a test waits for another process."""
    cores = os.cpu_count() or 1
    return max(cores, min(2 * cores, 8))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {room: rank for rank, room in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.parent.name, len(LONGEST)))
