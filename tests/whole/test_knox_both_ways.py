"""Tokens go both ways between us and django-rest-knox, by its own code, on a database that both see."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from smarter_auth_mw.domain import Resource
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.tokens import TokenFormat
from tests.support.asgi import client, guarded
from tests.support.database import Database

BOT = Resource("bot", "42")
TO_KNOX = """
INSERT INTO knox_authtoken (digest, token_key, created, expiry, user_id)
SELECT encode(digest, 'hex'), token_key, created_at, valid_until, $1 FROM smarter_auth.token
"""
TO_US = """
INSERT INTO smarter_auth.token (digest, token_key, key_id, account)
SELECT decode(digest, 'hex'), left(token_key, 15), key_id, account FROM knox_authtoken CROSS JOIN smarter_auth.key
"""


class Knox:
    """A Django with knox in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, act: str, value: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({act: value}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@pytest.fixture
def knox(database: Database) -> Iterator[Knox]:
    command = [sys.executable, "-W", "error", "-m", "tests.support.knox_django", database.owner]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Knox(process)
        process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.mark.parametrize("form", ["knox", "checked"])
async def test_token_of_ours_authenticates_in_knox(
    knox: Knox, keys: Management, owner: asyncpg.Connection, form: TokenFormat
) -> None:
    user_id = knox.ask("create", "alice")["user_id"]
    minted = await keys.create("ours", form=form)
    await owner.execute(TO_KNOX, user_id)
    token = minted.token.reveal()
    assert knox.ask("authenticate", f"Token {token}") == {"user": "alice"}
    changed = token[:-1] + ("0" if token[-1] != "0" else "1")
    for wrong in (changed, minted.token.digest.hex(), minted.token.token_key):
        assert "refused" in knox.ask("authenticate", f"Token {wrong}")


async def test_token_that_we_rotated_out_is_expired_in_knox(
    knox: Knox, keys: Management, owner: asyncpg.Connection
) -> None:
    user_id = knox.ask("create", "alice")["user_id"]
    minted = await keys.create("ours")
    rotated = await keys.rotate(minted.key.key_id, timedelta(0))
    await owner.execute(TO_KNOX, user_id)
    assert "refused" in knox.ask("authenticate", f"Token {minted.token.reveal()}")
    assert knox.ask("authenticate", f"Token {rotated.token.reveal()}") == {"user": "alice"}


async def test_token_of_knox_opens_our_resources(
    knox: Knox, keys: Management, database: Database, owner: asyncpg.Connection
) -> None:
    token = knox.ask("create", "alice")["token"]
    key = (await keys.create("theirs", bind=[BOT])).key
    await owner.execute(TO_US)
    assert (await keys.key(key.key_id)).token_keys[-1] == token[:15]
    app = guarded(database.runtime)
    async with client(app) as http:
        granted = await http.get("/bots/42", headers={"Authorization": f"Token {token}"})
        assert (granted.status_code, granted.json()["key_id"]) == (200, str(key.key_id))
        assert (await http.get("/bots/42", headers={"Authorization": f"Token {token[:-1]}g"})).status_code == 401
    await app._guard.close()
