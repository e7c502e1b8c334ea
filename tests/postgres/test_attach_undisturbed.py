"""The platform goes on as if we were not there: its writes, its transactions, its migrations, its schema afterwards."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import asyncpg
import pytest

from smarter_auth_mw.errors import RefusedError, SchemaError, UnavailableError
from smarter_auth_mw.postgres import migrations
from smarter_auth_mw.postgres.queries import SQL
from tests.support.catalog import catalog
from tests.support.database import Database
from tests.support.platform import Front, Platform, digest_of, front_of, platform_ddl, token_of

PATH = "/api/v1/llm-clients/42/prompt/"


@pytest.fixture
async def owner(platform: Platform) -> int:
    """The owner of bot 42, which one key opens."""
    profile = await platform.user("admin")
    await platform.bot("hr_bot", profile, 42)
    await platform.bind(42, await platform.key("first", profile))
    await platform.sql.execute("DELETE FROM smarter_auth.change")
    return profile


async def _told(platform: Platform) -> set[str]:
    return {row[0] for row in await platform.sql.fetch("SELECT source FROM smarter_auth.change")}


DIGEST = digest_of(token_of("first"))
KEY = f"key:{DIGEST[:32]}"
TOLD = {
    "a use": ("UPDATE drf_smarterauthtoken SET last_used_at = now(), updated_at = now()", set()),
    "a full save of a key": (
        "UPDATE knox_authtoken SET created = created, expiry = expiry, user_id = user_id, token_key = token_key;"
        " UPDATE drf_smarterauthtoken SET name = name, is_active = is_active, updated_at = now(), key_id = key_id,"
        " description = 'another', last_used_at = now(), user_profile_id = user_profile_id",
        set(),
    ),
    "a full save of a bot": (
        "UPDATE llm_client_llmclient SET name = name, user_profile_id = user_profile_id, updated_at = now(),"
        " default_system_role = 'another'",
        set(),
    ),
    "a log-in": ("UPDATE auth_user SET last_login = now(), password = 'another'", set()),
    "a key switched off": ("UPDATE drf_smarterauthtoken SET is_active = false", {KEY}),
    "an expiry": ("UPDATE knox_authtoken SET expiry = now()", {KEY}),
    "an owner switched off": ("UPDATE auth_user SET is_active = false", {"owner:1"}),
    "a binding": (
        "INSERT INTO llm_client_llmclientapikey (llm_client_id, api_key_id) SELECT 42, digest FROM knox_authtoken",
        {"bindings:llm_client:42"},
    ),
    "a thousand bots": (
        "INSERT INTO llm_client_llmclient (name, user_profile_id) SELECT 'bot' || n, 1"
        " FROM generate_series(1, 1000) AS n",
        {"kind:llm_client", "directory:llm_client"},
    ),
    "a thousand keys switched off": (
        "INSERT INTO knox_authtoken (digest, token_key, user_id) SELECT 'x' || n, 'x', 1"
        " FROM generate_series(1, 1000) AS n;"
        "INSERT INTO drf_smarterauthtoken (authtoken_ptr_id, key_id, name, is_active, user_profile_id)"
        " SELECT 'x' || n, gen_random_uuid(), 'x', true, 1 FROM generate_series(1, 1000) n;"
        "DELETE FROM smarter_auth.change; UPDATE drf_smarterauthtoken SET is_active = false",
        {"profile:1"},
    ),
}


@pytest.mark.parametrize(("statements", "sources"), TOLD.values(), ids=TOLD.keys())
async def test_writes_tell_what_decides_and_nothing_else(
    platform: Platform, owner: int, statements: str, sources: set[str]
) -> None:
    await platform.sql.execute(statements)
    assert await _told(platform) == sources


async def test_platform_migrations_run_while_attached(platform: Platform, owner: int, front: Front) -> None:
    assert await front.ask(PATH, "first") == 200
    async with platform.sql.transaction():
        await platform.sql.execute("""
            ALTER TABLE auth_user ALTER id TYPE bigint;
            ALTER TABLE account_userprofile ALTER user_id TYPE bigint;
            ALTER TABLE knox_authtoken ALTER user_id TYPE bigint, ALTER token_key TYPE varchar(64);
            ALTER TABLE drf_smarterauthtoken ALTER name TYPE text, ADD color text NOT NULL DEFAULT 'red', DROP tags;
            ALTER TABLE llm_client_llmclient ALTER name TYPE varchar(300), DROP default_system_role;
            ALTER TABLE llm_client_llmclientapikey RENAME TO renamed;
            ALTER TABLE renamed RENAME TO llm_client_llmclientapikey;
        """)
    await platform.sql.execute("UPDATE auth_user SET is_active = false")
    await front.comes_to(401, PATH, "first")
    await platform.sql.execute("UPDATE auth_user SET is_active = true")
    await front.comes_to(200, PATH, "first")
    assert await front.ask(PATH) == 401


async def test_column_that_vanished_is_a_503_and_one_clear_line_and_the_platform_goes_on(
    platform: Platform, owner: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with front_of(platform) as front:
        assert await front.ask(PATH, "first") == 200
        await platform.sql.execute("ALTER TABLE drf_smarterauthtoken RENAME is_active TO is_enabled")
        await platform.sql.execute("UPDATE drf_smarterauthtoken SET is_enabled = false, name = 'renamed'")
        await front.comes_to(503, PATH, "first")
        assert await front.ask("/api/v1/llm-clients/43/") == 503
        (line,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert "is_active does not exist" in line.getMessage()
        with pytest.raises(SchemaError, match=r"drf_smarterauthtoken\.is_active") as refused:
            await migrations.migrate(platform.database.owner)
        assert "db detach" in refused.value.hint
        await platform.sql.execute("ALTER TABLE drf_smarterauthtoken RENAME is_enabled TO is_active")
        await front.comes_to(401, PATH, "first")


async def test_migrate_follows_a_platform_that_has_moved_on(platform: Platform, owner: int, front: Front) -> None:
    assert await front.ask(PATH, "first") == 200
    await platform.sql.execute(
        "DROP TABLE chatbot_chatbotapikey; DROP TABLE chatbot_chatbot; DROP TABLE chatbot_chatbotcustomdomain"
    )
    await platform.sql.execute("UPDATE drf_smarterauthtoken SET is_active = false")
    await front.comes_to(503, PATH, "first")
    await migrations.migrate(platform.database.owner)
    await front.comes_to(401, PATH, "first")


async def test_trigger_that_was_dropped_is_missed_and_made_anew(platform: Platform, owner: int) -> None:
    await platform.sql.execute("DROP TRIGGER smarter_auth_note_update ON drf_smarterauthtoken")
    await platform.sql.execute("ALTER TABLE auth_user DISABLE TRIGGER smarter_auth_note_update")
    missing = "SELECT * FROM smarter_auth.platform_missing() AS name ORDER BY 1"
    assert [row[0] for row in await platform.sql.fetch(missing)] == [
        "auth_user.smarter_auth_note_update",
        "drf_smarterauthtoken.smarter_auth_note_update",
    ]
    await migrations.migrate(platform.database.owner)
    assert [row[0] for row in await platform.sql.fetch(missing)] == ["auth_user.smarter_auth_note_update"]


async def test_rows_may_come_in_any_order_within_a_transaction(platform: Platform, front: Front) -> None:
    async with platform.sql.transaction():
        await platform.sql.execute(f"""
            INSERT INTO llm_client_llmclientapikey (llm_client_id, api_key_id) VALUES (42, '{DIGEST}');
            INSERT INTO llm_client_llmclient (id, name, user_profile_id) VALUES (42, 'hr_bot', 7);
            INSERT INTO drf_smarterauthtoken (authtoken_ptr_id, key_id, name, is_active, user_profile_id)
            VALUES ('{DIGEST}', gen_random_uuid(), 'first', true, 7);
            INSERT INTO knox_authtoken (digest, token_key, user_id) VALUES ('{DIGEST}', 'x', 5);
            INSERT INTO account_userprofile (id, name, account_id, user_id) VALUES (7, '', 3, 5);
            INSERT INTO account_account (id, name, account_number) VALUES (3, '', '3141-5926-5359');
            INSERT INTO auth_user (id, username) VALUES (5, 'admin');
        """)
    await front.comes_to(401, PATH)
    for url in (PATH, "/api/v1/cli/prompt/hr_bot/", "http://hr-bot.3141-5926-5359.api.example.com/"):
        assert [await front.ask(url, key) for key in ("", "first")] == [401, 200]
    await migrations.migrate(platform.database.owner)
    assert await platform.sql.fetchval("SELECT count(*) FROM smarter_auth.platform_alias WHERE account_id IS NULL") == 0


# So many that nobody reads a whole table or a page of an index where another one writes: whoever does has a conflict.
_MANY = """
INSERT INTO knox_authtoken (digest, token_key, user_id)
SELECT rpad(n::text, 128, '0'), 'x', 1 FROM generate_series(1000, 9000) AS n;
INSERT INTO drf_smarterauthtoken (authtoken_ptr_id, key_id, name, is_active, user_profile_id)
SELECT rpad(n::text, 128, '0'), gen_random_uuid(), 'x', true, 1 FROM generate_series(1000, 9000) AS n;
INSERT INTO llm_client_llmclient (id, name, user_profile_id)
SELECT n * 1000, 'bot_' || n, 1 FROM generate_series(1000, 9000) AS n;
INSERT INTO llm_client_llmclientapikey (llm_client_id, api_key_id)
SELECT n * 1000, rpad(n::text, 128, '0') FROM generate_series(1000, 9000) AS n;
ANALYZE;
"""


async def _writes(platform: Platform, writer: int, count: int) -> None:
    """Somebody who works on bots and keys of their own, and nobody else's."""
    connection = await asyncpg.connect(platform.database.owner)
    try:
        for number in range(count):
            digest, bot_id = f"{2000 * (1 + writer)}{1 + number:03}".ljust(128, "0"), 2_000_001 * (1 + writer) + number
            async with connection.transaction(isolation="serializable"):
                await connection.execute(
                    "INSERT INTO knox_authtoken (digest, token_key, user_id) VALUES ($1, 'x', 1)", digest
                )
                await connection.execute(
                    "INSERT INTO drf_smarterauthtoken (authtoken_ptr_id, key_id, name, is_active, user_profile_id)"
                    " VALUES ($1, gen_random_uuid(), 'x', true, 1)",
                    digest,
                )
                await connection.execute(
                    "INSERT INTO llm_client_llmclient (id, name, user_profile_id) VALUES ($1, $2, 1)",
                    bot_id,
                    f"{writer} {number}",
                )
                await connection.execute(
                    "INSERT INTO llm_client_llmclientapikey (llm_client_id, api_key_id) VALUES ($1, $2)",
                    bot_id,
                    digest,
                )
                await connection.execute(
                    "UPDATE drf_smarterauthtoken SET is_active = false WHERE authtoken_ptr_id = $1", digest
                )
                await connection.execute(
                    "UPDATE llm_client_llmclient SET name = $1 WHERE id = $2", f"new {writer} {number}", bot_id
                )
                await connection.execute("DELETE FROM llm_client_llmclientapikey WHERE api_key_id = $1", digest)
    finally:
        await connection.close()


