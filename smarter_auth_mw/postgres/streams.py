"""Reads and writes many rows with unnamed statements, which work through a transaction pooler.

asyncpg's own cursors and copies of records prepare statements by name, whatever its cache is set to.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Sequence
from datetime import datetime
from typing import Any
from zlib import crc32

AT_ONCE = 10_000
_CHUNK = 1_000

_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


async def rows_of(connection: Any, query: str) -> AsyncGenerator[Sequence[Any]]:
    """Yield the rows of a query without arguments, in chunks; inside a transaction."""
    name = f"smarter_auth_{crc32(query.encode()):x}"  # One name per query, since asyncpg caches row types by name.
    await connection.execute(f"DECLARE {name} NO SCROLL CURSOR FOR {query}")
    while rows := await connection.fetch(f"FETCH {AT_ONCE} FROM {name}"):
        yield rows
    await connection.execute(f"CLOSE {name}")


async def copy_in(
    connection: Any, table: str, columns: Sequence[str], records: AsyncIterable[Sequence[Any]] | Iterable[Sequence[Any]]
) -> None:
    """Append the records to a temporary table, by COPY."""
    await connection.copy_to_table(table, schema_name="pg_temp", columns=columns, source=_chunks(records))


async def _chunks(records: AsyncIterable[Sequence[Any]] | Iterable[Sequence[Any]]) -> AsyncIterator[bytes]:
    """Yield COPY's text format, some lines at a time."""
    lines: list[str] = []
    async for record in _each(records):
        lines.append("\t".join(map(_written, record)))
        if len(lines) == _CHUNK:
            yield ("\n".join(lines) + "\n").encode()
            lines.clear()
    if lines:
        yield ("\n".join(lines) + "\n").encode()


async def _each(records: AsyncIterable[Sequence[Any]] | Iterable[Sequence[Any]]) -> AsyncIterator[Sequence[Any]]:
    if isinstance(records, AsyncIterable):
        async for record in records:
            yield record
    else:
        for record in records:
            yield record


def _written(value: Any) -> str:
    if value is None:
        return r"\N"
    if isinstance(value, str):
        return value.translate(_ESCAPES)
    if isinstance(value, bytes):
        return rf"\\x{value.hex()}"
    return value.isoformat() if isinstance(value, datetime) else str(value)
