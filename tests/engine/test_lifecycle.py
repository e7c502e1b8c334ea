"""Connections open when they are needed and close when their loop ends, in every way that apps are run."""

from __future__ import annotations

import asyncio
import os
import subprocess

import pytest

from smarter_auth_mw import Settings
from smarter_auth_mw.domain import Resource, Target
from smarter_auth_mw.engine.assembly import open_engine
from smarter_auth_mw.management.keys import Management
from tests.support.asgi import KEYED
from tests.support.database import Database
from tests.support.lifecycle_scenarios import SCENARIOS
from tests.support.valkey import free_port


@pytest.mark.parametrize("name", SCENARIOS)
async def test_it_runs_without_a_warning(
    name: str, database: Database, keys: Management, strict_python: list[str]
) -> None:
    minted = await keys.create("laptop", bind=[Resource("bot", "1")])
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SMARTER_AUTH_")},
        "SMARTER_AUTH_DATABASE_URL": database.runtime,
        "SMARTER_AUTH_ROUTES": "bot /bots/{ref:int}",
        "TOKEN": minted.token.reveal(),
    }
    done = subprocess.run(
        [*strict_python, "-m", "tests.support.lifecycle_scenarios", name],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    told = [line for line in done.stderr.splitlines() if "smarter_auth" not in line or "Warning" in line]
    assert done.returncode == 0, done.stderr
    assert minted.token.reveal() not in done.stderr
    assert not [line for line in told if "Error" in line or "Warning" in line or "never" in line], done.stderr


async def test_what_is_read_right_after_a_start_is_not_read_a_second_time(database: Database, keys: Management) -> None:
    await keys.create("laptop", bind=[KEYED])
    async with open_engine(Settings(database_url=database.runtime, routes=["bot /bots/{ref}"])) as engine:
        read = await engine.cache.get(Target(KEYED))
        beats = engine.listener.beats
        while engine.listener.beats == beats:
            await asyncio.sleep(0.01)
        assert engine.cache.peek(Target(KEYED)) is read


async def test_a_start_does_not_wait_for_a_listener_that_nobody_answers(database: Database) -> None:
    nowhere = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    settings = Settings(database_url=database.runtime, listen_url=nowhere, routes=["bot /bots/{ref}"])
    async with open_engine(settings) as engine:
        assert not engine.listener.beats