async def test_serializable_writers_that_never_meet_do_not_fail(platform: Platform, owner: int, front: Front) -> None:
    await platform.sql.execute(_MANY)
    await asyncio.gather(*(_writes(platform, writer, 20) for writer in range(4)))


async def test_a_key_in_use_is_noted_in_the_platforms_own_column(platform: Platform, owner: int) -> None:
    async with front_of(platform, usage_flush_s=0.05) as front:
        assert await front.ask(PATH, "first") == 200
        async with asyncio.timeout(30):
            while not await platform.sql.fetchval("SELECT last_used_at FROM drf_smarterauthtoken"):
                await asyncio.sleep(0.01)
    assert await _told(platform) == set()


@pytest.fixture
async def bare_platform(empty_database: Database) -> AsyncIterator[Platform]:
    """A platform that nobody has attached yet."""
    connection = await asyncpg.connect(empty_database.owner)
    await connection.execute(platform_ddl(("llm_client",), "owned"))
    try:
        yield Platform(empty_database, connection)
    finally:
        await connection.close()


_RIGHTS = """
SELECT relname || '.' || attname || ' ' || acl.grantee::regrole || ' ' || acl.privilege_type
  FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid CROSS JOIN LATERAL aclexplode(attacl) AS acl
 WHERE relnamespace = 'public'::regnamespace
UNION ALL
SELECT relname || ' ' || acl.grantee::regrole || ' ' || acl.privilege_type
  FROM pg_class CROSS JOIN LATERAL aclexplode(relacl) AS acl
 WHERE relnamespace = 'public'::regnamespace AND acl.grantee <> relowner
"""


