"""The pool: connections that are lost while they are kept, that take long to open, and that must never be too many."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import asyncpg
import pytest

from smarter_auth_mw.domain import Resource, Target
from smarter_auth_mw.errors import UnavailableError
from smarter_auth_mw.postgres.faults import AwayError, close
from smarter_auth_mw.postgres.pool import Pool, open_pool
from smarter_auth_mw.postgres.queries import QUERIES
from smarter_auth_mw.postgres.store import Store
from tests.support.database import Database
from tests.support.pgbouncer import pgbouncer, through
from tests.support.plain_postgres import PlainPostgres, installed
from tests.support.postgres import Postgres, Proxy
from tests.support.valkey import free_port
from tests.support.worker import PATIENCE_S, until

BOT = Resource("bot", "42")
OURS = "FROM pg_stat_activity WHERE application_name = 'smarter_auth' AND datname = current_database()"
TERMINATE = f"SELECT pg_terminate_backend(pid, 5000) {OURS}"


class Opened:
    """A connection of the tests' own: it answers, unless it was lost."""

    def __init__(self) -> None:
        self.is_lost = self.is_over = False
        self.closing = asyncio.Event()
        self.closing.set()

    async def fetch(self, *_: Any) -> list[Any]:
        if self.is_lost:
            self.is_over = True
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        return [self]

    async def execute(self, _: str) -> None:
        await self.fetch()

    async def close(self) -> None:
        await self.closing.wait()
        self.is_over = True

    def terminate(self) -> None:
        self.is_over = True

    def is_closed(self) -> bool:
        return self.is_over

    def is_in_transaction(self) -> bool:
        return False


class Server:
    """What connections are opened to; ``is_slow`` until it is let go on."""

    def __init__(self) -> None:
        self.made: list[Opened] = []
        self.attempts = 0
        self.away: list[Exception] = []
        self.answers = asyncio.Event()
        self.answers.set()

    async def connect(self) -> Opened:
        self.attempts += 1
        await self.answers.wait()
        if self.away:
            raise self.away.pop()
        self.made.append(Opened())
        return self.made[-1]

    def lose_all(self, *, is_noticed: bool) -> None:
        for one in self.made:
            one.is_lost, one.is_over = True, one.is_over or is_noticed

    @property
    def open(self) -> int:
        return sum(not one.is_over for one in self.made)


@asynccontextmanager
async def pooled(
    server: Server, *, kept: int = 0, most: int = 2, patience_s: float = PATIENCE_S
) -> AsyncIterator[Pool]:
    pool = Pool(server.connect, "somewhere", kept=kept, most=most, patience_s=patience_s)
    try:
        await pool.fill()
        yield pool
    finally:
        await pool.close()
        assert server.open == 0


async def test_connections_are_used_again() -> None:
    server = Server()
    async with pooled(server) as pool:
        for _ in range(3):
            await pool.fetch("")
            async with pool.acquire():
                pass
    assert len(server.made) == 1


@pytest.mark.parametrize("is_noticed", [False, True])
async def test_every_connection_that_was_lost_is_replaced_without_a_failure(is_noticed: bool) -> None:
    server = Server()
    async with pooled(server, kept=2) as pool:
        for _ in range(3):
            server.lose_all(is_noticed=is_noticed)
            assert not (await pool.fetch(""))[0].is_lost
            server.lose_all(is_noticed=is_noticed)
            async with pool.acquire() as connection:
                assert not connection.is_lost


async def test_statement_that_fails_on_a_fresh_connection_too_is_not_tried_a_third_time() -> None:
    server = Server()
    async with pooled(server, kept=1) as pool:
        server.made[0].is_lost = True
        server.away = [UnavailableError("gone")]
        with pytest.raises(UnavailableError, match="gone"):
            await pool.fetch("")
        assert server.attempts == 2


async def test_never_more_are_open_than_the_most_even_while_they_are_being_closed() -> None:
    server = Server()
    async with pooled(server, most=2) as pool:
        for connection in [await pool.acquire().__aenter__() for _ in range(2)]:
            connection.closing.clear()
            pool.give_back(connection, TimeoutError())
        waiting = asyncio.create_task(pool.fetch(""))
        await asyncio.sleep(0)
        assert len(server.made) == 2
        server.made[0].closing.set()
        assert await waiting == [server.made[2]]
        assert server.open == 2
        server.made[1].closing.set()


