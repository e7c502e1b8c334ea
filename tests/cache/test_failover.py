"""Which server is followed, with a clock that is moved and without any server."""

from __future__ import annotations

from typing import Any

from smarter_auth_mw.cache.changes import Changes
from smarter_auth_mw.cache.entries import Cache, Limits
from smarter_auth_mw.cache.failover import Failover

OLD, NEW = "1700000000.1", "1700000500.2"
BOUND_S = 5.0


class World:
    """A cache that nothing is read for, a failover policy, and a clock."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.restarts = 0
        self.tiers: list[str] = []
        source: Any = None
        self.cache = Cache(source, Limits(), Changes(), clock=lambda: self.now_s)
        self.failover = Failover(self.cache, BOUND_S, self.open_tier)
        self.failover.start_over = self.start_over

    def start_over(self) -> None:
        self.restarts += 1

    async def open_tier(self, server: str) -> Any:
        self.tiers.append(server)
        assert self.cache.shared is None
        return server

    async def follow(self, started: str) -> None:
        await self.failover.met(f"{started} epoch 7000 00000001 5")
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
    assert world.restarts == 0


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
