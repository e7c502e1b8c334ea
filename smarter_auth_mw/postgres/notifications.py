"""The listening connection: passes on PostgreSQL's notifications, and sends heartbeats on request."""

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
"""The most changes that one heartbeat lists; with more, it reports that it is incomplete."""


class PostgresWire:
    """One open connection to the primary."""

    def __init__(self, connection: Any, where: str) -> None:
        self._connection = connection
        self._where = where
        self._missing: list[str] = []

    async def beat(self, previous: str | None) -> Beat:
        """Send a heartbeat, given the snapshot of the last one; raises ``UnavailableError`` or ``SchemaError``."""
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
        except Exception as error:  # Any error: garbage from the network may raise anything.
            raise explained(error, self._where) from None
        if found is None:
            raise SchemaError()
        if found["is_standby"]:
            raise read_only(self._where)
        return found

    def _report(self, missing: list[str]) -> None:
        """Log which triggers are missing, if that has changed."""
        if missing and missing != self._missing:
            log(
                "triggers.missing",
                "%s: missing or disabled, so that nothing is cached for longer than MAX_STALENESS_S. Run: "
                "smarter-auth db migrate. If that does not help, smarter-auth doctor shows the statement to run.",
                ", ".join(missing),
            )
        elif self._missing and not missing:
            log("triggers.restored", "every trigger is in place")
        self._missing = missing


async def is_heard(url: str, notify: Callable[[str, str], Awaitable[None]], *, timeout_s: float) -> bool:
    """Return whether this listener receives ``notify(channel, payload)``, tried on a channel of its own.

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
    """Send a first heartbeat without a timeout, so that later ones take a single round trip."""
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
    """Open a wire to the primary that passes each notification's payload to ``notified``, a plain function.

    When it returns False, the connection is closed at once and the server's remaining data is discarded: reading it
    would take the event loop's time, and a heartbeat's answer would wait behind it. ``listens`` is False behind a
    transaction pooler, where LISTEN would reach another client's session. Without ``notified``, it does not listen.
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
