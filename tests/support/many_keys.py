"""Very many keys, nine in ten of them revoked, with all that belongs to them; and what a list of them costs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from smarter_auth_mw.domain import Resource
from smarter_auth_mw.management.listings import AuditFilters, KeyFilters, ResourceFilters
from smarter_auth_mw.postgres.lists import Lists

# As the released schema 0005 knows them. The n-th key has the id md5(n), belongs to account n % 100, and lives if n
# ends in 7. Living keys are bound to a great resource too, and one in a hundred keys is being rotated.
FILL = """
SET session_replication_role = replica;
SET synchronous_commit = off;
INSERT INTO smarter_auth.resource (id, kind, ref, account, protection)
SELECT n, CASE WHEN n % 10 = 0 THEN 'agent' ELSE 'bot' END, n, 'account ' || n % 100, 'bound'
  FROM generate_series(1, {keys} / 10) AS n;
INSERT INTO smarter_auth.resource (id, kind, ref, account)
SELECT 1000000 + n, 'bot', 'open-' || n, 'account ' || n % 2 FROM generate_series(1, {keys} / 500) AS n;
INSERT INTO smarter_auth.key (key_id, account, name, expires_at, revoked_at, created_at, is_active)
SELECT md5(n::text)::uuid, 'account ' || n % 100,
       (ARRAY['Laptop', 'ci', 'Mobile', 'server'])[1 + n / 10 % 4] || ' ' || n,
       CASE WHEN n % 3 = 0 THEN now() + (n % 700 - 30) * interval '1 day' END,
       CASE WHEN n % 10 <> 7 THEN now() - (n % 400) * interval '1 day' END,
       now() - (400 + n % 900) * interval '1 day', n % 1000 <> 7
  FROM generate_series(1, {keys}) AS n;
INSERT INTO smarter_auth.token (digest, token_key, key_id, account, created_at)
SELECT sha512(n::text::bytea), left(md5(n::text), 15), md5(n::text)::uuid, 'account ' || n % 100,
       now() - (n % 400) * interval '1 day'
  FROM generate_series(1, {keys}) AS n;
INSERT INTO smarter_auth.token (digest, token_key, key_id, account, created_at, valid_until)
SELECT sha512(('old' || n)::bytea), left(md5('old' || n), 15), md5(n::text)::uuid, 'account ' || n % 100,
       now() - interval '900 days', now() + (n / 100 % 48 - 24) * interval '1 hour'
  FROM generate_series(7, {keys}, 100) AS n;
INSERT INTO smarter_auth.token_use (digest, last_used_at)
SELECT sha512(n::text::bytea), now() - (n / 10 % 300) * interval '1 day'
  FROM generate_series(1, {keys}) AS n WHERE n / 10 % 4 <> 0;
INSERT INTO smarter_auth.binding (resource_id, key_id, account)
SELECT 1 + n * 7919::bigint % ({keys} / 10), md5(n::text)::uuid, 'account ' || n % 100
  FROM generate_series(1, {keys}) AS n;
INSERT INTO smarter_auth.binding (resource_id, key_id, account)
SELECT 5, md5(n::text)::uuid, 'account ' || n % 100 FROM generate_series(7, least({keys}, 200000), 10) AS n
    ON CONFLICT DO NOTHING;
INSERT INTO smarter_auth.audit_event (at, actor, action, kind, ref, account, key_id, reason)
SELECT now() - n * interval '1 minute', CASE WHEN n % 1000 = 0 THEN 'alice' ELSE '10.0.0.0/24' END,
       CASE WHEN n % 1000 = 0 THEN 'key.revoke' ELSE 'request.deny' END, 'bot', n % 100, 'account ' || n % 100,
       md5((n % 1000)::text)::uuid, CASE WHEN n % 1000 = 0 THEN '' ELSE 'unknown_token' END
  FROM generate_series(1, {keys}) AS n;
