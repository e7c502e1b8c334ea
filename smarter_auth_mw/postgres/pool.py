"""Connections to PostgreSQL, each checked when it is opened, and lent for as long as a block lasts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, NamedTuple

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from smarter_auth_mw.config.settings import mask_url
from smarter_auth_mw.errors import SchemaError
from smarter_auth_mw.postgres.queries import (
    CONNECT_TIMEOUT_S,
    FAULTS,
    QUERIES,
    READ_COMMITTED,
    SCHEMA,
    close,
    connecting,
    explained,
    reported,
)

SESSION = {"jit": "off", "plan_cache_mode": "force_generic_plan", "random_page_cost": "1.1"} | READ_COMMITTED
"""Our statements find their rows by index, and what they read is in memory: compiling them or planning them anew costs
more than it saves, and so do the scans of whole tables that look cheap where there are a few thousand keys."""


class Pool:
    """Connections to one database, and how it is called in messages.

    ``kept_max`` of them stay in our hands when nobody waits: to take one from asyncpg and to give it back costs half as
    much as the query. asyncpg itself is to keep none: it would look for lost ones by itself, and log its traceback.
    """

    def __init__(
        self, connections: asyncpg.Pool[asyncpg.Record], where: str, query_timeout_s: float, kept_max: int = 0
    ) -> None:
        self.where = where
        self._connections = connections
        self._query_timeout_s = query_timeout_s
        self._kept_max = kept_max
        self._kept: list[Any] = []
        self._waiting = 0

    async def fill(self) -> None:
        """Open as many as are kept; raises what asyncpg raises."""
        while len(self._kept) < self._kept_max:
            self._kept.append(await self._connections.acquire())

    def acquire(self) -> Loan:
        """A connection, for as long as the ``async with`` block lasts; its errors are ours."""
        return Loan(self)

    async def take(self) -> Any:
        """A connection, to be given back; a ``Loan`` does both."""
        while self._kept:
            connection = self._kept.pop()
            if not connection.is_closed():
                return connection
            await self._connections.release(connection)
        self._waiting += 1
        try:
            return await self._connections.acquire(timeout=self._query_timeout_s)
        finally:
            self._waiting -= 1

    async def give_back(self, connection: Any, error: BaseException | None) -> None:
        """Take a connection back, and whether what was done with it failed."""
        if isinstance(error, TimeoutError):
            connection.terminate()  # Or we would wait as long again for a server that is frozen.
        if error is not None or self._waiting or len(self._kept) >= self._kept_max:
            await self._connections.release(connection)
        else:
            self._kept.append(connection)

    async def expire(self) -> None:
        """Use none of these connections any more: the next ones find the primary."""
        await self._connections.expire_connections()
        await self._release_kept()

    async def close(self) -> None:
        """Close them all, whatever state they are in, in bounded time."""
        with reported(self.where):
            await self._release_kept()
        await close(self._connections)

    @property
    def sizes(self) -> PoolSizes:
        idle = self._connections.get_idle_size() + len(self._kept)
        return PoolSizes(self._connections.get_size() - idle, idle)

    async def _release_kept(self) -> None:
        while self._kept:
            await self._connections.release(self._kept.pop())


class Loan:
    """A connection of the pool's, for one block.

    A class, and its errors told here: generators and a ``reported`` around them cost a tenth of the query.
    """

    __slots__ = ("_connection", "_pool")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def __aenter__(self) -> Any:
        try:
            self._connection = await self._pool.take()
        except FAULTS as error:
            raise explained(error, self._pool.where) from None
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._pool.give_back(self._connection, error)
        except FAULTS as fault:
            error = fault
        if isinstance(error, FAULTS):
            raise explained(error, self._pool.where) from None


class PoolSizes(NamedTuple):
    """How many connections are open, and what they do."""

    busy: int
    idle: int


@asynccontextmanager
async def open_pool(
    url: str,
    *,
    pool_min: int = 1,
    pool_max: int = 8,
    query_timeout_s: float = 2,
    statement_cache_size: int = 100,
) -> AsyncIterator[Pool]:
    """A pool of connections to the primary, each checked to be of a schema that this release works on.

    ``statement_cache_size`` 0 stands for a transaction pooler, which knows neither prepared statements nor our session
    settings. Raises ``UnavailableError`` or ``SchemaError``.
    """
    connections = await asyncpg.create_pool(
        url,
        min_size=0,
        max_size=pool_max,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=query_timeout_s,
        statement_cache_size=statement_cache_size,
        target_session_attrs=SessionAttribute.read_write,
        server_settings={"application_name": "smarter_auth"} | (SESSION if statement_cache_size else {}),
        init=_check_schema,
        reset=_keep_session,
    )
    pool = Pool(connections, mask_url(url), query_timeout_s, pool_min)
    try:
        with connecting(pool.where):
            await pool.fill()
        yield pool
    finally:
        await pool.close()


async def _check_schema(connection: Any) -> None:
    """Refuse a schema that this release does not know; one step ahead may say that it still serves us."""
    found = await QUERIES.read_schema(connection)
    if found is None or found["version"] is None:
        raise SchemaError()
    if found["version"] < SCHEMA:
        raise SchemaError(f"The database has schema {found['version']:04}; this release works on {SCHEMA:04}.")
    if found["serves_from"] > SCHEMA:
        raise SchemaError(
            f"The database has schema {found['version']:04}, too new for this release, which knows {SCHEMA:04}.",
            hint="Upgrade smarter_auth_mw: pip install -U smarter_auth_mw",
        )


async def _keep_session(_: Any) -> None:
    """Nothing of ours changes a session, so that asyncpg's reset would be a round trip for nothing."""
