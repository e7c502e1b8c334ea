"""Calls observers with decisions: they never change them, never wait, and their failures are counted, not raised."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from smarter_auth_mw.decision import Anonymous, Decision, Denial, Grant
from smarter_auth_mw.errors import SmarterAuthError, counted
from smarter_auth_mw.log import Event, log
from smarter_auth_mw.observers import audit, usage

END_PATIENCE_S, END_PAUSE_S = 5.0, 0.2
"""The time for which the shutdown keeps trying to write to the store, and the pause between attempts."""

Observe = Callable[[Decision, Mapping[str, Any]], None]


class FlushEvents(NamedTuple):
    """The log events for a failed write, for the next successful one, and for data lost at shutdown."""

    failed: Event
    recovered: Event
    lost: Event


USAGE = FlushEvents("usage.not_written", "usage.recovered", "usage.lost")
AUDIT = FlushEvents("audit.not_written", "audit.recovered", "audit.lost")


@dataclass(slots=True)
class _Flushed:
    """An observer whose data is written at intervals, and the state of its writes."""

    observer: Any
    events: FlushEvents
    is_failing: bool = False


class Observers:
    """Passes every decision to usage and audit, and writes them at intervals.

    ``failures`` counts errors of observers, ``failed_flushes`` failed writes.
    """

    def __init__(self, usage: usage.Usage, audit: audit.Audit) -> None:
        self.failures = 0
        self.failed_flushes = 0
        self._flushed = (_Flushed(usage, USAGE), _Flushed(audit, AUDIT))
        self._usage = usage
        if Grant in audit.decisions:
            usage.observe_all()
        self._of: dict[type[Decision], tuple[Observe, ...]] = {
            kind: (usage.observe, audit.observe) if kind in audit.decisions else (usage.observe,)
            for kind in (Grant, Anonymous, Denial)
        }

    def add(self, observe: Observe) -> None:
        """Call this observer too, with every decision from now on."""
        self._of = {kind: (*others, observe) for kind, others in self._of.items()}
        self._usage.observe_all()

    def observe(self, decision: Decision, scope: Mapping[str, Any]) -> None:
        """Call all observers with a final decision."""
        for observe in self._of[type(decision)]:
            try:
                observe(decision, scope)
            except Exception as error:
                self.note(error)

    def passed(self, decision: Grant | Anonymous, scope: Mapping[str, Any]) -> None:
        """Observe a request that passes, which usually means counting it."""
        if isinstance(decision, Grant) and decision.tally.is_kept:
            decision.tally.once_more()
        else:
            self.observe(decision, scope)

    @asynccontextmanager
    async def flushing(self, store: Any, every_s: float) -> AsyncIterator[None]:
        """Write to the store at this interval while the block runs, and the rest at its end."""
        task = asyncio.create_task(self._flush_for_ever(store, every_s))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            await self._finish(store)

    async def flush(self, store: Any) -> bool:
        """Write what is waiting, and keep what cannot be written; return whether everything was written."""
        return all([await self._flush(flushed, store) for flushed in self._flushed])

    def report_lost(self) -> None:
        """Log the number of requests that are lost."""
        for flushed in self._flushed:
            if lost := flushed.observer.waiting:
                log(flushed.events.lost, "%s could not be written before the shutdown", counted(lost, "request"))

    async def _flush(self, flushed: _Flushed, store: Any) -> bool:
        try:
            await flushed.observer.flush(store)
        except Exception as error:
            self.failed_flushes += 1
            if not flushed.is_failing:
                flushed.is_failing = True
                # The text of a foreign error is not shown: it may quote a row.
                text = error if isinstance(error, SmarterAuthError) else f"{type(error).__name__}."
                log(flushed.events.failed, "%s The batch is kept and written again.", text)
            return False
        if flushed.is_failing:
            flushed.is_failing = False
            log(flushed.events.recovered)
        return True

    async def _finish(self, store: Any) -> None:
        """Write the rest; if that fails, try again for a while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(END_PATIENCE_S):
                while not await self.flush(store):  # noqa: ASYNC110 (nobody says when it can be written to)
                    await asyncio.sleep(END_PAUSE_S)
                return
        self.report_lost()

    async def _flush_for_ever(self, store: Any, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            await self.flush(store)

    def note(self, error: Exception) -> None:
        """Count a failure."""
        self.failures += 1
        log("observer.failed", "%s", type(error).__name__)
