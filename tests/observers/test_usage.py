"""Usage: counted without waiting, written in batches, and lost for no longer than one interval."""

from __future__ import annotations

import asyncio
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from smarter_auth_mw.decision import Anonymous, Decision, Denial, Grant, Reason, decide
from smarter_auth_mw.domain import Binding, Bindings, Protection, Resource
from smarter_auth_mw.errors import UnavailableError
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.observers import usage
from smarter_auth_mw.observers.usage import ANONYMOUS, GRANTED, MAX_BATCH, OTHER, UNKNOWN, Batch, Series, Usage
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from smarter_auth_mw.tokens import Token, mint
from tests import test_wsgi
from tests.cli.test_serve import SERVICE
from tests.support.asgi import KEYED, Conversation, bearer, client, guarded, lifespan, raw, scope
from tests.support.cli import ROUTES, Server, environment, serving
from tests.support.database import Database
from tests.support.lists import used

TOKEN = mint()
BINDING = Binding(str(uuid4()), "laptop", "default", TOKEN.digest, TOKEN.token_key)
BINDINGS = Bindings(KEYED, "default", Protection.BOUND, "stale", (BINDING,))
GRANT = decide(BINDINGS, TOKEN, 0)
REFUSED = decide(BINDINGS, mint(), 0)
OPEN = Anonymous(Resource("bot", "2"), account="default")


class Written:
    """A store that keeps what it is given, as long as it can be reached."""

    def __init__(self) -> None:
        self.batches: dict[Any, Batch] = {}
        self.is_down = False
        self.answers_get_lost = False

    async def write_usage(self, batch: Batch) -> None:
        if not self.is_down:
            self.batches[batch.batch_id] = batch
        if self.is_down or self.answers_get_lost:
            raise UnavailableError

    @property
    def counts(self) -> dict[tuple[str, str, str], int]:
        found: dict[tuple[str, str, str], int] = {}
        for batch in self.batches.values():
            for series, count in batch.counts.items():
                found[series[:3]] = found.get(series[:3], 0) + count
        return found


def batch(counts: Mapping[Series, int], age_s: float = 0) -> Batch:
    return Batch(counts, uuid4(), time.monotonic() - age_s)


async def counted(store: Store) -> dict[tuple[str, str, str], int]:
    """What the database has, by kind, reference and outcome."""
    found: Counter[tuple[str, str, str]] = Counter()
    for total in await used(store):
        kind, _, ref = total.resource.replace("(none)", ":(unknown)").partition(":")
        ref = {"(unknown)": UNKNOWN, "(other)": OTHER}.get(ref, ref)
        found.update({(kind, ref, outcome): count for outcome, count in total.outcomes.items()})
    return dict(found)


# Counting


async def test_every_decision_is_counted_by_resource_and_outcome() -> None:
    counts, written = Usage(), Written()
    for decision, times in ((GRANT, 5), (REFUSED, 3), (OPEN, 2), (Anonymous(Resource("bot", "77")), 4)):
        for _ in range(times):
            counts.observe(decision, {})
    await counts.flush(written)
    assert written.counts == {
        ("bot", "1", GRANTED): 5,
        ("bot", "1", "unknown_token"): 3,
        ("bot", "2", ANONYMOUS): 2,
        ("bot", UNKNOWN, ANONYMOUS): 4,
    }


async def test_what_nobody_has_registered_shares_one_counter() -> None:
    counts, written = Usage(max_counters=10), Written()
    for number in range(1000):
        counts.observe(Anonymous(Resource("bot", str(number))), {})
        counts.observe(Denial(Reason.MISSING_CREDENTIALS, Resource("bot", str(number))), {})
    await counts.flush(written)
    assert written.counts == {("bot", UNKNOWN, ANONYMOUS): 1000, ("bot", UNKNOWN, "missing_credentials"): 1000}