async def test_detaching_leaves_no_trace(bare_platform: Platform) -> None:
    profile = await bare_platform.user("admin")
    await bare_platform.bind(await bare_platform.bot("hr_bot", profile, 42), await bare_platform.key("first", profile))
    before = await catalog(bare_platform.sql, "public")
    await bare_platform.attach()
    assert await catalog(bare_platform.sql, "public") != before
    await bare_platform.delete_key(DIGEST)
    status = await migrations.detach(bare_platform.database.owner)
    assert (status.schema, status.layout) == (None, "native")
    # A list of rights that was never touched, and one that holds the owner's own again, are the same.
    after = await catalog(bare_platform.sql, "public")
    assert [_without_own_rights(line) for line in after] == [_without_own_rights(line) for line in before]
    assert not await bare_platform.sql.fetch(_RIGHTS)
    assert not await bare_platform.sql.fetchval("SELECT to_regnamespace('smarter_auth')")
    assert await bare_platform.sql.fetchval("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == 0
    with pytest.raises(RefusedError, match="No platform is attached"):
        await migrations.detach(bare_platform.database.owner)
    await bare_platform.attach()


def _without_own_rights(line: str) -> str:
    owner = line.partition(" {")[0]
    return owner if " {" in line and line.startswith("relation ") else line


async def test_nothing_is_granted_but_what_the_documentation_lists(platform: Platform) -> None:
    rights = [row[0] for row in await platform.sql.fetch(_RIGHTS)]
    runtime = platform.database.runtime_role
    assert {right.rpartition(" ")[2] for right in rights if f" {runtime} " in right} == {"SELECT"}
    ours = [right.replace(" smarter_auth ", " ") for right in rights if " smarter_auth " in right]
    assert [right for right in ours if right.endswith("UPDATE")] == ["drf_smarterauthtoken.last_used_at UPDATE"]
    assert {right.rpartition(" ")[2] for right in ours} == {"SELECT", "UPDATE", "TRIGGER"}
    readable = {right.partition(" ")[0] for right in rights if f" {runtime} " in right}
    assert not readable & {"auth_user.password", "auth_user.email", "llm_client_llmclient.default_system_role"}
    assert not [right for right in rights if "." not in right and "SELECT" in right]


async def test_role_that_owns_none_of_the_tables_is_told_what_their_owner_runs(
    bare_platform: Platform,
) -> None:
    role = "attacher"
    await bare_platform.sql.execute(
        f"DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN; GRANT smarter_auth TO {role};"
        f" GRANT CREATE ON DATABASE {urlsplit(bare_platform.database.owner).path[1:]} TO smarter_auth"
    )
    await migrations.migrate(bare_platform.database.owner)
    as_role = "SET SESSION AUTHORIZATION attacher"
    try:
        script = (SQL / "migrations" / "attach.sql").read_text("utf-8")
        with pytest.raises(asyncpg.InsufficientPrivilegeError) as refused:
            await bare_platform.sql.execute(f"BEGIN; {as_role}; {script}")
        await bare_platform.sql.execute("ROLLBACK")
        hint = refused.value.hint or ""
        assert "GRANT SELECT (digest, token_key" in hint
        await bare_platform.sql.execute("RESET SESSION AUTHORIZATION")
        await bare_platform.sql.execute(hint.partition("\n")[2])
        async with bare_platform.sql.transaction():
            await bare_platform.sql.execute(as_role)
            await bare_platform.sql.execute(script)
        await bare_platform.sql.execute("RESET SESSION AUTHORIZATION")
        assert (await migrations.status(bare_platform.database.owner)).layout == "smarter"
    finally:
        await bare_platform.sql.execute("RESET SESSION AUTHORIZATION")
        await bare_platform.sql.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_database_without_a_platform_is_refused_and_nothing_is_done(empty_database: Database) -> None:
    with pytest.raises(SchemaError, match="no table knox_authtoken"):
        await migrations.migrate(empty_database.owner, attach=True)
    assert (await migrations.status(empty_database.owner)).schema is None


async def test_platform_that_is_busy_is_not_waited_for_long(bare_platform: Platform) -> None:
    await migrations.migrate(bare_platform.database.owner)
    async with bare_platform.sql.transaction():
        await bare_platform.user("somebody")
        with pytest.raises(UnavailableError, match="nothing was changed"):
            await bare_platform.attach()
    await bare_platform.attach()


async def test_restored_dump_forgets_no_loss_and_is_another_epoch(platform: Platform, owner: int) -> None:
    await platform.delete_key(DIGEST)
    epoch = await platform.sql.fetchval("SELECT epoch FROM smarter_auth.meta")
    await migrations.restored(platform.database.owner)
    assert await platform.sql.fetchval("SELECT epoch FROM smarter_auth.meta") != epoch
    # As the numbers of a younger server are: smaller than any that the dump tells of.
    await platform.sql.execute("UPDATE smarter_auth.lost_binding SET seen = '900000:900000:'")
    second = await platform.key("second", owner)
    await platform.bind(42, second)
    await platform.delete_key(second)
    async with front_of(platform) as front:
        assert await front.ask(PATH) == 401
