"""Whatever is wrong with a URL or on the way to a server, it is one of our errors that says what to do."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from smarter_auth_mw.errors import SmarterAuthError, UnavailableError
from smarter_auth_mw.postgres.connections.connector import Connector
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from tests.support.asgi import KEYED
from tests.support.database import Database
from tests.support.worker import worker


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://app:secret@h..x/app", "not the name of a host"),
        ("postgresql://app:secret@127.0.0.1:543310/app", "between 1 and 65535"),
        ("postgresql://app:secret@no-such-host.invalid/app", "cannot be resolved"),
        ("postgresql://app:secret@127.0.0.1:1/app", "cannot be reached"),
        ("postgresql://app:secret@/app?host=/nowhere", "cannot be reached"),
        ("postgresql://app:secret@/app?host=/" + "x" * 200, "cannot be reached|failed"),
        ("mysql://app:secret@db/app", "not the address of a database"),
        ("", "not the address of a database"),
    ],
)
async def test_what_cannot_be_opened_says_why_and_not_its_password(url: str, said: str) -> None:
    with pytest.raises(UnavailableError, match=said) as refused:
        await Connector(url).connect()
    assert "secret" not in f"{refused.value}{refused.value.hint}{refused.value.__cause__}"


@pytest.mark.parametrize("error", [OverflowError(), UnicodeError(), ValueError("secret"), KeyError(), RuntimeError()])
async def test_whatever_the_driver_raises_becomes_an_error_of_ours(
    error: Exception, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(**_: Any) -> Any:
        raise error

    monkeypatch.setattr(asyncpg, "connect", connect)
    for pool_min in (0, 1):
        with pytest.raises(UnavailableError) as refused:
            async with open_pool(database.runtime, pool_min=pool_min, query_timeout_s=0.1) as pool:
                await Store(pool).domains()
        assert "secret" not in str(refused.value)
    async with worker(database.runtime, pool_min=0, query_timeout_s=0.1, ready_path="/readyz") as started:
        assert await started.ask(KEYED) == 503
        page = await started._http.get("/readyz")
        assert (page.status_code, page.json()["reasons"]) == (503, ["store_unreachable"])


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("options=-c%20nosuch%3D1", 'unrecognized configuration parameter "nosuch"'),
        ("options=-c%20work_mem%3Dmuch", "work_mem"),
        ("options=-c%20max_connections%3D5", "max_connections"),
    ],
)
async def test_an_option_that_the_server_does_not_know_is_told_as_such(
    database: Database, option: str, said: str
) -> None:
    with pytest.raises(UnavailableError, match=said) as refused:
        await Connector(f"{database.runtime}&{option}").connect()
    assert "running" not in refused.value.hint
    assert "options" in refused.value.hint


async def test_options_of_the_url_reach_the_server(database: Database) -> None:
    connection = await Connector(
        f"{database.runtime}&options=-c%20work_mem%3D5MB&application_name=bots", application="smarter_auth listener"
    ).connect()
    assert await connection.fetchval("SHOW work_mem") == "5MB"
    assert await connection.fetchval("SHOW application_name") == "bots listener"
    await connection.close()


async def test_a_host_that_does_not_answer_has_the_time_that_the_url_gives_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://app@127.0.0.1:{silent.getsockname()[1]}/app?connect_timeout=1"
        with pytest.raises(UnavailableError, match="did not answer within 1 s") as refused:
            await Connector(url).connect()
        assert "connect_timeout" in refused.value.hint


async def test_a_connection_that_cannot_be_prepared_is_closed(database: Database, owner: asyncpg.Connection) -> None:
    async def refuse(_: Any) -> None:
        raise SmarterAuthError("no")

    with pytest.raises(SmarterAuthError, match="no"):
        await Connector(database.runtime, application="refused", prepare=refuse).connect()
    async with asyncio.timeout(30):
        while await owner.fetchval("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'refused'"):
            await asyncio.sleep(0.01)


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user, and the right to become it")
def test_a_home_of_another_user_is_done_without(tmp_path: Path) -> None:
    (home := tmp_path / "home").mkdir(mode=0o700)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
    program = (
        "import asyncio, os, encodings.idna\n"
        "from smarter_auth_mw.postgres.connections.connector import Connector\n"
        "os.setuid(65534)\n"
        f"asyncio.run(Connector('postgresql://app@127.0.0.1:{port}/app').connect())"
    )
    command = [sys.executable, "-c", program]
    # The other user may not write down what was covered.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")} | {"HOME": str(home)}
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert "cannot be reached: [Errno 111]" in ran.stderr.splitlines()[-1]