async def test_beyond_the_bound_the_sum_stays_true() -> None:
    counts, written = Usage(max_counters=3), Written()
    for number in range(10):
        counts.observe(Anonymous(Resource("bot", str(number)), account="default"), {})
    await counts.flush(written)
    assert sum(written.counts.values()) == 10
    assert written.counts["bot", OTHER, ANONYMOUS] == 4
    assert len(written.counts) == 7


async def test_what_is_much_is_written_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "MAX_BATCH", 3)
    counts, written = Usage(), Written()
    for number in range(10):
        counts.observe(Anonymous(Resource("bot", str(number)), account="default"), {})
    await counts.flush(written)
    assert [len(batch.counts) for batch in written.batches.values()] == [3, 3, 3, 1]
    assert len(written.counts) == 10


async def test_bindings_that_are_read_again_are_one_series() -> None:
    counts, written = Usage(), Written()
    for _ in range(3):
        again = Binding(BINDING.key_id, "laptop", "default", TOKEN.digest, TOKEN.token_key)
        counts.observe(decide(Bindings(KEYED, "default", bindings=(again,)), TOKEN, 0), {})
    await counts.flush(written)
    ((series, count),) = next(iter(written.batches.values())).counts.items()
    assert (series, count) == (Series("bot", "1", GRANTED, BINDING.key_id, TOKEN.token_key, TOKEN.digest), 3)


async def test_counting_goes_on_after_a_pause() -> None:
    counts, written = Usage(), Written()
    for _ in range(4):
        counts.observe(GRANT, {})
        await counts.flush(written)
        await counts.flush(written)
        await counts.flush(written)
    assert written.counts == {("bot", "1", GRANTED): 4}
    assert len(written.batches) == 4


async def test_threads_lose_no_count() -> None:
    counts, written = Usage(), Written()

    def ask() -> None:
        for _ in range(5_000):
            for decision in (GRANT, OPEN, REFUSED):
                counts.observe(decision, {})

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        await counts.flush(written)
    for _ in range(2):
        await counts.flush(written)
    assert set(written.counts.values()) == {20_000}


@contextmanager
def standing_still(counts: Usage, decision: Decision) -> Iterator[None]:
    """Let a thread that observes this decision stand still before it counts, while the block runs."""
    tally = counts._passes[id(decision)].times
    is_about_to_count, may_count, once_more = threading.Event(), threading.Event(), tally.once_more

    def wait_and_count() -> int:
        is_about_to_count.set()
        assert may_count.wait(60)
        return once_more()

    tally.once_more = wait_and_count
    thread = threading.Thread(target=counts.observe, args=(decision, {}))
    thread.start()
    assert is_about_to_count.wait(60)
    tally.once_more = once_more
    try:
        yield
    finally:
        may_count.set()
        thread.join()


@pytest.mark.parametrize("decision", [GRANT, OPEN])
async def test_thread_that_stands_still_over_several_batches_loses_no_count(decision: Decision) -> None:
    counts, written = Usage(), Written()
    counts.observe(decision, {})
    with standing_still(counts, decision):
        for _ in range(3):
            await counts.flush(written)
        assert not counts._passes
    await counts.flush(written)
    assert list(written.counts.values()) == [2]


@pytest.mark.parametrize("decision", [GRANT, OPEN])
async def test_thread_that_stands_still_until_its_decision_is_counted_anew_adds_one(decision: Decision) -> None:
    counts, written = Usage(), Written()
    counts.observe(decision, {})
    with standing_still(counts, decision):
        for _ in range(3):
            await counts.flush(written)
        for _ in range(10):
            counts.observe(decision, {})
        await counts.flush(written)
        counts.observe(decision, {})
    await counts.flush(written)
    assert list(written.counts.values()) == [13]


