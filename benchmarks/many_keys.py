"""Measure commands that change very many keys while workers serve: their duration, and their effect on requests.

    python -m benchmarks.many_keys [--keys 100000] [--rate 200]

Two uvicorn processes get requests for bots whose keys are changed, and for bots of another account, before and during
each command. Exits with 1 if any answer is neither 200 nor 401, or if a worker flushed its cache.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import asyncpg

from benchmarks.database import Database, fill, migrated
from benchmarks.fleet import Client, Server, quantile, workers

EACH = 100
"""The number of keys that open each bot."""
ASKED = 50
OTHERS = range(1_000_001, 1_000_001 + ASKED)
FILL_OTHERS = """
INSERT INTO smarter_auth.resource (kind, ref, account, protection)
SELECT 'bot', n, 'other', 'bound' FROM generate_series(1000001, 1000050) AS n;
INSERT INTO smarter_auth.key (key_id, name, account)
SELECT md5(ref)::uuid, ref, account FROM smarter_auth.resource WHERE account = 'other';
INSERT INTO smarter_auth.token (key_id, account, digest, token_key)
SELECT key_id, account, sha512(name::bytea), left(md5(name), 15) FROM smarter_auth.key WHERE account = 'other';
INSERT INTO smarter_auth.binding (resource_id, key_id, account)
SELECT id, md5(ref)::uuid, account FROM smarter_auth.resource WHERE account = 'other'
"""
ACTS = (("deactivate",), ("rotate", "--tokens", "{directory}/tokens.csv"), ("revoke",))


class Load:
    """Requests to every worker at a steady rate, and their results."""

    def __init__(self, servers: Sequence[Server], rate: float) -> None:
        self._servers = servers
        self._pause_s = len(servers) / rate
        self.statuses: Counter[int] = Counter()
        self.took_ms: list[float] = []

    def reset(self) -> None:
        self.statuses.clear()
        self.took_ms.clear()

    async def run(self) -> None:
        await asyncio.gather(*(self._ask(server) for server in self._servers))

    async def _ask(self, server: Server) -> None:
        client = await Client.connect(server.port)
        while True:
            for number in range(1, ASKED + 1):
                for ref, token in ((number, (number - 1) * EACH + 1), (OTHERS[number - 1], OTHERS[number - 1])):
                    answer = await client.ask(ref, str(token))
                    self.statuses[answer.status] += 1
                    self.took_ms.append((answer.came_s - answer.sent_s) * 1000)
                    await asyncio.sleep(self._pause_s)

    def told(self) -> str:
        found = ", ".join(f"{count} x {status}" for status, count in sorted(self.statuses.items()))
        return f"{found}; p50 {quantile(self.took_ms, 0.5):.1f} ms, p99 {quantile(self.took_ms, 0.99):.1f} ms"


async def act(database: Database, arguments: Sequence[str]) -> float:
    """Run the command, and return how long it took."""
    environment = {
        **os.environ,
        "SMARTER_AUTH_DATABASE_URL": database.runtime,
        "SMARTER_AUTH_ROUTES": "bot /bots/{ref}",
    }
    began = time.monotonic()
    command = [sys.executable, "-m", "smarter_auth_mw", "key", *arguments, "--account", "default", "--yes"]
    process = await asyncio.create_subprocess_exec(*command, env=environment)
    if await process.wait():
        raise SystemExit("The command failed.")
    return time.monotonic() - began


async def main(keys: int, rate: float) -> int:
    async with migrated() as database:
        await fill(database.owner, keys // EACH, EACH)
        owner = await asyncpg.connect(database.owner)
        await owner.execute(FILL_OTHERS)
        environment = {"database_url": database.runtime, "routes": "bot /bots/{ref}", "metrics_path": "/metrics"}
        environment |= {"failed_attempts": ""}
        with workers([environment] * 2) as servers, tempfile.TemporaryDirectory() as directory:
            load = Load(servers, rate)
            asking = asyncio.create_task(load.run())
            await asyncio.sleep(5)
            is_well = True
            for arguments in ACTS:
                load.reset()
                await asyncio.sleep(5)
                print(f"before           {load.told()}", flush=True)
                flushes = [await asyncio.to_thread(flushes_of, server) for server in servers]
                load.reset()
                took_s = await act(database, [one.format(directory=directory) for one in arguments])
                await asyncio.sleep(1)
                flushed = [await asyncio.to_thread(flushes_of, server) for server in servers] != flushes
                print(
                    f"{arguments[0]:<12} {took_s:5.1f} s  {load.told()}; {'a flush' if flushed else 'no flush'}",
                    flush=True,
                )
                is_well &= not flushed and not load.statuses.keys() - {200, 401}
                await owner.execute("SET ROLE smarter_auth; UPDATE smarter_auth.key SET is_active = true; RESET ROLE")
            asking.cancel()
            size = len((Path(directory) / "tokens.csv").read_text().splitlines()) - 1
            print(f"{size:,} tokens in the file")
        await owner.close()
    return 0 if is_well else 1


def flushes_of(server: Server) -> float:
    return sum(value for name, value in server.metrics().items() if name.startswith("flushes"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=200)
    asked = parser.parse_args()
    sys.exit(asyncio.run(main(asked.keys, asked.rate)))
