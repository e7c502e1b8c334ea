"""Which server is followed, with a clock that is moved and without any server."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from aiocache import SimpleMemoryCache

from smarter_auth_mw.cache.changes import Changes
from smarter_auth_mw.cache.entries import Cache, Limits
from smarter_auth_mw.cache.failover import DeposedError, Failover, Line
from smarter_auth_mw.cache.shared import SharedBackend
from smarter_auth_mw.cache.timelines import newest_timeline

OLD, NEW = "3f0b9dbe/0002b2f1/0002b2f2", "9d5e1c2b/0002b2f1/0002c3d4"
BOUND_S = 5.0


class World:
    """A cache that nothing is read for, a failover policy, and a clock."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.restarts = self.hurries = 0
        self.tiers: list[str] = []
        source: Any = None
        self.cache = Cache(source, Limits(), Changes(), clock=lambda: self.now_s)
        self.failover = Failover(self.cache, BOUND_S, self.open_tier)
        self.failover.start_over, self.failover.hurry = self.start_over, self.hurry

    def hurry(self) -> None:
        self.hurries += 1

    def start_over(self) -> None:
        self.restarts += 1

    async def open_tier(self, server: str) -> Any:
        self.tiers.append(server)
        assert self.cache.shared is None
        return server

    async def follow(self, incarnation: str, timeline: int = 1) -> None:
        await self.failover.met(f"{incarnation} epoch 7000 {timeline:08X} 5")
        self.failover.held(self.now_s, True)


def test_any_server_is_accepted_until_one_was_met() -> None:
    assert World().failover.is_followed(OLD)


async def test_only_the_server_that_was_met_is_followed_while_it_is_heard() -> None:
    world = World()
    await world.follow(NEW)
    world.now_s += BOUND_S - 1
    assert world.failover.is_followed(NEW)
    assert not world.failover.is_followed(OLD)
    assert not world.failover.is_followed(NEW[:-2])
    assert (world.restarts, world.hurries) == (0, 2)


async def test_server_without_a_name_is_none_that_was_met() -> None:
    world = World()
    await world.follow(NEW)
    assert not world.failover.is_followed(NEW.removeprefix("9d5e1c2b"))


async def test_whoever_answers_is_accepted_when_nothing_was_heard_for_too_long() -> None:
    world = World()
    await world.follow(NEW)
    world.now_s += BOUND_S
    assert world.failover.is_followed(OLD)
    assert world.restarts == 1


async def test_what_workers_share_of_another_server_is_out_of_reach_at_once() -> None:
    world = World()
    await world.follow(OLD)
    await world.follow(NEW)
    assert world.tiers == [f"{OLD} epoch 7000 00000001 5", f"{NEW} epoch 7000 00000001 5"]
    shared: Any = world.cache.shared
    assert shared == world.tiers[-1]


async def test_a_heartbeat_vouches_for_nothing_while_a_trigger_is_missing() -> None:
    world = World()
    world.failover.held(world.now_s, False)
    assert world.cache.heartbeat_age_s == float("inf")
    world.failover.held(world.now_s, True)
    assert world.cache.heartbeat_age_s == 0


async def test_a_deposed_primary_is_not_followed_by_a_worker_that_followed_its_successor(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    await world.follow(OLD, 1)
    await world.follow(NEW, 2)
    with pytest.raises(DeposedError, match="its timeline is 1, but 2 has been used"):
        await world.follow(OLD, 1)
    world.now_s += 2 * BOUND_S
    assert not world.failover.is_followed(OLD)
    assert world.cache.shared is None
    await world.follow(NEW, 2)
    assert world.failover.is_followed(NEW)
    assert [line.split(":")[0] for line in caplog.messages] == ["server.changed", "server.deposed"]
    assert "Line(" not in caplog.text


async def test_another_database_is_no_deposed_one() -> None:
    world = World()
    await world.follow(OLD, 7)
    await world.failover.met(f"{NEW} epoch 7001 00000001 5")
    assert world.failover.is_followed(NEW)


async def test_a_deposed_primary_is_not_followed_by_a_new_worker_where_others_share_what_they_follow() -> None:
    backend, secret = SharedBackend(SimpleMemoryCache()), bytes(32)
    for timeline in (1, 3, 2):
        assert await newest_timeline(backend, secret, "7000", timeline) == max(timeline, 3 if timeline == 2 else 0)
    assert await newest_timeline(backend, secret, "7001", 1) == 1
    world = World()
    world.failover._newest_timeline = partial(newest_timeline, backend, secret)
    with pytest.raises(DeposedError):
        await world.follow(OLD, 2)
    await world.follow(NEW, 3)
    assert await newest_timeline(backend, b"x" * 32, "7000", 1) == 1  # Sealed by somebody else: nothing is known.


async def test_garbage_in_the_shared_cache_deposes_nobody() -> None:
    memory, secret = SimpleMemoryCache(), bytes(32)
    backend = SharedBackend(memory)
    await newest_timeline(backend, secret, "7000", 3)
    assert memory._cache
    for key in memory._cache:
        memory._cache[key] = b"garbage"
    assert await newest_timeline(backend, secret, "7000", 1) == 1


@pytest.mark.parametrize(
    ("server", "line"),
    [
        ("18d3a4f2 51b0c1d2 7567000000000000001 0000000A 16384", ("7567000000000000001", 10)),
        ("8d6e-123456789012 12345678-aaaa 7567000000000000001 00000002 5", ("7567000000000000001", 2)),
        ("8d6e-123456789012 12345678 7567000000000000001 16384", ("", 0)),
        ("in memory", ("", 0)),
    ],
)
def test_a_servers_name_ends_with_its_system_its_timeline_and_its_database(server: str, line: tuple[str, int]) -> None:
    assert Line.of(server) == line