async def test_what_is_counted_while_a_counter_is_discarded_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, written, read = Usage(), Written(), usage._Pass.add_to

    def read_just_before(counted: usage._Pass, into: dict[Series, int]) -> None:
        read(counted, into)
        if not counted.is_discarded:
            counts.observe(OPEN, {})

    counts.observe(OPEN, {})
    await counts.flush(written)
    await counts.flush(written)
    monkeypatch.setattr(usage._Pass, "add_to", read_just_before)
    await counts.flush(written)
    assert not counts._passes
    assert list(written.counts.values()) == [2]


async def test_forked_child_leaves_to_its_parent_what_was_counted_before() -> None:
    counts, written = Usage(), Written()
    counts.observe(GRANT, {})
    usage._forget_all()  # as after a fork, in the child
    await counts.flush(written)
    assert written.counts == {}
    assert usage._forget_all.__module__ == "smarter_auth_mw.observers.usage"


def a_grant() -> Grant:
    """One that nobody has counted yet."""
    granted = decide(Bindings(KEYED, "default", bindings=(BINDING,)), TOKEN, 0)
    assert isinstance(granted, Grant)
    return granted


def counter(grant: Grant) -> Any:
    return grant.tally.once_more if grant.tally.is_kept else None


async def test_a_grant_counts_itself_until_it_rests() -> None:
    counts, written, grant = Usage(), Written(), a_grant()
    counts.observe(grant, {})
    counter(grant)()
    for _ in range(2):
        await counts.flush(written)
    assert counter(grant) is None
    assert written.counts == {("bot", "1", GRANTED): 2}


async def test_a_grant_that_was_taken_up_before_a_rest_is_counted_after_it() -> None:
    counts, written, grant = Usage(), Written(), a_grant()
    counts.observe(grant, {})
    counted = counter(grant)
    for _ in range(2):
        await counts.flush(written)
    counted()
    await counts.flush(written)
    assert written.counts == {("bot", "1", GRANTED): 2}


@pytest.mark.parametrize("end", [Usage.forget, Usage.observe_all])
def test_a_grant_counts_itself_no_more(end: Callable[[Usage], None]) -> None:
    counts, grant = Usage(), a_grant()
    counts.observe(grant, {})
    end(counts)
    assert counter(grant) is None


# Writing


async def test_what_cannot_be_written_is_written_later_and_once() -> None:
    counts, written = Usage(), Written()
    written.is_down = True
    for _ in range(3):
        counts.observe(GRANT, {})
        with pytest.raises(UnavailableError):
            await counts.flush(written)
    written.is_down, written.answers_get_lost = False, True
    with pytest.raises(UnavailableError):
        await counts.flush(written)
    written.answers_get_lost = False
    for _ in range(2):
        await counts.flush(written)
    assert written.counts == {("bot", "1", GRANTED): 3}
    assert len(written.batches) == 2


async def test_batch_that_is_sent_twice_counts_once(store: Store) -> None:
    counts = batch({Series("bot", "1", ANONYMOUS): 5})
    for _ in range(2):
        await store.write_usage(counts)
    assert [total.count for total in await used(store)] == [5]


async def test_counts_are_rolled_up_as_they_are_written(store: Store) -> None:
    counts = Usage()
    for decision in (GRANT, OPEN, GRANT):
        counts.observe(decision, {})
        await counts.flush(store)
    for span in (timedelta(hours=1), timedelta(days=1), timedelta(days=60)):  # minutes, hours, days
        assert {(total.resource, total.count) for total in await used(store, span)} == {("bot:1", 2), ("bot:2", 1)}


async def test_full_batch_is_written_within_the_time_that_a_query_has(store: Store) -> None:
    names = (Series("bot", str(n), GRANTED, str(uuid4()), f"{n:015}", bytes([n % 256]) * 64) for n in range(MAX_BATCH))
    many = {series: n for n, series in enumerate(names, 1)}
    await store.write_usage(batch(many))
    assert sum(total.count for total in await used(store)) == MAX_BATCH * (MAX_BATCH + 1) / 2


