"""Check that the time of a refusal does not reveal why a token is refused.

    python benchmarks/refusal_timing.py

Sends requests for one protected resource in random order: with a token that is unknown, inactive, revoked or expired,
one of another resource, and one of another account. They go through the middleware in this process, because a network
would only hide a difference. Prints for each kind the median, and how often it is slower than the unknown token
(Mann-Whitney U over all pairs; 0.5 means no difference). A second unknown token shows the noise.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg

from smarter_auth_mw import Settings, SmarterAuthMiddleware
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.postgres.embedded.cluster import Cluster
from smarter_auth_mw.postgres.migrations import migrate
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store

BOT, OTHER = Resource("bot", "1"), Resource("bot", "2")
REQUESTS = 20_000
WARM_UP = 2_000


async def tokens(url: str, owner_url: str) -> dict[str, str]:
    """Return one token for each reason for a refusal."""
    async with open_pool(url) as pool:
        keys = Management(Store(pool), actor="benchmark")
        minted = {name: await keys.create(name, bind=[BOT]) for name in ("inactive", "revoked", "expired")}
        minted["other resource's"] = await keys.create("other", bind=[OTHER])
        minted["other account's"] = await keys.create("foreign", account="foreign")
        await keys.deactivate(minted["inactive"].key.key_id)
        await keys.revoke(minted["revoked"].key.key_id)
    owner = await asyncpg.connect(owner_url)
    await owner.execute("UPDATE smarter_auth.key SET expires_at = now() - interval '1 s' WHERE name = 'expired'")
    await owner.close()
    return {"unknown": "0" * 64, "unknown again": "f" * 64} | {
        name: mint.token.reveal() for name, mint in minted.items()
    }


async def measure(app: SmarterAuthMiddleware, values: dict[str, str]) -> dict[str, list[float]]:
    """Return the time of each refusal in seconds, by kind of token."""
    taken: dict[str, list[float]] = {name: [] for name in values}
    order = [name for name in values for _ in range(REQUESTS)]
    random.shuffle(order)
    for count, name in enumerate([*order[:WARM_UP], *order]):
        scope = _scope(values[name])
        begun = time.perf_counter()
        await app(scope, _receive, _send)
        if count >= WARM_UP:
            taken[name].append(time.perf_counter() - begun)
    return taken


def slower(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the fraction of pairs in which the value of ``one`` is larger; ties count half."""
    other = sorted(other)
    below = sum(bisect_left(other, value) + bisect_right(other, value) for value in one)
    return below / 2 / len(one) / len(other)


def _scope(token: str) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "GET",
        "path": "/bots/1",
        "raw_path": b"/bots/1",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"x-api-key", token.encode())],
        "client": ("127.0.0.1", 50000),
    }


async def _receive() -> Any:
    raise AssertionError("A refusal does not read the body.")


async def _send(_: Any) -> None:
    """Discard what a server would send."""


async def _app(*_: Any) -> None:
    raise AssertionError("Every request should be refused.")


async def main() -> int:
    with tempfile.TemporaryDirectory() as directory, Cluster.start(Path(directory)) as cluster:
        await migrate(cluster.url("owner"), manager_role="smarter_auth_runtime")
        values = await tokens(cluster.url("runtime"), cluster.url("owner"))
        settings = Settings(database_url=cluster.url("runtime"), routes=["bot /bots/{ref:int}"])
        app = SmarterAuthMiddleware(_app, settings)
        try:
            taken = await measure(app, values)
        finally:
            await app._guard.close()
    for name, seconds in taken.items():
        print(
            f"{name:18} {median(seconds) * 1e6:7.2f} µs  slower than unknown: {slower(seconds, taken['unknown']):.3f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
