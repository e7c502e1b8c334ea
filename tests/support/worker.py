"""Workers: middlewares with parts of their own, side by side in one process, as a client sees them."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx

from smarter_auth_mw import SmarterAuthMiddleware
from smarter_auth_mw.cache.entries import Cache, CacheCounts
from smarter_auth_mw.cache.shared import SharedCounts, SharedTier
from smarter_auth_mw.domain import Resource, Target
from smarter_auth_mw.tokens import Token
from tests.support.asgi import KEYED, bearer, client, guarded, lifespan

PATIENCE_S = 30
"""How long a test waits for what must happen; how long it takes is for the benchmarks to say."""
ASK_EVERY_S = 0.01
"""A request takes a millisecond or two: asking more often would keep a core busy with that alone."""
FOREVER_S = 3600.0
"""Longer than any test: what happens does not happen because of this."""


class Worker:
    """A running middleware and a client of it, with a view of what its cache does."""

    def __init__(self, app: SmarterAuthMiddleware, http: httpx.AsyncClient) -> None:
        self.app = app
        self._http = http

    async def ask(self, resource: Resource = KEYED, token: Token | None = None) -> int:
        """The status that a request for the resource gets."""
        headers = {} if token is None else bearer(token)
        return (await self._http.get(f"/bots/{resource.ref}", headers=headers)).status_code

    async def comes_to(self, expected: int, resource: Resource = KEYED, token: Token | None = None) -> set[int]:
        """Ask until the answer is the expected one; the other answers that came before it."""
        others: set[int] = set()
        async with asyncio.timeout(PATIENCE_S):
            while (answer := await self.ask(resource, token)) != expected:
                others.add(answer)
                await asyncio.sleep(ASK_EVERY_S)
        return others

    @property
    def cache(self) -> Cache:
        engine = self.app._guard.engines.ready()
        assert engine is not None
        return engine.cache

    @property
    def counts(self) -> CacheCounts:
        return self.cache.counts

    @property
    def shared(self) -> SharedCounts:
        """What the shared tier did for it."""
        assert isinstance(self.cache.shared, SharedTier)
        return self.cache.shared.counts

    def has(self, resource: Resource = KEYED) -> bool:
        """Whether the next request for the resource is answered from the process."""
        return self.cache.peek(Target(resource)) is not None

    async def warm(self, resource: Resource = KEYED, token: Token | None = None) -> int:
        """What a request is answered that cost no look-up."""
        async with asyncio.timeout(PATIENCE_S):
            while not self.has(resource):
                await self.ask(resource, token)
        fills = self.counts.fills
        status = await self.ask(resource, token)
        assert self.counts.fills == fills
        return status


@asynccontextmanager
async def worker(url: str, **settings: Any) -> AsyncIterator[Worker]:
    """One worker on the database, from its start-up to its shutdown."""
    async with lifespan(guarded(url, **settings)) as app, client(app) as http:
        yield Worker(app, http)


@asynccontextmanager
async def workers(count: int, url: str, **settings: Any) -> AsyncIterator[list[Worker]]:
    """Several of them, each of which has heard that it is up to date."""
    async with AsyncExitStack() as stack:
        started = [await stack.enter_async_context(worker(url, **settings)) for _ in range(count)]
        for each in started:
            await until(lambda each=each: each.cache.heartbeat_age_s < math.inf)  # type: ignore[misc]
        yield started


async def beaten(worker: Worker) -> None:
    """Wait until a heartbeat is answered that is sent from now on."""
    now_s = time.monotonic()
    await until(lambda: worker.cache._vouched_at_s >= now_s)


async def until(condition: Callable[[], object]) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.002)


class Gate:
    """A source whose answers are held back until it is opened."""

    def __init__(self, cache: Any) -> None:
        self._read = cache._reader.read
        self.has_read, self.is_open = asyncio.Event(), asyncio.Event()
        cache._reader = self

    async def read(self, target: Target) -> Any:
        answer = await self._read(target)
        self.has_read.set()
        await self.is_open.wait()
        return answer