async def test_two_workers_with_the_same_counters_do_not_wait_for_each_other_forever(store: Store) -> None:
    names = [Series("bot", str(n), GRANTED, BINDING.key_id, f"{n:015}", bytes([n]) * 64) for n in range(200)]
    one, other = dict.fromkeys(names, 1), dict.fromkeys(reversed(names), 1)
    for _ in range(5):
        await asyncio.gather(*(store.write_usage(batch(counts)) for counts in (one, other) * 3))
    assert {total.count for total in await used(store)} == {30}


async def test_usage_tells_no_cache_that_anything_has_changed(store: Store, keys: Management, owner: Any) -> None:
    minted = await keys.create("laptop", bind=[KEYED])
    before = await owner.fetchval("SELECT count(*) FROM smarter_auth.change")
    series = Series("bot", "1", GRANTED, str(minted.key.key_id), minted.token.token_key, minted.token.digest)
    await store.write_usage(batch({series: 1}))
    assert await owner.fetchval("SELECT count(*) FROM smarter_auth.change") == before
    assert (await keys.key(minted.key.key_id)).last_used_at is not None


async def test_last_use_never_steps_back(store: Store, keys: Management, token: Token) -> None:
    series = Series("bot", "1", GRANTED, None, token.token_key, token.digest)
    await store.write_usage(batch({series: 1}))
    (key,) = await keys.keys()
    await store.write_usage(batch({series: 1}, age_s=3600))
    assert (await keys.keys())[0].last_used_at == key.last_used_at
    assert key.last_used_at is not None
    assert abs(datetime.now(UTC) - key.last_used_at) < timedelta(minutes=5)


# Partitions


async def partitions(owner: asyncpg.Connection) -> list[str]:
    rows = await owner.fetch("SELECT inhrelid::regclass::text AS name FROM pg_inherits JOIN pg_class ON oid = inhparent"
                             " WHERE relname LIKE 'usage%' AND relkind = 'p' ORDER BY 1")  # fmt: skip
    return [row["name"] for row in rows]


@pytest.fixture
async def old(store: Store, owner: asyncpg.Connection) -> asyncpg.Connection:
    """A database with usage of a hundred days ago, of three days ago, and of now."""
    series = {Series("bot", "1", ANONYMOUS): 1}
    for days in (0, 3):
        await store.write_usage(batch(series, age_s=days * 86_400))
    await owner.execute("SET ROLE smarter_auth")
    for grain in ("minute", "hour", "day"):
        at = f"date_trunc('{grain}', now() - interval '100 days', 'UTC')"
        await owner.execute(f"SELECT smarter_auth.make_usage_partition('{grain}', {at})")
        await owner.execute(f"INSERT INTO smarter_auth.usage_{grain} SELECT id, {at}, 1 FROM smarter_auth.usage_series")
    await owner.execute("RESET ROLE")
    return owner


async def test_usage_past_its_time_is_dropped_by_the_partition(old: asyncpg.Connection, store: Store) -> None:
    before = await partitions(old)
    dropped = await store.drop_old_usage()
    gone = set(before) - set(await partitions(old))
    assert dropped == len(gone) > 0
    assert not any("usage_day" in name for name in gone)
    for span, count in ((timedelta(hours=1), 1), (timedelta(days=14), 2), (timedelta(days=365), 3)):
        assert [total.count for total in await used(store, span)] == [count]
    assert await store.drop_old_usage() == 0


async def test_partitions_are_made_ahead(store: Store, owner: asyncpg.Connection) -> None:
    await store.write_usage(batch({Series("bot", "1", ANONYMOUS): 1}))
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert f"smarter_auth.usage_minute_{tomorrow:%Y%m%d}" in await partitions(owner)


