"""Connections open when they are needed and close when their loop ends, in every way that apps are run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from smarter_auth_mw.domain import Resource
from smarter_auth_mw.management.keys import Management
from tests.support.database import Database
from tests.support.lifecycle_scenarios import SCENARIOS

STRICT = ["-X", "dev", "-W", "error", "-W", "ignore:Using `httpx`"]


@pytest.mark.parametrize("name", SCENARIOS)
async def test_it_runs_without_a_warning(name: str, database: Database, keys: Management) -> None:
    minted = await keys.create("laptop", bind=[Resource("bot", "1")])
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SMARTER_AUTH_")},
        "SMARTER_AUTH_DATABASE_URL": database.runtime,
        "SMARTER_AUTH_ROUTES": "bot /bots/{ref:int}",
        "TOKEN": minted.token.reveal(),
    }
    done = subprocess.run(
        [sys.executable, *STRICT, "-m", "tests.support.lifecycle_scenarios", name],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    told = [line for line in done.stderr.splitlines() if "smarter_auth" not in line or "Warning" in line]
    assert done.returncode == 0, done.stderr
    assert minted.token.reveal() not in done.stderr
    assert not [line for line in told if "Error" in line or "Warning" in line or "never" in line], done.stderr
