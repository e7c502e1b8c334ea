"""A look-up in a large attached platform is a few probes of indexes, known and unknown, however many bots and users."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from smarter_auth_mw.postgres import migrations
from smarter_auth_mw.postgres.connections.sessions import SESSION
from smarter_auth_mw.postgres.queries import QUERIES
from tests.support.platform import ACCOUNT, Platform

# Every user of one large account has bots there, half of which are its first administrator's.
_FILL = f"""
SET session_replication_role = replica;
INSERT INTO account_account (id, name, account_number)
SELECT n, '', CASE n WHEN 1 THEN '{ACCOUNT}' ELSE n::text END FROM generate_series(1, 200) AS n;
INSERT INTO auth_user (id, username, is_staff) SELECT n, 'user_' || n, true FROM generate_series(1, 1000) AS n;
INSERT INTO account_userprofile (id, name, account_id, user_id)
SELECT n, '', CASE WHEN n <= 800 THEN 1 ELSE n - 800 END, n FROM generate_series(1, 1000) AS n;
INSERT INTO llm_client_llmclientcustomdomain (id, domain_name, is_verified)
SELECT n, 'bot-' || n || '.example.net', true FROM generate_series(1, 500) AS n;
INSERT INTO llm_client_llmclient (id, name, user_profile_id, custom_domain_id)
SELECT n, 'bot_' || n, CASE WHEN n % 2 = 0 THEN 1 ELSE 1 + n % 800 END, CASE WHEN n <= 500 THEN n END
  FROM generate_series(1, 10000) AS n;
INSERT INTO knox_authtoken (digest, token_key, user_id)
SELECT encode(sha512(n::text::bytea), 'hex'), 'x', 1 + n % 1000 FROM generate_series(1, 10000) AS n;
INSERT INTO drf_smarterauthtoken (authtoken_ptr_id, key_id, name, is_active, user_profile_id)
SELECT encode(sha512(n::text::bytea), 'hex'), gen_random_uuid(), 'x', true, 1 + n % 1000
  FROM generate_series(1, 10000) AS n;
INSERT INTO llm_client_llmclientapikey (llm_client_id, api_key_id)
SELECT 1 + n % 5000, encode(sha512(n::text::bytea), 'hex') FROM generate_series(1, 10000) AS n;
INSERT INTO smarter_auth.lost_binding (kind, ref, digest) SELECT 'chatbot', n, n FROM generate_series(1, 2000) AS n;
INSERT INTO smarter_auth.lost_token (digest) SELECT n FROM generate_series(1, 2000) AS n;
RESET session_replication_role;
"""


@pytest.fixture
async def large(platform: Platform) -> Platform:
    await platform.sql.execute(_FILL)
    await migrations.migrate(platform.database.owner)
    # Our own tables are empty, and cost nothing to be read whole: only where else that is done is of interest here.
    await platform.sql.execute("ANALYZE; SET enable_seqscan = off; SET enable_bitmapscan = off")
    await platform.sql.execute("; ".join(f"SET {name} = '{value}'" for name, value in SESSION.items()))
    await platform.sql.execute(f"PREPARE by_id (text, text) AS {QUERIES.read_bindings.sql}")
    await platform.sql.execute(f"PREPARE by_alias (text, text, text, text) AS {QUERIES.read_alias.sql}")
    return platform


CALLS = {
    "by_id('llm_client', '4242')": "4242",
    "by_id('llm_client', '424242')": None,
    f"by_alias('llm_client', 'name', '{ACCOUNT}', 'bot-4242')": "4242",
    f"by_alias('llm_client', 'name', '{ACCOUNT}', 'nobody')": None,
    "by_alias('llm_client', 'name', '1234-1234-1234', 'bot-4242')": None,
    f"by_alias('llm_client', 'label', '{ACCOUNT}', 'bot-4242')": "4242",
    f"by_alias('llm_client', 'label', '{ACCOUNT}', 'bot-4243-user-244')": "4243",
    f"by_alias('llm_client', 'label', '{ACCOUNT}', 'bot-4243')": None,
    f"by_alias('llm_client', 'label', '{ACCOUNT}', 'no-body-is-called-that')": None,
    "by_alias('llm_client', 'domain', '', 'bot-42.example.net')": "42",
    "by_alias('llm_client', 'domain', '', 'nobody.example.net')": None,
}


async def test_look_ups_are_index_probes_only(large: Platform) -> None:
    for call, ref in CALLS.items():
        found = await large.sql.fetch(f"EXECUTE {call}")
        assert {row["ref"] for row in found} == {ref}, call
        explained = await large.sql.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE {call}")
        plan = json.loads(explained)[0]["Plan"]
        read = [node for node in _nodes(plan) if "Relation Name" in node and node["Actual Loops"]]
        indexed = [node for node in read if node["Relation Name"] != "incarnation"]  # That has one row.
        assert {node["Node Type"] for node in indexed} <= {"Index Scan", "Index Only Scan"}, call
        assert sum(node["Actual Loops"] for node in read if node["Relation Name"] == "platform_alias") <= 2, call
        assert max(node["Actual Rows"] * node["Actual Loops"] for node in read) <= 10, call
        assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 150, call


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)
