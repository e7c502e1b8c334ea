"""The read side against a real PostgreSQL: the facts of a decision, in one statement, with their snapshot."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from smarter_auth_mw.cache.changes import Snapshot
from smarter_auth_mw.domain import Alias, Protection, Resource, Target
from smarter_auth_mw.errors import InvalidReferenceError, SchemaError, UnavailableError
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.postgres.embedded.cluster import Cluster
from smarter_auth_mw.postgres.faults import explained
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.queries import QUERIES
from smarter_auth_mw.postgres.store import Store
from smarter_auth_mw.tokens import mint
from tests.support.database import Database, named
from tests.support.store import pytest_generate_tests, store, store_url

__all__ = ["pytest_generate_tests", "store", "store_url"]

BOT = Resource("bot", "42")


async def test_unknown_resource_is_open_and_has_no_account(store: Store) -> None:
    read = await store.read(Target(BOT))
    assert read.bindings.resource == BOT
    assert read.bindings.account is None
    assert read.bindings.protection is Protection.OPEN
    assert read.bindings.bindings == ()


async def test_half_restored_database_is_not_read(store: Store, keys: Management, owner: asyncpg.Connection) -> None:
    """A dump creates empty tables, then loads their rows, then creates indexes: without these, rows may be missing."""
    await keys.create("one", bind=[BOT])
    index = await owner.fetchval("SELECT pg_get_indexdef('smarter_auth.resource_lookup'::regclass)")
    await store.read(Target(BOT))
    await owner.execute("DROP INDEX smarter_auth.resource_lookup")
    for target in (Target(BOT), Target(Resource("bot", "43")), Target(Alias("bot", "name", "sales", "default"))):
        with pytest.raises(SchemaError):
            await store.read(target)
    with pytest.raises(SchemaError):
        await store.domains()
    await owner.execute(index)
    assert (await store.read(Target(BOT))).bindings.protection is Protection.BOUND
    assert await store.domains() == []


async def test_bound_resource_comes_with_all_its_bindings(store: Store, keys: Management) -> None:
    expires_at = datetime.now(UTC) + timedelta(days=1)
    minted = await keys.create("one", bind=[BOT], expires_at=expires_at)
    await keys.create("two", bind=[BOT])
    bindings = (await store.read(Target(BOT))).bindings
    assert (bindings.account, bindings.protection) == ("default", Protection.BOUND)
    (one,) = (binding for binding in bindings.bindings if binding.digest == minted.token.digest)
    assert (one.key_id, one.key_name, one.account) == (str(minted.key.key_id), "one", "default")
    assert one.token_key == minted.token.token_key
    assert one.expires_at_s == pytest.approx(expires_at.timestamp(), abs=1e-5)
    assert sorted(binding.expires_at_s for binding in bindings.bindings) == [one.expires_at_s, math.inf]


@pytest.mark.parametrize("ref", ["a\0b", "a\ud800b"])
async def test_text_that_no_database_can_hold_is_refused_before_the_query(store: Store, ref: str) -> None:
    with pytest.raises(InvalidReferenceError):
        await store.read(Target(Resource("bot", ref)))


async def test_registered_spelling_comes_back_whichever_was_asked(store: Store, keys: Management) -> None:
    registered = Resource("bot", "my-bot")
    await keys.create("one", bind=[registered])
    for asked in (Target(Resource("bot", "my_bot")), Target(Resource("bot", "my_bot"), exact=True)):
        bindings = (await store.read(asked)).bindings
        assert bindings.resource == registered
        assert bindings.protection is Protection.BOUND


async def test_key_opens_until_the_earlier_of_two_ends(
    store: Store, keys: Management, owner: asyncpg.Connection
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    await keys.create("one", bind=[BOT], expires_at=now + timedelta(days=2))
    for days, soonest in ((1, 1), (3, 2)):
        await owner.execute("UPDATE smarter_auth.token SET valid_until = $1", now + timedelta(days=days))
        (binding,) = (await store.read(Target(BOT))).bindings.bindings
        assert binding.expires_at_s == (now + timedelta(days=soonest)).timestamp()


async def test_key_without_a_token_is_a_binding_that_nothing_matches(store: Store, owner: asyncpg.Connection) -> None:
    await owner.execute("INSERT INTO smarter_auth.resource (id, kind, ref) VALUES (1, 'bot', '42')")
    await owner.execute("INSERT INTO smarter_auth.key (name) VALUES ('one')")
    await owner.execute(
        "INSERT INTO smarter_auth.binding (resource_id, key_id, account)"
        " SELECT 1, key_id, account FROM smarter_auth.key"
    )
    bindings = (await store.read(Target(BOT))).bindings
    assert [binding.digest for binding in bindings.bindings] == [b""]


async def test_each_token_of_a_key_opens_the_resource(
    store: Store, keys: Management, owner: asyncpg.Connection
) -> None:
    key = (await keys.create("one", bind=[BOT])).key
    other = mint()
    await owner.execute(
        "INSERT INTO smarter_auth.token (digest, token_key, key_id, account) VALUES ($1, $2, $3, 'default')",
        other.digest,
        other.token_key,
        key.key_id,
    )
    bindings = (await store.read(Target(BOT))).bindings
    assert len(bindings.bindings) == 2
    assert {binding.key_id for binding in bindings.bindings} == {str(key.key_id)}


async def test_read_names_what_it_depends_on(store: Store, keys: Management, owner: asyncpg.Connection) -> None:
    key = (await keys.create("one", bind=[Resource("bot", "my_bot")])).key
    resource_id = await owner.fetchval("SELECT id FROM smarter_auth.resource")
    assert set((await store.read(Target(Resource("bot", "my-bot")))).sources) == {
        "resource:bot:my-bot",
        f"bindings:{resource_id}",
        "account:default",
        f"key:{key.key_id}",
    }
    assert set((await store.read(Target(BOT))).sources) == {"resource:bot:42", "kind:bot"}


async def test_snapshot_tells_what_the_read_could_see(store: Store, owner: asyncpg.Connection) -> None:
    async with owner.transaction():
        await owner.execute("INSERT INTO smarter_auth.resource (kind, ref) VALUES ('bot', '42')")
        tx = int(await owner.fetchval("SELECT pg_current_xact_id()::text"))
        before = await store.read(Target(BOT))
    after = await store.read(Target(BOT))
    assert (before.bindings.account, Snapshot.parse(before.snapshot).sees(tx)) == (None, False)
    assert (after.bindings.account, Snapshot.parse(after.snapshot).sees(tx)) == ("default", True)


async def test_read_calls_no_function_that_could_see_more_than_its_snapshot(owner: asyncpg.Connection) -> None:
    functions = set(re.findall(r"(\w+)\(", QUERIES.read_bindings.sql))
    volatile = "SELECT proname FROM pg_proc WHERE proname = ANY ($1) AND provolatile = 'v'"
    assert len(functions) > 3
    assert await owner.fetch(volatile, functions) == []


@pytest.mark.parametrize("statement_cache_size", [100, 0])
async def test_read_is_one_statement(database: Database, statement_cache_size: int) -> None:
    said: list[str] = []
    async with open_pool(database.runtime, pool_max=1, statement_cache_size=statement_cache_size) as pool:
        async with pool.acquire() as connection:
            connection.add_query_logger(lambda query: said.append(query.query))
        await Store(pool).read(Target(BOT))
        await Store(pool).read(Target(BOT))
    assert len(said) == 2


async def test_session_is_set_up_for_short_statements_and_named(database: Database) -> None:
    async with open_pool(database.runtime) as pool, pool.acquire() as connection:
        names = ("jit", "plan_cache_mode", "random_page_cost", "application_name")
        settings = [await connection.fetchval(f"SHOW {name}") for name in names]
    assert settings == ["off", "force_generic_plan", "1.1", "smarter_auth"]


async def test_pooler_is_asked_for_no_setting_that_it_does_not_know(database: Database) -> None:
    async with open_pool(database.runtime, statement_cache_size=0) as pool, pool.acquire() as connection:
        assert await connection.fetchval("SHOW plan_cache_mode") == "auto"


async def test_standby_is_not_believed(database: Database) -> None:
    async with open_pool(database.runtime, pool_max=1) as pool:
        store = Store(pool)
        async with pool.acquire() as connection:
            await connection.execute("SET default_transaction_read_only = on")
        with pytest.raises(UnavailableError, match="read-only"):
            await store.read(Target(BOT))
        assert (await store.read(Target(BOT))).bindings.account is None  # On a new connection.


async def test_lost_connections_are_replaced(
    database: Database, store: Store, keys: Management, owner: asyncpg.Connection
) -> None:
    await keys.create("one", bind=[BOT])
    await owner.fetch(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'smarter_auth'"
    )
    read = await store.read(Target(BOT))
    assert read.bindings.protection is Protection.BOUND


async def test_schema_that_went_away_is_reported_with_what_to_do(store: Store, owner: asyncpg.Connection) -> None:
    await owner.execute("DROP SCHEMA smarter_auth CASCADE")
    with pytest.raises(SchemaError) as refused:
        await store.read(Target(BOT))
    assert "smarter-auth db migrate" in refused.value.hint


async def test_role_without_rights_is_told_of_the_runtime_role(database: Database, owner: asyncpg.Connection) -> None:
    await owner.execute(f"REVOKE ALL ON SCHEMA smarter_auth FROM {database.runtime_role}")
    with pytest.raises(UnavailableError, match="permission denied") as refused:
        async with open_pool(database.runtime):
            pass
    assert "--runtime-role" in refused.value.hint


async def test_query_that_takes_too_long_is_given_up(database: Database, owner: asyncpg.Connection) -> None:
    async with open_pool(database.runtime, query_timeout_s=1.0) as pool, owner.transaction():
        await owner.execute("LOCK TABLE smarter_auth.resource")
        with pytest.raises(UnavailableError, match="another session has locked"):
            await Store(pool).read(Target(BOT))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://somebody:secret@/nothing?host=/nowhere", "cannot be reached"),
        ("postgresql://somebody:secret@localhost:1/nothing", "cannot be reached"),
        ("postgresql://somebody:se/cret@localhost/nothing", "not the address of a database"),
        ("mysql://somebody:secret@localhost/nothing", "not the address of a database"),
        ("{server}/nothing", "does not exist"),
    ],
)
async def test_database_that_cannot_be_opened_says_why_and_not_its_password(
    cluster: Cluster, url: str, said: str
) -> None:
    url = url.replace("{server}/nothing", named(cluster.url("owner"), "nothing"))
    with pytest.raises(UnavailableError, match=said) as refused:
        async with open_pool(url):
            pass
    assert "cret" not in f"{refused.value}{refused.value.hint}{refused.value.__cause__}"


@pytest.mark.parametrize(
    ("error", "said", "hint"),
    [
        (asyncpg.InvalidPasswordError("password authentication failed"), "refused the log-in", "user and password"),
        (asyncpg.TooManyConnectionsError("sorry, too many clients already"), "no free connection", "POOL_MAX"),
        (asyncpg.CannotConnectNowError("the database system is starting up"), "starting up", "again"),
        (asyncpg.ProtocolViolationError("unsupported startup parameter: jit"), "session", "STATEMENT_CACHE_SIZE=0"),
        (asyncpg.DuplicatePreparedStatementError("exists"), "session", "STATEMENT_CACHE_SIZE=0"),
        (asyncpg.ProtocolViolationError("password authentication failed"), "refused the log-in", "list of users"),
        (asyncpg.ProtocolViolationError("no more connections allowed (max_client_conn)"), "no free", "max_client_conn"),
        (asyncpg.ProtocolViolationError("query_wait_timeout"), "cannot be reached: query_wait_timeout", "runs there"),
        (
            asyncpg.ConnectionDoesNotExistError("…: transaction blocks not allowed in statement pooling mode"),
            "uses statement pooling",
            "pool_mode = transaction",
        ),
        (asyncpg.DeadlockDetectedError("deadlock detected"), "same moment", "again"),
        (asyncpg.InternalServerError("broken"), "failed: broken", ""),
        (asyncpg.InterfaceError("argument 'secret'"), "failed", ""),
    ],
)
def test_errors_of_the_database_say_what_to_do(error: Exception, said: str, hint: str) -> None:
    explanation = explained(error, "postgresql://host/database")
    assert said in explanation.message
    assert hint in explanation.hint
    assert "secret" not in explanation.message
