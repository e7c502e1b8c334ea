"""The audit of requests: who was refused what, and the true reason; bounded, with an exact count of omissions."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol
from uuid import UUID, uuid4

from smarter_auth_mw.decision import Anonymous, Decision, Denial, Grant
from smarter_auth_mw.observers.outbox import Outbox
from smarter_auth_mw.tokens import shortened

Audited = Literal["none", "denials", "all"]

DECISIONS: dict[Audited, tuple[type[Decision], ...]] = {
    "none": (),
    "denials": (Denial,),
    "all": (Denial, Grant, Anonymous),
}
"""The decisions that are recorded, by the value of ``AUDIT``."""
PER_SECOND = 10.0
"""The highest average rate of requests that a worker writes to the audit,"""
BURST = 200
"""and how many at once."""
MAX_EVENTS = 2_000
"""The most events that wait while the database is not reachable."""
MAX_TEXT = 255
"""The most characters kept of a text that a client chose."""


@dataclass(frozen=True, slots=True)
class RequestEvent:
    """A request in the audit, or the number of omitted ones; ``peer`` is the client's network."""

    action: str
    at_s: float
    peer: str = ""
    kind: str | None = None
    ref: str | None = None
    account: str | None = None
    key_id: str | None = None
    reason: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def age_s(self) -> float:
        """Return the age of the event in seconds."""
        return max(0.0, time.monotonic() - self.at_s)

    @property
    def facts_json(self) -> str | None:
        return json.dumps(self.facts) if self.facts else None


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Events that are written together, and only once: the batch's id tells the database whether it has them."""

    events: Sequence[RequestEvent]
    batch_id: UUID = field(default_factory=uuid4)

    @property
    def requests(self) -> int:
        """Return the number of requests that the events report."""
        return sum(event.facts.get("events", 1) for event in self.events)


class RequestSink(Protocol):
    """Writes events; raises if that fails."""

    async def write_requests(self, events: Sequence[RequestEvent], batch_id: UUID) -> None: ...


class Audit:
    """Records requests, from any thread.

    ``network`` returns the peer's network. Requests beyond the rate or the memory limit are counted by outcome, and the
    counts are written as an event.
    """

    def __init__(
        self,
        audited: Audited,
        network: Callable[[Mapping[str, Any]], str],
        *,
        per_second: float = PER_SECOND,
        burst: int = BURST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.decisions = DECISIONS[audited]
        self.dropped = 0
        """The number of requests that were not recorded."""
        self._network = network
        self._pause_s = 1 / per_second
        self._credit_s = (burst - 0.5) * self._pause_s  # Half a pause, so that rounding does not matter.
        self._clock = clock
        self._outbox = Outbox(self._take)
        self.forget()

    def forget(self) -> None:
        """Discard everything."""
        self._lock = threading.Lock()
        self._events: deque[RequestEvent] = deque()
        self._dropped: Counter[str] = Counter()
        self._outbox.forget()
        self._next_at_s = float("-inf")

    @property
    def _room(self) -> int:
        """Return how many more events may wait, not counting a batch that could not be written."""
        return MAX_EVENTS - sum(len(batch.events) for batch in self._outbox)

    def observe(self, decision: Decision, scope: Mapping[str, Any]) -> None:
        """Record a decision; callers check ``decisions`` first."""
        now_s = self._clock()
        with self._lock:
            if self._next_at_s >= now_s or len(self._events) >= self._room:
                self._dropped[_outcome(decision)] += 1
                self.dropped += 1
                return
            self._next_at_s = max(self._next_at_s, now_s - self._credit_s) + self._pause_s
        self._events.append(_event(decision, self._network(scope), now_s))

    @property
    def waiting(self) -> int:
        """Return the number of recorded or omitted requests that have not been written."""
        with self._lock:
            return len(self._events) + self._dropped.total() + sum(batch.requests for batch in self._outbox)

    async def flush(self, sink: RequestSink) -> None:
        """Write what is waiting; if the sink raises, keep it and raise."""
        await self._outbox.flush(lambda batch: sink.write_requests(batch.events, batch.batch_id))

    def _take(self) -> list[EventBatch]:
        with self._lock:
            events, dropped = list(self._events), self._dropped
            self._events.clear()
            self._dropped = Counter()
        if dropped:
            facts = {"events": dropped.total(), "outcomes": {str(outcome): n for outcome, n in dropped.items()}}
            events.append(RequestEvent("request.dropped", self._clock(), facts=facts))
        return [EventBatch(events)] if events else []


def _event(decision: Decision, peer: str, at_s: float) -> RequestEvent:
    kind, ref = decision.resource or (None, None)
    about = (peer, kind, ref and _shown(ref), decision.account, decision.key_id)
    if not isinstance(decision, Denial):
        return RequestEvent(f"request.{_outcome(decision)}", at_s, *about)
    facts = {
        "status": decision.reason.status,
        "detail": decision.detail and _shown(decision.detail),
        "token_key": decision.token_key,
    }
    facts = {name: fact for name, fact in facts.items() if fact}
    return RequestEvent("request.deny", at_s, *about, decision.reason.value, facts)


def _outcome(decision: Decision) -> str:
    if isinstance(decision, Denial):
        return decision.reason
    return "grant" if isinstance(decision, Grant) else "anonymous"


def _shown(text: str) -> str:
    """Return the text in printable ASCII: without tokens, escaped, and cut."""
    return ascii(shortened(text, MAX_TEXT))[1:-1][:MAX_TEXT]
