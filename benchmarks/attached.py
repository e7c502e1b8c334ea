"""Measure look-ups on a large attached Smarter platform, known and unknown, and print their plans.

    python -m benchmarks.attached [--bindings 1000000] [--bots 50000]

One account has ``bots`` bots, the others one each; every binding has a key of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from smarter_auth_mw.domain import Alias, AliasForm, Resource, Target
from smarter_auth_mw.postgres import migrations
from smarter_auth_mw.postgres.embedded.cluster import Cluster
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.queries import QUERIES
from smarter_auth_mw.postgres.store import Store
from tests.support.platform import ACCOUNT, Generation, platform_ddl

KIND: Generation = "llm_client"
LOOKUPS = 2_000

# Every user administers an account of their own, but for those of the first thousand, who share the large one.
_FILL = """
INSERT INTO account_account (id, name, account_number)
SELECT n, '', CASE n WHEN 1 THEN '{account}' ELSE to_char(n, 'FM0000-0000-0000') END
  FROM generate_series(1, {accounts}) AS n;
INSERT INTO auth_user (id, username, is_staff)
SELECT n, 'user_' || n, n = 1 OR n > 1000 FROM generate_series(1, {users}) AS n;
INSERT INTO account_userprofile (id, name, account_id, user_id)
SELECT n, '', CASE WHEN n <= 1000 THEN 1 ELSE n - 999 END, n FROM generate_series(1, {users}) AS n;
INSERT INTO llm_client_llmclientcustomdomain (id, domain_name, is_verified)
SELECT n, 'bot-' || n || '.example.net', true FROM generate_series(1, 1000) AS n;
INSERT INTO llm_client_llmclient (id, name, user_profile_id, custom_domain_id)
SELECT n, CASE WHEN n <= {bots} THEN 'bot_' || n ELSE 'example' END,
       CASE WHEN n <= {bots} THEN CASE WHEN n % 2 = 0 THEN 1 ELSE 1 + n % 1000 END ELSE 1000 + n - {bots} END,
       CASE WHEN n <= 1000 THEN n END
  FROM generate_series(1, {all_bots}) AS n;
INSERT INTO knox_authtoken (digest, token_key, user_id)
SELECT encode(sha512(n::text::bytea), 'hex'), left(md5(n::text), 15), 1 + n % {users}
  FROM generate_series(1, {bindings}) AS n;
INSERT INTO drf_smarterauthtoken (authtoken_ptr_id, key_id, name, is_active, user_profile_id)
SELECT encode(sha512(n::text::bytea), 'hex'), gen_random_uuid(), 'key ' || n, true, 1 + n % {users}
  FROM generate_series(1, {bindings}) AS n;
