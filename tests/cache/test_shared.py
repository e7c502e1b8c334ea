"""The shared tier on a real Valkey and a socket that speaks Memcached: whatever fails there is a counted miss."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiocache import SimpleMemoryCache
from aiocache.lock import OptimisticLock, OptimisticLockError
from aiocache.serializers import NullSerializer
from redis.asyncio import Redis

from smarter_auth_mw.cache import codec, shared
from smarter_auth_mw.cache.availability import LONGEST_PAUSE_S
from smarter_auth_mw.cache.backends import backend_of
from smarter_auth_mw.cache.codec import MAX_VALUE_BYTES, SharedEntry
from smarter_auth_mw.cache.redis import CONNECTIONS
from smarter_auth_mw.cache.shared import MAX_TTL_S, SharedBackend, SharedCounts, SharedTier
from tests.support.memcached import Memcached, memcached
from tests.support.shared import ENTRY, EPOCH, LOOKUP, NOTHING, SECRET, key, many_bindings, payload, signed
from tests.support.valkey import Valkey, free_port
from tests.support.worker import until

PATIENCE_S = 10.0
"""Where nothing is meant to hang; a busy machine is no fault."""
SHORT_S = 0.05
"""Where the server hangs and the tier must not."""


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def tier_at(url: str, **options: Any) -> AsyncIterator[SharedTier]:
    """A worker's shared tier, closed at the end."""
    backend = backend_of(url)
    assert backend is not None
    usual: dict[str, Any] = {"secret": SECRET, "epoch": EPOCH, "ttl_s": 300}
    timing = {"deadline_s": PATIENCE_S} | {
        name: options.pop(name) for name in ("deadline_s", "clock") if name in options
    }
    used = SharedBackend(backend, **timing)
    try:
        yield SharedTier(used, **(usual | options))
    finally:
        await used.close()


@pytest.fixture(autouse=True)
def nothing_hangs() -> Iterator[None]:
    """Break off even a loop that never waits: a client at fault would stop the whole suite."""

    def give_up(*_: object) -> None:
        pytest.fail("This hangs.")  # No Exception, which the tier would count and go on.

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, 3 * PATIENCE_S)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def server() -> Iterator[Valkey]:
    """One that nobody breaks."""
    with Valkey(has_port=True) as running:
        yield running


