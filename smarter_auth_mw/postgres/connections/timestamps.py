"""Reads timestamps that Python's datetime cannot hold: infinity, -infinity, and years outside 1 to 9999.

asyncpg returns a datetime without time zone for infinity, and raises OverflowError for the years. One such value,
written with plain SQL, would make a whole list fail.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

_BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)
"""The epoch of PostgreSQL's timestamps."""
EARLIEST = datetime.min.replace(tzinfo=UTC)
LATEST = datetime.max.replace(tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


async def read_all_timestamps(connection: Any) -> None:
    """Have the connection return the first or last datetime for what is outside the calendar.

    It takes no round trip, except with asyncpg 0.30.
    """
    await connection.set_type_codec(
        "timestamptz", schema="pg_catalog", encoder=_encoded, decoder=_decoded, format="tuple"
    )


def _encoded(time: datetime) -> tuple[int]:
    aware = time if time.tzinfo else time.astimezone()  # like asyncpg
    return ((aware - _BEGINNING) // _MICROSECOND,)


def _decoded(value: tuple[int]) -> datetime:
    try:
        return _BEGINNING + timedelta(microseconds=value[0])
    except OverflowError:
        return LATEST if value[0] > 0 else EARLIEST
