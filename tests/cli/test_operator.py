"""`smarter-auth operator`, as the owner of the schema runs it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.cli import Commands, rows
from tests.support.database import Database


@pytest.fixture
def as_owner(run: Commands, database: Database) -> Commands:
    """The command line with the URL of the schema's owner, and no routes: operators need none."""
    run.set(database_url=database.owner, routes="")
    return run


def test_operator_is_made_and_the_token_printed_this_once(as_owner: Commands) -> None:
    made = as_owner.json("operator", "create", "--name", "ada", "--role", "manager", "--account", "acme")
    assert list(made) == ["operator_id", "name", "role", "account", "expires_at", "token", "token_key"]
    assert (made["name"], made["role"], made["account"], made["expires_at"]) == ("ada", "manager", "acme", None)
    assert re.fullmatch("sma_[0-9A-Za-z]{49}", made["token"])
    assert made["token"].startswith(made["token_key"])
    (listed,) = as_owner.json("operator", "list")
    assert (listed["operator_id"], listed["state"]) == (made["operator_id"], "active")
    assert made["token"] not in as_owner("operator", "list", "--json").out + as_owner("operator", "list").out


def test_operator_is_set_rotated_and_revoked(as_owner: Commands) -> None:
    first = as_owner.json("operator", "create", "--name", "ada", "--role", "viewer", "--account", "acme")
    changed = as_owner.json("operator", "set", "ada", "--role", "admin", "--all-accounts", "--expires-in", "30d")
    assert (changed["role"], changed["account"]) == ("admin", None)
    left = datetime.fromisoformat(changed["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=29) < left <= timedelta(days=30)
    assert as_owner.json("operator", "set", "ada", "--expires-in", "never")["expires_at"] is None
    rotated = as_owner.json("operator", "rotate", "ada", "--overlap", "1h")
    assert rotated["token"] != first["token"]
    assert as_owner.json("operator", "revoke", "ada")["state"] == "revoked"
    ran = as_owner("operator", "rotate", "ada")
    assert (ran.exit_code, "is revoked for good" in ran.error) == (1, True)


def test_list_for_people_names_role_account_and_tokens(as_owner: Commands) -> None:
    as_owner.json("operator", "create", "--name", "ada", "--role", "manager")
    as_owner.json("operator", "rotate", "ada", "--overlap", "1h")
    out = as_owner("operator", "list").out
    assert re.search(r"ada +manager +all accounts +active +- +- +2", out), out


@pytest.mark.parametrize("role", ["runtime", "manager"])
def test_other_roles_are_told_whose_url_is_needed(run: Commands, database: Database, role: str) -> None:
    run.set(database_url=getattr(database, role))
    for arguments in (["create", "--name", "eve", "--role", "admin"], ["list"], ["revoke", "ada"]):
        ran = run("operator", *arguments)
        assert ran.exit_code == 1
        assert "OWNER@HOST" in ran.error
    assert rows(database.owner, "SELECT * FROM smarter_auth.operator") == []


def test_wrong_usage_is_refused(as_owner: Commands) -> None:
    assert as_owner("operator", "create", "--name", "ada", "--role", "root").exit_code == 2
    assert as_owner("operator", "create", "--name", "", "--role", "admin").exit_code == 2
    assert as_owner("operator", "set", "ada", "--account", "acme", "--all-accounts").exit_code == 2
    assert as_owner("operator", "set", "nobody", "--role", "admin").exit_code == 1


def test_token_of_an_operator_in_the_wrong_place_is_hidden(as_owner: Commands) -> None:
    token = as_owner.json("operator", "create", "--name", "ada", "--role", "admin")["token"]
    for arguments in (["operator", "revoke", token], ["key", "show", token], [token]):
        ran = as_owner(*arguments)
        assert ran.exit_code
        assert token not in ran.err + ran.out
        assert "sma_…" in ran.err


def test_leaked_token_of_an_operator_is_ended_by_its_file(as_owner: Commands, tmp_path: Path) -> None:
    token = as_owner.json("operator", "create", "--name", "ada", "--role", "admin")["token"]
    leaked = tmp_path / "leaked.txt"
    leaked.write_text(f"{token}\n{token}\n")
    ran = as_owner("key", "revoke", "--token-file", str(leaked), "--json")
    assert (ran.exit_code, ran.json["operator_tokens_ended"], ran.json["unknown"]) == (0, 1, 0)
    again = as_owner("key", "revoke", "--token-file", str(leaked), "--json")
    assert (again.exit_code, again.json["operator_tokens_ended"], again.json["unknown"]) == (1, 0, 1)
    assert token not in ran.out + ran.err + again.out + again.err
    (listed,) = as_owner.json("operator", "list")
    assert listed["tokens"][0]["valid_until"] is not None


def test_policy_bounds_operators_too(as_owner: Commands) -> None:
    as_owner.set(max_key_lifetime="90d")
    made = as_owner.json("operator", "create", "--name", "ada", "--role", "admin")
    assert datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC) <= timedelta(days=90)
    assert as_owner("operator", "set", "ada", "--expires-in", "91d").exit_code == 1
    never = as_owner.json("operator", "set", "ada", "--expires-in", "never")["expires_at"]
    assert datetime.fromisoformat(never) - datetime.now(UTC) <= timedelta(days=90)
