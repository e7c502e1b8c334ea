"""`smarter-auth key`: from the first binding to the end of a key."""

from __future__ import annotations

import os
import pwd
import re
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from smarter_auth_mw.tokens import Token
from tests.support.cli import Commands, rows
from tests.support.database import Database

UNKNOWN = str(uuid4())


def test_create_prints_the_token_once_and_nothing_else_ever_does(run: Commands) -> None:
    created = run("key", "create", "--name", "first", "--bind", "bot:1", "--json")
    token = created.json["token"]
    assert re.fullmatch("[0-9a-f]{64}", token)
    assert created.out.count(token) == 1
    assert token not in created.err
    key_id = created.json["key_id"]
    for arguments in (
        ["key", "list"],
        ["key", "show", key_id],
        ["resource", "show", "bot:1"],
        ["key", "revoke", key_id],
    ):
        ran = run(*arguments)
        assert token not in ran.out + ran.err


def test_create_tells_all_that_there_is_to_tell(run: Commands) -> None:
    before = datetime.now(UTC)
    created = run.json(
        "key",
        "create",
        "--name",
        "first",
        "--description",
        "for CI",
        "--expires-in",
        "30d",
        "--bind",
        "bot:2",
        "--bind",
        "bot:1",
    )
    assert created["name"] == "first"
    assert created["token_key"] == created["token"][:15]
    assert created["bindings"] == ["bot:1", "bot:2"]
    assert created["created"] is True
    assert created["description"] == "for CI"
    lifetime = datetime.fromisoformat(created["expires_at"]) - before
    assert timedelta(days=30) <= lifetime < timedelta(days=30, minutes=1)


def test_the_token_itself_is_not_in_the_database(run: Commands, database: Database) -> None:
    created = run.json("key", "create", "--name", "first")
    (stored,) = rows(database.owner, "SELECT digest FROM smarter_auth.token")
    assert stored["digest"] == Token(created["token"].encode()).digest


def test_binding_says_which_urls_ask_for_a_token_now(run: Commands) -> None:
    created = run("key", "create", "--name", "first", "--bind", "bot:1")
    assert "bot:1 was not registered before" in created.err
    assert "/bots/1" in created.err
    again = run("key", "create", "--name", "second", "--bind", "bot:1", "--json")
    assert "not registered" not in again.err
    assert again.json["created"] is False


def test_people_get_the_same_as_lines(run: Commands) -> None:
    lines = run("key", "create", "--name", "first").out.splitlines()
    assert lines[0].split()[0] == "key_id"
    assert [line for line in lines if line.startswith("expires_at")] == ["expires_at    -"]


def test_list_and_show_tell_the_state(run: Commands) -> None:
    key_id = run.json("key", "create", "--name", "first", "--bind", "bot:1")["key_id"]
    (listed,) = run.json("key", "list")
    assert listed == run.json("key", "show", key_id)
    assert {"key_id", "name", "token_key", "state", "expires_at", "last_used_at", "bindings"} <= set(listed)
    assert "token" not in listed
    assert listed["state"] == "active"
    assert listed["last_used_at"] is None


def test_list_by_resource_leaves_out_what_is_not_bound_to_it(run: Commands) -> None:
    run.json("key", "create", "--name", "first", "--bind", "bot:1")
    run.json("key", "create", "--name", "second", "--bind", "bot:2")
    assert [key["name"] for key in run.json("key", "list", "--resource", "bot:2")] == ["second"]


def test_list_for_people_is_a_table_with_whole_key_ids(run: Commands) -> None:
    key_id = run.json("key", "create", "--name", "a name that takes its place in the table " * 3)["key_id"]
    head, row = run("key", "list").out.splitlines()
    assert head.split()[:2] == ["key_id", "name"]
    assert row.startswith(key_id)


def test_nothing_to_list_is_said_on_stderr(run: Commands) -> None:
    ran = run("key", "list")
    assert (ran.exit_code, ran.out) == (0, "")
    assert ran.error == "No results."
    assert run.json("key", "list") == []


def test_bind_registers_what_is_not_there_yet(run: Commands) -> None:
    key_id = run.json("key", "create", "--name", "first")["key_id"]
    bound = run("key", "bind", key_id, "bot:5", "--json")
    assert bound.json["created"] is True
    assert bound.json["bindings"] == ["bot:5"]
    assert "/bots/5" in bound.err


def test_unbinding_the_last_key_needs_the_flag(run: Commands) -> None:
    key_id = run.json("key", "create", "--name", "first", "--bind", "bot:1")["key_id"]
    refused = run("key", "unbind", key_id, "bot:1")
    assert refused.exit_code == 1
    assert "--allow-anonymous" in refused.error
    assert run.json("resource", "show", "bot:1")["protected"] is True
    opened = run("key", "unbind", key_id, "bot:1", "--allow-anonymous", "--json")
    assert opened.json["bindings"] == []
    assert "open to anyone" in opened.err
    assert run.json("resource", "show", "bot:1")["protected"] is False


