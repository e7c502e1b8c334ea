"""Fixtures that every test file may use."""

from __future__ import annotations

import signal
import threading

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = [
    "smarter_auth_mw.pytest_plugin",
    "tests.support.database",
    "tests.support.change",
    "tests.support.asgi",
    "tests.support.cli",
    "tests.support.faults",
    "tests.support.platform",
]

# The same examples everywhere, however slow the machine is; `make fuzz` searches for others.
settings.register_profile("suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

# A shell that starts the suite in the background has it ignore Ctrl-C, and so would every command that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

LONGEST = {"whole", "cli", "docs"}
"""Rooms whose files take minutes: they begin first, so that no worker is busy with one while the others are idle."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.parent.name not in LONGEST)
