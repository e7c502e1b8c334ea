"""`smarter-auth key set`, labels, and keys that are named by their name."""

from __future__ import annotations

import pytest

from tests.support.cli import Commands


@pytest.fixture
def key(run: Commands) -> str:
    key_id: str = run.json("key", "create", "--name", "laptop", "--label", "team=sales", "--label", "env=live")[
        "key_id"
    ]
    return key_id


def test_what_is_set_is_changed_and_nothing_else(run: Commands, key: str) -> None:
    before = run.json("key", "show", key)
    assert before["labels"] == {"env": "live", "team": "sales"}
    after = run.json("key", "set", key, "--name", "desktop", "--description", "CI", "--expires-in", "30d")
    assert (after["name"], after["description"], after["expires_at"] is None) == ("desktop", "CI", False)
    assert {**before, **{name: after[name] for name in ("name", "description", "expires_at")}} == after
    assert run.json("key", "set", key, "--expires-in", "never", "--description", "")["expires_at"] is None
    assert run.json("key", "show", key)["description"] == ""


def test_labels_are_added_changed_and_taken_away(run: Commands, key: str) -> None:
    changed = run.json("key", "set", key, "--label", "team=ops", "--label", "a.b-c_1=x", "--unlabel", "env")
    assert changed["labels"] == {"a.b-c_1": "x", "team": "ops"}
    assert [one["name"] for one in run.json("key", "list", "--label", "team=ops", "--label", "a.b-c_1=x")] == ["laptop"]
    assert run.json("key", "list", "--label", "team=sales") == []
    assert run.json("key", "set", key, "--unlabel", "never-had")["labels"] == changed["labels"]
    event = run.json("audit", "--action", "key.set")[0]
    assert (event["before"]["labels"], event["after"]["labels"]) == (
        {"env": "live", "team": "sales"},
        changed["labels"],
    )


@pytest.mark.parametrize("label", ["Team=a", "team=A", "team", "=a", "team=", "team=a b", "team=é", f"a={'a' * 64}"])
def test_what_is_no_label_is_wrong_usage_and_changes_nothing(run: Commands, key: str, label: str) -> None:
    assert run("key", "set", key, "--label", label).exit_code == 2
    assert run("key", "create", "--name", "other", "--label", label).exit_code == 2
    (only,) = run.json("key", "list")
    assert only["labels"] == {"env": "live", "team": "sales"}


def test_a_key_has_sixteen_labels_at_most(run: Commands, key: str) -> None:
    fourteen = [f"--label=l{number}=x" for number in range(14)]
    assert len(run.json("key", "set", key, *fourteen)["labels"]) == 16
    refused = run("key", "set", key, "--label", "one=more")
    assert (refused.exit_code, "16" in refused.error) == (2, True)
    assert len(run.json("key", "set", key, "--label", "l0=y", "--unlabel", "l1")["labels"]) == 15


def test_a_label_that_is_set_and_taken_away_at_once_is_wrong_usage(run: Commands, key: str) -> None:
    assert run("key", "set", key, "--label", "env=test", "--unlabel", "env").exit_code == 2


def test_a_name_that_is_taken_stays_so(run: Commands, key: str) -> None:
    run.json("key", "create", "--name", "other")
    assert run("key", "set", key, "--name", "other", "--label", "a=b").exit_code == 1
    assert run.json("key", "show", key)["labels"] == {"env": "live", "team": "sales"}


def test_every_key_is_named_by_its_name_where_it_is_unique(run: Commands, key: str) -> None:
    for number in range(60):  # More than a page of names that begin so.
        run.json("key", "create", "--name", f"laptop {number:02}")
    assert run.json("key", "show", "laptop")["key_id"] == key
    assert run.json("key", "bind", "laptop", "bot:1")["bindings"] == ["bot:1"]
    assert run.json("key", "deactivate", "laptop")["state"] == "inactive"
    assert run.json("key", "activate", "laptop")["state"] == "active"
    assert run.json("key", "set", "laptop", "--description", "x")["key_id"] == key
    assert run.json("key", "rotate", "laptop", "--overlap", "0s")["key_id"] == key
    assert run.json("key", "wait", "laptop")["key_id"] == key
    assert {event["key_id"] for event in run.json("audit", "--key", "laptop")} == {key}
    assert run.json("usage", "--key", "laptop") == []
    assert run.json("key", "unbind", "laptop", "bot:1", "--allow-anonymous")["bindings"] == []
    assert run.json("key", "revoke", "laptop")["state"] == "revoked"
    gone = run("key", "show", "laptop")
    assert (gone.exit_code, "unrevoked" in gone.error) == (1, True)


def test_a_name_of_several_accounts_is_refused_with_their_names(run: Commands, key: str) -> None:
    run.json("key", "create", "--name", "laptop", "--account", "acme")
    refused = run("key", "revoke", "laptop")
    assert refused.exit_code == 1
    assert "acme, default" in refused.error
    assert run.json("key", "show", key)["state"] == "active"


@pytest.mark.parametrize("name", ["LAPTOP", "lap", "laptop ", ""])
def test_a_name_is_the_whole_name_as_it_is_written(run: Commands, key: str, name: str) -> None:
    assert run("key", "revoke", name).exit_code == 1
    assert run.json("key", "show", key)["state"] == "active"
