"""`smarter-auth db` on real databases."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli import Commands, rows
from tests.support.database import Database


@pytest.fixture
def empty(bare: Commands, empty_database: Database) -> Commands:
    bare.set(database_url=empty_database.owner)
    return bare


def test_migrate_brings_an_empty_database_up_to_date_and_says_so(empty: Commands) -> None:
    before = empty.json("db", "status")
    assert before["schema"] is None
    assert before["pending"]
    migrated = empty("db", "migrate", "--json")
    assert migrated.json == {"schema": before["pending"][-1], "pending": [], "layout": "native"}
    assert "0001" in migrated.err
    assert empty.json("db", "status") == migrated.json


def test_migrate_a_second_time_has_nothing_to_do(empty: Commands) -> None:
    first = empty.json("db", "migrate")
    assert empty.json("db", "migrate") == first


def test_migrate_grants_each_role_what_it_needs_and_no_more(empty: Commands, empty_database: Database) -> None:
    roles = ("--runtime-role", empty_database.runtime_role, "--manager-role", empty_database.manager_role)
    assert empty("db", "migrate", *roles).exit_code == 0
    empty.set(database_url=empty_database.runtime, routes="bot /bots/{ref:int}")
    refused = empty("key", "create", "--name", "first", "--bind", "bot:1")
    assert refused.exit_code == 1
    assert f"--manager-role {empty_database.runtime_role}" in refused.error
    assert empty.json("check", "/bots/1")["decision"] == "anonymous"
    empty.set(database_url=empty_database.manager)
    assert empty("key", "create", "--name", "first", "--bind", "bot:1").exit_code == 0
    empty.set(database_url=empty_database.runtime)
    assert empty("check", "/bots/1", "--json").json["decision"] == "deny"
    assert [key["name"] for key in empty.json("key", "list")] == ["first"]


def test_a_runtime_role_that_is_not_there_is_refused_and_nothing_is_done(empty: Commands) -> None:
    ran = empty("db", "migrate", "--runtime-role", "nobody_knows")
    assert ran.exit_code == 1
    assert "CREATE ROLE" in ran.err
    assert empty.json("db", "status")["schema"] is None


def test_sql_is_printed_and_not_run_and_does_what_migrate_does(empty: Commands, empty_database: Database) -> None:
    script = empty("db", "sql").out
    assert empty.json("db", "status")["schema"] is None
    rows(empty_database.owner, "SELECT", script)
    assert empty.json("db", "status")["pending"] == []


def test_sql_as_json_stands_in_the_document(empty: Commands) -> None:
    document = empty.json("db", "sql")
    assert "CREATE TABLE" in document["sql"]
    assert document["pending"]


def test_db_needs_no_routes_but_a_database(bare: Commands) -> None:
    ran = bare("db", "status")
    assert ran.exit_code == 2
    assert "SMARTER_AUTH_DATABASE_URL" in ran.error
    assert "ROUTES" not in ran.error


def test_the_embedded_database_is_migrated_for_its_runtime_role(bare: Commands, embedded_directory: Path) -> None:
    bare.set(database_url=f"embedded://{embedded_directory}", routes="bot /bots/{ref:int}")
    migrated = bare("db", "migrate", "--json")
    assert migrated.json["pending"] == []
    assert "PostgreSQL" in migrated.err
    assert bare.json("resource", "list") == []
