"""The statement that answers requests finds its rows by index, however many there are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from smarter_auth_mw.postgres.connections.sessions import SESSION
from smarter_auth_mw.postgres.queries import QUERIES
from tests.support.many_keys import FILL

# Every hundredth resource has ten keys, the others one or two; a key in ten has a token more than one.
_FILL = """
SET session_replication_role = replica;
INSERT INTO smarter_auth.resource (id, kind, ref, protection)
SELECT n, (ARRAY['bot', 'llm_client'])[1 + n % 2], n, 'bound' FROM generate_series(1, 40000) AS n;
INSERT INTO smarter_auth.key (key_id, name) SELECT md5(n::text)::uuid, 'key ' || n FROM generate_series(1, 40000) AS n;
INSERT INTO smarter_auth.token (digest, token_key, key_id, account)
SELECT sha512(n::text::bytea), left(md5(n::text), 15), md5((1 + n % 40000)::text)::uuid, 'default'
  FROM generate_series(1, 44000) AS n;
INSERT INTO smarter_auth.binding (resource_id, key_id, account)
SELECT id, md5((1 + (id + 7919 * n) % 40000)::text)::uuid, 'default'
  FROM smarter_auth.resource
 CROSS JOIN LATERAL generate_series(1, CASE WHEN id % 100 = 0 THEN 10 ELSE 1 + id % 2 END) AS n;
ANALYZE;
"""


# Few enough that to read whole tables looks cheap, and takes twice as long.
_FILL_FEW = """
INSERT INTO smarter_auth.resource (id, kind, ref, protection)
SELECT n, 'bot', n, 'bound' FROM generate_series(1, 300) AS n;
INSERT INTO smarter_auth.key (key_id, name) SELECT md5(n::text)::uuid, 'key ' || n FROM generate_series(1, 3000) AS n;
INSERT INTO smarter_auth.token (digest, token_key, key_id, account)
SELECT sha512(n::text::bytea), left(md5(n::text), 15), md5(n::text)::uuid, 'default' FROM generate_series(1, 3000) AS n;
INSERT INTO smarter_auth.binding (resource_id, key_id, account)
SELECT 1 + n / 10, md5((1 + n)::text)::uuid, 'default' FROM generate_series(0, 2999) AS n;
ANALYZE;
"""


@pytest.fixture
async def session(owner: asyncpg.Connection) -> asyncpg.Connection:
    await owner.execute("; ".join(f"SET {name} = '{value}'" for name, value in SESSION.items()))
    return owner


@pytest.fixture
async def filled(session: asyncpg.Connection) -> asyncpg.Connection:
    await session.execute(_FILL)
    return session


async def test_reading_a_resource_is_index_probes_only(filled: asyncpg.Connection) -> None:
    await filled.execute(f"PREPARE read (text, text) AS {QUERIES.read_bindings.sql}")
    for ref, tokens in (("30000", 10), ("30002", 1), ("none", 1)):
        await _is_probes_only(filled, f"('bot', '{ref}')", tokens)


async def test_reading_one_of_a_few_hundred_resources_is_index_probes_only(session: asyncpg.Connection) -> None:
    await session.execute(_FILL_FEW)
    await session.execute(f"PREPARE read (text, text) AS {QUERIES.read_bindings.sql}")
    for ref, tokens in (("300", 10), ("none", 1)):
        await _is_probes_only(session, f"('bot', '{ref}')", tokens)


async def test_reading_a_name_a_label_or_a_domain_is_index_probes_only(filled: asyncpg.Connection) -> None:
    await filled.execute("""
        UPDATE smarter_auth.resource SET name = 'bot_' || id, domain = 'bot-' || id || '.example.net';
        ANALYZE smarter_auth.alias, smarter_auth.resource;
    """)
    await filled.execute(f"PREPARE read (text, text, text, text) AS {QUERIES.read_alias.sql}")
    for form, account, value, tokens in (
        ("name", "default", "bot-30000", 10),
        ("label", "default", "bot-30002", 1),
        ("domain", "", "bot-30000.example.net", 10),
        ("name", "default", "nobody", 1),
        ("name", "elsewhere", "bot-30000", 1),
    ):
        await _is_probes_only(filled, f"('bot', '{form}', '{account}', '{value}')", tokens)


async def _is_probes_only(connection: asyncpg.Connection, arguments: str, tokens: int) -> None:
    explained = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE read {arguments}")
    plan = json.loads(explained)[0]["Plan"]
    # The one row that names the server lies in one page.
    nodes = [node for node in _nodes(plan) if node.get("Relation Name") != "incarnation"]
    assert {node["Node Type"] for node in nodes} <= {
        "Nested Loop",
        "Index Scan",
        "Index Only Scan",
        "Result",
        "Memoize",
    }
    assert plan["Actual Rows"] >= tokens
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 150


async def test_heartbeat_finds_what_is_new_by_index(filled: asyncpg.Connection) -> None:
    await filled.execute(
        "INSERT INTO smarter_auth.change (source) SELECT 'key:' || n FROM generate_series(1, 50000) AS n"
    )
    snapshot = await filled.fetchval("SELECT pg_current_snapshot()::text")
    await filled.execute("UPDATE smarter_auth.resource SET on_error = 'deny' WHERE id = 1; ANALYZE smarter_auth.change")
    await filled.execute(f"PREPARE beat (text) AS {QUERIES.beat.sql}")
    explained = await filled.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE beat ('{snapshot}')")
    changes = [node for node in _nodes(json.loads(explained)[0]["Plan"]) if node.get("Relation Name") == "change"]
    assert [node["Index Name"] for node in changes] == ["change_tx"]
    assert [node["Actual Rows"] for node in changes] == [1]


async def test_counting_keys_reads_the_ends_of_indexes_however_many_keys_there_are(
    session: asyncpg.Connection,
) -> None:
    await session.execute(FILL.format(keys=40_000))
    await session.execute("ANALYZE")
    await session.execute(f"PREPARE count (bigint) AS {QUERIES.count_keys.sql}")
    explained = await session.fetchval("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE count (100)")
    plan = json.loads(explained)[0]["Plan"]
    scans = [node for node in _nodes(plan) if "Relation Name" in node]
    assert {node.get("Index Name") for node in scans} == {"key_by_expiry", "key_use_idle", "token_by_end", "key_pkey"}
    assert max(node["Actual Rows"] for node in scans) <= 100
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 1000


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)
