"""Measure each page of the admin with a thousand keys and with a million, nine in ten of them revoked.

    python -m benchmarks.pages [--keys 1000000] [--few 1000] [--rounds 150] [--only TEXT] [--kept DIR] [--json FILE]

Both databases are on one server, filled as those of ``benchmarks.lists``. Each has an admin in this process. They get
requests in turn, so that other work on the machine affects both alike. A page is requested with a session, as a browser
does, and timed from the request to the last byte of HTML. Pages of equal length are compared: if a thousand keys do not
fill the page of a list, the page with a million is cut to that length, and its full page has columns of its own.
``again`` compares every other page of the smaller database with the rest of them: it is what a ratio is worth. With
``--kept`` the server's data stay in a directory for the next run. Exits with 1 if the p99 of a page with a million keys
is more than 1.5 times that with a thousand, or if a page has more than 60 kB with style and script.
``python -m benchmarks pages`` publishes the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

import httpx

from benchmarks.database import server
from benchmarks.fleet import quantile
from benchmarks.lists import FEW, KEPT, MANY, PAGE, TARGET, by_p50, by_p99, filled, is_met
from benchmarks.measuring import Row, bound
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


LISTS = ("/keys", "/resources", "/audit")
"""Pages that are as long as their list, up to ``limit`` rows."""


class Cost(NamedTuple):
    """The size and the times of one page in one database; ``again`` compares one half of them with the other."""

    size: int
    p50_ms: float
    p99_ms: float
    again: float


class Side:
    """One of the databases, with people who are signed in."""

    def __init__(self, people: Mapping[str, httpx.AsyncClient]) -> None:
        self._people = people

    async def ask(self, person: str, path: str, taken_ms: list[float]) -> httpx.Response:
        began = time.perf_counter()
        answer = await self._people[person].get(path)
        taken_ms.append((time.perf_counter() - began) * 1e3)
        if answer.status_code != 200:
            raise SystemExit(f"{path}: {answer.status_code} {answer.text}")
        return answer

    async def cost(self, person: str, path: str, taken_ms: Sequence[float]) -> Cost:
        size = len((await self.ask(person, path, [])).content)
        halves = quantile(taken_ms[::2], 0.99), quantile(taken_ms[1::2], 0.99)
        return Cost(size, quantile(taken_ms, 0.5), quantile(taken_ms, 0.99), max(halves) / min(halves))


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
            run = uuid4()  # A kept database has the operators of earlier runs.
            made = {
                "all": await operators.create(f"all {run}", Role.ADMIN),
                "one": await operators.create(f"one {run}", Role.ADMIN, account=ACCOUNT),
            }
        async with lifespan(AdminApp(Settings(database_url=runtime, routes=ROUTES))) as app:
            people = {name: httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=ORIGIN) for name in made}
            for name, person in people.items():
                sent = urlencode({"token": made[name].token.reveal()})
                await person.post("/sign-in", content=sent, headers=FORM)
            yield Side(people)


async def measure(few: int, many: int, rounds: int, only: str, kept: Path | None) -> list[dict[str, Any]]:
    rows = []
    async with server(kept, shared_buffers="512MB") as cluster, side(cluster, few) as one, side(cluster, many) as other:
        print(f"{'page':34} {'bytes':>13} {'p50 ms':>13} {'p99 ms':>13}   p99 again  full page: bytes, p50 ms, p99 ms")
        asked = [("all", name) for name in PAGES] + [("one", name) for name in SCOPED]
        for person, name in (pair for pair in asked if only in pair[1]):
            label = name if person == "all" else f"{name}, one account"
            row = {"what": label, **await compared(one, other, person, PAGES[name], rounds)}
            show(label, *(Cost(**row[which]) for which in ("few", "many", "full")))
            rows.append(row)
    return rows


async def compared(one: Side, other: Side, person: str, path: str, rounds: int) -> dict[str, Any]:
    """Ask for a page of the smaller database, one as long of the larger one, and its full one, in turn."""
    equal = cut(path, (await one.ask(person, path, [])).text)
    sides = {"few": (one, path), "many": (other, equal), "full": (other, path)}
    if equal == path:
        del sides["full"]
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + WARM_UP):
        for name, (asked, where) in sides.items():
            await asked.ask(person, where, taken[name] if number >= WARM_UP else [])
    costs = {name: (await asked.cost(person, where, taken[name]))._asdict() for name, (asked, where) in sides.items()}
    return {"full": costs["many"], **costs}


def cut(path: str, html: str) -> str:
    """Return the path of a page with as many rows as this list shows."""
    url = urlsplit(path)
    if url.path not in LISTS:
        return path
    limit = f"limit={max(html.count('<tr>') - 1, 1)}"
    return path if limit == f"limit={PAGE}" else f"{path}{'&' if url.query else '?'}{limit}"


async def ratios(rounds: int) -> list[Row]:
    """Return what is published: the ratio of each page, and the size of the heaviest one."""
    measured = await measure(FEW, MANY, rounds, "", KEPT)
    size = bound("the heaviest page, with style and script", heaviest(measured), "bytes", MAX_BYTES)
    return [*by_p99(measured), by_p50(measured), size]


def heaviest(measured: Iterable[Mapping[str, Any]]) -> int:
    """Return the size of the heaviest page with style and script."""
    size: int = max(row["full"]["size"] for row in measured)
    return size + sum(len(file.body) for file in assets.load()[1].values())


def show(name: str, few: Cost, many: Cost, full: Cost) -> None:
    ratio = many.p99_ms / few.p99_ms
    longer = f"{full.size:6} {full.p50_ms:6.1f} {full.p99_ms:6.1f}" if full != many else ""
    print(
        f"{name:34} {few.size:6} {many.size:6} {few.p50_ms:6.1f} {many.p50_ms:6.1f}"
        f" {few.p99_ms:6.1f} {many.p99_ms:6.1f} {ratio:5.2f} {few.again:5.2f}  {longer:20}"
        f" {'' if ratio <= TARGET else 'MISSED'}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=MANY)
    parser.add_argument("--few", type=int, default=FEW)
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("--only", default="", help="the pages whose names contain this")
    parser.add_argument("--kept", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    began = time.monotonic()
    rows = asyncio.run(measure(arguments.few, arguments.keys, arguments.rounds, arguments.only, arguments.kept))
    size = heaviest(rows)
    print(f"{time.monotonic() - began:9.1f} s in all; the heaviest page has {size:,} bytes with style and script")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))
    return 0 if all(map(is_met, rows)) and size <= MAX_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
