"""Tracks whether a server answers in time: after a failed call, a probe in the background finds out."""

from __future__ import annotations

import asyncio
import contextvars
import re
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

DEADLINE_S, LONGEST_DEADLINE_S = 0.05, 0.5
"""The limits of a call's deadline, which is several round trips. A nearby server needs 0.1 ms."""
ROUND_TRIPS = 4
PROBE_DEADLINE_S = 5.0
"""The deadline of a probe, which may first have to connect (TCP, TLS, AUTH)."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
"""The limits of the pause before the next probe, which doubles after each probe that fails."""

T = TypeVar("T")

_BY_TEXT = (
    ("NOAUTH|WRONGPASS|invalid password|Authentication required|without any password", "it refused the log-in"),
    ("NOPERM|no permissions", "its user may not do that"),
    ("DB index is out of range", "it has no database of this number"),
    ("READONLY|read only replica", "it is a read-only replica"),
    ("OOM|maxmemory", "it is out of memory (maxmemory)"),
    ("LOADING|loading the dataset", "it is loading its data"),
    ("MOVED|CROSSSLOT", "it is a cluster: name a single server"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted"),
    ("WRONG_VERSION_NUMBER|SSL", "it and this machine do not agree on TLS"),
)
_BY_CLASS = (
    ("AuthenticationError", "it refused the log-in"),
    ("NoPermissionError", "its user may not do that"),
    ("ReadOnlyError", "it is a read-only replica"),
    ("OutOfMemoryError", "it is out of memory (maxmemory)"),
    ("BusyLoadingError", "it is loading its data"),
    ("TimeoutError", "it did not answer in time"),
    ("MovedError|AskError", "it is a cluster: name a single server"),
    ("InvalidResponse", "it does not answer as a Redis does"),
    ("ConnectionRefusedError|ConnectionError|gaierror|FileNotFoundError", "it cannot be reached"),
)
"""Why a server fails, in fixed words: the text of its error may quote what it sent."""


class TooSlowError(Exception):
    """The server answers, but no call could wait for it."""


class Availability:
    """Decides whether a server is called, and how long a call may take.

    After a failed call, no further call is made until a probe is answered. A probe is a call that may take much longer
    and that nothing waits for. ``report`` is called with the error when a probe fails for the first time, and with None
    when one is answered again. A single failed call, for example without an open connection, is not an outage.
    """

    def __init__(
        self,
        probe: Callable[[], Awaitable[object]],
        report: Callable[[Exception | None], None],
        deadline_s: float = DEADLINE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.deadline_s = deadline_s
        """The deadline of a call, in seconds."""
        self.is_down = False
        """True if the last probe failed."""
        self._shortest_s = deadline_s
        self._probe = probe
        self._report = report
        self._clock = clock
        self._is_doubtful = False
        self._pause_s = 0.0
        self._next_probe_at_s = float("-inf")
        self._probing: asyncio.Task[None] | None = None

    def allows_call(self) -> bool:
        """Return whether the server answered recently; if not, start a probe when one is due."""
        if self._is_doubtful:
            self.look()
        return not self._is_doubtful

    def look(self) -> None:
        """Start a probe if one is due: the server is in doubt, no probe is running, and the pause is over."""
        if self._is_doubtful and self._probing is None and self._clock() >= self._next_probe_at_s:
            self._probing = asyncio.get_running_loop().create_task(self._resolve(), context=contextvars.Context())

    async def answer(self, call: Awaitable[T]) -> T:
        """Return the result of the call; if it fails or times out, mark the server as in doubt and raise."""
        try:
            async with asyncio.timeout(self.deadline_s):
                return await call
        except Exception:
            self._is_doubtful = True
            self.look()
            raise

    async def close(self) -> None:
        """Cancel a running probe."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])

    async def _resolve(self) -> None:
        try:
            async with asyncio.timeout(PROBE_DEADLINE_S):
                round_trip_s = await self._round_trip_s()
            if round_trip_s >= LONGEST_DEADLINE_S:
                raise TooSlowError
        except Exception as error:
            self._lose(error)
        else:
            self.deadline_s = max(self._shortest_s, min(ROUND_TRIPS * round_trip_s, LONGEST_DEADLINE_S))
            self._find()
        finally:
            self._probing = None

    async def _round_trip_s(self) -> float:
        await self._probe()  # This one connects if needed, so that the second one does not.
        sent_s = time.monotonic()
        await self._probe()
        return time.monotonic() - sent_s

    def _lose(self, error: Exception) -> None:
        self._pause_s = min(max(2 * self._pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        self._next_probe_at_s = self._clock() + self._pause_s
        if not self.is_down:
            self.is_down = True
            self._report(error)

    def _find(self) -> None:
        self._pause_s, self._is_doubtful = 0.0, False
        if self.is_down:
            self.is_down = False
            self._report(None)


def cause_of(error: BaseException) -> str:
    """Return the cause, with the name of the error's class."""
    name = type(error).__name__
    found = [words for pattern, words in _BY_TEXT if re.search(pattern, str(error))]
    found += [words for pattern, words in _BY_CLASS if re.fullmatch(pattern, name)]
    return f"{name}: {found[0]}" if found else name
