"""Every statement can be planned on an attached platform, whatever the statistics of its tables, on each PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import asyncpg
import pytest

from smarter_auth_mw.postgres import migrations
from smarter_auth_mw.postgres.connections.sessions import SESSION
from smarter_auth_mw.postgres.queries import QUERIES
from tests.support.plain_postgres import OWNER, PlainPostgres, installed
from tests.support.platform import platform_ddl

SERVERS = installed()

_FILL = """
SET session_replication_role = replica;
TRUNCATE chatbot_chatbotapikey, llm_client_llmclientapikey;
INSERT INTO chatbot_chatbotapikey (api_key_id, chatbot_id) SELECT n, n FROM generate_series(1, {rows}) AS n;
INSERT INTO llm_client_llmclientapikey (api_key_id, llm_client_id) SELECT n, n FROM generate_series(1, {rows}) AS n;
RESET session_replication_role;
"""
_NEVER_ANALYSED = """
UPDATE pg_class SET relpages = 0, reltuples = -1
 WHERE relkind = 'r' AND relnamespace::regnamespace::text IN ('public', 'smarter_auth');
"""


@pytest.fixture(params=SERVERS)
async def platform(request: pytest.FixtureRequest) -> AsyncIterator[asyncpg.Connection]:
    """A platform of both generations, attached on this server; nothing is ever analysed behind our back."""
    with PlainPostgres(SERVERS[request.param], autovacuum="off").made() as server:
        url = server.url("postgres", OWNER)
        connection = await asyncpg.connect(url)
        await connection.execute(platform_ddl(("llm_client", "chatbot"), "owned"))
        await migrations.migrate(url, attach=True)
        yield connection
        await connection.close()


async def test_every_statement_is_planned(platform: asyncpg.Connection) -> None:
    await platform.execute("; ".join(f"SET {name} = '{value}'" for name, value in SESSION.items()))
    refused = []
    for rows in (0, 300):
        await platform.execute(_FILL.format(rows=rows))
        for statistics in (_NEVER_ANALYSED, "ANALYZE"):
            await platform.execute(statistics)
            refused += await _refused(platform)
    assert refused == []


async def _refused(connection: asyncpg.Connection) -> list[str]:
    refused = []
    for name in QUERIES.available_queries:
        try:
            await _explain(connection, getattr(QUERIES, name).sql)
        except asyncpg.PostgresError as error:
            refused.append(f"{name}: {error}")
    return refused


async def _explain(connection: asyncpg.Connection, statement: str) -> None:
    count = max((int(number) for number in re.findall(r"\$(\d+)", statement)), default=0)
    await connection.execute(f"PREPARE asked AS {statement}")
    try:
        given = f"({', '.join(['NULL'] * count)})" if count else ""
        await connection.execute(f"EXPLAIN EXECUTE asked{given}")
    finally:
        await connection.execute("DEALLOCATE asked")
