"""A Redis some milliseconds away is used, by cache and throttle, however long it takes to connect to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from smarter_auth_mw.authentication.throttle import Throttle
from smarter_auth_mw.cli.doctor.services import check_cache
from smarter_auth_mw.config.settings import Settings
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.tokens import Token, mint
from tests.support.asgi import KEYED
from tests.support.database import Database
from tests.support.distance import Authority, away
from tests.support.valkey import Valkey
from tests.support.worker import PATIENCE_S, Worker, workers

DISTANCES_S = [0.001, 0.005, 0.02, 0.1]


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with Valkey(password="sesame") as server:
        yield server


def url_of(port: int, authority: Authority | None) -> str:
    if authority is None:
        return f"redis://:sesame@127.0.0.1:{port}/1"
    return f"rediss://:sesame@127.0.0.1:{port}/1?ssl_ca_certs={authority.file}"


@pytest.mark.parametrize("one_way_s", DISTANCES_S)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_workers_share_what_they_read_and_what_they_count(
    tls: bool, one_way_s: float, valkey: Valkey, database: Database, keys: Management, tmp_path: Path
) -> None:
    minted = await keys.create("laptop", bind=[KEYED])
    signing = Authority(tmp_path) if tls else None
    async with away(valkey.socket, one_way_s, signing) as port:
        url = url_of(port, signing)
        async with workers(2, database.runtime, cache_url=url, failed_attempts="3/hour") as (one, other):
            await shares(one, other, minted.token)
            # An attempt whose answer was late may have been counted all the same, so that the limit is met earlier.
            assert {await counted(one) for _ in range(3)} <= {401, 429}
            assert await counted(other) == 429
            assert await other.ask(KEYED, minted.token) == 200
            settings = Settings(database_url="postgresql://x/y", routes=["bot /bots/{ref}"], cache_url=url)
            await is_content(one, settings)


async def shares(one: Worker, other: Worker, token: Token) -> None:
    """Wait until one finds what the other has read."""
    async with asyncio.timeout(PATIENCE_S):
        while not other.counts.shared_hits:
            for worker in (one, other):
                worker.cache._known.empty()
                assert await worker.ask(KEYED, token) == 200


async def counted(worker: Worker) -> int:
    """The answer to a guess that was counted for all workers; while nobody is connected yet, each counts by itself."""
    throttle = throttle_of(worker)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            before = throttle.failures
            status = await worker.ask(KEYED, mint())
            if throttle.failures == before:
                return status
            await asyncio.sleep(0.01)


async def is_content(worker: Worker, settings: Settings) -> None:
    """Wait until neither readiness nor doctor has anything to say: on a busy machine a probe may have been late."""
    found: object = None
    try:
        async with asyncio.timeout(PATIENCE_S):
            while found := [
                *(await worker.app._guard.readiness()).reasons,
                *[one async for one in check_cache(settings)],
            ]:
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"Still: {found}") from None


def throttle_of(worker: Worker) -> Throttle:
    engine = worker.app._guard.engines.ready()
    assert engine is not None
    assert engine.throttle is not None
    return engine.throttle
