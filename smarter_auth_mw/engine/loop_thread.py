"""One event loop on a thread of its own, for callers that have none: WSGI."""

from __future__ import annotations

import atexit
import multiprocessing.util
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TypeVar
from weakref import WeakSet

import anyio
from anyio.from_thread import BlockingPortal

from smarter_auth_mw.engine.engine import Engine
from smarter_auth_mw.observers.hub import END_PATIENCE_S

T = TypeVar("T")


class LoopThread:
    """One event loop on its own thread, created by the first call in the serving process.

    A forked child creates its own: an inherited one would have no thread. ``closing`` runs on the loop at the end.
    """

    def __init__(self, timeout_s: float, closing: Callable[[], Awaitable[None]]) -> None:
        self.kept: Engine | None = None
        """The loop's engine; other threads may use what it has in memory."""
        self._timeout_s = timeout_s
        self._closing = closing
        self._portal: BlockingPortal | None = None
        self._pid = 0
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._forget)
        _threads.add(self)

    def run(self, call: Callable[[], Awaitable[T]], otherwise: T) -> T:
        """Run the call on the loop and return its result, or ``otherwise`` if it takes too long."""
        future: Future[T] = self._opened().start_task_soon(call)
        try:
            return future.result(self._timeout_s)
        except FutureTimeoutError:
            future.cancel()
            return otherwise

    def close(self) -> None:
        """Close everything that is open on the loop, and stop it."""
        portal, self._portal = self._portal, None
        if portal is not None and self._pid == os.getpid():
            portal.start_task_soon(portal.stop)
            self._thread.join(self._timeout_s + END_PATIENCE_S)

    def _opened(self) -> BlockingPortal:
        with self._lock:
            if self._portal is None:
                ready: Future[BlockingPortal] = Future()
                # A daemon thread: the interpreter would wait for any other before it runs exit handlers.
                self._thread = threading.Thread(target=anyio.run, args=(self._serve, ready), daemon=True)
                self._thread.name = "smarter_auth_mw"
                self._thread.start()
                self._portal, self._pid = ready.result(), os.getpid()
                _at_exit(self.close)
            return self._portal

    async def _serve(self, ready: Future[BlockingPortal]) -> None:
        async with BlockingPortal() as portal:
            ready.set_result(portal)
            await portal.sleep_until_stopped()
        await self._closing()

    def _forget(self) -> None:
        self._portal, self.kept, self._lock = None, None, threading.Lock()


def close_all() -> None:
    """Close the middlewares of this process, for servers that end without running Python's exit handlers."""
    for thread in list(_threads):
        thread.close()


def _at_exit(call: Callable[[], None]) -> None:
    """Call it when the process ends; children of ``multiprocessing`` end without calling ``atexit``."""
    atexit.register(call)
    if multiprocessing.parent_process() is not None:
        multiprocessing.util.Finalize(None, call, exitpriority=0)


_threads: WeakSet[LoopThread] = WeakSet()