def test_deactivate_activate_and_revoke_show_in_the_state(run: Commands) -> None:
    key_id = run.json("key", "create", "--name", "first")["key_id"]
    assert run.json("key", "deactivate", key_id)["state"] == "inactive"
    assert run.json("key", "activate", key_id)["state"] == "active"
    assert run.json("key", "revoke", key_id)["state"] == "revoked"


def test_keys_are_revoked_without_any_routes(run: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    key_id = run.json("key", "create", "--name", "first", "--bind", "bot:1")["key_id"]
    monkeypatch.delenv("SMARTER_AUTH_ROUTES")
    assert run.json("key", "revoke", key_id)["state"] == "revoked"


@pytest.mark.parametrize("verb", ["show", "activate", "deactivate", "revoke"])
def test_a_key_that_is_not_there_is_not_found(run: Commands, verb: str) -> None:
    ran = run("key", verb, UNKNOWN)
    assert ran.exit_code == 1
    assert f"There is no key {UNKNOWN}" in ran.error


@pytest.mark.parametrize("duration", ["", "30", "d", "-1d", "1.5h", "0s", "30 d", "1w", "30D", "1d1h", "9999999999d"])
def test_what_is_no_duration_is_wrong_usage(run: Commands, duration: str) -> None:
    ran = run("key", "create", "--name", "first", f"--expires-in={duration}")
    assert ran.exit_code == 2
    assert "30s, 15m, 24h, 30d" in ran.error
    assert run.json("key", "list") == []


def test_a_duration_beyond_the_calendar_is_wrong_usage(run: Commands) -> None:
    assert run("key", "create", "--name", "first", "--expires-in", "999999999d").exit_code == 2


@pytest.mark.parametrize(
    ("resource", "says"),
    [
        ("bto:1", "bot"),
        ("bot:01", "canonical integer"),
        ("bot:+1", "canonical integer"),
        ("bot:abc", "canonical integer"),
        ("bot:1:2", "canonical integer"),
        ("bot", "KIND:REF"),
        ("bot:", "KIND:REF"),
        (":1", "KIND:REF"),
    ],
)
def test_what_names_no_resource_is_wrong_usage_and_mints_nothing(run: Commands, resource: str, says: str) -> None:
    ran = run("key", "create", "--name", "first", "--bind", resource)
    assert ran.exit_code == 2
    assert says in ran.error
    assert run.json("key", "list") == []


def test_a_kind_without_a_route_is_bound_where_that_is_meant(run: Commands) -> None:
    ran = run("key", "create", "--name", "first", "--bind", "other:1", "--no-route", "--json")
    assert ran.json["bindings"] == ["other:1"]
    assert "No route leads to other:1" in ran.err


def test_a_resource_that_a_none_line_hides_is_refused(run: Commands) -> None:
    run.set(routes="bot /bots/{ref}\nnone /bots/health")
    ran = run("key", "create", "--name", "first", "--bind", "bot:health")
    assert ran.exit_code == 2
    assert "/bots/health" in ran.error
    assert run("key", "create", "--name", "first", "--bind", "bot:health", "--no-route").exit_code == 0


def test_a_hashed_id_is_bound_as_the_number_it_stands_for(run: Commands) -> None:
    run.set(routes="bot /bots/{ref:hashed}")
    assert run.json("key", "create", "--name", "first", "--bind", "bot:rMTAwMDA0Mgx")["bindings"] == ["bot:42"]


def test_one_impossible_binding_of_several_leaves_nothing_behind(run: Commands) -> None:
    run.json("resource", "add", "bot:2", "--account", "another")
    ran = run("key", "create", "--name", "first", "--bind", "bot:1", "--bind", "bot:2")
    assert ran.exit_code == 1
    assert "another" in ran.error
    assert run.json("key", "list") == []
    assert [resource["ref"] for resource in run.json("resource", "list")] == ["2"]


def test_a_name_that_is_taken_is_a_conflict(run: Commands) -> None:
    run.json("key", "create", "--name", "first")
    ran = run("key", "create", "--name", "first", "--json")
    assert ran.exit_code == 1
    assert ran.json["error"]["code"] == "conflict"


def test_the_actor_is_in_the_audit(run: Commands, database: Database) -> None:
    run.json("key", "create", "--name", "first", "--actor", "deploy")
    run.json("key", "create", "--name", "second")
    audited = rows(database.owner, "SELECT actor FROM smarter_auth.audit_event ORDER BY id")
    assert [row["actor"] for row in audited] == ["deploy", pwd.getpwuid(os.getuid()).pw_name]
