"""Measure each page of the admin with a thousand keys and with a million, nine in ten of them revoked.

    python -m benchmarks.pages [--keys 1000000] [--few 1000] [--rounds 150] [--json FILE]

Both databases are on one server, filled as those of ``benchmarks.lists``. Each has an admin in this process. They get
requests in turn, so that other work on the machine affects both alike. A page is requested with a session, as a browser
does, and timed from the request to the last byte of HTML. Exits with 1 if the p99 of a page with a million keys is more
than 1.5 times that with a thousand, or if a page has more than 60 kB with style and script.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

import httpx

from benchmarks.database import server
from benchmarks.fleet import quantile
from benchmarks.lists import TARGET, filled
from smarter_auth_mw import Settings
from smarter_auth_mw.admin import AdminApp
from smarter_auth_mw.admin.pages import assets
from smarter_auth_mw.management.operators import Operators, Role
from smarter_auth_mw.observers.usage import GRANTED, Batch, Series
from smarter_auth_mw.postgres.embedded.cluster import Cluster
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from tests.support.asgi import lifespan
from tests.support.many_keys import ACCOUNT, KEY_ID

ORIGIN = "http://localhost:8010"
FORM = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"}
ROUTES = ["bot /bots/{ref}", "agent /agents/{ref}"]
WARM_UP, MAX_BYTES = 5, 60_000
PAGES: Mapping[str, str] = {
    "overview": "/",
    "keys": "/keys",
    "keys of an account": f"/keys?account={ACCOUNT}",
    "keys by name": "/keys?find=lap",
    "keys of a resource": "/keys?resource=bot%3A5",
    "keys, active": "/keys?state=active",
    "keys, revoked": "/keys?state=revoked",
    "keys, expiring": "/keys?expiring_within=90d",
    "keys, unused": "/keys?unused_for=90d",
    "keys, rotating": "/keys?rotating=true",
    "keys by label": "/keys?label=team%3Dsales",
    "keys, newest first": "/keys?sort=-created_at",
    "key": f"/keys/{KEY_ID}",
    "rotate a key": f"/keys/{KEY_ID}/rotate",
    "revoke a key": f"/keys/{KEY_ID}/revoke",
    "resources": "/resources",
    "resources, open": "/resources?state=open",
    "resource with many keys": "/resources/bot/5",
    "resource": "/resources/bot/7",
    "usage of a resource": "/usage?resource=bot%3A5",
    "usage of a key": f"/usage?key={KEY_ID}",
    "audit": "/audit",
    "audit with requests": "/audit?requests=true",
    "audit of a key": f"/audit?key={KEY_ID}",
}
SCOPED = ("overview", "keys", "keys, expiring", "keys, unused", "resources", "audit")
"""Pages that an operator of one account requests too."""


class Cost(NamedTuple):
    """The times of one page in one database."""

    size: int
    p50_ms: float
    p99_ms: float


class Side:
    """One of the databases, with people who are signed in, and the times of their pages."""

    def __init__(self, people: Mapping[str, httpx.AsyncClient]) -> None:
        self._people = people
        self._taken: list[float] = []
        self._size = 0

    async def ask(self, person: str, path: str) -> None:
        began = time.perf_counter()
        answer = await self._people[person].get(path)
        self._taken.append((time.perf_counter() - began) * 1e3)
        if answer.status_code != 200:
            raise SystemExit(f"{path}: {answer.status_code} {answer.text}")
        self._size = len(answer.content)

    def cost(self) -> Cost:
        taken, self._taken = self._taken[WARM_UP:], []
        return Cost(self._size, quantile(taken, 0.5), quantile(taken, 0.99))


@asynccontextmanager
async def side(cluster: Cluster, keys: int) -> AsyncIterator[Side]:
    """Yield a database with that many keys, its admin, an operator of all accounts and one of a single account."""
    async with filled(cluster, keys) as runtime:
        owner = urlsplit(cluster.url("owner"))._replace(path=urlsplit(runtime).path).geturl()
        async with open_pool(owner) as pool:
            store = Store(pool)
            used = Series("bot", "5", GRANTED, str(KEY_ID), KEY_ID.hex[:15], b"")
            await store.write_usage(Batch({used: 100}, uuid4(), time.monotonic()))
            operators = Operators(store, "benchmark")
            made = {
                "all": await operators.create("all", Role.ADMIN),
                "one": await operators.create("one", Role.ADMIN, account=ACCOUNT),
            }
        async with lifespan(AdminApp(Settings(database_url=runtime, routes=ROUTES))) as app:
            people = {name: httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=ORIGIN) for name in made}
            for name, person in people.items():
                sent = urlencode({"token": made[name].token.reveal()})
                await person.post("/sign-in", content=sent, headers=FORM)
            yield Side(people)


async def measure(few: int, many: int, rounds: int) -> list[dict[str, Any]]:
    rows = []
    async with server(shared_buffers="512MB") as cluster, side(cluster, few) as one, side(cluster, many) as other:
        print(f"{'page':34} {'bytes':>13} {'p50 ms':>13} {'p99 ms':>13}  p99", flush=True)
        asked = [("all", name) for name in PAGES] + [("one", name) for name in SCOPED]
        for person, name in asked:
            for _ in range(rounds + WARM_UP):
                await one.ask(person, PAGES[name])
                await other.ask(person, PAGES[name])
            costs = one.cost(), other.cost()
            label = name if person == "all" else f"{name}, one account"
            rows.append({"page": label, "few": costs[0]._asdict(), "many": costs[1]._asdict()})
            show(label, *costs)
    return rows


def show(name: str, few: Cost, many: Cost) -> None:
    ratio = many.p99_ms / few.p99_ms
    print(
        f"{name:34} {few.size:6} {many.size:6} {few.p50_ms:6.1f} {many.p50_ms:6.1f}"
        f" {few.p99_ms:6.1f} {many.p99_ms:6.1f} {ratio:5.2f} {'' if ratio <= TARGET else 'MISSED'}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--few", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    began = time.monotonic()
    rows = asyncio.run(measure(arguments.few, arguments.keys, arguments.rounds))
    style = sum(len(file.body) for file in assets.load()[1].values())
    heaviest = max(row["many"]["size"] for row in rows) + style
    print(
        f"{time.monotonic() - began:9.1f} s in all; the heaviest page weighs {heaviest:,} bytes with style and script"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))
    is_met = all(row["many"]["p99_ms"] <= TARGET * row["few"]["p99_ms"] for row in rows)
    return 0 if is_met and heaviest <= MAX_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
