"""A pool of connections to PostgreSQL, each checked when it is opened, and lent for a block."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, NamedTuple, cast

from smarter_auth_mw.errors import SchemaError, SmarterAuthError, UnavailableError
from smarter_auth_mw.postgres.connections.connector import Connector
from smarter_auth_mw.postgres.connections.sessions import SESSION, patience_s, timeouts
from smarter_auth_mw.postgres.faults import CLOSE_TIMEOUT_S, AwayError, close, explained, is_fault, is_said
from smarter_auth_mw.postgres.queries import QUERIES, SCHEMA

AWAY_S = 2.0
"""The time that requests wait for a server that has just gone away, for example a restarting pooler."""
RETRY_EVERY_S = 0.05
MAX_LOSSES = 5
"""The most connections that one look-up may lose before it fails; one without an answer counts as most of them."""
SHRINK_EVERY_S = 300.0


class Pool:
    """A pool of connections to one database; ``where`` names it in messages.

    At most ``most`` are open at any time, including those being opened or closed: a connection whose statement timed
    out keeps its place until the server has cancelled it. ``kept`` stay open when idle. A connection that is being
    opened is completed even if its request has given up.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[Any]], where: str, *, kept: int, most: int, patience_s: float
    ) -> None:
        self.where = where
        self._connect = connect
        self._kept = kept
        self._most = most
        self._patience_s = patience_s
        self._open: set[Any] = set()
        self._reusable: set[Any] = set()
        self._idle: list[Any] = []
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._count = 0
        self._spare = 0
        """The number of connections that were idle for the whole time since the last check."""
        self._shrinking: asyncio.TimerHandle | None = None
        self._distance_s = 0.0
        """The time that opening a connection took; distant servers get longer deadlines."""
        self._away_since_s: float | None = None
        self._trouble: SmarterAuthError | None = None
        self._emptied = asyncio.Event()
        self._is_closed = False

    async def fill(self) -> None:
        """Open ``kept`` connections; raises a SmarterAuthError."""
        while self._count < self._kept:
            self._count += 1
            try:
                connection = await self._timed()
            except BaseException:
                self._count -= 1
                raise
            self._put(self._opened(connection))
        self._shrink()

    async def fetch(self, query: str, *arguments: Any) -> Sequence[Any]:
        """Return the rows of a read-only statement; if a connection is lost, run it again on another one."""
        losses = 0
        while True:
            connection = (None if losses else self._pop()) or await self._fresh()
            try:
                rows: Sequence[Any] = await connection.fetch(query, *arguments)
            except Exception as error:  # Whatever it is: garbage on the wire raises what it likes.
                self.give_back(connection, error)
                losses += MAX_LOSSES - 1 if isinstance(error, TimeoutError) else 1
                if is_said(error) or losses > MAX_LOSSES:
                    raise explained(error, self.where) from None
            except BaseException as error:
                self.give_back(connection, error)
                raise
            else:
                self.give_back(connection)
                return rows

    def acquire(self) -> Loan:
        """Lend a connection that has just answered for an ``async with`` block; its errors are translated."""
        return Loan(self, self._answering)

    def give_back(self, connection: Any, error: BaseException | None = None) -> None:
        """Take a connection back, with the error that was raised while it was lent."""
        if (
            (error is None or is_said(error))
            and connection in self._reusable
            and not (connection.is_closed() or connection.is_in_transaction())
        ):
            self._put(connection)
        else:
            self._retire(connection, error)

    def expire(self) -> None:
        """Retire all current connections, so that new ones find the primary."""
        self._reusable.clear()
        while self._idle:
            self._retire(self._idle.pop())

    async def close(self) -> None:
        """Close all connections, in any state, in bounded time."""
        self._is_closed = True
        if self._shrinking is not None:
            self._shrinking.cancel()
        while self._waiting:
            self._fail_one(UnavailableError(f"{self.where} is closed."))
        for task in self._opening:
            task.cancel()
        self.expire()
        if self._count:
            await asyncio.wait([asyncio.ensure_future(self._emptied.wait())], timeout=CLOSE_TIMEOUT_S)
        for connection in list(self._open):
            connection.terminate()
        await asyncio.gather(*self._opening, *self._closing, return_exceptions=True)

    @property
    def sizes(self) -> PoolSizes:
        return PoolSizes(self._count - len(self._idle), len(self._idle))

    def _pop(self) -> Any:
        """Return an idle connection that is not known to be lost, or None."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if len(idle) < self._spare:
                self._spare = len(idle)
            if not connection.is_closed():
                return connection
            self._retire(connection)
        return None

    async def _answering(self) -> Any:
        connection = self._pop()
        if connection is not None:
            try:
                await connection.execute("SELECT")
            except Exception as error:
                self.give_back(connection, error)
                if is_said(error):
                    raise
            except BaseException as error:
                self.give_back(connection, error)
                raise
            else:
                return connection
        return await self._fresh()

    async def _fresh(self) -> Any:
        """Return a new connection, or one that was just returned in a sound state."""
        if self._count >= self._most and self._idle:
            self._retire(self._idle.pop(0))
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._open_more()
        try:
            async with asyncio.timeout(self._patience_s + self._distance_s):
                return await waiter
        except TimeoutError:
            self._leave(waiter)
            raise self._reason_to_wait() from None
        except BaseException:
            self._leave(waiter)
            raise

    def _leave(self, waiter: asyncio.Future[Any]) -> None:
        """Stop waiting; pass a connection that was handed over at this moment to the next waiter."""
        if waiter in self._waiting:
            self._waiting.remove(waiter)
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            self._put(waiter.result())

    def _reason_to_wait(self) -> UnavailableError:
        if self._trouble is not None:
            return UnavailableError(self._trouble.message, hint=self._trouble.hint)
        busy = (
            "the only connection is busy, or takes"
            if self._most == 1
            else f"all {self._most} connections are busy, or take"
        )
        return UnavailableError(
            f"{self.where}: {busy} too long to open.",
            hint="Check the database's load and distance. SMARTER_AUTH_POOL_MAX sets the number of connections.",
        )

    def _put(self, connection: Any) -> None:
        """Hand the connection to the longest waiter, or keep it until it is needed."""
        if self._is_closed:
            self._retire(connection)
            return
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        self._idle.append(connection)

    def _open_more(self) -> None:
        """Open a connection for each waiter, up to the limit."""
        while len(self._opening) < len(self._waiting) and self._count < self._most and not self._is_closed:
            self._count += 1
            self._start(self._open_one(), self._opening)

    async def _open_one(self) -> None:
        try:
            connection = self._opened(await self._connect_patiently())
        except SmarterAuthError as error:
            self._trouble = error
            self._fail_one(error)
            self._count -= 1
        except BaseException:
            self._count -= 1
            raise
        else:
            self._put(connection)
        finally:
            self._opening.discard(cast("asyncio.Task[None]", asyncio.current_task()))
            self._make_room()

    async def _connect_patiently(self) -> Any:
        """Open a connection; if the server has just gone away, try again for AWAY_S."""
        while True:
            try:
                return await self._timed()
            except AwayError:
                now_s = time.monotonic()
                if self._away_since_s is None:
                    self._away_since_s = now_s
                if now_s - self._away_since_s >= AWAY_S:
                    raise
                await asyncio.sleep(RETRY_EVERY_S)

    async def _timed(self) -> Any:
        begun_s = time.monotonic()
        connection = await self._connect()
        self._distance_s = time.monotonic() - begun_s
        return connection

    def _opened(self, connection: Any) -> Any:
        self._away_since_s = self._trouble = None
        self._open.add(connection)
        self._reusable.add(connection)
        return connection

    def _fail_one(self, error: SmarterAuthError) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(error)
                return

    def _retire(self, connection: Any, error: BaseException | None = None) -> None:
        self._reusable.discard(connection)
        if connection.is_closed():
            connection.terminate()  # Clean up: the loss of the connection may not have been noticed.
            self._forget(connection)
        else:
            self._start(self._close_one(connection, error), self._closing)

    async def _close_one(self, connection: Any, error: BaseException | None) -> None:
        try:
            await close(connection, error)
        finally:
            self._forget(connection)

    def _forget(self, connection: Any) -> None:
        self._open.discard(connection)
        self._count -= 1
        self._make_room()

    def _make_room(self) -> None:
        if not self._count:
            self._emptied.set()
        self._open_more()

    def _start(self, work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
        # A context of its own, since it outlives the request that started it.
        task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def _shrink(self) -> None:
        """Close connections that were idle for a while, except for ``kept`` ones."""
        for connection in self._idle[: max(0, min(self._spare, self._count - self._kept))]:
            self._idle.remove(connection)
            self._retire(connection)
        self._spare = len(self._idle)
        self._shrinking = asyncio.get_running_loop().call_later(SHRINK_EVERY_S, self._shrink)


class Loan:
    """Lends a connection of the pool for one block.

    A class that translates errors itself: generators with ``reported`` would take a tenth of the query's time.
    """

    __slots__ = ("_connection", "_pool", "_take")

    def __init__(self, pool: Pool, take: Callable[[], Awaitable[Any]]) -> None:
        self._pool = pool
        self._take = take

    async def __aenter__(self) -> Any:
        try:
            self._connection = await self._take()
        except Exception as error:
            if is_fault(error):
                raise explained(error, self._pool.where) from None
            raise
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.give_back(self._connection, error)
        if error is not None and is_fault(error):
            raise explained(error, self._pool.where) from None


class PoolSizes(NamedTuple):
    """The numbers of busy and idle connections."""

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
    """Open a pool of connections to the primary, each checked for a schema that this release supports.

    ``statement_cache_size`` 0 means a transaction pooler, which supports neither prepared statements nor session
    settings. Raises ``UnavailableError`` or ``SchemaError``.
    """
    connector = Connector(
        url,
        settings=SESSION | timeouts(query_timeout_s) if statement_cache_size else None,
        command_timeout_s=patience_s(query_timeout_s),
        statement_cache_size=statement_cache_size,
        prepare=_check_schema,
    )
    pool = Pool(connector.connect, connector.where, kept=pool_min, most=pool_max, patience_s=query_timeout_s)
    try:
        await pool.fill()
        yield pool
    finally:
        await pool.close()


async def _check_schema(connection: Any) -> None:
    """Refuse a schema that this release does not know; a newer one may declare that it still supports this release."""
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
