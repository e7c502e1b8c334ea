"""`smarter-auth key`: rotate, wait, expiring and over-aged keys, leaked tokens, the checked format."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from smarter_auth_mw.cli.commands import key_rotation as rotation
from smarter_auth_mw.cli.failures import report
from smarter_auth_mw.cli.output import note
from smarter_auth_mw.errors import UsageError
from smarter_auth_mw.tokens import Token, mint
from tests.support.cli import PATIENCE_S, PROGRAM, ROUTES, Commands, environment, rows
from tests.support.database import Database, named

USE = "INSERT INTO smarter_auth.token_use (digest, last_used_at) SELECT digest, {} FROM smarter_auth.token"


def create(run: Commands, name: str = "first", *options: str) -> dict[str, Any]:
    created: dict[str, Any] = run.json("key", "create", "--name", name, *options)
    return created


def test_rotate_prints_the_new_token_once_and_until_when_the_old_one_is_valid(run: Commands) -> None:
    before, key = datetime.now(UTC), create(run, "first", "--bind", "bot:1")
    ran = run("key", "rotate", key["key_id"], "--overlap", "2h", "--json")
    assert ran.exit_code == 0
    assert set(ran.json) == {"key_id", "token", "token_key", "previous_valid_until"}
    assert ran.json["key_id"] == key["key_id"]
    assert ran.json["token_key"] == ran.json["token"][:15] != key["token_key"]
    overlap = datetime.fromisoformat(ran.json["previous_valid_until"]) - before
    assert timedelta(hours=2) <= overlap < timedelta(hours=2, minutes=1)
    assert ran.json["token"] not in ran.err
    assert ran.json["token"] not in run("key", "show", key["key_id"]).out


def test_overlap_is_a_day_unless_another_is_asked_for(run: Commands) -> None:
    before, key_id = datetime.now(UTC), create(run)["key_id"]
    rotated = run.json("key", "rotate", key_id)
    assert datetime.fromisoformat(rotated["previous_valid_until"]) - before >= timedelta(hours=24)


@pytest.mark.parametrize(
    ("overlap", "old"), [("1h", ("grant", "valid_token")), ("0s", ("deny", "expired")), ("0", ("deny", "expired"))]
)
def test_old_token_opens_as_long_as_the_rotation_overlaps(run: Commands, overlap: str, old: tuple[str, str]) -> None:
    key = create(run, "first", "--bind", "bot:1")
    rotated = run.json("key", "rotate", key["key_id"], "--overlap", overlap)
    for token, expected in ((key["token"], old), (rotated["token"], ("grant", "valid_token"))):
        decided = run("check", "/bots/1", "--header", f"Authorization: Token {token}", "--json").json
        assert (decided["decision"], decided["reason"]) == expected


def test_rotation_during_a_rotation_is_refused_and_names_the_way_out(run: Commands) -> None:
    key_id = create(run)["key_id"]
    until = run.json("key", "rotate", key_id)["previous_valid_until"]
    refused = run("key", "rotate", key_id)
    assert refused.exit_code == 1
    assert until in refused.error
    assert "--force" in refused.error
    assert refused.out == ""
    assert run.json("key", "rotate", key_id, "--force", "--overlap", "0s")["token"]


def test_show_tells_of_each_token_who_still_uses_it(run: Commands, database: Database) -> None:
    key = create(run)
    rows(database.owner, "SELECT", USE.format("'2026-01-02T03:04:05Z'"))
    rotated = run.json("key", "rotate", key["key_id"])
    shown = run.json("key", "show", key["key_id"])
    old, new = shown["tokens"]
    assert (old["token_key"], old["last_used_at"]) == (key["token_key"], "2026-01-02T03:04:05+00:00")
    assert old["valid_until"] == rotated["previous_valid_until"]
    assert (new["token_key"], new["last_used_at"], new["valid_until"]) == (rotated["token_key"], None, None)
    assert shown["last_used_at"] == old["last_used_at"]
    for ran in (run("key", "show", key["key_id"]), run("key", "list")):
        assert old["token_key"] in ran.out
        assert new["token_key"] in ran.out


def test_checked_tokens_are_minted_and_rotated_into_their_like(run: Commands) -> None:
    key = create(run, "first", "--format", "checked")
    rotated = run.json("key", "rotate", key["key_id"], "--overlap", "0s")
    for token in (key["token"], rotated["token"]):
        assert re.fullmatch("sm_[0-9A-Za-z]{49}", token)
        assert not Token(token.encode()).is_mistyped
    other = run.json("key", "rotate", key["key_id"], "--overlap", "0s", "--format", "knox")
    assert re.fullmatch("[0-9a-f]{64}", other["token"])


def test_prefix_is_asked_for_once_and_kept_by_rotations(run: Commands) -> None:
    key = create(run, "first", "--prefix", "test")
    kept = run.json("key", "rotate", key["key_id"], "--overlap", "0s")
    changed = run.json("key", "rotate", key["key_id"], "--overlap", "0s", "--prefix", "live")
    for token, prefix in ((key["token"], "test"), (kept["token"], "test"), (changed["token"], "live")):
        assert re.fullmatch(f"sm_{prefix}_[0-9A-Za-z]{{49}}", token)
    refused = run("key", "create", "--name", "other", "--prefix", "Production")
    assert (refused.exit_code, "a to z" in refused.error) == (2, True)


def test_mistyped_token_is_told_to_operators_only(run: Commands) -> None:
    token = create(run, "first", "--format", "checked", "--bind", "bot:1")["token"]
    wrong = token[:-1] + ("0" if token[-1] != "0" else "1")
    ran = run("check", "/bots/1", "--header", f"Authorization: Token {wrong}", "--json")
    assert (ran.json["reason"], ran.json["status"]) == ("unknown_token", 401)
    assert "checksum" in ran.json["detail"]


@pytest.mark.parametrize("form", ["knox", "checked"])
def test_token_in_the_wrong_place_is_not_repeated(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    token = mint("checked" if form == "checked" else "knox").reveal()
    report(UsageError(f"{token!r} is not a duration."), as_json=False)
    assert token[4:20] not in capsys.readouterr().err


def test_keys_that_expire_soon_are_listed(run: Commands) -> None:
    for name, span in (("third", "20d"), ("second", "13d"), ("first", "1h")):
        create(run, name, "--expires-in", span)
    create(run, "never")
    assert [key["name"] for key in run.json("key", "list", "--expiring", "14d")] == ["first", "second"]
    assert run("key", "list", "--expiring", "fortnight").exit_code == 2


def test_keys_with_a_token_older_than_allowed_are_listed(run: Commands, database: Database) -> None:
    create(run, "old")
    rows(database.owner, "SELECT", "UPDATE smarter_auth.token SET created_at = now() - interval '1096 days'")
    create(run, "new")
    assert [key["name"] for key in run.json("key", "list", "--max-lifetime", "1095d")] == ["old"]


def test_key_that_would_live_too_long_is_refused_at_its_creation(run: Commands) -> None:
    for options in ([], ["--expires-in", "366d"]):
        ran = run("key", "create", "--name", "first", "--max-lifetime", "365d", *options)
        assert ran.exit_code == 1
        assert "365 days" in ran.error
        assert "--expires-in" in ran.error
    assert run.json("key", "list") == []
    create(run, "first", "--max-lifetime", "365d", "--expires-in", "365d")


@pytest.fixture
def leak(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Put bytes on standard input."""

    def put(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return put


def test_leaked_tokens_revoke_their_keys_and_are_not_printed(run: Commands, leak: Callable[[bytes], None]) -> None:
    first, second, healthy = create(run, "first"), create(run, "second", "--format", "checked"), create(run, "third")
    unknown = mint().reveal()
    leak(f"\ufeff{first['token']}\r\n\n  Token {second['token']}\n{unknown}\n{first['token']}".encode())
    ran = run("key", "revoke", "--token-file", "-", "--json")
    assert ran.exit_code == 1
    assert (ran.json["tokens"], ran.json["unknown"]) == (4, 1)
    assert {key["name"] for key in ran.json["revoked"]} == {"first", "second"}
    assert {key["key_id"] for key in ran.json["revoked"]} == {first["key_id"], second["key_id"]}
    assert "1 of 4 tokens belongs to no key" in ran.err
    for token in (first["token"], second["token"], unknown):
        assert token[4:] not in ran.out + ran.err
    states = {key["name"]: key["state"] for key in run.json("key", "list")}
    assert states == {"first": "revoked", "second": "revoked", "third": "active"}
    leak(first["token"].encode())
    assert run("key", "revoke", "--token-file", "-").exit_code == 0
    assert run.json("key", "show", healthy["key_id"])["state"] == "active"


def test_leaked_tokens_are_read_from_a_file(run: Commands, tmp_path: Path) -> None:
    key = create(run)
    (tmp_path / "leaked").write_text(key["token"])
    assert run.json("key", "revoke", "--token-file", str(tmp_path / "leaked"))["revoked"][0]["name"] == "first"


def test_what_is_no_token_at_all_belongs_to_no_key(run: Commands, leak: Callable[[bytes], None]) -> None:
    create(run)
    leak(b"\xff\xfe\0\n" + b"x" * 100_000 + b"\n' OR 1=1 --")
    ran = run("key", "revoke", "--token-file", "-", "--json")
    assert (ran.exit_code, ran.json["unknown"], ran.json["revoked"]) == (1, 3, [])


@pytest.mark.parametrize("data", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_empty_token_file_is_wrong_usage(run: Commands, leak: Callable[[bytes], None], data: bytes) -> None:
    leak(data)
    assert run("key", "revoke", "--token-file", "-").exit_code == 2


def test_revoke_takes_a_key_or_a_file_and_not_both(run: Commands, tmp_path: Path) -> None:
    key_id = create(run)["key_id"]
    for arguments in ([], [key_id, "--token-file", "-"], ["--token-file", str(tmp_path / "none")]):
        assert run("key", "revoke", *arguments).exit_code == 2
    assert run.json("key", "show", key_id)["state"] == "active"


def test_waiting_ends_at_once_where_nobody_uses_the_previous_token(run: Commands, database: Database) -> None:
    key_id = create(run)["key_id"]
    rows(database.owner, "SELECT", USE.format("now() - interval '2 hours'"))
    ran = run("key", "rotate", key_id, "--wait-until-unused", "--unused-for", "1h", "--json")
    assert (ran.exit_code, ran.json["key_id"]) == (0, key_id)
    assert "last used at" in ran.err


def test_waiting_takes_as_long_as_the_previous_token_was_used(run: Commands) -> None:
    key_id = create(run)["key_id"]
    run.json("key", "rotate", key_id)
    shown = run.json("key", "wait", key_id, "--unused-for", "2s")
    assert datetime.fromisoformat(shown["tokens"][0]["created_at"]) + timedelta(seconds=2) <= datetime.now(UTC)


def test_there_is_nothing_to_wait_for_where_nothing_was_rotated_or_all_is_revoked(run: Commands) -> None:
    first, second = create(run, "first")["key_id"], create(run, "second")["key_id"]
    assert "No previous token" in run("key", "wait", first).err
    run.json("key", "rotate", second)
    run.json("key", "revoke", second)
    assert run("key", "wait", second).exit_code == 0


@contextmanager
def waiting(database: Database, key_id: str) -> Iterator[subprocess.Popen[str]]:
    """The real program, until it says that it waits."""
    process = subprocess.Popen(
        [*PROGRAM, "key", "rotate", key_id, "--wait-until-unused", "--json"],
        env=environment(database_url=database.manager, routes=ROUTES),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert any("waiting until" in line for line in process.stderr)
        yield process
    finally:
        process.kill()
        process.wait()


def test_ctrl_c_leaves_everything_as_it_is(run: Commands, database: Database) -> None:
    key_id = create(run)["key_id"]
    with waiting(database, key_id) as process:
        before = run.json("key", "show", key_id)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert f"smarter-auth key wait {key_id}" in err
    assert "Traceback" not in err
    assert out.count("previous_valid_until") == 1
    assert run.json("key", "show", key_id) == before
    assert before["tokens"][0]["valid_until"] is not None


def test_database_that_goes_away_while_waiting_is_told_and_the_result_stands(
    run: Commands, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_id = create(run)["key_id"]

    def note_and_cut(text: str) -> None:
        note(text)
        if "waiting until" in text:
            cut = threading.Thread(target=shut, args=(database,))
            cut.start()
            cut.join()

    monkeypatch.setattr(rotation, "note", note_and_cut)
    monkeypatch.setattr(rotation, "POLL_S", 0.01)
    ran = run("key", "rotate", key_id, "--wait-until-unused", "--json")
    assert ran.exit_code == 3
    assert ran.json["key_id"] == key_id
    assert f"The rotation itself is done. To continue waiting: smarter-auth key wait {key_id}" in ran.err


def shut(database: Database) -> None:
    """Let nobody into the database any more."""
    name = urlsplit(database.owner).path.removeprefix("/")
    rows(
        named(database.owner, "postgres"),
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
        f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
    )
