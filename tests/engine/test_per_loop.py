"""Connections live and die with their event loop, whoever starts it and however it ends."""

from __future__ import annotations

import asyncio
import gc
import os
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from smarter_auth_mw.engine.per_loop import PerLoop


class Door:
    """Counts how often it was opened and closed, and on which loop."""

    def __init__(self, fail: int = 0) -> None:
        self.opened: list[int] = []
        self.closed: list[int] = []
        self.fail = fail

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[str]:
        await asyncio.sleep(0)
        if self.fail:
            self.fail -= 1
            raise ConnectionRefusedError("not yet")
        self.opened.append(id(asyncio.get_running_loop()))
        try:
            yield f"parts {len(self.opened)}"
        finally:
            await asyncio.sleep(0)
            self.closed.append(id(asyncio.get_running_loop()))


def test_what_is_open_is_closed_on_its_own_loop_when_that_ends() -> None:
    door = Door()
    parts = PerLoop(door)

    async def serve() -> str | None:
        assert parts.ready() is None
        assert await parts.get() == "parts 1"
        return parts.ready()

    assert asyncio.run(serve()) == "parts 1"
    assert door.opened == door.closed
    assert len(door.closed) == 1


def test_each_loop_has_its_own() -> None:
    door = Door()
    parts = PerLoop(door)
    assert [asyncio.run(parts.get()) for _ in range(4)] == ["parts 1", "parts 2", "parts 3", "parts 4"]
    assert door.opened == door.closed


async def test_many_who_ask_at_once_open_it_once() -> None:
    door = Door()
    parts = PerLoop(door)
    assert set(await asyncio.gather(*(parts.get() for _ in range(50)))) == {"parts 1"}
    await parts.close()
    assert len(door.opened) == len(door.closed) == 1


async def test_an_opening_that_failed_is_forgotten() -> None:
    parts = PerLoop(Door(fail=2))
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            await parts.get()
        assert parts.ready() is None
    assert await parts.get() == "parts 1"
    assert parts.ready() == "parts 1"
    await parts.close()


async def test_a_caller_who_goes_away_does_not_close_the_door_for_others() -> None:
    door = Door()
    parts = PerLoop(door)
    leaver, stayer = asyncio.create_task(parts.get()), asyncio.create_task(parts.get())
    await asyncio.sleep(0)
    leaver.cancel()
    assert await stayer == "parts 1"
    with pytest.raises(asyncio.CancelledError):
        await leaver
    assert parts.ready() == "parts 1"
    await parts.close()


async def test_after_closing_the_next_one_opens_anew() -> None:
    door = Door()
    parts = PerLoop(door)
    await parts.get()
    closing = asyncio.create_task(parts.close())
    await asyncio.sleep(0)
    assert parts.ready() is None
    assert await parts.get() == "parts 2"
    await closing
    assert parts.ready() == "parts 2"
    await parts.close()
    assert len(door.closed) == 2


async def test_closing_what_was_never_opened_is_nothing() -> None:
    await PerLoop(Door()).close()


def test_a_loop_that_ended_is_not_kept_alive() -> None:
    parts = PerLoop(Door())
    with asyncio.Runner() as runner:
        gone = weakref.ref(runner.get_loop())
        runner.run(parts.get())
    del runner
    asyncio.run(parts.get())
    gc.collect()
    assert gone() is None


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_starts_with_nothing() -> None:
    door = Door()
    parts = PerLoop(door)
    with asyncio.Runner() as runner:
        runner.run(parts.get())
        child = os.fork()
        if child == 0:
            told = 1
            try:
                told = 0 if asyncio.run(parts.get()) == "parts 2" else 2
            finally:
                os._exit(told)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert parts_of(runner, parts) == "parts 1"


def parts_of(runner: asyncio.Runner, parts: PerLoop[str]) -> str | None:
    async def ready() -> str | None:
        return parts.ready()

    return runner.run(ready())