async def test_connection_that_takes_long_to_open_is_there_for_the_next_request() -> None:
    server = Server()
    server.answers.clear()
    async with pooled(server, patience_s=0.01) as pool:
        with pytest.raises(UnavailableError, match="take too long to open"):
            await pool.fetch("")
        server.answers.set()
        await until(lambda: pool.sizes.idle == 1)
        assert await pool.fetch("") == server.made
        assert server.attempts == 1


async def test_server_that_is_away_for_a_moment_is_waited_for_and_one_that_is_down_is_not() -> None:
    server = Server()
    async with pooled(server, most=1) as pool:
        server.away = [AwayError("away") for _ in range(3)]
        assert await pool.fetch("") == server.made
        server.made[0].is_lost = True
        server.away = [AwayError("away") for _ in range(100)]
        with pytest.raises(AwayError):
            await pool.fetch("")
        attempts = server.attempts
        with pytest.raises(AwayError):
            await pool.fetch("")
        assert server.attempts == attempts + 1


async def test_who_gives_up_waiting_takes_no_connection_along() -> None:
    server = Server()
    async with pooled(server, most=1) as pool:
        async with pool.acquire():
            waiting = [asyncio.create_task(pool.fetch("")) for _ in range(3)]
            await asyncio.sleep(0)
            waiting[0].cancel()
        waiting[1].cancel()  # It has been handed the connection, and does not know it yet.
        assert await waiting[2] == server.made
        assert pool.sizes == (0, 1)


async def test_what_nobody_needs_is_closed_after_a_while() -> None:
    server = Server()
    async with pooled(server, kept=1, most=3) as pool:
        async with pool.acquire(), pool.acquire(), pool.acquire():
            pass
        pool._shrink()
        assert pool.sizes.idle == 3  # All were needed since it was looked at last.
        await pool.fetch("")
        pool._shrink()
        await until(lambda: server.open == 1)


async def test_expired_connections_are_not_lent_again() -> None:
    server = Server()
    async with pooled(server, kept=1) as pool:
        async with pool.acquire() as lent:
            pool.expire()
        async with pool.acquire() as connection:
            assert connection is not lent


# A real PostgreSQL


async def test_lost_connections_cost_no_look_up(database: Database, owner: asyncpg.Connection) -> None:
    async with open_pool(database.runtime, pool_min=3) as pool:
        store = Store(pool)
        for _ in range(3):
            assert await owner.fetch(TERMINATE)
            for _ in range(3):
                await store.read(Target(BOT))
                await store.domains()
            await asyncio.gather(*(store.read(Target(BOT)) for _ in range(3)))


async def test_idle_sessions_that_the_server_ends_cost_no_look_up(
    database: Database, owner: asyncpg.Connection
) -> None:
    if int(await owner.fetchval("SHOW server_version_num")) < 140000:
        pytest.skip("idle_session_timeout came with PostgreSQL 14")
    async with open_pool(f"{database.runtime}&options=-c%20idle_session_timeout%3D50ms", pool_min=2) as pool:
        store = Store(pool)
        for _ in range(3):
            async with asyncio.timeout(PATIENCE_S):
                while await owner.fetchval(f"SELECT count(*) {OURS}"):
                    await asyncio.sleep(0.01)
            await store.read(Target(BOT))
            await asyncio.gather(*(store.read(Target(BOT)) for _ in range(3)))


CUT = [
    asyncpg.InternalClientError("got result for unknown protocol state 0"),
    asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
    asyncpg.AdminShutdownError("terminating connection due to administrator command"),
]
CLOSED = asyncpg.InterfaceError("cannot perform operation: connection is closed")
GARBAGE = KeyError("garbage")


