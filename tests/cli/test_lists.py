"""Lists on the command line: whole, while they are read; in pages; and by what is asked for."""

from __future__ import annotations

import json
import resource as system
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.support.cli import PROGRAM, Commands, environment, rows
from tests.support.database import OUTSIDE_THE_CALENDAR, Database

MANY = """
SET session_replication_role = replica;
INSERT INTO smarter_auth.key (name, created_at) SELECT 'key ' || lpad(n::text, 5, '0'), now() - n * interval '1 day'
  FROM generate_series(1, 1200) AS n;
INSERT INTO smarter_auth.resource (kind, ref) SELECT 'bot', n FROM generate_series(1, 1200) AS n;
"""


@pytest.fixture
def many(run: Commands, database: Database) -> Commands:
    rows(database.owner, "SELECT", MANY)
    return run


def test_list_without_a_limit_is_whole_for_programs_and_for_people(many: Commands) -> None:
    listed = many.json("key", "list")
    assert [key["name"] for key in listed] == [f"key {n:05}" for n in range(1, 1201)]
    lines = many("key", "list").out.splitlines()
    assert lines[0].split()[:3] == ["key_id", "name", "account"]
    assert [line.split()[2] for line in lines[1:]] == [f"{n:05}" for n in range(1, 1201)]
    assert len({line.index("default") for line in lines[1:]}) == 1
    assert len(many.json("resource", "list")) == 1200


def test_pages_follow_each_other_to_the_end(many: Commands) -> None:
    names: list[str] = []
    cursor: tuple[str, ...] = ()
    while True:
        page = many.json("key", "list", "--limit", "500", *cursor)
        names += [key["name"] for key in page["items"]]
        if page["next"] is None:
            break
        cursor = ("--cursor", page["next"])
    assert names == [f"key {n:05}" for n in range(1, 1201)]
    page = many.json("resource", "list", "--limit", "2")
    assert [one["ref"] for one in page["items"]] == ["1", "10"]
    more = many.json("resource", "list", "--limit", "2", "--cursor", page["next"])
    assert [one["ref"] for one in more["items"]] == ["100", "1000"]


def test_people_are_told_how_to_go_on(many: Commands) -> None:
    ran = many("key", "list", "--limit", "2")
    assert len(ran.out.splitlines()) == 3
    cursor = ran.error.rpartition("--cursor ")[2]
    assert many("key", "list", "--limit", "2", "--cursor", cursor).out.splitlines()[1].split()[2] == "00003"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--cursor", "x"], "--limit"),
        (["--limit", "2", "--cursor", "x"], "another list"),
        (["--limit", "0"], "1"),
        (["--label", "team"], "NAME=VALUE"),
        (["--label", "a=1", "--label", "a=2"], "twice"),
        (["--state", "revoked", "--sort", "name"], "a list of their own"),
        (["--unused-for", "long"], "30d"),
    ],
)
def test_what_makes_no_list_is_wrong_usage(run: Commands, arguments: list[str], says: str) -> None:
    ran = run("key", "list", *arguments)
    assert (ran.exit_code, ran.out) == (2, "")
    assert says in ran.err


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_time_outside_the_calendar_is_wrong_usage(run: Commands, time: str) -> None:
    ran = run("audit", "--since", time)
    assert (ran.exit_code, "is not a time" in ran.err) == (2, True)


def names(run: Commands, *arguments: str) -> list[str]:
    return [key["name"] for key in run.json("key", "list", *arguments)]


def test_keys_are_found_by_what_an_auditor_asks_for(run: Commands, database: Database) -> None:
    for name, more in (("Laptop", ("--expires-in", "5d")), ("laptop 2", ()), ("server", ("--account", "acme"))):
        run.json("key", "create", "--name", name, *more)
    old = run.json("key", "create", "--name", "old")["key_id"]
    run.json("key", "revoke", run.json("key", "create", "--name", "gone")["key_id"])
    older = f"created_at = created_at - interval '100 days' WHERE key_id = '{old}'"
    idle = f"idle_since = idle_since - interval '100 days' WHERE key_id = '{old}'"
    rows(database.owner, "SELECT", f"UPDATE smarter_auth.key SET {older}; UPDATE smarter_auth.key_use SET {idle}")
    assert names(run) == ["Laptop", "laptop 2", "old", "server", "gone"]
    page = run.json("key", "list", "--limit", "100")
    assert [key["name"] for key in page["items"]] == ["Laptop", "laptop 2", "old", "server"]
    assert names(run, "--find", "LAP") == ["Laptop", "laptop 2"]
    assert names(run, "--account", "acme") == ["server"]
    assert names(run, "--expiring", "30d") == ["Laptop"]
    assert names(run, "--never-expires", "--find", "l") == ["laptop 2"]
    assert names(run, "--unused-for", "90d") == names(run, "--older-than", "90d") == ["old"]
    assert names(run, "--never-used", "--account", "acme") == ["server"]
    assert names(run, "--state", "revoked") == ["gone"]
    assert names(run, "--sort", "-created_at", "--account", "default") == ["laptop 2", "Laptop", "old"]


