"""Keep a copy in PostgreSQL of those tables of a Smarter platform on MySQL that decide who may use what.

    pip install asyncpg pymysql
    MYSQL_URL=mysql://reader:secret@mysql/smarter POSTGRES_URL=postgresql://owner@postgres/copy python copy_platform.py

It creates the tables when it starts, and then copies what changed every COPY_INTERVAL_S seconds (0.25): one snapshot of
MySQL, one transaction of PostgreSQL. With --once it copies once and ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import asyncpg
import pymysql

INTEGER, TEXT, BOOLEAN, TIME, UUID = "bigint", "text", "boolean", "timestamptz", "uuid"
_BOT = {"id": INTEGER, "name": TEXT, "custom_domain_id": INTEGER, "user_profile_id": INTEGER, "account_id": INTEGER}
_DOMAIN = {"id": INTEGER, "domain_name": TEXT, "is_verified": BOOLEAN}
_USER = {"id": INTEGER, "username": TEXT, "is_active": BOOLEAN, "is_staff": BOOLEAN, "is_superuser": BOOLEAN}
_KEY = {"authtoken_ptr_id": TEXT, "key_id": UUID, "name": TEXT, "description": TEXT, "is_active": BOOLEAN}
_TOKEN = {"digest": TEXT, "token_key": TEXT, "created": TIME, "user_id": INTEGER, "expiry": TIME}
_STAMPS = {"created_at": TIME, "updated_at": TIME}

TABLES = {
    "account_account": {"id": INTEGER, "account_number": TEXT},
    "auth_user": _USER,
    "account_userprofile": {"id": INTEGER, "account_id": INTEGER, "user_id": INTEGER},
    "knox_authtoken": _TOKEN,
    "drf_smarterauthtoken": {**_KEY, "last_used_at": TIME, **_STAMPS, "user_profile_id": INTEGER},
    "llm_client_llmclientcustomdomain": _DOMAIN,
    "llm_client_llmclient": _BOT,
    "llm_client_llmclientapikey": {"id": INTEGER, "api_key_id": TEXT, "llm_client_id": INTEGER},
    "chatbot_chatbotcustomdomain": _DOMAIN,
    "chatbot_chatbot": _BOT,
    "chatbot_chatbotapikey": {"id": INTEGER, "api_key_id": TEXT, "chatbot_id": INTEGER},
}
"""The tables and the types of their columns; the first column is the key. A platform has those of its release."""
NOT_COMPARED = "last_used_at"
"""The middleware writes it into the copy."""

Table = dict[str, str]
Rows = dict[Any, tuple[Any, ...]]


def connect_to_mysql(url: str) -> pymysql.connections.Connection:
    """Connect for reading; times are read in UTC, as Django writes them."""
    parts = urlsplit(url)
    return pymysql.connect(
        host=parts.hostname or "localhost",
        port=parts.port or 3306,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        database=parts.path.lstrip("/"),
        charset="utf8mb4",
        init_command="SET time_zone = '+00:00'",
        read_timeout=10,
        connect_timeout=10,
    )


def find_tables(mysql: pymysql.connections.Connection) -> dict[str, Table]:
    """Return the tables that this platform has, each with the columns that it has."""
    with mysql.cursor() as cursor:
        cursor.execute("SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = DATABASE()")
        present = set(cursor.fetchall())
    found = {
        name: {column: of for column, of in table.items() if (name, column) in present}
        for name, table in TABLES.items()
    }
    return {name: table for name, table in found.items() if table}


@contextmanager
def snapshot(mysql: pymysql.connections.Connection) -> Iterator[Any]:
    """Read all tables in the state of one moment."""
    with mysql.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        yield cursor
        cursor.execute("COMMIT")


def read(cursor: Any, name: str, table: Table) -> Rows:
    cursor.execute(f"SELECT {', '.join(f'`{column}`' for column in table)} FROM `{name}`")
    return {row[0]: tuple(map(_text, row, table.values())) for row in cursor.fetchall()}


def _text(value: Any, of: str) -> str | None:
    """Return what PostgreSQL reads as a value of this type."""
    if value is None:
        return None
    return f"{value.isoformat()}+00:00" if of == TIME else str(value)


async def create(postgres: asyncpg.Connection, tables: dict[str, Table]) -> None:
    for name, table in tables.items():
        key, *others = table
        columns = ", ".join(f"{column} {of}" for column, of in table.items())
        await postgres.execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns}, PRIMARY KEY ({key}))")
        for column in [column for column in others if column.endswith(("_id", "name", "token_key"))]:
            await postgres.execute(f"CREATE INDEX IF NOT EXISTS {name}_{column} ON {name} ({column})")


async def copy(cursor: Any, postgres: asyncpg.Connection, tables: dict[str, Table], copied: dict[str, Rows]) -> None:
    """Bring the copy to the snapshot: all tables in one transaction. ``copied`` is what it holds."""
    fresh = {name: read(cursor, name, table) for name, table in tables.items()}
    async with postgres.transaction():
        for name, table in tables.items():
            await _apply(postgres, name, table, copied.get(name), fresh[name])
    copied |= fresh


async def _apply(postgres: asyncpg.Connection, name: str, table: Table, before: Rows | None, fresh: Rows) -> None:
    key = next(iter(table))
    if before is None:  # The first time: what an earlier run left may be gone from MySQL.
        await postgres.execute(f"DELETE FROM {name} WHERE NOT {key}::text = ANY ($1::text[])", list(map(str, fresh)))
    elif gone := [str(one) for one in before.keys() - fresh.keys()]:
        await postgres.execute(f"DELETE FROM {name} WHERE {key}::text = ANY ($1::text[])", gone)
    changed = [row for one, row in fresh.items() if before is None or before.get(one) != row]
    if not changed:
        return
    compared = [column for column in table if column not in (key, NOT_COMPARED)]
    values = ", ".join(f"${place}::text::{of}" for place, of in enumerate(table.values(), 1))
    updates = ", ".join(f"{column} = excluded.{column}" for column in compared)
    differs = f"({', '.join(f'{name}.{column}' for column in compared)}) IS DISTINCT FROM"
    await postgres.executemany(
        f"INSERT INTO {name} ({', '.join(table)}) VALUES ({values}) ON CONFLICT ({key}) DO UPDATE SET {updates}"
        f" WHERE {differs} ({', '.join(f'excluded.{column}' for column in compared)})",
        changed,
    )


async def main() -> None:
    mysql = connect_to_mysql(os.environ["MYSQL_URL"])
    postgres = await asyncpg.connect(os.environ["POSTGRES_URL"])
    tables, copied = find_tables(mysql), dict[str, Rows]()
    await create(postgres, tables)
    while True:
        with snapshot(mysql) as cursor:
            await copy(cursor, postgres, tables, copied)
        if "--once" in sys.argv:
            return
        await asyncio.sleep(float(os.environ.get("COPY_INTERVAL_S", "0.25")))


if __name__ == "__main__":
    asyncio.run(main())