@pytest.fixture
async def raw(server: Valkey) -> AsyncIterator[Any]:
    """A client that may do anything, on a server with nothing in it."""
    client = Redis.from_url(server.url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def tier(server: Valkey, raw: Any) -> AsyncIterator[SharedTier]:
    async with tier_at(server.url) as opened:
        yield opened


@pytest.fixture
def fragile() -> Iterator[Valkey]:
    """One to break."""
    with Valkey() as running:
        yield running


async def shares_again(tier: SharedTier, clock: Clock, lookup: str = LOOKUP) -> bool:
    """Put and get until that works, with no pause between two probes."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            clock.now_s += LONGEST_PAUSE_S
            await tier.put(lookup, ENTRY)
            if await tier.get(lookup) == ENTRY:
                return True
            await asyncio.sleep(0.001)


async def is_down(tier: SharedTier) -> bool:
    """Wait until a probe has failed."""
    await until(lambda: tier.backend.is_down)
    return True


async def test_what_one_worker_puts_another_gets(server: Valkey, tier: SharedTier) -> None:
    await tier.put(LOOKUP, ENTRY)
    async with tier_at(server.url) as other:
        assert await other.get(LOOKUP) == ENTRY
        assert other.counts == SharedCounts(hits=1)


async def test_nothing_there_is_a_miss_and_no_error(tier: SharedTier) -> None:
    assert await tier.get(LOOKUP) is None
    assert tier.counts == SharedCounts(misses=1)


async def test_unknown_resource_is_shared_like_any_other(tier: SharedTier) -> None:
    await tier.put("bot:9", NOTHING)
    assert await tier.get("bot:9") == NOTHING


async def test_many_callers_wait_for_a_few_connections(tier: SharedTier, raw: Any) -> None:
    await tier.put(LOOKUP, ENTRY)
    found = await asyncio.gather(*(tier.get(LOOKUP) for _ in range(200)))
    assert found == [ENTRY] * 200
    assert len(await raw.client_list()) <= CONNECTIONS + 1


@pytest.mark.parametrize("password", ["", "se/s@me"])
async def test_socket_port_password_and_database_are_those_of_the_url(password: str) -> None:
    with Valkey(has_port=True, password=password) as server:
        for url in (f"{server.url}?db=2", f"{server.tcp_url}/3"):
            async with tier_at(url) as tier:
                await tier.put(LOOKUP, ENTRY)
                assert await tier.get(LOOKUP) == ENTRY
        async with Redis.from_url(server.url) as first_database:
            assert await first_database.dbsize() == 0


@pytest.mark.parametrize(
    "value",
    {
        "garbage": b"\x80\x04\x95garbage",
        "empty": b"",
        "cut short": signed(payload())[:-1],
        "forged with another secret": signed(payload(), secret=bytes(32)),
        "not signed": payload(),
        "copied from another key": signed(payload(lookup="bot:other"), lookup="bot:other"),
        "signed for another resource": signed(payload(lookup="bot:other")),
        "signed with an older schema": signed(payload(schema=0)),
        "signed and nonsense": signed(b"[1,2"),
        "too large": signed(payload() + b" " * MAX_VALUE_BYTES),
        "a list": ["not", "even", "a", "string"],
    }.items(),
    ids=lambda item: item[0],
)
async def test_what_is_no_entry_is_rejected_and_overwritten(
    tier: SharedTier, raw: Any, value: tuple[str, bytes | list[str]]
) -> None:
    planted = value[1]
    await (raw.rpush(key(), *planted) if isinstance(planted, list) else raw.set(key(), planted))
    assert await tier.get(LOOKUP) is None
    assert tier.counts == SharedCounts(misses=1, rejected=1)
    await tier.put(LOOKUP, ENTRY)
    assert await tier.get(LOOKUP) == ENTRY


async def test_answer_that_is_no_bytes_is_rejected(server: Valkey, raw: Any) -> None:
    await raw.set(key(), "text")
    async with tier_at(f"{server.tcp_url}?decode_responses=yes") as tier:
        assert await tier.get(LOOKUP) is None
        assert tier.counts.rejected == 1


async def test_entry_moved_by_its_own_server_is_rejected(tier: SharedTier, raw: Any) -> None:
    await tier.put("bot:other", ENTRY)
    await raw.copy(key("bot:other"), key())
    assert await tier.get(LOOKUP) is None
    assert tier.counts.rejected == 1


async def test_releases_with_another_schema_do_not_meet(
    server: Valkey, tier: SharedTier, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tier.put(LOOKUP, ENTRY)
    monkeypatch.setattr(codec, "SCHEMA", codec.SCHEMA + 1)
    assert await tier.get(LOOKUP) is None
    await tier.put(LOOKUP, NOTHING)
    monkeypatch.undo()
    assert await tier.get(LOOKUP) == ENTRY
    assert tier.counts == SharedCounts(hits=1, misses=1)
    assert await raw.dbsize() == 2


async def test_databases_and_epochs_do_not_meet(server: Valkey, tier: SharedTier) -> None:
    await tier.put(LOOKUP, ENTRY)
    async with tier_at(server.url, epoch="another") as restored, tier_at(server.url, secret=bytes(32)) as foreign:
        assert await restored.get(LOOKUP) is None
        assert restored.counts == SharedCounts(misses=1)
        assert await foreign.get(LOOKUP) is None
        assert foreign.counts == SharedCounts(misses=1, rejected=1)


async def test_entry_over_the_bound_is_not_stored(tier: SharedTier, raw: Any) -> None:
    await tier.put(LOOKUP, many_bindings(1300))
    assert tier.counts == SharedCounts(too_large=1)
    assert await raw.dbsize() == 0
    await tier.put(LOOKUP, many_bindings(1000))
    assert await tier.get(LOOKUP) == many_bindings(1000)
    assert await raw.strlen(key()) <= MAX_VALUE_BYTES


async def test_what_cannot_be_encoded_is_not_stored(tier: SharedTier, raw: Any) -> None:
    broken: Any = ("resource:bot:1", 7)
    await tier.put(LOOKUP, replace(ENTRY, sources=broken))
    assert tier.counts == SharedCounts(rejected=1)
    assert await raw.dbsize() == 0


async def test_entries_written_together_expire_apart(tier: SharedTier, raw: Any) -> None:
    lookups = [f"bot:{number}" for number in range(100)]
    for lookup in lookups:
        await tier.put(lookup, NOTHING)
    times_to_live_s = {await raw.ttl(key(lookup)) for lookup in lookups}
    assert 269 <= min(times_to_live_s) < max(times_to_live_s) <= 330
    assert len(times_to_live_s) > 10


@pytest.mark.parametrize(("ttl_s", "stored_s"), [(0.1, 1), (1e9, MAX_TTL_S)])
async def test_time_to_live_is_one_that_every_backend_takes(
    server: Valkey, raw: Any, ttl_s: float, stored_s: int
) -> None:
    async with tier_at(server.url, ttl_s=ttl_s) as tier:
        await tier.put(LOOKUP, ENTRY)
    assert stored_s - 1 <= await raw.ttl(key()) <= stored_s


async def test_nothing_tells_the_secret_or_what_is_looked_up(tier: SharedTier, raw: Any) -> None:
    await tier.put(LOOKUP, ENTRY)
    (stored,) = await raw.keys()
    assert b"my" not in stored
    assert EPOCH.encode() not in stored
    assert SECRET not in await raw.get(stored)


async def test_killed_valkey_is_a_miss_until_it_is_back_with_nothing_in_it(fragile: Valkey) -> None:
    clock = Clock()
    async with tier_at(fragile.url, clock=clock) as tier:
        await tier.put(LOOKUP, ENTRY)
        fragile.kill()
        assert await tier.get(LOOKUP) is None
        assert tier.counts == SharedCounts(misses=1, errors=1)
        assert await is_down(tier)
        fragile.start()
        clock.now_s += LONGEST_PAUSE_S
        tier.backend.look()
        await until(lambda: not tier.backend.is_down)
        assert await tier.get(LOOKUP) is None
        assert tier.counts == SharedCounts(misses=2, errors=1)
        await tier.put(LOOKUP, ENTRY)
        assert await tier.get(LOOKUP) == ENTRY


async def test_valkey_restarted_between_two_calls_is_not_even_an_error(fragile: Valkey) -> None:
    async with tier_at(fragile.url) as tier:
        await tier.put(LOOKUP, ENTRY)
        fragile.kill()
        await asyncio.to_thread(fragile.start)
        assert await tier.get(LOOKUP) is None
        assert tier.counts == SharedCounts(misses=1)


async def test_frozen_valkey_costs_one_deadline_and_then_nothing(fragile: Valkey) -> None:
    clock = Clock()
    async with tier_at(fragile.url, deadline_s=SHORT_S, clock=clock) as tier:
        assert await shares_again(tier, clock)
        before = replace(tier.counts)
        fragile.freeze()
        assert [await tier.get(LOOKUP) for _ in range(100)] == [None] * 100
        assert (tier.counts.errors - before.errors, tier.counts.skipped - before.skipped) == (1, 99)
        assert tier.counts.misses - before.misses == 100
        fragile.thaw()
        assert await shares_again(tier, clock)


async def test_frozen_valkey_answers_nobody_with_what_another_asked_for(fragile: Valkey) -> None:
    clock = Clock()
    async with tier_at(fragile.url, clock=clock) as tier:
        await tier.put(LOOKUP, ENTRY)
        fragile.freeze()
        async with tier_at(fragile.url, deadline_s=SHORT_S) as hasty:
            callers = [hasty.get(LOOKUP) for _ in range(50)] + [hasty.put("bot:9", NOTHING) for _ in range(50)]
            assert await asyncio.gather(*callers) == [None] * 100
        fragile.thaw()
        for _ in range(20):
            assert await tier.get(LOOKUP) == ENTRY
            assert await tier.get("bot:none") is None
        assert tier.counts.errors == tier.counts.rejected == 0


async def test_nothing_is_put_where_nothing_can_be_read(fragile: Valkey) -> None:
    clock = Clock()
    async with tier_at(fragile.url, deadline_s=SHORT_S, clock=clock) as tier:
        assert await shares_again(tier, clock)
        fragile.freeze()
        before = replace(tier.counts)
        await tier.put(LOOKUP, many_bindings(1000))
        await tier.get(LOOKUP)
        clock.now_s += LONGEST_PAUSE_S
        await tier.put(LOOKUP, many_bindings(1000))
        assert (tier.counts.errors - before.errors, tier.counts.skipped - before.skipped) == (2, 1)
        fragile.thaw()
        assert await shares_again(tier, clock)


async def test_valkey_that_takes_nothing_can_still_be_read(fragile: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    async with Redis.from_url(fragile.url) as raw, tier_at(fragile.url, clock=clock) as tier:
        await tier.put(LOOKUP, ENTRY)
        await raw.config_set("maxmemory", "1")
        for _ in range(5):
            await tier.put("bot:9", NOTHING)
            assert await tier.get(LOOKUP) == ENTRY
        assert tier.counts == SharedCounts(hits=5, errors=1, skipped=4)
        assert await is_down(tier)
        await raw.config_set("maxmemory", "0")
        assert await shares_again(tier, clock, "bot:9")
    told = [message.partition(f"{fragile.socket} ")[2] for message in caplog.messages]
    assert told == ["cannot be written (OutOfMemoryError: it is out of memory (maxmemory))", "can be written again"]


async def test_valkey_that_shows_nothing_is_an_error_and_no_garbage(fragile: Valkey) -> None:
    async with Redis.from_url(fragile.url) as raw, tier_at(fragile.url) as tier:
        await raw.acl_setuser("default", enabled=True, nopass=True, commands=["-get"], reset_keys=False)
        assert await tier.get(LOOKUP) is None
        assert tier.counts == SharedCounts(misses=1, errors=1)


@asynccontextmanager
async def listening(answer: bytes) -> AsyncIterator[int]:
    """A port that takes connections, says one thing, and then nothing."""
    end = asyncio.Event()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await end.wait()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        end.set()


@pytest.mark.parametrize("scheme", ["redis", "rediss", "memcached"])
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"$-7\r\n", b"\xff" * 70_000])
async def test_server_that_speaks_otherwise_or_never_is_a_miss(scheme: str, answer: bytes) -> None:
    async with listening(answer) as port, tier_at(f"{scheme}://127.0.0.1:{port}", deadline_s=SHORT_S) as tier:
        assert await tier.get(LOOKUP) is None
        await tier.put(LOOKUP, ENTRY)
        assert tier.counts == SharedCounts(misses=1, errors=1, skipped=1)


@pytest.mark.parametrize("scheme", ["redis", "memcached"])
async def test_port_that_nobody_listens_on_is_a_miss(scheme: str) -> None:
    async with tier_at(f"{scheme}://127.0.0.1:{free_port()}") as tier:
        assert await tier.get(LOOKUP) is None
        assert tier.counts == SharedCounts(misses=1, errors=1)


async def test_wrong_password_is_a_miss_and_stands_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Valkey(password="sesame", has_port=True) as server:
        async with tier_at(server.tcp_url.replace("sesame", "simsim")) as tier:
            assert await tier.get(LOOKUP) is None
            assert tier.counts == SharedCounts(misses=1, errors=1)
            assert await is_down(tier)
    assert "AuthenticationError" in caplog.text
    assert "simsim" not in caplog.text


async def test_outage_is_logged_once_and_so_is_its_end(fragile: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "smarter_auth_mw")
    clock = Clock()
    async with tier_at(fragile.url, clock=clock) as tier:
        fragile.kill()
        for _ in range(5):
            clock.now_s += LONGEST_PAUSE_S
            await tier.get(LOOKUP)
            assert await is_down(tier)
        fragile.start()
        assert await shares_again(tier, clock)
        where = f"unix://{fragile.socket}"
        assert caplog.messages == [
            f"shared.unavailable: {where} cannot be read (ConnectionError: it cannot be reached)",
            f"shared.recovered: {where} can be read again",
        ]


async def test_caller_who_leaves_is_not_held_back_and_spoils_nothing(fragile: Valkey) -> None:
    async with tier_at(fragile.url) as tier:
        await tier.put(LOOKUP, ENTRY)
        fragile.freeze()
        caller = asyncio.create_task(tier.get("bot:none"))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        fragile.thaw()
        assert await tier.get(LOOKUP) == ENTRY
        assert tier.counts == SharedCounts(hits=1)


async def test_closed_tier_opens_no_connection(server: Valkey, tier: SharedTier, raw: Any) -> None:
    await tier.put(LOOKUP, ENTRY)
    await tier.backend.close()
    assert await tier.get(LOOKUP) is None
    await tier.put(LOOKUP, ENTRY)
    assert tier.counts == SharedCounts(misses=1, skipped=2)
    assert len(await raw.client_list()) == 1


async def test_closing_while_valkey_is_frozen_ends(fragile: Valkey) -> None:
    async with tier_at(fragile.url) as tier:
        await tier.put(LOOKUP, ENTRY)
        fragile.freeze()


async def test_backend_that_never_closes_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(SimpleMemoryCache):  # type: ignore[misc]
        async def _close(self, *_: Any, **__: Any) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(shared, "CLOSE_DEADLINE_S", SHORT_S)
    await SharedBackend(Endless(timeout=0)).close()


def test_each_event_loop_has_a_tier_of_its_own(server: Valkey) -> None:
    async def share() -> SharedEntry | None:
        async with tier_at(server.url) as tier:
            await tier.put(LOOKUP, ENTRY)
            return await tier.get(LOOKUP)

    assert asyncio.run(share()) == asyncio.run(share()) == ENTRY


async def test_redis_backend_keeps_what_aiocache_builds_on_it(server: Valkey, raw: Any) -> None:
    backend = backend_of(server.url)
    assert backend is not None
    await backend.set("color", b"red")
    async with OptimisticLock(backend, "color") as lock:
        await lock.cas(b"green", ttl=300)
        with pytest.raises(OptimisticLockError):
            await lock.cas(b"blue")
    assert await backend.get("color") == b"green"
    await backend.close()


async def test_any_other_backend_of_aiocache_will_do() -> None:
    backend = SharedBackend(SimpleMemoryCache(serializer=NullSerializer(encoding=None)))
    tier = SharedTier(backend, SECRET, EPOCH, ttl_s=300)
    await tier.put(LOOKUP, ENTRY)
    assert await tier.get(LOOKUP) == ENTRY
    await backend.close()


async def test_whatever_a_backend_raises_is_a_miss(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(SimpleMemoryCache):  # type: ignore[misc]
        async def _get(self, *_: Any, **__: Any) -> Any:
            raise KeyError("the server said: sesame")

        async def _close(self, *_: Any, **__: Any) -> Any:
            raise KeyError("still broken")

    tier = SharedTier(SharedBackend(Broken()), SECRET, EPOCH, ttl_s=300)
    assert await tier.get(LOOKUP) is None
    assert tier.counts == SharedCounts(misses=1, errors=1)
    assert await is_down(tier)
    assert "KeyError" in caplog.text
    assert "sesame" not in caplog.text
    await tier.backend.close()


@pytest.fixture
async def memory() -> AsyncIterator[Memcached]:
    async with memcached() as server:
        yield server


async def test_memcached_shares_as_well(memory: Memcached) -> None:
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(tier_at(memory.url)) for _ in range(2)]
        assert await other.get(LOOKUP) is None
        await one.put(LOOKUP, ENTRY)
        assert await other.get(LOOKUP) == ENTRY
        assert await asyncio.gather(*(one.get(LOOKUP) for _ in range(50))) == [ENTRY] * 50
        (expiry_s,) = memory.expiries.values()
        assert 270 <= expiry_s <= 330


async def test_garbage_in_memcached_is_rejected(memory: Memcached) -> None:
    async with tier_at(memory.url) as tier:
        memory.values[key().encode()] = b"\r\nEND\r\n"
        assert await tier.get(LOOKUP) is None
        assert tier.counts == SharedCounts(misses=1, rejected=1)


async def test_memcached_that_hangs_answers_nobody_with_what_another_asked_for(memory: Memcached) -> None:
    async with tier_at(memory.url) as tier:
        await tier.put(LOOKUP, ENTRY)
        memory.answers.clear()
        callers = [asyncio.create_task(tier.get("bot:none")) for _ in range(3)]
        await asyncio.sleep(0)
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
        memory.answers.set()
        assert [await tier.get(LOOKUP) for _ in range(10)] == [ENTRY] * 10
        assert tier.counts == SharedCounts(hits=10)


async def test_frozen_memcached_costs_one_deadline_and_then_nothing(memory: Memcached) -> None:
    clock = Clock()
    async with tier_at(memory.url, deadline_s=SHORT_S, clock=clock) as tier:
        assert await shares_again(tier, clock)
        before = replace(tier.counts)
        memory.answers.clear()
        assert [await tier.get(LOOKUP) for _ in range(100)] == [None] * 100
        assert (tier.counts.errors - before.errors, tier.counts.skipped - before.skipped) == (1, 99)
        memory.answers.set()
        assert await shares_again(tier, clock)


@pytest.mark.parametrize(
    "call", [lambda tier: tier.get(LOOKUP), lambda tier: tier.put(LOOKUP, ENTRY)], ids=["get", "put"]
)
async def test_memcached_that_hangs_up_is_an_error_and_no_endless_loop(
    memory: Memcached, call: Callable[[SharedTier], Any]
) -> None:
    clock = Clock()
    async with tier_at(memory.url, clock=clock) as tier:
        memory.hangs_up = True
        await call(tier)
        assert tier.counts.errors == 1
        memory.hangs_up = False
        assert await shares_again(tier, clock)