"""
# Once the schema knows labels.
FILL_LABELS = """
INSERT INTO smarter_auth.key_label (key_id, name, value, account, is_living)
SELECT key_id, 'team', (ARRAY['sales', 'ops', 'dev'])[1 + abs(hashtext(key_id::text)) % 3], account, revoked_at IS NULL
  FROM smarter_auth.key;
"""
# What each living key was used for in the last two hours, on the resource of its account that it is bound to.
FILL_USAGE = """
INSERT INTO smarter_auth.usage_series (kind, ref, key_id, token_key, outcome)
SELECT kind, ref, key_id, left(replace(key_id::text, '-', ''), 15), 'grant'
  FROM generate_series(7, {keys}, 10) AS n
 CROSS JOIN LATERAL (SELECT md5(n::text)::uuid AS key_id) AS used
  JOIN smarter_auth.resource ON resource.id = 100 * (1 + n / 100 % ({keys} / 2000)) + n % 100;
SELECT smarter_auth.make_usage_partition(grain, at)
  FROM unnest(ARRAY['hour', 'day']) AS grain, unnest(ARRAY[now() - interval '1 day', now()]) AS at;
INSERT INTO smarter_auth.usage_hour (series_id, at, count)
SELECT id, date_trunc('hour', now(), 'UTC') - hours * interval '1 hour', 1
  FROM smarter_auth.usage_series CROSS JOIN generate_series(0, 1) AS hours;
INSERT INTO smarter_auth.usage_day (series_id, at, count)
SELECT id, date_trunc('day', now(), 'UTC'), 2 FROM smarter_auth.usage_series;
"""

DAY = timedelta(days=1)
ACCOUNT, GREAT = "account 7", Resource("bot", "5")
KEY_ID = UUID("8f14e45f-ceea-167a-5a36-dedd4bea2543")
"""The seventh key, which lives and is being rotated."""
KEY_LISTS: Mapping[str, KeyFilters] = {
    "no filter": KeyFilters(),
    "account": KeyFilters(account=ACCOUNT),
    "find": KeyFilters(find="serv"),
    "find, account": KeyFilters(find="lap", account=ACCOUNT),
    "key_id": KeyFilters(key_id=KEY_ID),
    "token_key": KeyFilters(token_key=KEY_ID.hex[:15]),
    "resource": KeyFilters(resource=GREAT),
    "state revoked": KeyFilters(state="revoked"),
    "state revoked, account": KeyFilters(state="revoked", account="account 8"),
    "state expired": KeyFilters(state="expired"),
    "state active": KeyFilters(state="active"),
    "expiring": KeyFilters(expiring_within=100 * DAY),
    "expiring, account": KeyFilters(expiring_within=400 * DAY, account=ACCOUNT),
    "unused for": KeyFilters(unused_for=90 * DAY),
    "unused for, account": KeyFilters(unused_for=90 * DAY, account=ACCOUNT),
    "never used": KeyFilters(never_used=True),
    "never used, account": KeyFilters(never_used=True, account=ACCOUNT),
    "label": KeyFilters(labels={"team": "sales"}),
    "label, account": KeyFilters(labels={"team": "sales"}, account=ACCOUNT),
    "sort by creation": KeyFilters(sort="-created_at"),
    "sort by creation, account": KeyFilters(sort="-created_at", account=ACCOUNT),
    "older than": KeyFilters(older_than=800 * DAY),
    "older than, account": KeyFilters(older_than=800 * DAY, account=ACCOUNT),
    "rotating": KeyFilters(rotating=True),
    "rotating, account": KeyFilters(rotating=True, account=ACCOUNT),
    "token older than, unused": KeyFilters(token_older_than=200 * DAY, unused_for=100 * DAY),
}
RARE_LISTS: Mapping[str, KeyFilters] = {
    "label, resource, active, find": KeyFilters(
        labels={"team": "sales"}, resource=GREAT, state="active", find="l", account=ACCOUNT
    ),
    "state inactive": KeyFilters(state="inactive"),
    "find nothing": KeyFilters(find="zz"),
    "label, of nobody": KeyFilters(labels={"team": "none"}),
    "resource, of nobody": KeyFilters(sort="name", resource=Resource("bot", "none")),
    "label of nobody, by name": KeyFilters(sort="name", labels={"team": "none"}),
    "unused for very long, by name": KeyFilters(sort="name", unused_for=3000 * DAY),
    "token of nobody": KeyFilters(sort="name", token_older_than=3000 * DAY),
}
"""What few keys or none are found by: as many candidates are looked at as there are, or may be."""
RESOURCE_LISTS: Mapping[str, ResourceFilters] = {
    "resources": ResourceFilters(),
    "resources, account": ResourceFilters(account=ACCOUNT),
    "resources of a kind": ResourceFilters(kind="bot"),
    "resources, open": ResourceFilters(open=True),
    "resources, open, account": ResourceFilters(open=True, account="account 1"),
    "resources, find": ResourceFilters(kind="bot", find="9"),
    "resources of a key": ResourceFilters(key_id=KEY_ID),
}
AUDIT_LISTS: Mapping[str, AuditFilters] = {
    "audit": AuditFilters(),
    "audit, account": AuditFilters(account=ACCOUNT),
    "audit, resource": AuditFilters(resource=GREAT),
    "audit, key": AuditFilters(key_id=KEY_ID),
    "audit, acts": AuditFilters(acts=True),
    "audit, actor": AuditFilters(actor="alice", acts=True),
    "audit, since, until": AuditFilters(since=2 * DAY, until=DAY / 4, action="request.*"),
}


class Recorder:
    """A connection that notes what it is asked."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self.asked: list[tuple[str, Sequence[Any]]] = []

    async def fetch(self, sql: str, *arguments: Any) -> Any:
        self.asked.append((sql, arguments))
        return await self._connection.fetch(sql, *arguments)

    async def fetchrow(self, sql: str, *arguments: Any) -> Any:
        self.asked.append((sql, arguments))
        return await self._connection.fetchrow(sql, *arguments)

    async def fetchval(self, sql: str, *arguments: Any) -> Any:
        self.asked.append((sql, arguments))
        return await self._connection.fetchval(sql, *arguments)


