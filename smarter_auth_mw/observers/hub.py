"""Observers watch decisions: they never steer them, never wait, and their failure is counted and not raised."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from smarter_auth_mw.decision import Anonymous, Decision, Denial, Grant
from smarter_auth_mw.errors import SmarterAuthError
from smarter_auth_mw.log import Event, log
from smarter_auth_mw.observers import audit, usage

Observe = Callable[[Decision, Mapping[str, Any]], None]


class Observers:
    """Tells usage and audit of every decision, and has them written now and then.

    ``failures`` counts what an observer could not make of a decision, ``failed_flushes`` what could not be written.
    """

    def __init__(self, usage: usage.Usage, audit: audit.Audit) -> None:
        self.failures = 0
        self.failed_flushes = 0
        self._flushed: Mapping[Event, Any] = {"usage.not_written": usage, "audit.not_written": audit}
        self._usage = usage
        if Grant in audit.decisions:
            usage.observe_all()
        self._of: dict[type[Decision], tuple[Observe, ...]] = {
            kind: (usage.observe, audit.observe) if kind in audit.decisions else (usage.observe,)
            for kind in (Grant, Anonymous, Denial)
        }

    def add(self, observe: Observe) -> None:
        """Tell this one too, of every decision from now on."""
        self._of = {kind: (*told, observe) for kind, told in self._of.items()}
        self._usage.observe_all()

    def observe(self, decision: Decision, scope: Mapping[str, Any]) -> None:
        """Tell all of them of a decision that nothing changes any more."""
        for observe in self._of[type(decision)]:
            try:
                observe(decision, scope)
            except Exception as error:
                self.note(error)

    def passed(self, decision: Grant | Anonymous, scope: Mapping[str, Any]) -> None:
        """The same for a request that passes, which mostly is only to be counted once more."""
        if isinstance(decision, Grant) and decision.tally.is_kept:
            decision.tally.once_more()
        else:
            self.observe(decision, scope)

    @asynccontextmanager
    async def flushing(self, store: Any, every_s: float) -> AsyncIterator[None]:
        """Write to the store as often as that, for as long as the block lasts, and once more at its end."""
        task = asyncio.create_task(self._flush_for_ever(store, every_s))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            for _ in range(2):  # What could not be written before, and what has been counted since.
                await self.flush(store)

    async def flush(self, store: Any) -> None:
        """Write what there is; what cannot be written is kept for the next time."""
        for event, observer in self._flushed.items():
            try:
                await observer.flush(store)
            except Exception as error:
                self.failed_flushes += 1
                # Not the text of an error that is not ours, which may quote a row.
                told = error if isinstance(error, SmarterAuthError) else type(error).__name__
                log(event, "%s", told)

    async def _flush_for_ever(self, store: Any, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            await self.flush(store)

    def note(self, error: Exception) -> None:
        """Count a failure."""
        self.failures += 1
        log("observer.failed", "%s", type(error).__name__)
