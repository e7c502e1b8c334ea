"""Resources per event loop: one task per loop opens them, holds them, and closes them when the loop ends."""

from __future__ import annotations

import asyncio
import contextvars
import os
from asyncio import get_running_loop
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from smarter_auth_mw.errors import NoEventLoopError

T = TypeVar("T")


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running event loop; raises NoEventLoopError if the server does not run asyncio."""
    try:
        return get_running_loop()
    except RuntimeError:
        raise NoEventLoopError from None


class PerLoop(Generic[T]):
    """Opens ``opening()`` once for each event loop that calls ``get``.

    The owner task waits inside the context manager, so that it is closed in the same task, on the same loop, even
    without an explicit close: ``asyncio.run`` and similar functions cancel remaining tasks when they end. After a
    failed opening, the next call tries again. A forked child starts empty.
    """

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self._opening = opening
        self._owners: WeakKeyDictionary[asyncio.AbstractEventLoop, _Owner[T]] = WeakKeyDictionary()
        self._pid = os.getpid()
        self.last: _Owner[T] | None = None
        """The owner of the loop that called last."""

    def ready(self) -> T | None:
        """Return what is open on the running loop, or None, without waiting."""
        try:
            last, loop = self.last, get_running_loop()
        except RuntimeError:  # For example, the server runs on trio.
            return None
        # A loop runs in one process only, so the process id is not needed here.
        if last is None or last.loop is not loop or last.is_over:
            last = self.last = self._find(loop)
        return None if last is None else last.value

    async def get(self) -> T:
        """Return what is open on the running loop, opening it if necessary; raises the error of the opening."""
        loop = running_loop()
        owner = self._find(loop)
        if owner is None or owner.is_over:
            owner = self._owners[loop] = _Owner(loop, self._opening, self._owners)
        self.last = owner
        return await asyncio.shield(owner.opened)  # A cancelled caller does not cancel the opening for others.

    async def close(self) -> None:
        """Close what is open on the running loop, and wait until it is closed."""
        owner = self._find(asyncio.get_running_loop())
        if owner is not None:
            owner.dismiss()
            await asyncio.wait([owner.task])

    def _find(self, loop: asyncio.AbstractEventLoop) -> _Owner[T] | None:
        if self._pid != os.getpid():
            _inherited.extend(self._owners.values())
            self._owners, self._pid = WeakKeyDictionary(), os.getpid()
        return self._owners.get(loop)


class _Owner(Generic[T]):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        opening: Callable[[], AbstractAsyncContextManager[T]],
        owners: WeakKeyDictionary[asyncio.AbstractEventLoop, _Owner[T]],
    ) -> None:
        self.loop = loop
        self.value: T | None = None
        self.is_over = False
        self.opened: asyncio.Future[T] = loop.create_future()
        self.opened.add_done_callback(lambda opened: opened.cancelled() or opened.exception())
        self._owners = owners
        self._dismissed = asyncio.Event()
        # A context of its own, since it outlives the request that came first.
        self.task = loop.create_task(self._own(opening), context=contextvars.Context())

    def dismiss(self) -> None:
        self.value, self.is_over = None, True
        self._dismissed.set()

    async def _own(self, opening: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        try:
            async with opening() as value:
                self.value = value
                self.opened.set_result(value)
                await self._dismissed.wait()
        except BaseException as error:
            if self.opened.done():
                raise
            self.opened.set_exception(error) if isinstance(error, Exception) else self.opened.cancel()
        finally:
            self.value, self.is_over = None, True
            if self._owners.get(self.loop) is self:
                del self._owners[self.loop]


_inherited: list[_Owner[Any]] = []
"""Tasks of a parent process, kept because garbage collection would resume them on the current loop."""
