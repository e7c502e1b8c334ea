"""Usage: counts requests by resource, token and outcome, and writes the counts in batches."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol
from uuid import UUID, uuid4
from weakref import WeakSet

from smarter_auth_mw.decision import Anonymous, Decision, Denial, Grant, Reason
from smarter_auth_mw.observers.outbox import Outbox
from smarter_auth_mw.tally import Tally

MAX_COUNTERS = 20_000
"""The most series between two flushes; further ones are counted together by kind."""
MAX_BATCH = 2_000
"""The most series written at once, which takes much less time than the query timeout."""
GRANTED, ANONYMOUS = "grant", "anonymous"
"""The outcomes other than reasons of a denial."""
UNKNOWN, OTHER = "", "*"
"""Instead of a reference: for all unregistered resources, and for those beyond MAX_COUNTERS."""


class Series(NamedTuple):
    """One counter: a resource, a token of a key, and an outcome.

    ``digest`` belongs to an accepted token; otherwise it is empty.
    """

    kind: str
    ref: str
    outcome: str
    key_id: str | None = None
    token_key: str = ""
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class Batch:
    """Counts that are written together, and only once: the batch's id tells the database whether it has them."""

    counts: Mapping[Series, int]
    batch_id: UUID
    taken_at_s: float

    @property
    def age_s(self) -> float:
        """Return the age of the batch in seconds."""
        return max(0.0, time.monotonic() - self.taken_at_s)


class UsageSink(Protocol):
    """Writes batches; raises if that fails."""

    async def write_usage(self, batch: Batch) -> None: ...


class Usage:
    """Counts decisions from any thread, in bounded memory.

    A token that was counted together with others gets no ``last_used_at``. A batch that cannot be written is kept and
    written again; counting continues meanwhile.
    """

    def __init__(self, max_counters: int = MAX_COUNTERS) -> None:
        self._max_counters = max_counters
        self._lets_count = True
        self._outbox = Outbox(self._take)
        self._passes: dict[int, _Pass] = {}
        self.forget()
        _instances.add(self)

    def forget(self) -> None:
        """Discard all counts, in a forked child: its parent writes them."""
        self._lock = threading.Lock()
        self._reader = object()
        for counted in self._passes.values():
            counted.detach()
        self._passes.clear()
        self._rest: dict[Series, int] = {}
        self._taken: Counter[tuple[str, str]] = Counter()
        self._outbox.forget()

    def observe(self, decision: Decision, _scope: Mapping[str, Any]) -> None:
        """Count a decision."""
        counted = self._passes.get(id(decision))
        if counted is not None:
            counted.times.once_more()
            if counted.is_discarded:  # Another thread discarded it in the meantime.
                with self._lock:
                    counted.add_to(self._rest)
            return
        with self._lock:
            self._begin(decision)

    def observe_all(self) -> None:
        """Observe every decision from now on, because another observer needs it: grants no longer count themselves."""
        with self._lock:
            self._lets_count = False
            for counted in self._passes.values():
                counted.detach()

    def totals(self) -> Mapping[tuple[str, str], int]:
        """Return the number of requests by kind and outcome since the start of the process."""
        with self._lock:
            self._gather()
            return self._taken + _by_outcome(self._rest)

    def _begin(self, decision: Decision) -> None:
        """Count a decision that has no counter yet, or is not counted often."""
        series = _series(decision)
        # A denial with a token is a new object each time, unlike the ones kept with the bindings.
        is_made_anew = isinstance(decision, Denial) and decision.reason is not Reason.MISSING_CREDENTIALS
        if is_made_anew or series.ref == UNKNOWN or len(self._passes) >= self._max_counters:
            so_far = self._rest.get(series, 0)
            if not so_far and len(self._rest) >= self._max_counters:
                series = Series(series.kind, OTHER, series.outcome)
                so_far = self._rest.get(series, 0)
            self._rest[series] = so_far + 1
        else:
            counted = self._passes.setdefault(id(decision), _Pass(decision, series, self._reader))
            counted.times.once_more()
            counted.attach(lets_count=self._lets_count)

    @property
    def waiting(self) -> int:
        """Return the number of counted decisions that have not been written."""
        with self._lock:
            self._gather()
            return sum(self._rest.values()) + sum(sum(batch.counts.values()) for batch in self._outbox)

    async def flush(self, sink: UsageSink) -> None:
        """Write batches that failed before, and new counts; raises the sink's errors."""
        await self._outbox.flush(sink.write_usage)

    def _take(self) -> list[Batch]:
        with self._lock:
            self._gather()
            for identity, counted in list(self._passes.items()):
                if counted.is_used:
                    counted.attach(lets_count=self._lets_count)
                elif counted.is_idle:
                    del self._passes[identity]
                    counted.is_discarded = True
                    counted.add_to(self._rest)  # What was counted before the flag was set.
                else:
                    counted.detach()  # Another thread may still be counting it, so it is read again.
            counts, self._rest = self._rest, {}
            self._taken += _by_outcome(counts)
        series = list(counts)
        parts = (series[first : first + MAX_BATCH] for first in range(0, len(series), MAX_BATCH))
        return [Batch({one: counts[one] for one in part}, uuid4(), time.monotonic()) for part in parts]

    def _gather(self) -> None:
        for counted in list(self._passes.values()):
            counted.add_to(self._rest)


class _Pass:
    """A repeated decision, and its counter.

    It is found by the decision's identity, since hashing a decision is slow, and keeps a reference to it, so that the
    identity stays unique. A grant keeps its counter after it was discarded here, and reading it continues where it
    stopped. So each request is counted once, however late its thread is.
    """

    __slots__ = ("decision", "is_discarded", "is_idle", "is_used", "series", "times")

    def __init__(self, decision: Decision, series: Series, reader: object) -> None:
        self.decision = decision
        self.series = series
        self.times = decision.tally if isinstance(decision, Grant) else Tally()
        self.is_used = self.is_idle = False
        """True if something was counted since the last batch; True if nothing was counted for the batch before."""
        self.is_discarded = False
        """True if batches no longer include the counter. A thread that still counts then adds the count itself."""
        self.times.begin(reader)

    def attach(self, *, lets_count: bool) -> None:
        """Continue counting; with ``lets_count``, the code that grants counts without calling the observers."""
        self.times.is_kept = lets_count
        self.is_used = self.is_idle = False

    def detach(self) -> None:
        self.times.is_kept = False
        self.is_idle = True

    def add_to(self, counts: dict[Series, int]) -> None:
        """Add the count since the last call."""
        if counted := self.times.take():
            counts[self.series] = counts.get(self.series, 0) + counted
            self.is_used = True


def _series(decision: Decision) -> Series:
    resource = decision.resource
    if resource is None:
        kind, ref = "", UNKNOWN
    else:
        kind, ref = resource.kind, UNKNOWN if decision.account is None else resource.ref
    if isinstance(decision, Grant):
        binding = decision.binding
        token = (binding.token_key, binding.digest) if binding is not None else ()
        return Series(kind, ref, GRANTED, decision.key_id, *token)
    if isinstance(decision, Anonymous):
        return Series(kind, ref, ANONYMOUS)
    return Series(kind, ref, decision.reason._value_, decision.key_id, decision.token_key)


def _by_outcome(counts: Mapping[Series, int]) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for series, times in counts.items():
        found[series.kind, series.outcome] += times
    return found


def _forget_all() -> None:
    for usage in _instances:
        usage.forget()


_instances: WeakSet[Usage] = WeakSet()
os.register_at_fork(after_in_child=_forget_all)
