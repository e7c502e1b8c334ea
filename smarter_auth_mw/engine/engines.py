"""The engines of one middleware: one for each event loop, opened when it is first needed."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from weakref import WeakSet

from smarter_auth_mw.config.settings import Settings
from smarter_auth_mw.engine.engine import Engine
from smarter_auth_mw.engine.per_loop import PerLoop


class Engines(PerLoop[Engine]):
    """One engine for each event loop, opened by ``opening()``; ``settings`` is None if they have mistakes."""

    def __init__(self, settings: Settings | None, opening: Callable[[], AbstractAsyncContextManager[Engine]]) -> None:
        super().__init__(self._noted)
        self.settings = settings
        self.was_opened = False
        """True if an engine was ever opened, on any event loop."""
        self.opening = opening
        self._open: dict[int, tuple[int, Engine]] = {}
        with _lock:
            _all.add(self)

    def in_this_process(self) -> list[Engine]:
        """Return the engines that are open on any event loop of this process."""
        return [engine for pid, engine in list(self._open.values()) if pid == os.getpid()]

    @asynccontextmanager
    async def _noted(self) -> AsyncIterator[Engine]:
        self.was_opened = True
        async with self.opening() as engine:
            self._open[id(engine)] = os.getpid(), engine
            try:
                yield engine
            finally:
                del self._open[id(engine)]


def every() -> Sequence[Engines]:
    """Return the engines of all middlewares in this process that are still referenced."""
    with _lock:
        return list(_all)


_all: WeakSet[Engines] = WeakSet()
_lock = threading.Lock()
