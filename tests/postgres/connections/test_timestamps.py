"""Whatever timestamps somebody wrote with plain SQL, they are read as moments of the calendar."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from smarter_auth_mw.postgres.connections.connector import Connector
from smarter_auth_mw.postgres.connections.timestamps import EARLIEST, LATEST
from smarter_auth_mw.postgres.faults import close
from tests.support.database import Database


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("infinity", LATEST),
        ("294276-12-31 23:59:59 UTC", LATEST),
        ("10000-01-01 00:00:00 UTC", LATEST),
        ("9999-12-31 23:59:59.999999 UTC", LATEST),
        ("1969-12-31 23:59:59.999999 UTC", datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        ("2026-03-29 02:30:00 Europe/Berlin", datetime(2026, 3, 29, 1, 30, tzinfo=UTC)),
        ("0001-01-01 00:00:00 UTC", EARLIEST),
        ("0001-12-31 23:59:59 UTC BC", EARLIEST),
        ("4714-11-24 00:00:00 UTC BC", EARLIEST),
        ("-infinity", EARLIEST),
    ],
)
async def test_each_timestamp_is_read_as_a_moment_of_the_calendar(
    database: Database, written: str, read: datetime
) -> None:
    connection = await Connector(database.runtime).connect()
    try:
        row = await connection.fetchrow(
            f"SELECT it, ARRAY[it] AS list, ROW(it) FROM (SELECT '{written}'::timestamptz) AS written (it)"
        )
        assert (row["it"], row["list"], tuple(row["row"])) == (read, [read], (read,))
        assert row["it"].tzinfo is UTC
        again = await connection.fetchrow("SELECT $1::timestamptz, ($2::timestamptz[])[1]", read, [read])
        assert tuple(again) == (read, read)
        local = read.astimezone().replace(tzinfo=None) if EARLIEST < read < LATEST else datetime(2026, 1, 1)
        assert await connection.fetchval("SELECT $1::timestamptz", local) == local.astimezone(UTC)
    finally:
        await close(connection)
