"""The connection that hears: notifications of PostgreSQL as they come, and a heartbeat whenever it is asked for one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from smarter_auth_mw.cache.listener import Beat
from smarter_auth_mw.config.settings import mask_url
from smarter_auth_mw.errors import SchemaError, UnavailableError
from smarter_auth_mw.postgres.queries import CONNECT_TIMEOUT_S, QUERIES, READ_COMMITTED, close, connecting, reported

CHANNEL = "smarter_auth"
MAX_CHANGES = 10_000
"""More changes than this between two heartbeats are not told one by one: the beat says that it is not complete."""


class PostgresWire:
    """One open connection to the primary."""

    def __init__(self, connection: Any, where: str, timeout_s: float) -> None:
        self._connection = connection
        self._where = where
        self._timeout_s = timeout_s

    async def beat(self, previous: str | None) -> Beat:
        """The heartbeat after the one whose snapshot is given; raises ``UnavailableError`` or ``SchemaError``."""
        with reported(self._where):
            found = await self._connection.fetchrow(QUERIES.beat.sql, previous, timeout=self._timeout_s)
        if found is None:
            raise SchemaError()
        if found["is_standby"]:
            raise UnavailableError(f"{self._where} is read-only: a standby, or a role that may only read.")
        changes = tuple(zip(found["sources"], found["txs"], strict=True))
        is_complete = found["is_complete"] and len(changes) <= MAX_CHANGES
        return Beat(
            snapshot=found["snapshot"],
            server=found["server"],
            changes=changes if is_complete else (),
            is_complete=is_complete,
            is_coherent=not found["missing_triggers"],
            guard=found["guard"] or "",
            ages_s=found["ages_s"],
        )


async def is_heard(url: str, notify: Callable[[str, str], Awaitable[None]], *, timeout_s: float) -> bool:
    """Whether who listens here hears what ``notify(channel, payload)`` says: on a channel that nobody else has.

    Raises ``UnavailableError``.
    """
    channel, heard = f"{CHANNEL}_{uuid4().hex}", asyncio.Event()
    with connecting(mask_url(url)):
        connection = await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_S, statement_cache_size=0)
    try:
        with reported(mask_url(url)):
            await connection.add_listener(channel, lambda *_: heard.set())
        await notify(channel, "")
        async with asyncio.timeout(timeout_s):
            await heard.wait()
    except TimeoutError:
        return False
    else:
        return True
    finally:
        await close(connection)


@asynccontextmanager
async def open_wire(
    url: str,
    notified: Callable[[str], None],
    *,
    listens: bool = True,
    timeout_s: float = 2,
    statement_cache_size: int = 100,
) -> AsyncIterator[PostgresWire]:
    """A wire to the primary that hands each notification's payload to ``notified``, a plain function.

    ``listens`` is False behind a transaction pooler, where LISTEN would reach somebody else: the heartbeat is left.
    """
    where = mask_url(url)
    with connecting(where):
        connection = await asyncpg.connect(
            url,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=timeout_s,
            statement_cache_size=statement_cache_size,
            target_session_attrs=SessionAttribute.read_write,
            server_settings={"application_name": "smarter_auth listener"} | (READ_COMMITTED if listens else {}),
        )
    try:
        if listens:
            # Before the first heartbeat: what is committed between the two is heard twice rather than not at all.
            with reported(where):
                await connection.add_listener(CHANNEL, lambda *heard: notified(heard[-1]))
        yield PostgresWire(connection, where, timeout_s)
    finally:
        await close(connection)
