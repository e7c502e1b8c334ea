"""Sites to break: a worker with small bounds on a PostgreSQL of its own, and one of each who may ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from smarter_auth_mw.tokens import Token
from tests.support.asgi import KEYED, OTHER
from tests.support.database import Database
from tests.support.postgres import Postgres
from tests.support.worker import PATIENCE_S, Worker, beaten, worker

BOUND_S = 0.4
QUICK: dict[str, Any] = {
    "heartbeat_s": 0.05,
    "max_staleness_s": BOUND_S,
    "query_timeout_s": 0.3,
    "failed_attempts": "1000000/minute",
}

Answers = tuple[int, ...]
HEALTHY: Answers = (200, 401, 401, 200)
"""What a valid token, a revoked one and none get on a protected resource, and what none gets on an open one."""
UNKNOWN: Answers = (503, 503, 503, 503)


class Site:
    """A worker, the keys it serves, and one of each who may ask."""

    def __init__(self, worker: Worker, keys: Management, valid: Token, revoked: Token) -> None:
        self.worker = worker
        self.keys = keys
        self.valid = valid
        self.revoked = revoked
        self.slowest_s = 0.0

    async def answers(self) -> Answers:
        asked = ((KEYED, self.valid), (KEYED, self.revoked), (KEYED, None), (OTHER, None))
        return tuple([await self._ask(*each) for each in asked])

    async def _ask(self, *asked: Any) -> int:
        sent_s = time.monotonic()
        status = await self.worker.ask(*asked)
        self.slowest_s = max(self.slowest_s, time.monotonic() - sent_s)
        return status

    async def comes_to(self, expected: Answers) -> float:
        """Ask until the answers are these, and see none that is neither true nor 503; how many seconds it took."""
        begun_s = time.monotonic()
        async with asyncio.timeout(PATIENCE_S):
            while (answers := await self.answers()) != expected:
                assert all(told in (true, 503) for told, true in zip(answers, HEALTHY, strict=True)), answers
                await asyncio.sleep(0.01)
        return time.monotonic() - begun_s

    async def settles(self) -> None:
        """Wait until the worker listens, and answers from what it has read since."""
        for _ in range(2):
            await self.comes_to(HEALTHY)
            await beaten(self.worker)

    async def revoke(self, name: str) -> None:
        (key,) = [key for key in await self.keys.keys() if key.name == name]
        await self.keys.revoke(key.key_id)

    async def is_well_again(self) -> None:
        """A new key is let in, and its revocation heard by nothing but what listens."""
        minted = await self.keys.create("new", bind=[KEYED])
        await self.worker.comes_to(200, KEYED, minted.token)
        await beaten(self.worker)
        await self.keys.revoke(minted.key.key_id)
        await self.worker.comes_to(401, KEYED, minted.token)

    async def refuses(self, token: Token, since_s: float, bound_s: float = BOUND_S) -> None:
        """Ask until the token is refused, and see no grant of a request that was sent after the bound."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                sent_s = time.monotonic()
                if await self.worker.ask(KEYED, token) == 401:
                    return
                assert sent_s < since_s + bound_s
                await asyncio.sleep(0.005)


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("postgres")) as started:
        yield started


@pytest.fixture
async def own_database(own_server: Postgres) -> Database:
    return await own_server.database()


Opening = Callable[..., AbstractAsyncContextManager[Site]]


@pytest.fixture
async def opening(own_database: Database) -> AsyncIterator[Opening]:
    """Opens sites on the database, with settings; what administers them goes around every fault but the server's."""
    async with open_pool(own_database.manager, pool_min=0) as pool:
        keys = Management(Store(pool), actor="tester")
        valid, revoked = [await keys.create(name, bind=[KEYED]) for name in ("valid", "revoked")]
        await keys.revoke(revoked.key.key_id)
        await keys.add_resource(OTHER)

        @asynccontextmanager
        async def open_site(**settings: Any) -> AsyncIterator[Site]:
            async with worker(own_database.runtime, **(QUICK | settings)) as started:
                yield Site(started, keys, valid.token, revoked.token)

        yield open_site


@pytest.fixture
async def site(opening: Opening) -> AsyncIterator[Site]:
    async with opening() as opened:
        await opened.settles()
        yield opened


@asynccontextmanager
async def stopped(server: Postgres) -> AsyncIterator[None]:
    await asyncio.to_thread(server.stop)
    yield
    await asyncio.to_thread(server.start)


@asynccontextmanager
async def killed(server: Postgres) -> AsyncIterator[None]:
    await asyncio.to_thread(server.kill)
    yield
    await asyncio.to_thread(server.start)


GONE: dict[str, Callable[[Postgres], AbstractAsyncContextManager[None]]] = {
    "stopped": stopped,
    "killed": killed,
    "frozen": Postgres.frozen,
}
