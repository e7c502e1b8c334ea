"""Measure a year of usage of 10,000 keys: its size, the time of queries, and the time to write a batch.

    python -m benchmarks.usage_year [--keys 10000] [--hours 8] [--minutes 60]

Every key is used every day of the year, in ``hours`` hours of each of the last 90 days, and in ``minutes`` minutes of
each of the last two days. Most real keys are used less.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from benchmarks.database import migrated
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.management.listings import Listings, UsageFilters
from smarter_auth_mw.observers.usage import GRANTED, Batch, Series
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store

ROUNDS = 3

# A key's id is the MD5 of its number, so that Python can name it too.
_KEYS = """
INSERT INTO smarter_auth.key (key_id, name) SELECT md5(n::text)::uuid, 'key ' || n FROM generate_series(1, $1::int) AS n
"""
_SERIES = """
INSERT INTO smarter_auth.usage_series (kind, ref, key_id, token_key, outcome)
SELECT 'bot', n, md5(n::text)::uuid, left(md5(n::text), 15), 'grant' FROM generate_series(1, $1::int) AS n
"""
_PARTITIONS = """
SELECT smarter_auth.make_usage_partition($1, at)
  FROM generate_series(now() - $2::interval, now(), interval '1 day') AS at
"""
_DAYS = """
INSERT INTO smarter_auth.usage_day
SELECT id, at, 1 + id % 500
  FROM generate_series(date_trunc('day', now(), 'UTC') - interval '364 days', now(), '1 day') AS at
 CROSS JOIN smarter_auth.usage_series
"""
_HOURS = """
INSERT INTO smarter_auth.usage_hour
SELECT id, at, 1 + id % 60
  FROM generate_series(date_trunc('day', now(), 'UTC') - interval '89 days', now(), '1 hour') AS at
 CROSS JOIN smarter_auth.usage_series
 WHERE (id + extract(hour FROM at)::int) % 24 < $1
"""
_MINUTES = """
INSERT INTO smarter_auth.usage_minute
SELECT id, at, 1 + id % 7
  FROM generate_series(date_trunc('minute', now()) - interval '47 hours', now(), '1 minute') AS at
 CROSS JOIN smarter_auth.usage_series
 WHERE (id + extract(epoch FROM at)::bigint / 60) % 1440 < $1
"""
_SIZES = """
SELECT (SELECT count(*) FROM pg_inherits WHERE inhparent = parent.oid) AS partitions,
       (SELECT sum(pg_table_size(inhrelid)) FROM pg_inherits WHERE inhparent = parent.oid)::bigint AS table,
       (SELECT sum(pg_indexes_size(inhrelid)) FROM pg_inherits WHERE inhparent = parent.oid)::bigint AS index,
       (SELECT sum(reltuples)
          FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = parent.oid)::bigint AS rows
  FROM pg_class AS parent WHERE oid = $1::regclass
"""


async def fill(owner: asyncpg.Connection, keys: int, hours: int, minutes: int) -> None:
    began = time.perf_counter()
    await owner.execute("SET synchronous_commit = off")
    for statement in (_KEYS, _SERIES):
        await owner.execute(statement, keys)
    for grain, span in (("day", 364), ("hour", 89), ("minute", 2)):
        await owner.execute(_PARTITIONS, grain, timedelta(days=span))
    await owner.execute(_DAYS)
    await owner.execute(_HOURS, hours)
    await owner.execute(_MINUTES, minutes)
    await owner.execute("VACUUM ANALYZE")
    print(f"filled in {time.perf_counter() - began:.0f} s")


async def print_sizes(owner: asyncpg.Connection) -> None:
    for grain in ("minute", "hour", "day"):
        row = await owner.fetchrow(_SIZES, f"smarter_auth.usage_{grain}")
        assert row is not None
        size = f"{row['table'] / 1e6:8.1f} MB + index {row['index'] / 1e6:8.1f} MB"
        print(f"{grain + 's':8} {row['rows']:>12,} rows  {size}  in {row['partitions']} partitions")


async def timed(what: str, ask: Callable[[], Awaitable[Any]]) -> None:
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await ask()
        taken.append((time.perf_counter() - began) * 1e3)
    print(f"{what:44} {min(taken):9.1f} ms … {max(taken):9.1f} ms")


async def print_questions(store: Store, key: UUID) -> None:
    lists = Listings(store)
    subjects: dict[str, dict[str, Any]] = {
        "everything": {},
        "one resource": {"resource": Resource("bot", "77")},
        "one key": {"key_id": key},
    }
    for name, about in subjects.items():
        for told, span in (("1 hour", 1 / 24), ("1 day", 1), ("7 days", 7), ("90 days", 90), ("1 year", 365)):

            async def ask(about: dict[str, Any] = about, span: float = span) -> None:
                filters = UsageFilters(since=timedelta(days=span), **about)
                assert [total async for total in lists.every_total(filters)]

            await timed(f"usage of {name}, {told}", ask)


async def print_writes(store: Store, keys: list[UUID]) -> None:
    for size in (100, 1_000, len(keys)):
        counts = {
            Series("bot", str(n), GRANTED, str(key), key.hex[:15], key.bytes * 4): 1
            for n, key in enumerate(keys[:size], 1)
        }

        async def write(counts: dict[Series, int] = counts) -> None:
            await store.write_usage(Batch(counts, uuid4(), time.monotonic()))

        await timed(f"a batch of {size:,} is written", write)


async def measure(keys: int, hours: int, minutes: int) -> None:
    async with migrated() as (owner_url, runtime_url):
        owner = await asyncpg.connect(owner_url)
        try:
            await fill(owner, keys, hours, minutes)
            await print_sizes(owner)
            ids = [row[0] for row in await owner.fetch("SELECT key_id FROM smarter_auth.usage_series ORDER BY id")]
            async with open_pool(runtime_url, query_timeout_s=120) as pool:
                store = Store(pool)
                await print_questions(store, ids[76])
                await print_writes(store, ids)
                await timed("old partitions are looked for", store.drop_old_usage)
        finally:
            await owner.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--hours", type=int, default=8, help="of each day")
    parser.add_argument("--minutes", type=int, default=60, help="of each day")
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.keys, arguments.hours, arguments.minutes))


if __name__ == "__main__":
    main()
