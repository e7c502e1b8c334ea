"""The first tier is an aiocache backend that stays within its bounds."""

from __future__ import annotations

import pytest

from smarter_auth_mw.cache.bounded import BoundedMemoryCache


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_the_least_recently_used_makes_room() -> None:
    memory = BoundedMemoryCache(2)
    memory.put("a", 1)
    memory.put("b", 2)
    assert memory.peek("a") == 1
    memory.put("c", 3)
    assert (memory.peek("a"), memory.peek("b"), memory.peek("c")) == (1, None, 3)
    assert memory.evictions == 1


def test_weight_is_bounded_too() -> None:
    memory = BoundedMemoryCache(10, max_weight=5, weigh=len)
    memory.put("a", "xxx")
    memory.put("b", "xx")
    memory.put("c", "x")
    assert memory.peek("a") is None
    assert (memory.peek("b"), memory.peek("c"), memory.weight) == ("xx", "x", 3)


def test_replacing_does_not_count_twice() -> None:
    memory = BoundedMemoryCache(10, max_weight=5, weigh=len)
    for _ in range(5):
        memory.put("a", "xxx")
    assert (len(memory), memory.weight, memory.evictions) == (1, 3, 0)


def test_what_is_too_heavy_by_itself_is_not_kept_and_evicts_nothing_else() -> None:
    memory = BoundedMemoryCache(10, max_weight=5, weigh=len)
    memory.put("a", "x")
    memory.put("b", "xxxxxx")
    assert (memory.peek("a"), memory.peek("b")) == ("x", None)


def test_a_value_is_gone_when_its_time_is_over() -> None:
    clock = Clock()
    memory = BoundedMemoryCache(10, clock=clock)
    memory.put("a", 1, ttl_s=10)
    clock.now_s = 9.9
    assert memory.peek("a") == 1
    clock.now_s = 10.0
    assert memory.peek("a") is None
    assert len(memory) == 0


async def test_aiocaches_own_interface_works_on_it() -> None:
    memory = BoundedMemoryCache(10)
    await memory.set("a", 1)
    await memory.multi_set([("b", 2), ("c", 3)], ttl=60)
    assert await memory.get("a") == memory.peek("a") == 1
    assert await memory.get("nothing", default=7) == 7
    assert await memory.multi_get(["b", "c", "d"]) == [2, 3, None]
    assert await memory.exists("b")
    assert await memory.add("d", 4)
    with pytest.raises(ValueError, match="already exists"):
        await memory.add("d", 5)
    assert await memory.delete("d") == 1
    assert await memory.delete("d") == 0
    await memory.clear()
    assert len(memory) == memory.weight == 0
