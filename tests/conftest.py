"""Fixtures that every test file may use."""

from __future__ import annotations

pytest_plugins = [
    "smarter_auth_mw.pytest_plugin",
    "tests.support.database",
    "tests.support.change",
    "tests.support.asgi",
    "tests.support.cli",
    "tests.support.faults",
    "tests.support.platform",
]