@pytest.mark.parametrize(
    ("place", "error"),
    [("connect", error) for error in [*CUT, CLOSED, GARBAGE]]
    + [("find_timeline", error) for error in [*CUT, CLOSED, GARBAGE]]
    + [("read_schema", error) for error in [*CUT, CLOSED, GARBAGE, TimeoutError("cut silently")]],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
async def test_a_connection_that_is_lost_while_it_is_opened_is_opened_again(
    place: str, error: Exception, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = asyncpg if place == "connect" else QUERIES
    works, losses = getattr(owner, place), iter([error, error])

    async def fails_twice(*arguments: Any, **named: Any) -> Any:
        for loss in losses:
            raise loss
        return await works(*arguments, **named)

    url = re.sub("host=([^&]+)", r"host=\1,\1", database.runtime) if place == "find_timeline" else database.runtime
    async with open_pool(url, pool_min=0) as pool:
        monkeypatch.setattr(owner, place, fails_twice)
        assert await Store(pool).read(Target(BOT))
    assert next(losses, None) is None


async def test_garbage_on_the_wire_is_a_lost_connection_in_a_transaction_too(
    own_server: Postgres, own_database: Database
) -> None:
    async with Proxy(own_server.socket) as wire, open_pool(wire.url(own_database.runtime)) as pool:

        async def sleep() -> None:
            async with pool.acquire() as connection, connection.transaction():
                await connection.fetch("SELECT pg_sleep(60), $1::int", 1)

        asking = asyncio.create_task(sleep())
        async with _administered(own_database) as owner, asyncio.timeout(PATIENCE_S):
            while not await owner.fetchval(f"SELECT count(*) {OURS} AND wait_event = 'PgSleep'"):
                await asyncio.sleep(0.01)
        wire.insert(b"D\0\0\0\7\0\2\xff")
        with pytest.raises(AwayError, match="failed: AssertionError"):
            await asking
        assert await pool.fetch("SELECT 1")


async def test_a_mistake_in_a_transaction_is_not_taken_for_a_lost_connection(database: Database) -> None:
    async with open_pool(database.runtime) as pool:
        with pytest.raises(KeyError, match="ours"):
            async with pool.acquire():
                raise KeyError("ours")


async def test_a_connection_that_cannot_be_closed_is_terminated() -> None:
    class Broken(Opened):
        async def close(self) -> None:
            raise asyncpg.InternalClientError("got result for unknown protocol state 0")

    connection = Broken()
    await close(connection)
    assert connection.is_over


@pytest.mark.parametrize("fault", ["terminated", "cut", "cut silently"])
async def test_no_look_up_of_a_thousand_fails_while_connections_are_cut_under_load(
    fault: str, own_server: Postgres, own_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "cut silently":  # Its statements are given up early; the look-up is not.
        monkeypatch.setattr("smarter_auth_mw.postgres.pool.patience_s", lambda _: 1.0)
        monkeypatch.setattr("smarter_auth_mw.postgres.pool.AWAY_S", PATIENCE_S)
    async with (
        Proxy(own_server.socket) as wire,
        _administered(own_database) as owner,
        open_pool(wire.url(own_database.runtime), pool_min=2, pool_max=4, query_timeout_s=PATIENCE_S) as pool,
    ):
        faults: dict[str, Callable[[], object]] = {"cut": wire.cut, "cut silently": wire.cut_silently}
        left, lock = iter(range(1000)), asyncio.Lock()

        async def asks() -> None:
            for number in left:
                if number % (250 if fault == "cut silently" else 50) == 20:
                    if fault in faults:
                        faults[fault]()
                    else:
                        async with lock:
                            await owner.fetch(f"SELECT pg_terminate_backend(pid) {OURS}")
                await Store(pool).read(Target(BOT))

        await asyncio.gather(*(asks() for _ in range(6)))


async def test_no_look_up_fails_while_a_pooler_is_restarted(
    newest: PlainPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smarter_auth_mw.postgres.pool.AWAY_S", PATIENCE_S)
    url, port, asked = await newest.database(), free_port(), 0
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(pgbouncer(newest, "transaction", port=port))
        async with open_pool(
            through(url, port), pool_min=3, query_timeout_s=PATIENCE_S, statement_cache_size=0
        ) as pool:

            async def asks() -> None:
                nonlocal asked
                while True:
                    await Store(pool).read(Target(BOT))
                    asked += 1

            asking = [asyncio.create_task(asks()) for _ in range(4)]
            await until(lambda: asked > 20)
            await asyncio.to_thread(first.close)
            await asyncio.to_thread(second.enter_context, pgbouncer(newest, "transaction", port=port))
            before = asked
            await until(lambda: asked > before + 20 or any(task.done() for task in asking))
            assert not any(task.done() for task in asking)
            for task in asking:
                task.cancel()
            await asyncio.wait(asking)


@asynccontextmanager
async def _administered(database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database.owner)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def newest() -> Iterator[PlainPostgres]:
    with PlainPostgres([*installed().values()][-1]).made() as server:
        yield server