class Plans:
    """Lists on a connection of its own, and how many buffers the statements of the last one read."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._recorder = Recorder(connection)

    @asynccontextmanager
    async def lists(self) -> AsyncIterator[Lists]:
        self._recorder.asked.clear()
        async with self._connection.transaction(readonly=True):
            lists = Lists(self._recorder)
            await lists.plan_by_index()
            yield lists

    async def buffers(self) -> int:
        """Run every statement of the last list once more, by the plan that the session has for it."""
        return sum(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] for plan in await self.explained())

    async def explained(self) -> list[dict[str, Any]]:
        """Run every statement of the last list once more; returns what its plan did."""
        async with self._connection.transaction(readonly=True):
            await Lists(self._connection).plan_by_index()
            return [await self._explained(number, *asked) for number, asked in enumerate(self._recorder.asked[1:])]

    async def _explained(self, number: int, sql: str, arguments: Sequence[Any]) -> dict[str, Any]:
        await self._connection.execute(f"PREPARE explained_{number} AS {sql}")
        values = f"({', '.join(map(literal, arguments))})" if arguments else ""
        explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE explained_{number} {values}"
        plan: dict[str, Any] = json.loads(await self._connection.fetchval(explain))[0]["Plan"]
        await self._connection.execute(f"DEALLOCATE explained_{number}")
        return plan


def literal(value: Any) -> str:
    """Write a value as SQL; of arrays those of ids, numbers and labels."""
    if value is None:
        return "NULL"
    if isinstance(value, list | tuple):
        elements = ",".join(f'"{element}"' for element in value)
        return f"'{{{elements}}}'"
    if isinstance(value, bytes):
        return f"'\\x{value.hex()}'"
    text = value.isoformat() if isinstance(value, datetime) else str(value)
    return "'" + text.replace("'", "''") + "'"
