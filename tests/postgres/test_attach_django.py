"""Keys as people manage them in Django, on tables that Django has made: each act counts at once in the middleware."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tests.support.database import Database
from tests.support.platform import Front, Platform, front_of

PATH = "/api/v1/llm-clients/42/prompt/"


class Django:
    """A platform in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, act: str, argument: Any = None) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({act: argument}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer
        return answer


@pytest.fixture
def django(empty_database: Database) -> Iterator[Django]:
    command = [sys.executable, "-m", "tests.support.platform_django", empty_database.owner]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        made = Django(process)
        made("make_tables")
        made("make_bot", 42)
        yield made
        process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.fixture
async def platform(django: Django, empty_database: Database) -> AsyncIterator[Platform]:
    connection = await asyncpg.connect(empty_database.owner)
    try:
        attached = Platform(empty_database, connection)
        await attached.attach()
        yield attached
    finally:
        await connection.close()


async def test_keys_managed_in_django_take_effect(django: Django, platform: Platform, tmp_path: Path) -> None:
    async with front_of(platform) as front:
        assert await front.ask(PATH) == 200
        token = django("bind_new_key", "first")["token"]
        await front.comes_to(401, PATH)
        assert await _status(front, token) == 200
        await platform.sql.execute("DELETE FROM smarter_auth.change")
        django("use", "first")
        assert await platform.sql.fetch("SELECT source FROM smarter_auth.change") == []
        second = django("bind_new_key", "second")["token"]
        await _comes_to(front, second, 200)
        django("switch_off", "first")
        await _comes_to(front, token, 401)
        assert django("dump_and_load", str(tmp_path / "dump.json")) == {"bindings": 2}
        await _comes_to(front, second, 200)
        assert await _status(front, token) == 401


async def test_key_that_knox_deletes_on_expiry_does_not_open_its_bot_and_an_unbinding_does(
    django: Django, platform: Platform
) -> None:
    async with front_of(platform) as front:
        token = django("bind_new_key", "first")["token"]
        await _comes_to(front, token, 200)
        assert django("let_expire", token) == {"refused": "Invalid token.", "left": 0}
        await _comes_to(front, token, 401)
        assert await front.ask(PATH) == 401
        second = django("bind_new_key", "second")["token"]
        await _comes_to(front, second, 200)
        assert django("unbind") == {"gone": 1}
        await front.comes_to(200, PATH)


async def _status(front: Front, token: str) -> int:
    response: httpx.Response = await front.http.get(PATH, headers={"Authorization": f"Token {token}"})
    return response.status_code


async def _comes_to(front: Front, token: str, status: int) -> None:
    async with asyncio.timeout(30):
        while await _status(front, token) != status:
            await asyncio.sleep(0.002)
