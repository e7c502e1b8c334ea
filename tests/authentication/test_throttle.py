"""Failed attempts are counted for each peer and resource; a throttled peer's valid token is still let in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from limits import parse
from limits.aio.storage import Storage
from redis.asyncio import Redis

from smarter_auth_mw.authentication.throttle import BoundedCounters, Throttle, open_throttle, window_s
from smarter_auth_mw.cache import availability
from smarter_auth_mw.decision import Denial, Reason
from smarter_auth_mw.domain import Resource
from tests.support.valkey import Valkey
from tests.support.worker import PATIENCE_S, until


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> bool:
        self.now_s += seconds
        return True


BOT, OTHER = Resource("bot", "1"), Resource("bot", "2")


def refused(resource: Resource = BOT, reason: Reason = Reason.UNKNOWN_TOKEN) -> Denial:
    return Denial(reason, resource)


async def outcomes(throttle: Throttle, count: int, denial: Denial | None = None, peer: str = "1.1.1.1") -> list[int]:
    return [(await throttle.judge(denial or refused(), peer)).reason.status for _ in range(count)]


def throttle_of(storage: Storage | None = None, rate: str = "3/minute") -> Throttle:
    return Throttle(parse(rate), BoundedCounters() if storage is None else storage)


@asynccontextmanager
async def shared_throttle(rate: str, url: str, **timing: Any) -> AsyncIterator[Throttle]:
    """One that counts in a Redis, and is never in a hurry; a busy machine is no fault."""
    async with open_throttle(rate, url, **({"deadline_s": PATIENCE_S} | timing)) as throttle:
        assert throttle is not None
        yield throttle


async def test_one_attempt_too_many_is_429() -> None:
    throttle = throttle_of()
    assert await outcomes(throttle, 5) == [401, 401, 401, 429, 429]
    last = await throttle.judge(refused(), "1.1.1.1")
    assert (last.reason, last.resource, last.detail) == (Reason.THROTTLED, BOT, "unknown_token")


async def test_each_peer_and_each_resource_has_its_own_count() -> None:
    throttle = throttle_of()
    await outcomes(throttle, 4)
    assert await outcomes(throttle, 1, peer="2.2.2.2") == [401]
    assert await outcomes(throttle, 1, refused(OTHER)) == [401]


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason.status != 401] + [Reason.MISSING_CREDENTIALS])
async def test_only_a_token_that_was_refused_counts(reason: Reason) -> None:
    throttle = throttle_of()
    await outcomes(throttle, 4)
    denial = refused(reason=reason)
    assert await throttle.judge(denial, "1.1.1.1") is denial
    fresh = throttle_of()
    await outcomes(fresh, 4, denial)
    assert await outcomes(fresh, 1) == [401]


async def test_it_is_over_when_the_window_is() -> None:
    clock = Clock()
    throttle = throttle_of(BoundedCounters(clock=clock))
    assert await outcomes(throttle, 4) == [401, 401, 401, 429]
    clock.now_s += 59
    assert await outcomes(throttle, 1) == [429]
    clock.now_s += 2
    assert await outcomes(throttle, 1) == [401]


async def test_a_flood_of_peers_is_bounded() -> None:
    counters = BoundedCounters(max_counters=10)
    throttle = throttle_of(counters)
    for number in range(1000):
        await outcomes(throttle, 1, peer=f"2001:db8:0:{number:x}::/64")
    assert len(counters) == 10


async def test_workers_that_share_a_redis_count_together() -> None:
    with Valkey() as valkey:
        async with shared_throttle("3/minute", valkey.url) as one, shared_throttle("3/minute", valkey.url) as other:
            assert await outcomes(one, 3) == [401, 401, 401]
            assert await outcomes(other, 1) == [429]


@pytest.mark.parametrize("fault", ["freeze", "kill"])
async def test_what_a_storage_does_not_count_is_counted_in_the_process(
    fault: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(availability, "PROBE_DEADLINE_S", 0.2)
    clock = Clock()
    with Valkey() as valkey:
        async with shared_throttle("3/minute", valkey.url, clock=clock) as throttle:
            assert await outcomes(throttle, 4) == [401, 401, 401, 429]
            getattr(valkey, fault)()
            throttle._shared[1].deadline_s = 0.01  # type: ignore[index]
            assert await outcomes(throttle, 25) == [401] * 3 + [429] * 22
            assert throttle.failures == 25
            await until(lambda: caplog.messages)
            valkey.kill()
            valkey.start()
            await until(lambda: clock.advance(10) and throttle._shared[1].allows_call())  # type: ignore[index]
            assert await outcomes(throttle, 4) == [401, 401, 401, 429]
            assert throttle.failures == 25
    events = [message.partition(":")[0] for message in caplog.messages]
    assert events == ["throttle.failed", "throttle.recovered"]


async def test_a_redis_that_runs_no_scripts_is_told_once_and_counts_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with Valkey() as valkey:
        async with Redis.from_url(valkey.url) as raw:
            await raw.acl_setuser("default", enabled=True, nopass=True, commands=["-@scripting"], reset_keys=False)
        async with shared_throttle("3/minute", valkey.url) as throttle:
            assert await outcomes(throttle, 5) == [401, 401, 401, 429, 429]
            await until(lambda: caplog.messages)
    (line,) = caplog.messages
    assert line == (
        "throttle.failed: each worker counts failed attempts by itself, "
        "because the shared cache does not answer (NoPermissionError: its user may not do that)"
    )
    assert caplog.records[0].levelname == "WARNING"


async def test_an_empty_rate_switches_it_off() -> None:
    async with open_throttle("", "memory://") as throttle:
        assert throttle is None


def test_a_throttled_peer_is_told_when_to_come_back() -> None:
    assert [window_s(rate) for rate in ("30/minute", "5/hour", "9/second")] == [60, 3600, 1]