INSERT INTO llm_client_llmclientapikey (llm_client_id, api_key_id)
SELECT 1 + n % {all_bots}, encode(sha512(n::text::bytea), 'hex') FROM generate_series(1, {bindings}) AS n;
"""


@contextlib.asynccontextmanager
async def platform(bindings: int, bots: int) -> AsyncIterator[tuple[asyncpg.Connection, str]]:
    """Start a database with an attached platform of that size, and yield its URL for workers."""
    accounts = max(bindings // 10 - bots, 1)
    sizes = {"accounts": accounts, "users": 999 + accounts, "bots": bots, "all_bots": bots + accounts - 1}
    with tempfile.TemporaryDirectory() as directory, Cluster.start(Path(directory) / "pg") as cluster:
        url, runtime = cluster.url("owner"), cluster.url("runtime")
        connection = await asyncpg.connect(url)
        try:
            began = time.perf_counter()
            await connection.execute("SET synchronous_commit = off; SET maintenance_work_mem = '512MB'")
            await connection.execute("SET session_replication_role = replica")  # No foreign key is looked after.
            await connection.execute(platform_ddl((KIND,), "owned"))
            await connection.execute(_FILL.format(account=ACCOUNT, bindings=bindings, **sizes))
            await connection.execute("RESET session_replication_role")
            await connection.execute("VACUUM ANALYZE")
            filled = time.perf_counter()
            await migrations.migrate(url, manager_role=urlsplit(runtime).username, attach=True)
            print(f"filled in {filled - began:.0f} s, attached in {time.perf_counter() - filled:.1f} s: {sizes}")
            yield connection, runtime
        finally:
            await connection.close()


def targets(bots: int, all_bots: int) -> dict[str, Iterator[Target]]:
    """Return what is looked up, many of each."""

    def alias(form: AliasForm, text: str, account: str | None = ACCOUNT) -> Target:
        return Target(Alias(KIND, form, text, account))

    numbers = [1 + 7919 * n % bots for n in range(LOOKUPS)]
    return {
        "by id, known": (Target(Resource(KIND, str(1 + 7919 * n % all_bots))) for n in range(LOOKUPS)),
        "by id, unknown": (Target(Resource(KIND, str(10**9 + n))) for n in range(LOOKUPS)),
        "by name, known": (alias("name", f"bot-{n}") for n in numbers),
        "by name, unknown": (alias("name", f"nobody-{n}") for n in numbers),
        "by label, known": (alias("label", f"bot-{n + n % 2}") for n in numbers),
        "by label with user, known": (
            alias("label", f"bot-{n}-user-{1 if n % 2 == 0 else 1 + n % 1000}") for n in numbers
        ),
        "by label, unknown": (alias("label", f"no-body-here-{n}") for n in numbers),
        "by domain, known": (alias("domain", f"bot-{1 + n % 1000}.example.net", None) for n in numbers),
        "by domain, unknown": (alias("domain", f"nobody-{n}.example.net", None) for n in numbers),
    }


async def print_times(runtime: str, bots: int, all_bots: int) -> None:
    async with open_pool(runtime) as pool:
        store = Store(pool)
        await store.check()
        for what, asked in targets(bots, all_bots).items():
            taken, known = [], 0
            for target in asked:
                began = time.perf_counter()
                read = await store.read(target)
                taken.append((time.perf_counter() - began) * 1e3)
                known += read.bindings.account is not None
            p50, p99 = statistics.median(taken), statistics.quantiles(taken, n=100)[98]
            print(f"{what:28} p50 {p50:6.2f} ms   p99 {p99:6.2f} ms   {known:5} of {len(taken)} known")


async def print_plans(connection: asyncpg.Connection) -> None:
    await connection.execute("SET plan_cache_mode = force_generic_plan; SET jit = off")
    await connection.execute(f"PREPARE by_id (text, text) AS {QUERIES.read_bindings.sql}")
    await connection.execute(f"PREPARE by_alias (text, text, text, text) AS {QUERIES.read_alias.sql}")
    for call in (
        f"by_id('{KIND}', '4242')",
        f"by_alias('{KIND}', 'name', '{ACCOUNT}', 'bot-4242')",
        f"by_alias('{KIND}', 'label', '{ACCOUNT}', 'bot-4242')",
    ):
        (row,) = await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE {call}")
        explained = json.loads(row[0])[0]
        blocks = explained["Plan"]["Shared Hit Blocks"] + explained["Plan"]["Shared Read Blocks"]
        print(f"\n{call}: {blocks} blocks, {explained['Execution Time']:.2f} ms")
        for depth, node in nodes(explained["Plan"]):
            if "Relation Name" in node:
                through = node.get("Index Name", "")
                print(
                    f"  {'  ' * depth}{node['Node Type']} {node['Relation Name']} {through} x {node['Actual Loops']:g}"
                )


def nodes(plan: dict[str, Any], depth: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    yield depth, plan
    for child in plan.get("Plans", ()):
        yield from nodes(child, depth + ("Relation Name" in plan))


async def measure(bindings: int, bots: int) -> None:
    async with platform(bindings, bots) as (connection, runtime):
        all_bots = await connection.fetchval("SELECT count(*) FROM llm_client_llmclient")
        await print_times(runtime, bots, all_bots)
        await print_plans(connection)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bindings", type=int, default=1_000_000)
    parser.add_argument("--bots", type=int, default=50_000, help="of the largest account")
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.bindings, arguments.bots))


if __name__ == "__main__":
    main()
