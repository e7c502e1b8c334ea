"""`smarter-auth resource`: what is protected, and what is not."""

from __future__ import annotations

import pytest

from tests.support.cli import Commands


def test_added_with_all_that_can_be_said_of_it(run: Commands) -> None:
    added = run.json(
        "resource", "add", "bot:1", "--name", "front-desk", "--account", "acme", "--domain", "bot.example.com",
        "--on-error", "deny",
    )  # fmt: skip
    assert added == {
        "kind": "bot",
        "ref": "1",
        "name": "front-desk",
        "account": "acme",
        "domain": "bot.example.com",
        "on_error": "deny",
        "protected": False,
        "bindings": [],
    }
    assert run.json("resource", "show", "bot:1") == added
    assert run.json("resource", "list") == [added]


def test_bindings_tell_the_state_of_their_keys(run: Commands) -> None:
    key_id = run.json("key", "create", "--name", "first", "--bind", "bot:1")["key_id"]
    run.json("key", "revoke", key_id)
    shown = run.json("resource", "show", "bot:1")
    assert shown["bindings"] == [{"key_id": key_id, "name": "first", "state": "revoked", "expires_at": None}]
    assert shown["protected"] is True


def test_protected_from_the_start_says_where_a_token_is_asked_for(run: Commands) -> None:
    added = run("resource", "add", "bot:1", "--protect", "--json")
    assert added.json["protected"] is True
    assert "/bots/1" in added.err


def test_protect_and_unprotect_without_any_key(run: Commands) -> None:
    run.json("resource", "add", "bot:1")
    assert run.json("resource", "protect", "bot:1")["protected"] is True
    opened = run("resource", "unprotect", "bot:1", "--json")
    assert opened.json["protected"] is False
    assert "open to anyone" in opened.err


def test_unprotect_is_refused_while_a_key_is_bound(run: Commands) -> None:
    run.json("key", "create", "--name", "first", "--bind", "bot:1")
    ran = run("resource", "unprotect", "bot:1")
    assert ran.exit_code == 1
    assert "unbind" in ran.error


def test_set_changes_what_is_named_and_leaves_the_rest(run: Commands) -> None:
    run.json("resource", "add", "bot:1", "--name", "old", "--domain", "bot.example.com")
    changed = run.json("resource", "set", "bot:1", "--name", "new")
    assert (changed["name"], changed["domain"]) == ("new", "bot.example.com")


def test_an_empty_name_takes_the_name_away(run: Commands) -> None:
    run.json("resource", "add", "bot:1", "--name", "old")
    assert run.json("resource", "set", "bot:1", "--name", "")["name"] is None


def test_remove_forgets_an_open_resource_and_refuses_a_protected_one(run: Commands) -> None:
    run.json("resource", "add", "bot:1")
    assert run.json("resource", "remove", "bot:1")["ref"] == "1"
    run.json("resource", "add", "bot:2", "--protect")
    assert run("resource", "remove", "bot:2").exit_code == 1
    assert [resource["ref"] for resource in run.json("resource", "list")] == ["2"]


def test_list_by_kind(run: Commands) -> None:
    run.set(routes="bot /bots/{ref:int}; tool /tools/{ref}")
    run.json("resource", "add", "bot:1")
    run.json("resource", "add", "tool:hammer")
    assert [resource["ref"] for resource in run.json("resource", "list", "--kind", "tool")] == ["hammer"]


def test_added_twice_is_a_conflict(run: Commands) -> None:
    run.json("resource", "add", "bot:1")
    ran = run("resource", "add", "bot:1", "--json")
    assert (ran.exit_code, ran.json["error"]["code"]) == (1, "conflict")


@pytest.mark.parametrize("verb", ["show", "set", "protect", "unprotect", "remove"])
def test_a_resource_that_is_not_there_is_not_found(run: Commands, verb: str) -> None:
    ran = run("resource", verb, "bot:99")
    assert ran.exit_code == 1
    assert "smarter-auth resource add bot:99" in ran.error


def test_a_name_that_a_none_line_hides_is_refused(run: Commands) -> None:
    run.set(routes="page /pages/{name}\nnone /pages/health")
    ran = run("resource", "add", "page:1", "--name", "health")
    assert ran.exit_code == 2
    assert "/pages/health" in ran.error
    assert run.json("resource", "add", "page:1", "--name", "home")["name"] == "home"


def test_a_name_with_markup_and_controls_is_shown_and_harmless(run: Commands) -> None:
    name = "[red]bold[/red] \x1b[31m\u202e\n"
    run.json("resource", "add", "bot:1", "--name", name)
    shown = run("resource", "show", "bot:1").out
    assert r"[red]bold[/red] \x1b[31m\u202e\n" in shown
    assert r"[red]bold[/red] \x1b[31m\u202e\n" in run("resource", "list").out
    assert run.json("resource", "show", "bot:1")["name"] == name