def test_times_that_no_calendar_has_break_no_list(run: Commands, database: Database) -> None:
    for name in ("never", "far", "long ago"):
        run.json("key", "create", "--name", name, "--bind", "bot:1")
    rows(database.owner, "SELECT", "; ".join(OUTSIDE_THE_CALENDAR))
    states = {key["name"]: (key["state"], key["expires_at"]) for key in run.json("key", "list")}
    last = "9999-12-31T23:59:59.999999+00:00"
    assert states == {
        "never": ("active", last), "far": ("active", last), "long ago": ("expired", "0001-01-01T00:00:00+00:00"),
    }  # fmt: skip
    for command in (["doctor"], ["export", "-"], ["resource", "show", "bot:1"], ["audit"], ["key", "show", "never"]):
        ran = run(*command)
        assert (ran.exit_code, "Error" in ran.err) == (0, False), ran


def test_audit_answers_who_did_what(run: Commands) -> None:
    key = run.json("key", "create", "--name", "one", "--bind", "bot:1", "--actor", "alice")["key_id"]
    run.json("key", "deactivate", key, "--actor", "bob")
    run.json("resource", "protect", "bot:1", "--actor", "bob")

    def actions(*arguments: str) -> list[str]:
        return [event["action"] for event in run.json("audit", *arguments)]

    assert actions("--actor", "bob") == ["key.deactivate", "resource.protect"]
    assert actions("--actor", "bob", "--action", "key.*") == ["key.deactivate"]
    assert actions("--action", "resource.*") == ["resource.add", "resource.protect"]
    assert actions("--key", key, "--actor", "alice") == ["key.create", "key.bind"]
    assert actions("--since", "1h", "--until", "30m") == []
    assert actions("--since", "2020-01-01", "--until", "2999-12-31T00:00:00Z") == actions()
    assert actions("--account", "acme") == actions("--reason", "unknown_token") == []
    assert run("audit", "--since", "yesterday").exit_code == 2


STREAMED = """
import resource, sys
from smarter_auth_mw.cli import main
code = main(sys.argv[1:])
sys.stderr.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
raise SystemExit(code)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts kilobytes on Linux")
def test_memory_does_not_grow_with_the_list(many: Commands, database: Database) -> None:
    assert system.getrusage(system.RUSAGE_SELF).ru_maxrss > 0

    def peak_kb() -> int:
        command = [sys.executable, "-c", STREAMED, "key", "list", "--json"]
        env = environment(database_url=database.runtime)
        ran = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        found: list[Any] = json.loads(ran.stdout)
        assert len(found) >= 1200
        return int(ran.stderr)

    few = peak_kb()
    rows(database.owner, "SELECT", "SET session_replication_role = replica; INSERT INTO smarter_auth.key (name)"
         " SELECT 'more ' || n FROM generate_series(1, 20000) AS n")  # fmt: skip
    assert peak_kb() < few + 10_000


def test_list_that_breaks_off_says_so_and_is_no_whole_document(many: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    from smarter_auth_mw.errors import UnavailableError
    from smarter_auth_mw.postgres.lists import Lists

    keys, calls = Lists.keys, []

    async def failing(self: Lists, arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) > 2:
            raise UnavailableError("It went away.")
        return await keys(self, arguments)

    monkeypatch.setattr(Lists, "keys", failing)
    ran = many("key", "list", "--json")
    assert ran.exit_code == 3
    assert "It went away. The list ends here" in ran.error
    with pytest.raises(json.JSONDecodeError):
        json.loads(ran.out)
    calls += [{}, {}]
    assert many("key", "list", "--json").json["error"]["code"] == "unavailable"


def test_reader_that_has_seen_enough_ends_the_list(many: Commands, database: Database) -> None:
    command, env = [*PROGRAM, "key", "list"], environment(database_url=database.runtime)
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_audit_after_an_event_is_what_was_written_since(run: Commands) -> None:
    run.json("key", "create", "--name", "one")
    *_, last = run.json("audit", "--after", "beginning")
    assert [event["action"] for event in run.json("audit", "--after", "beginning")] == ["key.create"]
    run.json("key", "create", "--name", "two")
    (line,) = run("audit", "--after", last["cursor"], "--jsonl").out.splitlines()
    event = json.loads(line)
    assert (event["after"]["name"], list(event)) == ("two", [*run.json("audit")[0], "cursor"])
    assert run.json("audit", "--after", event["cursor"]) == run.json("audit", "--after", "now") == []
    refused = run("audit", "--after", last["cursor"], "--action", "key.*")
    assert (refused.exit_code, "another list" in refused.error) == (2, True)


@pytest.mark.parametrize("more", [["--json"], ["--limit", "1"]])
def test_what_has_no_end_is_no_document(run: Commands, more: list[str]) -> None:
    assert run("audit", "--follow", *more).exit_code == 2


def test_audit_is_followed_as_it_is_written(run: Commands, database: Database) -> None:
    run.json("key", "create", "--name", "one")
    command = [*PROGRAM, "audit", "--since", "1h", "--follow", "--jsonl"]
    env = environment(database_url=database.runtime)
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["after"]["name"] == "one"
        run.json("key", "create", "--name", "two")
        assert json.loads(process.stdout.readline())["after"]["name"] == "two"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


def test_following_ends_when_nobody_reads_any_more(run: Commands, database: Database) -> None:
    """`audit --follow | head -1` ends although nothing happens that would be printed."""
    run.json("key", "create", "--name", "one")
    command = [*PROGRAM, "audit", "--since", "1h", "--follow", "--jsonl"]
    env = environment(database_url=database.runtime)
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (1, b"")
