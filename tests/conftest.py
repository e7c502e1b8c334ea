"""Fixtures that every test file may use."""

from __future__ import annotations

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
