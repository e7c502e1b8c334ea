"""Fixtures that every test file may use."""

from __future__ import annotations

pytest_plugins = [
    "smarter_auth_mw.pytest_plugin",
    "tests.database_support",
    "tests.change_support",
    "tests.asgi_support",
    "tests.cli_support",
    "tests.faults_support",
    "tests.platform_support",
]
