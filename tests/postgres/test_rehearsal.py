"""What doctor tries of the statements that serving needs: all of them, and without a trace."""

from __future__ import annotations

import re
from pathlib import Path

import asyncpg

from smarter_auth_mw import postgres
from smarter_auth_mw.postgres import rehearsal
from smarter_auth_mw.postgres.store import Store

FOR_PEOPLE = {"may_change_audit", "notify", "read_clock", "read_vitals"}
"""What only doctor and the command line ask for."""


def test_every_statement_of_the_serving_side_is_tried() -> None:
    place = Path(postgres.__file__).parent
    texts = [place.joinpath(f"{module}.py").read_text() for module in ("store", "notifications", "pool")]
    used = {name for text in texts for name in re.findall(r"QUERIES\.(\w+)", text)}
    assert used - FOR_PEOPLE == set(rehearsal.STATEMENTS)


async def test_where_nothing_is_wrong_none_fails_and_nothing_is_left(store: Store, owner: asyncpg.Connection) -> None:
    count = "SELECT count(*) FROM pg_class WHERE relname LIKE 'usage_%'"
    before = await owner.fetchval(count)
    assert [name async for name, _ in rehearsal.failing(store)] == []
    assert await owner.fetchval(count) == before
    assert await owner.fetchval("SELECT count(*) FROM smarter_auth.usage_batch") == 0


async def test_each_statement_that_fails_is_named(store: Store, owner: asyncpg.Connection) -> None:
    await owner.execute("ALTER TABLE smarter_auth.meta RENAME COLUMN secret TO hidden")
    await owner.execute("ALTER TABLE smarter_auth.usage_batch RENAME TO gone")
    async with store._pool.acquire():  # It was checked before.
        failing = [name async for name, _ in rehearsal.failing(store)]
    assert failing == ["read_secret", "write_usage", "drop_old_usage", "write_requests"]
