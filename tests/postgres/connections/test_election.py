"""The election of the primary leaves no connection open, whenever it is given up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from smarter_auth_mw.config.database_urls import Host
from smarter_auth_mw.postgres.connections.election import elect
from smarter_auth_mw.postgres.queries import QUERIES

PRIMARY, SLOW = HOSTS = (Host("first", 5432), Host("second", 5432))


class Connection:
    """A connection that says whether it is open."""

    is_open = True

    def terminate(self) -> None:
        self.is_open = False


async def test_whoever_is_cancelled_while_others_end_leaves_no_connection_open(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Connection] = []
    ends = asyncio.Event()

    async def open_host(host: Host) -> Connection:
        try:
            if host == SLOW:
                await asyncio.Event().wait()
        finally:
            await ends.wait()
        opened.append(Connection())
        return opened[-1]

    async def find_timeline(_connection: Any) -> dict[str, Any]:
        return {"is_standby": False, "is_read_only": False, "system": "1", "timeline": 1}

    monkeypatch.setattr(QUERIES, "find_timeline", find_timeline)
    electing = asyncio.create_task(elect(HOSTS, open_host, "a database"))
    ends.set()
    while not opened:
        await asyncio.sleep(0)
    ends.clear()
    for _ in range(2):
        for _ in range(5):
            await asyncio.sleep(0)
        electing.cancel()
    ends.set()
    with pytest.raises(asyncio.CancelledError):
        await electing
    for _ in range(5):
        await asyncio.sleep(0)
    assert [connection.is_open for connection in opened] == [False]
