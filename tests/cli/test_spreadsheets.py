"""CSV as spreadsheets write it: taken where nothing has to be guessed, else refused in words that say what to do."""

from __future__ import annotations

import csv
import io
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smarter_auth_mw.cli.bulk.spreadsheets import bare, guarded
from tests.support.cli import PROGRAM, ROUTES, Commands, environment
from tests.support.database import Database

PLAIN = 'resource,resource_name,key,description\r\nbot:1,sales,crm,"one, two"\r\nbot:2,,crm,\r\n'
TABBED = PLAIN.replace('"one, two"', '"one\ttwo"').replace(",", "\t").replace("one\ttwo", "one, two")
SEMICOLONS = PLAIN.replace('"one, two"', "ONE").replace(",", ";").replace("ONE", "one, two")
TRAILING = PLAIN.replace("\r\n", ",,,\r\n") + ",,,,,,\r\n,,,,,,\r\n"
BLANKS = PLAIN.replace("bot:1,sales,crm", " bot:1 ,\u00a0sales , crm\t").replace("resource,", " resource ,", 1)

TAKEN = {
    "plain": PLAIN.encode(),
    "unix": PLAIN.replace("\r\n", "\n").encode(),
    "byte order mark": PLAIN.encode("utf-8-sig"),
    "byte order mark and quoted header": PLAIN.replace("resource,", '"resource",', 1).encode("utf-8-sig"),
    "semicolons": SEMICOLONS.encode(),
    "tabs": TABBED.encode(),
    "utf-16, as Unicode text": TABBED.encode("utf-16"),
    "utf-16, big endian": b"\xfe\xff" + PLAIN.encode("utf-16-be"),
    "sep line": b"sep=;\r\n" + SEMICOLONS.encode(),
    "sep line with a byte order mark": ("sep=\t\r\n" + TABBED).encode("utf-8-sig"),
    "trailing empty columns and rows of commas": TRAILING.encode(),
    "blanks around cells": BLANKS.encode(),
    "columns as titles": PLAIN.replace("resource,resource_name,key", "Resource,Resource Name,KEY", 1).encode(),
    "blank lines before the header": b"\r\n  \r\n" + SEMICOLONS.encode(),
    "blank lines around the sep line": b"\n\nsep=;\n\n" + SEMICOLONS.encode(),
    "carriage returns alone": SEMICOLONS.replace("\r\n", "\r").encode(),
}


def imported(run: Commands, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    ran = run("import", str(path), "--json")
    assert ran.exit_code == 0, ran


@pytest.mark.parametrize("content", TAKEN.values(), ids=TAKEN)
def test_what_can_be_read_in_one_way_is_taken(run: Commands, tmp_path: Path, content: bytes) -> None:
    imported(run, tmp_path / "in.csv", content)
    (key,) = run.json("key", "list")
    assert (key["name"], key["description"], key["bindings"]) == ("crm", "one, two", ["bot:1", "bot:2"])
    assert run.json("resource", "show", "bot:1")["name"] == "sales"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04\x14\0\x06\0", "a spreadsheet or an archive (.xlsx, .ods, .zip)"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "an old spreadsheet (.xls)"),
        (b"\x1f\x8b\x08\0", "compressed"),
        (b"BZh91AY&SY", "compressed"),
        (b'[{"resource": "bot:1"}]', "The file is JSON"),
        (b"<!DOCTYPE html><html>", "The file is HTML or XML"),
        (PLAIN.encode("utf-16-le"), "UTF-16 without a byte order mark"),
        (b"\xef\xbb\xbf\n \n", "The file is empty"),
        ("resource,key,descripci\u00f3n\nbot:1,x,y\n".encode("latin-1"), "line 1: this is not UTF-8"),
        (b"\n\nresource,key\nbot:1,x\nbot:2,x,y\n", "line 5: there are 3 cells"),
        (b"bot:1,x\nbot:2,y\n", "The first line names the columns: resource, account"),
        (PLAIN.encode("utf-32"), "The file is UTF-32"),
        (b"\0\0\xfe\xff" + PLAIN.encode("utf-32-be"), "The file is UTF-32"),
        (b"", "The file is empty"),
        (PLAIN.replace(",", "|").encode(), "cells cannot be separated by '|'"),
        (b"sep=:\r\n" + PLAIN.encode(), "cells cannot be separated by ':'"),
        ("resource,key\nbot:1,caf\u00e9\n".encode("latin-1"), "line 2: this is not UTF-8: save the file as CSV UTF-8"),
        (b"resource,,key\nbot:1,,x\n", "column 2 has no name"),
        (b"resource,key\nbot:1,x,surplus\n", "line 2: there are 3 cells, and 2 columns"),
        (b"resource\nbot:1,x\n", "line 2: there are 2 cells, and 1 column"),
        (b"sep=;\nresource;key\nbot:1;x\nbot:2;x;y\n", "line 4: there are 3 cells"),
        ("resource,key\nbot:1,x\n".encode("utf-16") + b"\0", "this is not UTF-16"),
    ],
)
def test_what_cannot_is_refused_with_what_to_do(run: Commands, tmp_path: Path, content: bytes, said: str) -> None:
    tmp_path.joinpath("in.csv").write_bytes(content)
    ran = run("import", str(tmp_path / "in.csv"))
    assert ran.exit_code == 2
    assert said in ran.err
    assert "report it" not in ran.err
    assert run.json("key", "list") == []


def test_a_file_comes_in_pieces_through_a_pipe(run: Commands, database: Database) -> None:
    env = environment(database_url=database.manager, routes=ROUTES)
    script = '(printf "reso"; sleep 0.2; printf "urce;key\\nbot:1;x\\n") | "$0" "$@" import - --json'
    ran = subprocess.run(["sh", "-c", script, *PROGRAM], env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert [key["name"] for key in run.json("key", "list")] == ["x"]


def test_a_stdin_that_is_closed_is_one_clear_line(database: Database) -> None:
    env = environment(database_url=database.manager, routes=ROUTES)
    script = ["sh", "-c", '"$0" "$@" <&-', *PROGRAM, "import", "-"]
    ran = subprocess.run(script, env=env, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr.startswith("error: stdin is closed.")) == (2, True), ran.stderr


NAMES = ["=1+1", "+49", "-x", "@sum", "\tx", " x ", "'=x", "'til dawn", "''", "\uff1dx", "\u00a0x", "plain"]


def test_an_export_holds_no_formula_and_is_imported_as_it_was(
    run: Commands, other_database: Database, tmp_path: Path
) -> None:
    for name in NAMES:
        run.json("key", "create", "--name", name, "--description", name)
    path = tmp_path / "out.csv"
    run.json("export", str(path))
    for row in csv.reader(io.StringIO(path.read_text())):
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\uff1d")) for cell in row)
    run.set(database_url=other_database.manager)
    imported(run, path, path.read_bytes())
    keys = run.json("key", "list")
    assert sorted(key["name"] for key in keys) == sorted(NAMES)
    assert all(key["name"] == key["description"] for key in keys)


@given(st.text(alphabet=st.sampled_from("'=+-@ \t\r\nx\uff1d")))
def test_whatever_is_guarded_is_found_again(cell: str) -> None:
    assert bare(guarded(cell)) == cell
