"""A herd is served in turn, peers take turns, and what finds no place is refused, counted and logged."""

from __future__ import annotations

import asyncio

import pytest

from smarter_auth_mw.cache import admission as module
from smarter_auth_mw.cache.admission import Admission
from smarter_auth_mw.errors import OverloadedError


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_next_one_waits_until_a_place_is_free() -> None:
    admission = Admission(2, 2)
    assert [await admission.enter("a"), await admission.enter("a")] == [False, False]
    third = asyncio.create_task(admission.enter("a"))
    await settled()
    assert not third.done()
    admission.leave("a")
    assert await third


async def test_each_peer_has_places_of_its_own_and_they_take_turns() -> None:
    admission, order = Admission(2, 2), []

    async def enter(peer: str) -> None:
        await admission.enter(peer)
        order.append(peer)

    first = [asyncio.create_task(enter("a")) for _ in range(5)]
    await settled()
    others = [asyncio.create_task(enter("b")) for _ in range(2)]
    await settled()
    for peer in ["a", "a", "a", "b", "a"]:
        admission.leave(peer)
        await settled()
    await asyncio.gather(*first, *others)
    assert order == ["a", "a", "a", "b", "a", "b", "a"]


async def test_a_peer_at_its_limit_holds_up_nobody_else() -> None:
    admission = Admission(10, 1)
    await admission.enter("a")
    waiting = asyncio.create_task(admission.enter("a"))
    await settled()
    assert not await admission.enter("b")
    admission.leave("a")
    assert await waiting


async def test_who_finds_no_place_to_wait_is_refused_at_once_and_the_log_says_so_now_and_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    admission = Admission(8, 1, clock)
    await admission.enter("192.0.2.1")
    waiting = [asyncio.create_task(admission.enter("192.0.2.1")) for _ in range(module.PLACES)]
    await settled()
    for _ in range(3):
        with pytest.raises(OverloadedError):
            await admission.enter("192.0.2.1")
    clock.now_s += module.LOG_PAUSE_S
    with pytest.raises(OverloadedError):
        await admission.enter("192.0.2.1", waits=False)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    end = "answered 503, the last one from 192.0.2.1: MAX_LOOKUPS_PER_PEER=1, MAX_LOOKUPS=8"
    assert caplog.messages == [
        f"lookups.refused: 1 look-up was {end}",
        f"lookups.refused: 3 look-ups were {end}",
    ]
    assert admission.refused == 4


async def test_who_waits_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_S", 0.01)
    admission = Admission(1, 1)
    await admission.enter("a")
    with pytest.raises(OverloadedError):
        await admission.enter("a")
    admission.leave("a")
    assert admission.try_enter("a")


async def test_places_of_those_who_go_away_are_free_again() -> None:
    admission = Admission(2, 2)
    for _ in range(2):
        await admission.enter("a")
    gone = [asyncio.create_task(admission.enter("a")) for _ in range(3)]
    await settled()
    admission.leave("a")  # Its turn, at the very moment that it goes.
    for task in gone:
        task.cancel()
    await asyncio.wait(gone)
    admission.leave("a")
    assert [admission.try_enter("a") for _ in range(3)] == [True, True, False]
