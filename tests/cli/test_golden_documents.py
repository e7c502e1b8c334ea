"""The JSON of the command line, whole, as it was when somebody last looked at it: ``golden/command_line.json``.

Programs read these documents, and the management API answers with the same ones. A change of one is a change of the
public face: run with UPDATE_GOLDEN=1, read the difference, and write it into the changelog.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from smarter_auth_mw.observers.usage import ANONYMOUS, GRANTED, Batch, Series
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from tests.support.cli import Commands
from tests.support.database import Database

GOLDEN = Path(__file__).parents[1] / "golden" / "command_line.json"

STORY = """
db status
resource add bot:1 --name first --on-error deny
resource add bot:1
resource protect bot:1
resource unprotect bot:1
resource set bot:1 --domain first.example.com
key create --name laptop --description CI --expires-in 30d --bind bot:1 --bind bot:2
key create --name laptop
key create --name spare
key show {laptop}
key show 00000000-0000-4000-8000-000000000000
key list
key list --resource bot:2
key bind {spare} bot:2
key unbind {spare} bot:2
key unbind {laptop} bot:2
key deactivate {laptop}
key activate {laptop}
key rotate {laptop} --overlap 1h
key rotate {laptop}
key revoke {spare}
resource show bot:1
resource show bot:9
resource list
resource remove bot:1
resource add bot:3
resource remove bot:3
check /health
check /bots/9
check /bots/1
check /bots/042
check /bots/1 --header Authorization:{nothing}
usage
usage --resource bot:2 --since 30d
audit --limit 3
audit --key {spare}
export
key list --expiring soon
key frobnicate
"""
"""Commands in the order in which they are run; what stands in braces is known from an earlier one."""

_WORDS = {"message", "hint", "detail", "schema", "id"}
"""What may change without a program noticing: sentences, and numbers that only count."""
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:\+00:00|Z)")
_DIGEST = re.compile(r"\b[0-9a-f]{128}\b")
_TOKEN = re.compile(r"\b[0-9a-f]{64}\b")
_TOKEN_KEY = re.compile(r"\b[0-9a-f]{15}\b")


class Masks:
    """What differs from run to run, by a name that does not: the same value has the same name."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._numbers = {kind: count(1) for kind in ("id", "digest", "token", "token_key")}

    def masked(self, document: Any) -> Any:
        if isinstance(document, dict):
            return {name: self._value(name, value) for name, value in document.items()}
        if isinstance(document, list):
            return [self.masked(value) for value in document]
        return self._text(document) if isinstance(document, str) else document

    def _value(self, name: str, value: Any) -> Any:
        if name in _WORDS and value is not None:
            return f"<{name}>"
        if name == "points":
            return f"<{len(value)} points, {sum(value)} in all>"
        return self.masked(value)

    def _text(self, text: str) -> str:
        text = _TIME.sub("<time>", text)
        for kind, pattern in (("id", _UUID), ("digest", _DIGEST), ("token", _TOKEN), ("token_key", _TOKEN_KEY)):
            text = pattern.sub(lambda found, kind=kind: self._name(found[0], kind), text)  # type: ignore[misc]
        return text

    def _name(self, value: str, kind: str) -> str:
        if _UUID.fullmatch(value) and not UUID(value).int & (1 << 48) - 1:
            return value  # One that the story made up.
        if value not in self._names:
            self._names[value] = f"<{kind} {next(self._numbers[kind])}>"
        return self._names[value]


@pytest.fixture
def used(database: Database) -> None:
    """What a server would have written of requests without a key."""
    counts = {
        Series("bot", "2", ANONYMOUS): 5,
        Series("bot", "2", "unknown_token"): 3,
        Series("bot", "1", GRANTED, str(UUID(int=1 << 96)), "gone", b"g" * 64): 7,
    }

    async def write() -> None:
        async with open_pool(database.runtime) as pool:
            await Store(pool).write_usage(Batch(counts, uuid4(), time.monotonic()))

    asyncio.run(write())


@pytest.mark.usefixtures("used")
def test_documents_are_those_that_somebody_looked_at(run: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smarter_auth_mw.cli.session.os_user", lambda: "tester")
    known, masks, found = {"nothing": "Token nonsense"}, Masks(), {}
    for command in STORY.strip().splitlines():
        words = [word.format(**known) for word in command.split()]
        ran = run(*words, "--json")
        assert ran.out, command
        if words[:2] == ["key", "create"] and ran.exit_code == 0:
            known[ran.json["name"]] = ran.json["key_id"]
        found[command] = {"exit_code": ran.exit_code, "document": masks.masked(ran.json)}
    check_golden(found)


def check_golden(found: dict[str, Any]) -> None:
    """Compare with what somebody looked at."""
    if "UPDATE_GOLDEN" in os.environ:
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    golden = json.loads(GOLDEN.read_text())
    for command, answered in found.items():
        assert json.dumps(answered, indent=1) == json.dumps(golden[command], indent=1), command
    assert list(golden) == list(found)
