"""A look-up that any number of callers wait for, and that continues even if all of them are cancelled."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Awaitable, Callable, Coroutine
from operator import methodcaller
from typing import Any, Generic, TypeVar

Found = TypeVar("Found")


class Flight(Generic[Found]):
    """One look-up in progress; ``ended`` is called as soon as it has a result or an error, before any caller continues.

    Each caller waits for a future of its own, which the look-up completes itself. ``asyncio.shield`` would do the
    same, but pass the result on in the event loop's next turn, and its caller would go on in the turn after it.
    """

    __slots__ = ("_callers", "_ended", "_look_up", "_task")

    def __init__(self, look_up: Coroutine[Any, Any, Found], ended: Callable[[], None]) -> None:
        self._callers: list[asyncio.Future[Found]] = []
        self._ended = ended
        self._look_up: Coroutine[Any, Any, Found] | None = look_up
        self._task: asyncio.Task[None] | None = None

    def wait(self) -> Awaitable[Found]:
        """Return what a caller awaits; the first caller starts the look-up."""
        caller: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self._callers.append(caller)
        self.start()
        return caller

    def start(self) -> None:
        """Start the look-up, unless it has started."""
        look_up, self._look_up = self._look_up, None
        if look_up is not None:
            self._task = _started(self._run(look_up))

    async def _run(self, look_up: Coroutine[Any, Any, Found]) -> None:
        try:
            found = await look_up
        except Exception as error:
            self._ended()
            self._complete(methodcaller("set_exception", error))
        except BaseException:  # The event loop is closing.
            self._ended()
            self._complete(methodcaller("cancel"))
            raise
        else:
            self._ended()
            self._complete(methodcaller("set_result", found))

    def _complete(self, how: Callable[[asyncio.Future[Found]], object]) -> None:
        for caller in self._callers:
            if not caller.done():  # It is if the caller was cancelled.
                how(caller)


def _started(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Start a task in a context of its own, since the look-up belongs to no single request."""
    loop, context = asyncio.get_running_loop(), contextvars.Context()
    if sys.version_info >= (3, 12):  # It runs at once until it has to wait, instead of in the loop's next turn.
        return asyncio.Task(work, loop=loop, context=context, eager_start=True)
    return loop.create_task(work, context=context)
