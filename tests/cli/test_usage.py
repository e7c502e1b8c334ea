"""`smarter-auth audit` and `smarter-auth usage`: what happened, for people and for programs."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import sys
import time
from uuid import uuid4

import pytest

from smarter_auth_mw.cli.commands.usage import sparkline
from smarter_auth_mw.observers.usage import ANONYMOUS, GRANTED, OTHER, UNKNOWN, Batch, Series
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from tests.support.cli import Commands, Ran
from tests.support.database import Database


@pytest.fixture
def key(run: Commands) -> str:
    key_id: str = run.json("key", "create", "--name", "laptop", "--bind", "bot:1")["key_id"]
    return key_id


@pytest.fixture
def used(database: Database, key: str) -> None:
    """What a server would have written."""

    async def write() -> None:
        counts = {
            Series("bot", "1", GRANTED, key, "new", b"n" * 64): 30,
            Series("bot", "1", GRANTED, key, "old", b"o" * 64): 12,
            Series("bot", "1", "expired", key, "old"): 2,
            Series("bot", "1", "unknown_token"): 3,
            Series("bot", "2", ANONYMOUS): 5,
            Series("bot", UNKNOWN, ANONYMOUS): 7,
            Series("bot", OTHER, GRANTED): 1,
            Series("", UNKNOWN, "not_canonical"): 1,
        }
        async with open_pool(database.runtime) as pool:
            for age_s in (0, 7200):
                await Store(pool).write_usage(Batch(counts, uuid4(), time.monotonic() - age_s))

    asyncio.run(write())


@pytest.mark.usefixtures("used")
def test_usage_tells_who_used_what(run: Commands, key: str) -> None:
    found = {(row["resource"], row["key_id"]): row for row in run.json("usage")}
    mine = found["bot:1", key]
    assert (mine["key_name"], mine["granted"], mine["anonymous"], mine["denied"]) == ("laptop", 84, 0, 4)
    assert mine["reasons"] == {"expired": 4}
    assert mine["tokens"] == [{"token_key": "new", "granted": 60}, {"token_key": "old", "granted": 24}]
    assert sum(mine["points"]) == 88
    assert len([point for point in mine["points"] if point]) == 2
    assert found["bot:1", None]["denied"] == 6
    assert found["bot:2", None]["anonymous"] == 10
    assert found["bot:(unknown)", None]["anonymous"] == 14
    assert found["bot:(other)", None]["granted"] == 2
    assert found["(none)", None]["reasons"] == {"not_canonical": 2}


@pytest.mark.usefixtures("used")
@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        (["--resource", "bot:2"], 1),
        (["--resource", "bot:1"], 2),
        (["--resource", "bot:77"], 0),
        (["--key", str(uuid4())], 0),
        (["--since", "1h"], 6),
        (["--since", "365d"], 6),
        (["--since", "999999999d"], 6),
    ],
)
def test_usage_is_narrowed_down(run: Commands, arguments: list[str], rows: int) -> None:
    assert len(run.json("usage", *arguments)) == rows


@pytest.mark.usefixtures("used")
def test_usage_of_a_key(run: Commands, key: str) -> None:
    (row,) = run.json("usage", "--key", key, "--since", "1h")
    assert (row["granted"], row["denied"]) == (42, 2)


@pytest.mark.usefixtures("used")
def test_usage_for_people_is_plain_ascii_where_nobody_looks(run: Commands) -> None:
    ran = run("usage")
    assert ran.exit_code == 0
    assert ran.out.isascii()
    line = next(line for line in ran.out.splitlines() if "laptop" in line)
    assert line.split()[:5] == ["bot:1", "laptop", "84", "0", "4"]
    assert line.count("|") == 2


@pytest.mark.usefixtures("used")
def test_usage_as_csv(run: Commands) -> None:
    rows = list(csv.DictReader(io.StringIO(run("usage", "--csv").out)))
    assert len(rows) == 6
    assert next(row for row in rows if row["key_name"] == "laptop")["granted"] == "84"
    assert run("usage", "--csv", "--json").exit_code == 2


@pytest.mark.usefixtures("used")
def test_reports_need_no_routes(run: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMARTER_AUTH_ROUTES")
    assert len(run.json("usage", "--resource", "bot:1")) == 2
    assert run.json("audit", "--resource", "bot:1")


def test_nothing_used_is_an_empty_list(run: Commands) -> None:
    assert run.json("usage") == []
    assert run("usage").exit_code == 0


@pytest.mark.parametrize(
    ("points", "line"), [([], ""), ([0, 0], "  "), ([0, 1, 500, 1000], " .+@"), ([5, 5], "@@"), ([1, 10**9], ".@")]
)
def test_sparkline_shows_whatever_is_more_than_nothing(points: list[int], line: str) -> None:
    assert sparkline(points, " .:-=+*%@").replace("=", "+") == line


def test_audit_tells_who_did_what(run: Commands, key: str) -> None:
    run.json("key", "deactivate", key, "--actor", "alice")
    *older, newest = run.json("audit")
    assert (newest["actor"], newest["action"], newest["key_id"]) == ("alice", "key.deactivate", key)
    assert newest["before"]["is_active"] is True
    assert newest["after"]["is_active"] is False
    assert {row["action"] for row in older} >= {"key.create", "key.bind"}
    assert [row["at"] for row in (*older, newest)] == sorted(row["at"] for row in (*older, newest))


def test_audit_is_narrowed_down(run: Commands, key: str) -> None:
    other = run.json("key", "create", "--name", "other", "--bind", "bot:2")["key_id"]
    assert {row["key_id"] for row in run.json("audit", "--key", other)} == {other}
    assert {row["resource"] for row in run.json("audit", "--resource", "bot:1")} == {"bot:1"}
    assert run.json("audit", "--since", "1h") == run.json("audit")
    assert run.json("audit", "--limit", "2") == run.json("audit")[-2:]


def test_audit_as_json_lines_is_the_same(run: Commands, key: str) -> None:
    lines = run("audit", "--jsonl").out.splitlines()
    assert [json.loads(line) for line in lines] == run.json("audit")
    assert run("audit", "--jsonl", "--json").exit_code == 2


def test_audit_for_people_says_what_changed(run: Commands, key: str) -> None:
    run.json("key", "deactivate", key)
    last = run("audit").out.splitlines()[-1]
    assert "key.deactivate" in last
    assert "is_active: true -> false" in last


def test_what_people_named_does_not_move_the_cursor(run: Commands) -> None:
    run.json("key", "create", "--name", "a\x1b[2Jb", "--actor", "\x1b[31mme")
    assert "\x1b" not in run("audit").out + run("audit", "--jsonl").out


def test_prune_is_for_the_owner(run: Commands, key: str, database: Database) -> None:
    refused = run("audit", "prune", "--older-than", "400d")
    assert refused.exit_code == 1
    assert "append-only" in refused.error
    run.set(database_url=database.owner)
    assert run.json("audit", "prune", "--older-than", "400d")["pruned"] == 0
    newest = run.json("audit")[-1]
    assert newest["action"] == "audit.prune"
    assert run("audit", "prune").exit_code == 2


@pytest.mark.parametrize("arguments", [["--since", "1y"], ["--key", "nonsense"], ["--resource", "bot"]])
@pytest.mark.parametrize("name", ["audit", "usage"])
def test_what_cannot_be_read_is_wrong_usage(run: Commands, name: str, arguments: list[str]) -> None:
    ran: Ran = run(name, *arguments)
    assert ran.exit_code == 2
    assert ran.out == ""


def test_a_terminal_gets_blocks(run: Commands, used: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "█" in run("usage").out
