"""`smarter-auth import` and `export`: a whole file or nothing of it, and what is written out can be read in again."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import stat
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from smarter_auth_mw.cli.bulk import command as bulk
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.tokens import Token, mint
from tests.support.cli import PROGRAM, Commands, environment, rows
from tests.support.database import Database

KEY_ID = "6f1f5a8e-3f0c-4f39-9d0a-2b8f6f1c0001"
OTHER_ID = "6f1f5a8e-3f0c-4f39-9d0a-2b8f6f1c0002"
UNCHANGED = "SELECT (SELECT count(*) FROM smarter_auth.resource) + (SELECT count(*) FROM smarter_auth.key) AS rows"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _digest(text: str) -> str:
    return hashlib.sha512(text.encode()).hexdigest()


def _write(path: Path, *lines: str) -> str:
    path.write_bytes(("\n".join(lines) + "\n").encode("utf-8", "surrogateescape"))
    return str(path)


def _mistakes(run: Commands, path: Path, *lines: str, options: tuple[str, ...] = ()) -> list[str]:
    """What is wrong with the file, and nothing was done."""
    ran = run("import", _write(path, *lines), *options, "--json")
    assert (ran.exit_code, ran.json["error"]["code"]) == (2, "mistakes"), ran
    first, *told = ran.json["error"]["message"].splitlines()
    assert "nothing was imported" in first
    return [line.strip() for line in told]


def test_file_brings_resources_keys_and_bindings(run: Commands, directory: Path) -> None:
    token = mint()
    done = run.json(
        "import",
        _write(
            directory / "in.csv",
            "resource,resource_name,key,description,digest,token_key",
            f'bot:1,sales,first,"two\nlines",{token.digest.hex()},{token.token_key}',
            "bot:2,,first,,,",
            "bot:3,,,,,",
        ),
    )
    assert {name: done[name] for name in ("lines", "resources", "keys", "bindings", "minted", "tokens")} == {
        "lines": 3,
        "resources": 3,
        "keys": 1,
        "bindings": 2,
        "minted": 0,
        "tokens": [],
    }
    (key,) = run.json("key", "list")
    assert (key["name"], key["token_key"], key["bindings"]) == ("first", token.token_key, ["bot:1", "bot:2"])
    assert key["description"] == "two\nlines"
    protected = {resource["ref"]: resource["protected"] for resource in run.json("resource", "list")}
    assert protected == {"1": True, "2": True, "3": False}
    opened = run("check", "/bots/2", "--header", f"Authorization: Token {token.reveal()}", "--json")
    assert opened.json["decision"] == "grant"


def test_key_without_a_digest_gets_a_token_that_is_printed_once(run: Commands, directory: Path) -> None:
    done = run.json("import", _write(directory / "in.csv", "resource,key", "bot:1,first"))
    (minted,) = done["tokens"]
    assert done["minted"] == 1
    opened = run("check", "/bots/1", "--header", f"Authorization: Token {minted['token']}", "--json")
    assert opened.json["decision"] == "grant"
    assert minted["token"] not in run("export").out + json.dumps(run.json("audit"))


def test_import_mints_tokens_of_the_prefix_that_is_asked_for(run: Commands, directory: Path) -> None:
    done = run.json("import", _write(directory / "in.csv", "key", "first", "second"), "--prefix", "test")
    assert [row["token"][:8] for row in done["tokens"]] == 2 * ["sm_test_"]
    refused = run("import", _write(directory / "in.csv", "key", "third"), "--prefix", "test", "--format", "knox")
    assert (refused.exit_code, "have no prefix" in refused.error) == (2, True)


def test_tokens_are_written_to_a_file_for_nobody_elses_eyes(run: Commands, directory: Path) -> None:
    done = run.json("import", _write(directory / "in.csv", "key", "first", "second"), "--tokens", "tokens.csv")
    assert (done["tokens"], done["tokens_file"]) == ([], "tokens.csv")
    written = directory / "tokens.csv"
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    told = {key["token_key"]: key["name"] for key in run.json("key", "list")}
    assert {row["token"][:15]: row["name"] for row in csv.DictReader(io.StringIO(written.read_text()))} == told


def test_tokens_file_is_never_written_over(run: Commands, database: Database, directory: Path) -> None:
    (directory / "tokens.csv").write_text("precious")
    ran = run("import", _write(directory / "in.csv", "key", "first"), "--tokens", "tokens.csv")
    assert (ran.exit_code, "already" in ran.error) == (2, True)
    assert (directory / "tokens.csv").read_text() == "precious"
    assert rows(database.owner, UNCHANGED)[0]["rows"] == 0


def test_tokens_file_of_an_import_that_failed_is_gone(run: Commands, directory: Path) -> None:
    ran = run("import", _write(directory / "in.csv", "resource,key", "bot:x,first"), "--tokens", "tokens.csv")
    assert ran.exit_code == 2
    assert not (directory / "tokens.csv").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_nothing_is_imported_where_the_tokens_cannot_be_printed(database: Database, directory: Path) -> None:
    path = _write(directory / "in.csv", "resource,key", "bot:1,first")
    env = environment(database_url=database.manager, routes="bot /bots/{ref:int}")
    with open("/dev/full", "w") as full:
        ran = subprocess.run([*PROGRAM, "import", path], env=env, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ran.returncode == 1
    assert "could not be printed" in ran.stderr
    assert rows(database.owner, UNCHANGED)[0]["rows"] == 0


def test_too_many_tokens_to_print_need_a_file(run: Commands, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "MOST_PRINTED", 1)
    path = _write(directory / "in.csv", "key", "first", "second")
    ran = run("import", path)
    assert (ran.exit_code, "--tokens" in ran.error) == (2, True)
    assert run.json("import", path, "--tokens", "tokens.csv")["minted"] == 2


def test_dry_run_tries_everything_and_leaves_nothing(run: Commands, database: Database, directory: Path) -> None:
    path = _write(directory / "in.csv", "resource,key", "bot:1,first")
    done = run.json("import", path, "--dry-run", "--tokens", "tokens.csv")
    assert (done["dry_run"], done["keys"], done["minted"], done["tokens"]) == (True, 1, 1, [])
    assert not (directory / "tokens.csv").exists()
    assert rows(database.owner, UNCHANGED)[0]["rows"] == 0
    assert run.json("audit") == []


def test_file_is_read_from_stdin(run: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull, "rb") as nothing:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(nothing))
        assert "The file is empty" in run("import", "-").error
    with subprocess.Popen(["printf", r"\357\273\277resource\r\nbot:1\r\n"], stdout=subprocess.PIPE) as printed:
        assert printed.stdout is not None
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(printed.stdout))
        assert run.json("import", "-")["resources"] == 1


def test_import_is_one_event_of_the_audit(run: Commands, directory: Path) -> None:
    run.json("import", _write(directory / "in.csv", "resource,key", "bot:1,first", "bot:2,first"), "--actor", "deploy")
    (event,) = run.json("audit")
    assert (event["actor"], event["action"], event["resource"]) == ("deploy", "import", None)
    assert event["after"] == {
        "file": str(directory / "in.csv"),
        "lines": 2,
        "resources": 2,
        "keys": 1,
        "bindings": 2,
        "minted": 1,
        "unchanged": 0,
    }


LINES = {
    "bot:042,,": "not a reference of a bot",
    "bot,,": "names no resource",
    "cat:1,,": "No route has the kind",
    f",,{_digest('one')}": "neither a resource nor a key",
    f"bot:1,,{_digest('one')}": "names no key, but has digest",
    f",first,{_digest('one')[:-1]}": "has 127 characters",
    f",first,{_digest('one').upper()}": "lower-case",
    f",first,{_digest('')}": "common string",
    f",first,{_digest('changeme')}": "common string",
    f",first,{_digest('PASSWORD')}": "common string",
    f",first,{'00' * 64}": "common string",
    "bot:1,first,,extra": "4 cells, and 3 columns",
    f",{'x' * 256},": "256 characters",
    ",caf\udce9,": "not UTF-8",
    'bot:1,fi"rst"x,"': "not CSV",
}
VALUES = {
    ("expires_at", "2030-01-01T00:00:00"): "with its zone",
    ("expires_at", "tomorrow"): "with its zone",
    ("expires_at", "20300101"): "write a date (2030-12-31",
    ("expires_at", "2030-02-30"): "write a date (2030-12-31",
    ("revoked_at", "0001-01-01T00:00:00+14:00"): "with its zone",
    ("active", "maybe"): "true or false",
    ("key_id", "1234"): "is a UUID",
    ("token_key", "1234"): "has no digest",
    ("resource_name", "sales"): "names no resource",
}
WORDS = {("protection", "closed"): "open, bound or declared", ("on_error", "ignore"): "stale or deny"}


def _all_told(mistakes: list[str], said: Iterable[str]) -> None:
    """Each of these is told of its line, the first of which is 2."""
    for number, (mistake, words) in enumerate(zip(mistakes, said, strict=True), 2):
        assert mistake.startswith(f"line {number}: ")
        assert words in mistake


def test_mistakes_are_told_together_by_their_lines(run: Commands, directory: Path) -> None:
    _all_told(_mistakes(run, directory / "in.csv", "resource,key,digest", *LINES), LINES.values())


def test_values_that_a_column_cannot_have_are_told(run: Commands, directory: Path) -> None:
    columns = sorted({column for column, _ in VALUES})
    lines = [
        f"key{number}," + ",".join(value * (name == column) for name in columns)
        for number, (column, value) in enumerate(VALUES)
    ]
    _all_told(_mistakes(run, directory / "in.csv", f"key,{','.join(columns)}", *lines), VALUES.values())
    words = [
        f"bot:1,{value},".replace(f"{value},", "," + value) if column == "on_error" else f"bot:1,{value},"
        for column, value in WORDS
    ]
    _all_told(_mistakes(run, directory / "in.csv", "resource,protection,on_error", *words), WORDS.values())


def test_labels_are_imported_and_wrong_ones_are_told(run: Commands, directory: Path) -> None:
    lines = ["bot:1,first,team=sales  env=live", "bot:2,first,env=live team=sales", "bot:3,first,"]
    run.json("import", _write(directory / "in.csv", "resource,key,labels", *lines))
    (key,) = run.json("key", "list", "--label", "team=sales")
    assert key["labels"] == {"env": "live", "team": "sales"}
    many = " ".join(f"l{number}=x" for number in range(17))
    wrong = ["a,Team=x", "b,team=", "c,team=x team=y", f"d,{many}", "e,x"]
    told = _mistakes(run, directory / "in.csv", "key,labels", *wrong)
    assert [line.partition(":")[0] for line in told] == [f"line {number}" for number in (2, 3, 4, 5, 6)]
    (torn,) = _mistakes(run, directory / "in.csv", "resource,key,labels", "bot:8,f,a=b", "bot:9,f,a=c")
    assert "labels differs" in torn


def test_columns_that_there_are_not_are_told(run: Commands, directory: Path) -> None:
    for header, said in {
        "resuorce,key": "'resuorce', but resource",
        "resource,resource": "column resource appears twice",
        "account,digest": "neither a column resource nor a column key",
    }.items():
        ran = run("import", _write(directory / "in.csv", header, "bot:1,first"))
        assert ran.exit_code == 2
        assert said in ran.error


def test_lines_that_contradict_each_other_are_told(run: Commands, directory: Path) -> None:
    one, two, three = map(_digest, ("sentence one", "sentence two", "sentence three"))
    assert _mistakes(
        run,
        directory / "in.csv",
        "resource,account,protection,key,key_id,digest,token_key,domain",
        "bot:1,,,first,,,,",
        "bot:1,,,first,,,,",
        "bot:2,,,,,,,",
        "bot:2,,,,,,,",
        f",,,second,,{one},,",
        f",,,third,,{one},,",
        f",,,third,,{two},aaa,",
        f"bot:3,,,third,,{two},bbb,",
        "bot:3,acme,,,,,,",
        f",,,fourth,,{three},,",
        ",,,fourth,,none,,",
        "bot:4,,open,,,,,",
        "bot:4,,bound,,,,,",
        "bot:5,,open,fifth,,,,",
        f",,,sixth,{KEY_ID},,,",
        f",,,sixth,{OTHER_ID},,,",
        "bot:6,,,,,,,bot.example.com",
        "bot:7,,,,,,,bot.example.com",
    ) == [
        "line 3: this is already in line 2",
        "line 5: this is already in line 4",
        "line 7: line 6 has the same digest for another key",
        "line 9: line 8 describes the token of this digest differently",
        "line 10: account differs from that of line 9, which describes the same record",
        "line 11: the key 'fourth' has no token here, and one in another line",
        "line 14: protection differs from that of line 13, which describes the same record",
        "line 14: this is already in line 13",
        "line 15: bot:5 is open in this file, but has a key bound to it",
        "line 17: account default already has the key 'sixth' in line 16: use another name, one key_id, or digests",
        "line 19: the domain bot.example.com is already in line 18, for another resource",
    ]
    told = _mistakes(run, directory / "in.csv", "key,key_id", f",{KEY_ID}")
    assert told == [f"line 2: the key {KEY_ID} has no name"]


def test_what_the_database_has_already_is_told(run: Commands, directory: Path) -> None:
    for added in (("bot:1", "--domain", "bot.example.com"), ("bot:2", "--account", "acme"), ("bot:3",), ("cat:a-b",)):
        run.json("resource", "add", *added, "--no-route")
    made = run.json("key", "create", "--name", "first")
    digest = Token(made["token"].encode()).digest.hex()
    assert _mistakes(
        run,
        directory / "in.csv",
        "resource,key,key_id,digest,on_error,domain",
        "bot:1,,,,,",
        "bot:2,new,,,,",
        "bot:3,new,,,deny,",
        "cat:a_b,new,,,,",
        f"bot:4,first,{OTHER_ID},,,",
        "bot:5,,,,,bot.example.com",
        f",second,{made['key_id']},,,",
        f",third,,{digest},,",
        options=("--no-route",),
    ) == [
        "line 3: bot:2 belongs to account 'acme', and not to 'default'",
        "line 4: bot:3 is registered with other values: smarter-auth resource set changes them",
        "line 5: cat:a_b is registered as cat:a-b: use that spelling",
        "line 6: account default has an unrevoked key named 'first'",
        "line 7: the domain bot.example.com belongs to bot:1",
        f"line 8: the key 'first' ({made['key_id']}) exists with other values (key): import changes no existing key",
        f"line 9: the digest belongs to a token of the key {made['key_id']}",
    ]


EVERYTHING = "SELECT actor, action FROM smarter_auth.audit_event", "SELECT * FROM smarter_auth.change"


def test_the_same_file_again_changes_nothing_and_says_so(run: Commands, database: Database, directory: Path) -> None:
    path = _write(
        directory / "in.csv",
        "resource,key,description,labels,expires_at,revoked_at,digest,protection",
        f"bot:1,known,crm,team=sales env=live,2190-01-01T00:00:00Z,,{_digest('sentence one')},bound",
        "bot:2,known,,,,,,",
        "bot:2,minted,,,,,,",
        "bot:3,,,,,,,",
        ",revoked,,,,2020-01-01,,",
        ",tokenless,,,,,none,",
    )
    first = run.json("import", path)
    assert [first[name] for name in ("resources", "keys", "bindings", "minted", "unchanged")] == [3, 4, 3, 1, 0]
    before = run("export").out, *(rows(database.owner, statement) for statement in EVERYTHING)
    again = run("import", path, "--json")
    assert [again.json[name] for name in ("lines", "resources", "keys", "bindings", "minted", "unchanged")] == [
        *(6, 0, 0, 0, 0, 6)
    ]
    assert "Nothing changes" in again.err
    assert (run("export").out, *(rows(database.owner, statement) for statement in EVERYTHING)) == before


def test_a_date_is_what_the_command_line_takes_it_for(run: Commands, directory: Path) -> None:
    run.json("key", "create", "--name", "typed", "--expires-in", "2190-01-01")
    run.json("import", _write(directory / "in.csv", "key,expires_at", "written,2190-01-01"))
    typed, written = (run.json("key", "show", name)["expires_at"] for name in ("typed", "written"))
    assert written == typed == "2190-01-01T00:00:00+00:00"


def test_an_export_is_imported_again_into_its_own_database(run: Commands, directory: Path) -> None:
    run.json("key", "create", "--name", "first", "--bind", "bot:1", "--label", "team=sales")
    run.json("key", "rotate", "first")
    run("export", "out.csv")
    again = run.json("import", "out.csv")
    assert (again["lines"], again["unchanged"]) == (2, 2)


def test_lines_that_are_new_are_added_to_what_is_there(run: Commands, directory: Path) -> None:
    known = f"bot:1,known,{_digest('sentence one')}"
    run.json("import", _write(directory / "in.csv", "resource,key,digest", known, "bot:1,minted,"))
    more = _write(
        directory / "more.csv",
        "resource,key,digest",
        known,
        "bot:1,minted,",
        "bot:2,known,",
        "bot:3,minted,",
        "bot:4,,",
    )
    done = run.json("import", more)
    assert [done[name] for name in ("resources", "keys", "bindings", "minted", "unchanged")] == [3, 0, 2, 0, 2]
    assert run.json("key", "show", "minted")["bindings"] == ["bot:1", "bot:3"]


def test_a_key_that_differs_from_the_file_is_left_as_it_is(run: Commands, directory: Path) -> None:
    one, two = _digest("sentence one"), _digest("sentence two")
    lines = ["key,key_id,digest,description,active,labels", f"first,{KEY_ID},{one},crm,true,team=sales"]
    run.json("import", _write(directory / "in.csv", *lines))
    changed = {
        f"first,{KEY_ID},{one},erp,false,team=hr": "(description, labels, active)",
        f"first,{KEY_ID},{two},crm,true,": "key rotate does",
        f"first,{OTHER_ID},{one},,,": f"token of the key {KEY_ID}",
        f"first,{KEY_ID},none,,,": "(digest)",
    }
    for line, words in changed.items():
        assert any(words in told for told in _mistakes(run, directory / "in.csv", lines[0], line)), line
    run.json("key", "revoke", KEY_ID)
    (told,) = _mistakes(run, directory / "in.csv", *lines)
    assert "(revoked_at)" in told


def test_keys_of_equal_names_are_taken_when_each_has_a_digest(
    run: Commands, database: Database, directory: Path
) -> None:
    one, two = _digest("sentence one"), _digest("sentence two")
    run.json("key", "create", "--name", "acme.jane")
    lines = ["resource,key,digest", f"bot:1,acme.jane,{one}", f"bot:2,acme.jane,{two}", f"bot:3,acme.jane,{two}"]
    done = run.json("import", _write(directory / "in.csv", *lines))
    assert (done["keys"], done["bindings"], done["minted"]) == (2, 3, 0)
    assert [key["name"] for key in run.json("key", "list")] == 3 * ["acme.jane"]
    assert run.json("import", str(directory / "in.csv"))["unchanged"] == 3
    (told,) = _mistakes(run, directory / "in.csv", "resource,key", "bot:4,acme.jane")
    assert "several keys named 'acme.jane'" in told
    assert run("key", "create", "--name", "acme.jane").exit_code == 1
    (key,) = run.json("key", "list", "--resource", "bot:1")
    assert run("key", "set", key["key_id"], "--description", "crm").exit_code == 0
    assert run("key", "set", key["key_id"], "--name", "crm").exit_code == 0
    (other,) = run.json("key", "list", "--resource", "bot:2")
    assert run("key", "set", other["key_id"], "--name", "crm").exit_code == 1


def test_kinds_of_an_attached_platform_are_left_to_it(bare: Commands, attached: Database, directory: Path) -> None:
    bare.set(database_url=attached.manager, routes="llm_client /bots/{ref:int}")
    (told,) = _mistakes(bare, directory / "in.csv", "resource,key", "llm_client:1,first")
    assert "that the attached platform creates" in told


def test_new_key_is_bound_to_a_resource_that_is_there(run: Commands, directory: Path) -> None:
    run.json("resource", "add", "bot:1", "--name", "sales")
    run.set(routes="bot /bots/{ref:int}; bot /named/{name}")
    run.json("import", _write(directory / "in.csv", "resource,key", "bot:sales,first"))
    assert run.json("resource", "show", "bot:1")["protected"] is True


def test_mistakes_of_a_file_are_told_together_and_not_without_end(run: Commands, directory: Path) -> None:
    run.json("key", "create", "--name", "first")
    told = _mistakes(run, directory / "in.csv", "resource,key,key_id", "bot:x,,", "cat:1,,", f"bot:1,first,{KEY_ID}")
    assert [line.partition(":")[0] for line in told] == ["line 2", "line 3", "line 4"]
    told = _mistakes(run, directory / "in.csv", "resource", *["bot:x"] * 500)
    assert (len(told), told[-1]) == (101, "and more")


def test_kind_that_no_route_names_needs_a_word(run: Commands, bare: Commands, directory: Path) -> None:
    path = _write(directory / "in.csv", "resource", "cat:1")
    assert run.json("import", path, "--no-route")["resources"] == 1


def test_import_without_any_routes_needs_the_same_word(bare: Commands, database: Database, directory: Path) -> None:
    bare.set(database_url=database.manager)
    path = _write(directory / "in.csv", "resource", "cat:1")
    assert bare("import", path).exit_code == 2
    assert bare.json("import", path, "--no-route")["resources"] == 1


def test_file_that_is_not_there_is_told(run: Commands, directory: Path) -> None:
    assert "cannot be read" in run("import", "nowhere.csv").error
    assert "cannot be read" in run("import", str(directory)).error


async def _fill(keys: Management) -> None:
    """Something of everything that an export has to keep."""
    bots = [Resource("bot", str(number)) for number in range(1, 5)]
    await keys.add_resource(bots[0], name="Sales, „west“", domain="bot.example.com", on_error="deny")
    await keys.add_resource(bots[3], account="acme", protect=True)
    soon = datetime.now(UTC) + timedelta(days=1)
    first = await keys.create("first", bind=bots[:3], description="=two\nlines", expires_at=soon)
    await keys.rotate(first.key.key_id, timedelta(hours=1))
    second = await keys.create("second", bind=[bots[2]], labels={"team": "sales", "env": "live"})
    await keys.deactivate(second.key.key_id)
    third = await keys.create("third", account="acme", bind=[bots[3]], form="checked")
    await keys.revoke(third.key.key_id)
    await keys.create("third", account="acme")
    lost = Resource("bot", "5")
    minted = await keys.create("lost", bind=[lost])
    await keys.create("kept", bind=[lost])
    await keys.unbind(minted.key.key_id, lost)


async def test_what_was_exported_is_imported_as_it_was(
    run: Commands, keys: Management, database: Database, other_database: Database, directory: Path
) -> None:
    await _fill(keys)
    await _execute(
        database.owner,
        "DELETE FROM smarter_auth.binding WHERE resource_id IN (SELECT id FROM smarter_auth.resource WHERE ref = '5')",
    )
    await _execute(database.owner, f"INSERT INTO smarter_auth.key (key_id, name) VALUES ('{KEY_ID}', 'tokenless')")
    env = environment(database_url=database.manager, routes="bot /bots/{ref:int}")
    other = environment(database_url=other_database.manager, routes="bot /bots/{ref:int}")
    first = subprocess.run([*PROGRAM, "export"], env=env, capture_output=True, check=True).stdout
    (directory / "out.csv").write_bytes(first)
    done = subprocess.run([*PROGRAM, "import", "out.csv", "--json"], env=other, capture_output=True, check=True)
    assert json.loads(done.stdout)["minted"] == 0
    again = subprocess.run([*PROGRAM, "export"], env=other, capture_output=True, check=True).stdout
    assert again == first
    lists = [["key", "list", "--json"], ["resource", "list", "--json"]]
    for command in lists:
        one, two = (
            json.loads(subprocess.run([*PROGRAM, *command], env=which, capture_output=True, check=True).stdout)
            for which in (env, other)
        )
        assert sorted(one, key=str) == sorted(two, key=str)
    assert len(list(csv.reader(io.StringIO(first.decode())))) > 10


async def _execute(url: str, statement: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def test_export_goes_to_a_new_file_or_is_one_json_document(run: Commands, directory: Path) -> None:
    assert run.json("export") == []
    created = run.json("key", "create", "--name", "first", "--bind", "bot:1")
    (line,) = run.json("export")
    assert (line["resource"], UUID(line["key_id"]), line["active"]) == ("bot:1", UUID(created["key_id"]), True)
    assert run.json("export", "out.csv") == {"file": "out.csv", "lines": 1}
    assert stat.S_IMODE((directory / "out.csv").stat().st_mode) == 0o600
    assert (directory / "out.csv").read_text() == run("export").out
    assert run("export", "out.csv").exit_code == 2


def test_export_into_a_closed_pipe_says_nothing(run: Commands, database: Database) -> None:
    run.json("key", "create", "--name", "first", "--bind", "bot:1")
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as closed:
        ran = subprocess.run(
            [*PROGRAM, "export"], env=environment(database_url=database.manager), stdout=closed, stderr=subprocess.PIPE
        )
    assert (ran.returncode, ran.stderr) == (1, b"")


def test_progress_is_shown_on_a_terminal_only(run: Commands, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(directory / "in.csv", "resource", "bot:1")
    assert run("import", path, "--dry-run").err == ""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    assert "%" in run("import", path, "--dry-run").err
