"""Imports that run side by side, and what somebody else writes while a file is read."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest

from tests.support.cli import PROGRAM, environment
from tests.support.database import Database

PATIENCE_S = 60
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = $1"


@contextmanager
def importing(database: Database, *files: str) -> Iterator[list[subprocess.Popen[str]]]:
    """``smarter-auth import`` of each file, side by side."""
    settings = environment(database_url=database.manager, routes="bot /bots/{ref:int}")
    runs = [
        subprocess.Popen(
            [*PROGRAM, "import", file, "--json"],
            env=settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for file in files
    ]
    try:
        yield runs
    finally:
        for run in runs:
            run.kill()
            run.communicate()


async def until_waiting(owner: asyncpg.Connection, runs: list[subprocess.Popen[str]]) -> None:
    database = await owner.fetchval("SELECT oid FROM pg_database WHERE datname = current_database()")
    deadline_s = time.monotonic() + PATIENCE_S
    while await owner.fetchval(WAITING, database) < len(runs):
        assert time.monotonic() < deadline_s, "Nobody waits for the lock."
        assert [run.poll() for run in runs] == [None] * len(runs), [run.communicate() for run in runs]
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("has_digests", [True, False], ids=["digests", "minted"])
async def test_of_two_imports_of_one_file_at_once_the_second_changes_nothing(
    database: Database, owner: asyncpg.Connection, tmp_path: Path, *, has_digests: bool
) -> None:
    digests = [hashlib.sha512(b"race %d" % ref).hexdigest() if has_digests else "" for ref in range(3)]
    lines = [f"bot:{ref},key {ref},{digest}" for ref, digest in enumerate(digests, 1)]
    file = tmp_path / "in.csv"
    file.write_text("\n".join(["resource,key,digest", *lines, ""]))
    held = owner.transaction()
    await held.start()
    await owner.execute("LOCK TABLE smarter_auth.resource IN SHARE MODE")  # Everybody reads, and nobody writes.
    with importing(database, str(file), str(file)) as runs:
        await until_waiting(owner, runs)
        await held.rollback()
        ended = [run.communicate(timeout=PATIENCE_S) for run in runs]
        assert [run.returncode for run in runs] == [0, 0], ended
    documents = [json.loads(out) for out, _ in ended]
    assert sorted(document["unchanged"] for document in documents) == [0, 3]
    assert sorted(document["keys"] for document in documents) == [0, 3]
    assert await owner.fetchval("SELECT count(*) FROM smarter_auth.key") == 3
