"""A look-up with many callers: whose cancellation ends what, and when each of them goes on."""

from __future__ import annotations

import asyncio

import pytest

from smarter_auth_mw.cache.flights import Flight


class LookUp:
    """A look-up whose answer is set by the test."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.ends = 0
        self.flight = Flight(self._read(), self._end)

    async def _read(self) -> str:
        return await self.answer

    def _end(self) -> None:
        self.ends += 1


async def wait(flight: Flight[str]) -> str:
    return await flight.wait()


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_callers_go_on_in_the_turn_after_the_look_up() -> None:
    look_up = LookUp()
    callers = [asyncio.create_task(wait(look_up.flight)) for _ in range(3)]
    await turns(2)
    look_up.answer.set_result("found")
    await turns(2)  # The look-up goes on in the first of them, its callers in the second.
    assert [caller.done() for caller in callers] == [True] * 3
    assert look_up.ends == 1


async def test_a_caller_that_is_cancelled_leaves_the_look_up_to_the_others() -> None:
    look_up = LookUp()
    first, second = asyncio.create_task(wait(look_up.flight)), asyncio.create_task(wait(look_up.flight))
    await turns(2)
    first.cancel()
    await asyncio.wait([first])
    assert not look_up.answer.cancelled()
    look_up.answer.set_result("found")
    assert await second == "found"


async def test_an_error_reaches_every_caller() -> None:
    look_up = LookUp()
    callers = [asyncio.create_task(wait(look_up.flight)) for _ in range(2)]
    await turns(2)
    look_up.answer.set_exception(LookupError("lost"))
    assert [str(error) for error in await asyncio.gather(*callers, return_exceptions=True)] == ["lost", "lost"]
    assert look_up.ends == 1


async def test_nobody_waits_for_a_look_up_that_the_closing_loop_has_cancelled() -> None:
    look_up = LookUp()
    caller = asyncio.create_task(wait(look_up.flight))
    await turns(2)
    look_up.answer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert look_up.ends == 1


async def test_a_look_up_may_start_without_a_caller() -> None:
    look_up = LookUp()
    look_up.flight.start()
    look_up.answer.set_exception(LookupError("lost"))
    await turns(3)
    assert look_up.ends == 1
