"""`smarter-auth key revoke`, `deactivate` and `rotate` by filters."""

from __future__ import annotations

import csv
import stat
from pathlib import Path

import pytest

from tests.support.cli import Commands


@pytest.fixture
def ids(run: Commands) -> dict[str, str]:
    """Two keys of an account, and one of another."""
    made = {}
    for name, account, label in (
        ("one", "acme", "team=sales"),
        ("two", "acme", "team=it"),
        ("foreign", "other", "team=it"),
    ):
        arguments = ("--name", name, "--account", account, "--label", label)
        made[name] = run.json("key", "create", *arguments)["key_id"]
    return made


def test_revocation_by_account_asks_and_then_revokes(run: Commands, ids: dict[str, str]) -> None:
    refused = run("key", "revoke", "--account", "acme")
    assert refused.exit_code == 2
    assert "2 keys would be revoked. To confirm: --yes" in refused.error
    both = sorted([ids["one"], ids["two"]])
    trial = run.json("key", "revoke", "--account", "acme", "--dry-run")
    assert (trial["count"], sorted(trial["key_ids"])) == (2, both)
    assert run.json("key", "show", ids["one"])["state"] == "active"
    done = run.json("key", "revoke", "--account", "acme", "--yes")
    assert (done["count"], sorted(done["key_ids"])) == (2, both)
    assert [run.json("key", "show", ids[name])["state"] for name in ids] == ["revoked", "revoked", "active"]


def test_deactivation_by_label(run: Commands, ids: dict[str, str]) -> None:
    done = run("key", "deactivate", "--label", "team=it", "--yes")
    assert "2 keys deactivated." in done.error
    assert [run.json("key", "show", ids[name])["state"] for name in ids] == ["active", "inactive", "inactive"]


def test_rotation_writes_the_tokens_into_a_file(run: Commands, ids: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "tokens.csv"
    assert run.json("key", "rotate", "--account", "acme", "--dry-run")["count"] == 2
    done = run.json("key", "rotate", "--account", "acme", "--tokens", str(path), "--yes")
    assert done == {"count": 2, "tokens_file": str(path)}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert {row["key_id"] for row in rows} == {ids["one"], ids["two"]}
    for row in rows:
        assert run.json("key", "show", row["key_id"])["token_key"] == row["token_key"] == row["token"][:15]
    again = run("key", "rotate", "--account", "acme", "--tokens", str(path), "--yes", "--force")
    assert (again.exit_code, "already" in again.error) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("revoke",), "select keys"),
        (("deactivate", "--yes"), "select keys"),
        (("rotate", "--account", "acme", "--yes"), "--tokens FILE"),
        (("revoke", "one", "--account", "acme"), "Leave out one of them"),
        (("rotate", "one", "--yes"), "Leave out one of them"),
        (("revoke", "--label", "team"), "team"),
    ],
)
def test_what_is_not_meant_so_is_refused(
    run: Commands, ids: dict[str, str], arguments: tuple[str, ...], said: str
) -> None:
    refused = run("key", *arguments)
    assert refused.exit_code == 2
    assert said in refused.error
    assert run.json("key", "show", ids["one"])["state"] == "active"


def test_without_a_terminal_json_says_what_is_lacking(run: Commands, ids: dict[str, str]) -> None:
    refused = run("key", "revoke", "--older-than", "1s", "--json")
    assert refused.exit_code == 2
    assert refused.json["error"]["code"] == "usage"


def test_every_key_of_one_resource_by_name(run: Commands) -> None:
    for name in ("one", "two"):
        run.json("key", "create", "--name", name, "--bind", "bot:1")
    assert run.json("key", "revoke", "--resource", "bot:1", "--yes")["count"] == 2
    assert run.json("resource", "show", "bot:1")["protected"] is True
