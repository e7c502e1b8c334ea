"""The command line on a platform's own database: what it shows, what it adds, and what it leaves to the platform."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import pytest

from smarter_auth_mw.postgres.embedded.cluster import Cluster
from tests.support.cli import Commands, rows
from tests.support.database import Database, copied
from tests.support.platform import ACCOUNT, Platform, digest_of, platform_ddl, token_of

PATH = "/api/v1/llm-clients/42/prompt/"


@pytest.fixture(scope="module")
def filled(cluster: Cluster, platform_template: str) -> Iterator[Database]:
    """An attached platform whose bot 42 one key opens, and whose bot 43 none; shared by what changes none of it."""
    for database in copied(cluster, platform_template):
        _on(database, _fill)
        yield database


@pytest.fixture
def fresh(attached: Database) -> Database:
    """The same for one test alone."""
    _on(attached, _fill)
    return attached


async def _fill(platform: Platform) -> None:
    profile = await platform.user("admin")
    await platform.bot("hr_bot", profile, 42)
    await platform.bot("open_bot", profile, 43)
    await platform.bind(42, await platform.key("first", profile))


def _on(database: Database, act: Callable[[Platform], Awaitable[Any]]) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(database.owner)
        try:
            await act(Platform(database, connection))
        finally:
            await connection.close()

    asyncio.run(run())


def _set_up(bare: Commands, database: Database) -> Commands:
    bare.set(
        database_url=database.manager,
        routes="preset:smarter",
        api_domains="api.example.com",
        default_account=ACCOUNT,
    )
    return bare


@pytest.fixture
def on_filled(bare: Commands, filled: Database) -> Commands:
    return _set_up(bare, filled)


@pytest.fixture
def on_fresh(bare: Commands, fresh: Database) -> Commands:
    return _set_up(bare, fresh)


def _header(key: str) -> str:
    return f"Authorization: Token {token_of(key)}"


def test_attach_tells_the_layout_and_detach_takes_it_back(bare: Commands, empty_database: Database) -> None:
    bare.set(database_url=empty_database.owner)
    rows(empty_database.owner, "SELECT", platform_ddl(("chatbot",), "account"))
    attached = bare.json("db", "attach", "smarter", "--runtime-role", empty_database.runtime_role)
    assert (attached["layout"], attached["pending"]) == ("smarter", [])
    assert bare.json("db", "status") == attached
    assert bare.json("db", "attach", "smarter") == attached
    assert bare.json("db", "migrate") == attached
    assert "CREATE OR REPLACE FUNCTION smarter_auth.%s" in bare.json("db", "sql")["sql"]
    assert bare.json("db", "restored") == attached
    bare.set(routes="chatbot /bots/{ref:int}")
    bare.json("key", "create", "--name", "ours")
    ran = bare("db", "detach", "--json")
    assert (ran.json["layout"], ran.json["schema"]) == ("native", None)
    dropped, left = ran.err.splitlines()
    for words in (
        "schema smarter_auth with keys (1), audit events (1)",
        "triggers on the platform's tables",
        "all privileges",
    ):
        assert words in dropped
    assert empty_database.runtime_role in left
    assert ("the role smarter_auth," in left) == bool(
        rows(empty_database.owner, "SELECT 1 FROM pg_roles WHERE rolname = 'smarter_auth'")
    )
    refused = bare("db", "detach")
    assert (refused.exit_code, "No platform is attached" in refused.error) == (1, True)


def test_attach_without_a_platform_says_what_is_missing(bare: Commands, empty_database: Database) -> None:
    bare.set(database_url=empty_database.owner)
    refused = bare("db", "attach", "smarter")
    assert refused.exit_code == 1
    assert "no table knox_authtoken" in refused.err
    assert bare("db", "attach", "something").exit_code == 2


def test_the_platforms_keys_and_bots_are_shown(on_filled: Commands) -> None:
    (key,) = on_filled.json("key", "list", "--resource", "llm_client:hr_bot")
    assert (key["name"], key["account"], key["state"], key["bindings"]) == (
        "first",
        ACCOUNT,
        "active",
        ["llm_client:42"],
    )
    assert key["token_key"] == token_of("first")[:15]
    assert on_filled.json("key", "show", key["key_id"]) == key
    assert [one["key_id"] for one in on_filled.json("key", "list")] == [key["key_id"]]
    shown = on_filled.json("resource", "show", "llm_client:rMTAwMDA0Mgx")
    assert (shown["ref"], shown["protected"], shown["bindings"][0]["name"]) == ("42", True, "first")
    assert on_filled.json("resource", "show", "llm_client:43")["protected"] is False
    assert [(one["ref"], one["name"]) for one in on_filled.json("resource", "list")] == [("42", "hr_bot")]
    assert [one["name"] for one in on_filled.json("resource", "list", "--limit", "5")["items"]] == ["hr_bot"]
    assert shown["name"] == "hr_bot"
    assert "hr_bot" in on_filled("resource", "list").out


def test_check_explains_requests(on_filled: Commands) -> None:
    assert on_filled.json("check", PATH, "--header", _header("first"))["decision"] == "grant"
    denied = on_filled("check", f"https://hr-bot.{ACCOUNT}.api.example.com/", "--json")
    assert (denied.exit_code, denied.json["resource"], denied.json["status"]) == (1, "llm_client:42", 401)
    assert on_filled.json("check", "/api/v1/llm-clients/43/")["decision"] == "anonymous"


@pytest.mark.parametrize(
    "arguments",
    [
        ("key", "revoke"),
        ("key", "deactivate"),
        ("key", "rotate"),
        ("key", "unbind", "llm_client:42", "--allow-anonymous"),
        ("key", "bind", "llm_client:43"),
    ],
)
def test_what_would_write_the_platforms_rows_is_refused(on_filled: Commands, arguments: tuple[str, ...]) -> None:
    (key,) = on_filled.json("key", "list")
    refused = on_filled(*arguments[:2], key["key_id"], *arguments[2:])
    assert refused.exit_code == 1
    assert "belongs to the platform" in refused.error
    assert "Django admin" in refused.error
    assert on_filled.json("key", "list") == [key]


@pytest.mark.parametrize(
    "arguments",
    [
        ("resource", "set", "llm_client:42", "--name", "another"),
        ("resource", "remove", "llm_client:42", "--allow-anonymous"),
        ("resource", "add", "llm_client:43"),
    ],
)
def test_what_the_platform_knows_of_a_bot_is_not_changed_here(on_filled: Commands, arguments: tuple[str, ...]) -> None:
    refused = on_filled(*arguments)
    if refused.exit_code == 2:
        refused = on_filled(*arguments[:3])
    assert refused.exit_code == 1
    assert "belongs to the platform" in refused.error


def test_keys_of_our_own_open_the_platforms_bots_and_none_of_its_rows_is_written(
    on_fresh: Commands, fresh: Database
) -> None:
    counts = (
        "SELECT (SELECT count(*) FROM knox_authtoken), (SELECT count(*) FROM drf_smarterauthtoken),"
        " (SELECT count(*) FROM llm_client_llmclientapikey)"
    )
    before = rows(fresh.owner, counts)
    made = on_fresh.json("key", "create", "--name", "ours", "--bind", "llm_client:42", "--bind", "llm_client:43")
    assert (made["account"], made["created"]) == (ACCOUNT, False)
    header = f"Authorization: Token {made['token']}"
    assert on_fresh.json("check", PATH, "--header", header)["decision"] == "grant"
    assert on_fresh.json("check", PATH, "--header", _header("first"))["decision"] == "grant"
    assert on_fresh("check", "/api/v1/llm-clients/43/").exit_code == 1
    assert {one["ref"] for one in on_fresh.json("resource", "list")} == {"42", "43"}
    rotated = on_fresh.json("key", "rotate", made["key_id"], "--overlap", "0s")
    assert on_fresh("check", PATH, "--header", header).exit_code == 1
    assert on_fresh("check", PATH, "--header", f"Authorization: Token {rotated['token']}").exit_code == 0
    assert on_fresh("key", "unbind", made["key_id"], "llm_client:42").exit_code == 0
    assert on_fresh("key", "unbind", made["key_id"], "llm_client:43").exit_code == 1
    assert on_fresh("key", "unbind", made["key_id"], "llm_client:43", "--allow-anonymous").exit_code == 0
    assert on_fresh.json("check", "/api/v1/llm-clients/43/")["decision"] == "anonymous"
    assert rows(fresh.owner, counts) == before
    assert {one["action"] for one in on_fresh.json("audit")} >= {"key.create", "key.bind", "key.rotate", "key.unbind"}


def test_key_of_another_account_is_not_bound_to_a_bot(on_fresh: Commands) -> None:
    refused = on_fresh("key", "create", "--name", "ours", "--account", "elsewhere", "--bind", "llm_client:42")
    assert refused.exit_code == 1
    assert ACCOUNT in refused.error


def test_bot_is_protected_and_opened_by_command(on_fresh: Commands, fresh: Database) -> None:
    assert on_fresh("resource", "protect", "llm_client:43").exit_code == 0
    assert on_fresh("check", "/api/v1/llm-clients/43/").exit_code == 1
    assert on_fresh("resource", "unprotect", "llm_client:43").exit_code == 0
    assert on_fresh("check", "/api/v1/llm-clients/43/").exit_code == 0
    assert on_fresh("resource", "unprotect", "llm_client:42").exit_code == 1
    _on(fresh, lambda platform: platform.delete_key(digest_of(token_of("first"))))
    assert on_fresh("check", PATH).exit_code == 1
    assert on_fresh.json("resource", "show", "llm_client:42")["protected"] is True
    assert on_fresh("resource", "unprotect", "llm_client:42").exit_code == 0
    assert on_fresh.json("check", PATH)["decision"] == "anonymous"
    assert on_fresh.json("audit", "--resource", "llm_client:42")[0]["action"] == "resource.unprotect"


def test_doctor_says_what_to_do_about_a_platform_that_has_changed(on_fresh: Commands, fresh: Database) -> None:
    def platform_findings() -> list[Any]:
        return [one for one in on_fresh("doctor", "--json").json["findings"] if one["check"] == "platform"]

    assert platform_findings() == []
    rows(fresh.owner, "SELECT", "DROP TRIGGER smarter_auth_note_update ON auth_user")
    (warning,) = platform_findings()
    assert "auth_user.smarter_auth_note_update" in warning["message"]
    rows(fresh.owner, "SELECT", "ALTER TABLE drf_smarterauthtoken DROP is_active")
    problem = platform_findings()[0]
    assert (warning["level"], problem["level"], "drf_smarterauthtoken.is_active" in problem["message"]) == (
        "problem",
        "problem",
        True,
    )
    assert "db migrate" in problem["hint"]
    assert on_fresh("doctor").exit_code != 0
