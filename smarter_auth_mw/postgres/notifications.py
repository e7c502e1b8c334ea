"""The connection that hears: notifications of PostgreSQL as they come, and a heartbeat whenever it is asked for one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from smarter_auth_mw.cache.listener import Beat, Notified
from smarter_auth_mw.errors import SchemaError
from smarter_auth_mw.log import log
from smarter_auth_mw.postgres.connections.connector import Connector
from smarter_auth_mw.postgres.connections.sessions import READ_COMMITTED, patience_s, timeouts
from smarter_auth_mw.postgres.faults import close, explained, read_only, reported
from smarter_auth_mw.postgres.queries import QUERIES

CHANNEL = "smarter_auth"
PREPARE_TIMEOUT_S = 8.0
STATEMENTS = 2
"""LISTEN, and the heartbeat."""
MAX_CHANGES = 10_000
"""Changes that one heartbeat lists, at most; beyond that it reports itself incomplete."""


class PostgresWire:
    """One open connection to the primary."""

    def __init__(self, connection: Any, where: str) -> None:
        self._connection = connection
        self._where = where
        self._missing: list[str] = []

    async def beat(self, previous: str | None) -> Beat:
        """The heartbeat after the one whose snapshot is given; raises ``UnavailableError`` or ``SchemaError``."""
        found = await self._answer(previous)
        if not found["is_named"]:
            with reported(self._where):
                await self._connection.execute(QUERIES.name_incarnation.sql)
            found = await self._answer(previous)
        self._report(found["missing_triggers"])
        changes = tuple(zip(found["sources"], map(int, found["txs"]), strict=True))
        is_complete = found["is_complete"] and len(changes) <= MAX_CHANGES
        return Beat(
            snapshot=found["snapshot"],
            server=found["server"],
            changes=changes if is_complete else (),
            is_complete=is_complete,
            is_coherent=found["is_named"] and found["loses_its_name"] and not self._missing,
            guard=found["guard"] or "",
            ages_s=tuple(map(float, found["ages_s"])),
            now_s=found["now_s"],
        )

    async def _answer(self, previous: str | None) -> Any:
        try:
            found = await self._connection.fetchrow(QUERIES.beat.sql, previous)
        except Exception as error:  # Whatever it is: garbage on the wire raises what it likes.
            raise explained(error, self._where) from None
        if found is None:
            raise SchemaError()
        if found["is_standby"]:
            raise read_only(self._where)
        return found

    def _report(self, missing: list[str]) -> None:
        """Log which triggers are missing, whenever that changes."""
        if missing and missing != self._missing:
            log(
                "triggers.missing",
                "%s: missing or disabled, so that nothing is cached for longer than MAX_STALENESS_S. Run: "
                "smarter-auth db migrate. Where that changes nothing, smarter-auth doctor shows the statement to run.",
                ", ".join(missing),
            )
        elif self._missing and not missing:
            log("triggers.restored", "every trigger is there")
        self._missing = missing


async def is_heard(url: str, notify: Callable[[str, str], Awaitable[None]], *, timeout_s: float) -> bool:
    """Whether who listens here hears what ``notify(channel, payload)`` says: on a channel that nobody else has.

    Raises ``UnavailableError``.
    """
    channel, heard = f"{CHANNEL}_{uuid4().hex}", asyncio.Event()
    connector = Connector(url)
    connection = await connector.connect()
    try:
        with reported(connector.where):
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


async def _prepare(connection: Any) -> None:
    """One heartbeat for nothing, with all the time in the world: those that follow take one round trip."""
    await connection.fetchrow(QUERIES.beat.sql, None, timeout=PREPARE_TIMEOUT_S)


@asynccontextmanager
async def open_wire(
    url: str,
    notified: Notified | None,
    *,
    listens: bool = True,
    timeout_s: float = 2,
    statement_cache_size: int = 100,
) -> AsyncIterator[PostgresWire]:
    """A wire to the primary that hands each notification's payload to ``notified``, a plain function.

    When it returns False, the connection is closed at once and what the server has still to send is discarded: reading
    it would take the event loop's time, and a heartbeat's answer would wait behind it. ``listens`` is False behind a
    transaction pooler, where LISTEN would reach another client's session. Nothing is listened to without ``notified``.
    """

    def hear(connection: Any, _pid: int, _channel: str, payload: str) -> None:
        if notified is not None and notified(payload) is False:
            connection.terminate()

    connector = Connector(
        url,
        application="smarter_auth listener",
        settings=READ_COMMITTED | timeouts(timeout_s) if listens else None,
        command_timeout_s=patience_s(timeout_s),
        # LISTEN needs a session of its own, and in such a session statements may have names.
        statement_cache_size=STATEMENTS if listens else statement_cache_size,
        prepare=_prepare,
    )
    connection = await connector.connect()
    try:
        if listens and notified is not None:
            # LISTEN before the first heartbeat: a change between the two arrives twice rather than never.
            with reported(connector.where):
                await connection.add_listener(CHANNEL, hear)
        yield PostgresWire(connection, connector.where)
    finally:
        await close(connection)