async def test_running_role_writes_usage_by_the_one_function_only(
    old: asyncpg.Connection, runtime: asyncpg.Connection
) -> None:
    tables = ["smarter_auth.usage_series", "smarter_auth.token_use", *await partitions(old)]
    for table in tables:
        for statement in (f"DELETE FROM {table}", f"TRUNCATE {table}", f"DROP TABLE {table}"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await runtime.execute(statement)
    for table in [table for table in tables if table != "smarter_auth.token_use"]:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await runtime.execute(f"INSERT INTO {table} DEFAULT VALUES")
    for table in await partitions(old):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await runtime.execute(f"UPDATE {table} SET count = 1")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await runtime.execute("SELECT smarter_auth.make_usage_partition('day', now())")


# From the front door


async def test_requests_are_counted_and_written_when_the_app_ends(
    database: Database, store: Store, token: Token, keys: Management
) -> None:
    async with lifespan(guarded(database.runtime, usage_flush_s=3600)) as app, client(app) as http:
        for _ in range(3):
            await http.get("/bots/1", headers=bearer(token))
        await http.get("/bots/1")
        await http.get("/bots/1", headers=bearer(mint()))
        await http.get("/bots/2")
        await http.get("/bots/Ä")
        await http.get("/health")
        assert await counted(store) == {}
    assert await counted(store) == {
        ("bot", "1", GRANTED): 3,
        ("bot", "1", "missing_credentials"): 1,
        ("bot", "1", "unknown_token"): 1,
        ("bot", UNKNOWN, ANONYMOUS): 1,
        ("", UNKNOWN, "not_canonical"): 1,
    }
    assert [key.last_used_at is not None for key in await keys.keys()] == [True]


async def test_requests_are_written_while_the_app_runs(database: Database, store: Store, token: Token) -> None:
    async with lifespan(guarded(database.runtime, usage_flush_s=0.05)) as app, client(app) as http:
        await http.get("/bots/1", headers=bearer(token))
        await until_counted(store, {("bot", "1", GRANTED): 1})


async def test_refused_token_of_a_known_key_is_told_apart(
    database: Database, store: Store, token: Token, keys: Management
) -> None:
    (key,) = await keys.keys()
    await keys.revoke(key.key_id)
    async with lifespan(guarded(database.runtime)) as app, client(app) as http:
        assert (await http.get("/bots/1", headers=bearer(token))).status_code == 401
    (total,) = await used(store, key_id=key.key_id)
    assert (dict(total.outcomes), total.key_name) == ({"revoked": 1}, "laptop")


async def test_websocket_is_counted_once_and_its_cut_too(
    database: Database, store: Store, token: Token, keys: Management
) -> None:
    (key,) = await keys.keys()
    text = {"type": "websocket.receive", "text": "hi"}

    async def revoke() -> None:
        await keys.revoke(key.key_id)
        while not await refused(app, token):
            await asyncio.sleep(0.01)

    async with lifespan(guarded(database.runtime, failed_attempts="")) as app:
        messages = Conversation(
            {"type": "websocket.connect"}, text, text, revoke, text, {"type": "websocket.disconnect"}
        )
        await app(scope("/bots/1/chat", raw(token), kind="websocket"), messages.receive, messages.send)
    counts = await counted(store)
    assert counts["bot", "1", GRANTED] >= 1
    assert counts["bot", "1", "revoked"] >= 2  # Those that waited for it, and the cut.


async def refused(app: Any, token: Token) -> bool:
    async with client(app) as http:
        return (await http.get("/bots/1", headers=bearer(token))).status_code == 401


async def test_database_that_is_away_costs_no_request_and_no_count(
    database: Database, store: Store, token: Token, owner: asyncpg.Connection
) -> None:
    app = guarded(database.runtime, usage_flush_s=3600)
    async with lifespan(app), client(app) as http:
        await http.get("/bots/1", headers=bearer(token))
        observers = app._guard._observers
        async with owner.transaction():
            await owner.execute("LOCK TABLE smarter_auth.token_use IN ACCESS EXCLUSIVE MODE")
            await observers.flush(store)  # waits for as long as a query may take
        assert observers.failed_flushes == 1
        assert (await http.get("/bots/1", headers=bearer(token))).status_code == 200
    assert (await counted(store))["bot", "1", GRANTED] == 2


async def test_observer_that_fails_changes_no_answer(database: Database, token: Token) -> None:
    app = guarded(database.runtime)

    def fail(*_: Any) -> None:
        raise RuntimeError

    observers = app._guard._observers
    observers._of = dict.fromkeys((Grant, Anonymous, Denial), (fail,))
    async with lifespan(app), client(app) as http:
        assert (await http.get("/bots/1", headers=bearer(token))).status_code == 200
        assert (await http.get("/bots/1")).status_code == 401
        assert (await http.get("/bots/2")).status_code == 200
    assert observers.failures == 3


def test_wsgi_counts_from_all_its_threads_and_writes_when_its_loop_ends(database: Database, minted: Token) -> None:
    app = test_wsgi.guarded(database.runtime, usage_flush_s=3600)

    def ask() -> None:
        with test_wsgi.client(app) as http:
            for _ in range(25):
                http.get("/bots/1", headers=bearer(minted))
            http.get("/bots/1")

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    app.close()
    assert asyncio.run(counted_by(database)) == {
        ("bot", "1", GRANTED): 100,
        ("bot", "1", "missing_credentials"): 4,
    }


minted = test_wsgi.minted


async def counted_by(database: Database) -> Mapping[Any, int]:
    async with open_pool(database.runtime) as pool:
        return await counted(Store(pool))


# A process that is killed


async def until_counted(store: Store, counts: Mapping[Any, int]) -> None:
    async with asyncio.timeout(60):
        while await counted(store) != counts:
            await asyncio.sleep(0.02)


async def ask(server: Server, times: int) -> None:
    async with httpx.AsyncClient(base_url=server.url) as http:
        for _ in range(times):
            assert (await http.get("/bots/1")).status_code == 200


async def test_killed_server_loses_what_it_has_counted_since_the_last_flush_and_no_more(
    database: Database, store: Store
) -> None:
    env = environment(database_url=database.runtime, routes=ROUTES, usage_flush_s="0.3")
    with serving(SERVICE, env) as server:
        await ask(server, 7)
        await until_counted(store, {("bot", UNKNOWN, ANONYMOUS): 7})
        await ask(server, 5)
        server.process.kill()
        await asyncio.to_thread(server.process.wait)
    assert 7 <= (await counted(store))["bot", UNKNOWN, ANONYMOUS] <= 12


@pytest.mark.parametrize(("number", "written"), [(signal.SIGKILL, 0), (signal.SIGTERM, 7)])
async def test_server_writes_what_it_has_counted_when_it_is_asked_to_end(
    database: Database, store: Store, number: int, written: int
) -> None:
    env = environment(database_url=database.runtime, routes=ROUTES, usage_flush_s="3600")
    with serving(SERVICE, env) as server:
        await ask(server, 7)
        server.process.send_signal(number)
        await asyncio.to_thread(server.process.wait)
    assert sum((await counted(store)).values()) == written


@pytest.mark.parametrize("comes_back", [True, False])
async def test_server_that_ends_in_an_outage_waits_a_while_and_says_what_is_lost(
    database: Database, store: Store, owner: asyncpg.Connection, comes_back: bool
) -> None:
    env = environment(database_url=database.runtime, routes=ROUTES, usage_flush_s="0.1", query_timeout_s="0.3")
    with serving(SERVICE, env) as server:
        async with owner.transaction():
            await owner.execute("LOCK TABLE smarter_auth.usage_batch IN ACCESS EXCLUSIVE MODE")
            await ask(server, 7)
            ended = asyncio.create_task(asyncio.to_thread(server.stop, signal.SIGTERM))
            if not comes_back:
                await ended
        _, said = await ended
    lost = re.findall(r"usage.lost: (\d+) requests", said)
    assert lost == ([] if comes_back else ["7"]), said
    assert sum((await counted(store)).values()) == (7 if comes_back else 0)
