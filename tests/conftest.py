"""Fixtures that every test file may use."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Generator, Iterator
from functools import cache

import httpx
import httpx._transports.default
import pytest
import typer

import tests.support.examples  # noqa: F401  # Loads the profile.
from smarter_auth_mw.cache import admission
from smarter_auth_mw.engine import loop_thread
from smarter_auth_mw.postgres import pool

pytest_plugins = [
    "smarter_auth_mw.pytest_plugin",
    "tests.support.warm",
    "tests.support.database",
    "tests.support.embedded",
    "tests.support.change",
    "tests.support.asgi",
    "tests.support.cli",
    "tests.support.faults",
    "tests.support.platform",
]

# A shell that starts the suite in the background has it ignore Ctrl-C, and so would every command that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)

# Each client of httpx would read the certificates of all authorities, which costs more than most tests do.
vars(httpx._transports.default)["create_ssl_context"] = cache(httpx.create_ssl_context)
# A command that runs in this process would first build all commands from their signatures: most of its time.
vars(typer.main)["get_command"] = cache(typer.main.get_command)
# Look-ups wait for their turn however slow the machine is.
vars(admission)["WAIT_S"] = 600.0
# So do the queries of a test's own pool, unless the test sets another limit.
pool.open_pool.__wrapped__.__kwdefaults__["query_timeout_s"] = 60.0  # type: ignore[attr-defined]


@pytest.fixture(scope="module", autouse=True)
def closed() -> Iterator[None]:
    """Each file closes its WSGI apps: at the end of the process their databases are gone."""
    yield
    left = [thread for thread in loop_thread._threads if thread._portal is not None]
    loop_thread.close_all()
    assert not left, "Close the WSGI apps that these tests have used."


LONGEST = ("docs", "whole", "pages", "cli")
"""Rooms whose files take minutes: they begin first, so that no worker is busy with one while the others are idle."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two workers per core on small machines: half of the time a test waits for another process."""
    cores = os.cpu_count() or 1
    return max(cores, min(2 * cores, 8))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is collected stays until the end: looking for garbage in it took a third of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {room: rank for rank, room in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.parent.name, len(LONGEST)))
