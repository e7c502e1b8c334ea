"""What people type by habit is taken or answered with what to write, and what commands say has no slips of the pen."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

import smarter_auth_mw
from smarter_auth_mw.cli.arguments import expiry
from smarter_auth_mw.cli.doctor.routes import Finding
from smarter_auth_mw.errors import UsageError, counted
from smarter_auth_mw.management.check import request_scope
from smarter_auth_mw.postgres.faults import explained
from smarter_auth_mw.routing import hosts
from tests.support.cli import Commands


@pytest.mark.parametrize(
    ("url", "host", "path"),
    [
        ("localhost:8000/bots/1", b"localhost:8000", "/bots/1"),
        ("localhost/bots/1", b"localhost", "/bots/1"),
        ("api.example.com/bots/1?x=y", b"api.example.com", "/bots/1"),
        ("gateway:8000", b"gateway:8000", "/"),
        ("[::1]:8000/bots/1", b"[::1]:8000", "/bots/1"),
    ],
)
def test_a_url_may_lack_its_scheme(url: str, host: bytes, path: str) -> None:
    scope = request_scope(url)
    assert (dict(scope["headers"])[b"host"], scope["path"]) == (host, path)


@pytest.mark.parametrize("url", ["bots/1", "ftp://localhost/bots/1", "mailto:someone", "://x/", ""])
def test_what_is_no_url_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        request_scope(url)
    assert "http://localhost:8000/bots/1" in refused.value.hint


def test_a_key_expires_at_a_date_that_is_written_out() -> None:
    next_year = datetime.now(UTC).year + 1
    assert expiry(f"{next_year}-12-31") == datetime(next_year, 12, 31, tzinfo=UTC)
    assert expiry(f"{next_year}-12-31T23:59:59+01:00") == datetime(next_year, 12, 31, 22, 59, 59, tzinfo=UTC)
    soon = expiry("1d")
    assert soon is not None
    assert abs(soon - datetime.now(UTC) - timedelta(days=1)) < timedelta(hours=1)


@pytest.mark.parametrize(
    ("text", "said"), [("2020-01-31", "in the past"), ("2030-02-31", "not a"), ("31.12.2030", "not a"), ("soon", "not")]
)
def test_an_expiry_that_cannot_be_is_refused_with_what_to_write(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        expiry(text)
    assert "30d" in refused.value.hint
    assert "2030-12-31" in refused.value.hint
    assert "ago" not in refused.value.hint


def test_a_finding_is_one_line_of_a_table() -> None:
    row = Finding("problem", "settings", "Two mistakes:\n  one\n  two", "First\nthis.").row()
    assert (row["message"], row["hint"]) == ("Two mistakes: one two", "First this.")


def test_a_failure_says_its_cause_unless_that_quotes_a_value() -> None:
    closed = explained(asyncpg.InterfaceError("connection is closed"), "db")
    assert closed.message == "db cannot be reached: the connection was closed."
    secret = explained(asyncpg.DataError("invalid input for query argument $1: 's3cret'"), "db")
    assert "s3cret" not in secret.message
    full = explained(asyncpg.DiskFullError("could not extend file"), "db")
    assert (full.message, full.hint[:5]) == ("db has no space left on its disk: could not extend file.", "Free ")
    configuration = explained(asyncpg.ClientConfigurationError("postgresql://u:s3cret@x"), "db")
    assert configuration.message == "db failed: ClientConfigurationError."


@pytest.mark.parametrize(("count", "said"), [(0, "no Host header:"), (2, "2 Host headers:")])
def test_hosts_are_counted_in_words_that_read_well(count: int, said: str) -> None:
    with pytest.raises(hosts.BadHostError, match=said):
        hosts.asked_for([(b"host", b"localhost")] * count)


def test_config_names_the_directory_of_the_embedded_server(bare: Commands) -> None:
    bare.set(database_url="embedded:", routes="bot /bots/{ref:int}")
    ran = bare("config")
    bare.set(database_url="embedded:///srv/other")
    other = bare("config")
    assert "keeps its data in /" in ran.err
    assert ran.err != other.err


def test_an_optional_argument_has_one_pair_of_brackets(bare: Commands) -> None:
    usage = bare("key", "revoke", "--help").out + bare("key", "rotate", "--help").out
    assert "[KEY]" in usage
    assert "[[" not in usage


def test_what_is_counted_is_singular_or_plural() -> None:
    assert [counted(count, "key") for count in (0, 1, 2, 12345)] == ["0 keys", "1 key", "2 keys", "12,345 keys"]
    assert [counted(count, "look-up was", "look-ups were") for count in (1, 2)] == ["1 look-up was", "2 look-ups were"]


_UNCOUNTED = re.compile(
    r"%d (?!was\b|is\b|has\b)[a-z'-]+s\b|"
    r"\{(?:len\([^{}]*\)|(?:[a-z_.]*[._])?(?:count|total|unknown|lost|left|refused))\} [a-z'-]+s\b"
)


def test_no_message_has_a_plural_behind_a_number_that_may_be_one() -> None:
    sources = Path(smarter_auth_mw.__file__).parent.rglob("*.py")
    lines = [line for source in sources for line in source.read_text("utf-8").splitlines()]
    found = [line.strip() for line in lines if _UNCOUNTED.search(line) and " == 1 else " not in line]
    assert found == []
