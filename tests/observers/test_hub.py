"""What observers have seen is written now and then: the end waits for a while, and what is lost is told by number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from smarter_auth_mw.decision import Denial, Reason
from smarter_auth_mw.errors import UnavailableError
from smarter_auth_mw.observers import hub
from smarter_auth_mw.observers.audit import Audit, RequestEvent
from smarter_auth_mw.observers.hub import Observers
from smarter_auth_mw.observers.usage import Batch, Usage
from tests.support.asgi import KEYED

DENIAL = Denial(Reason.UNKNOWN_TOKEN, KEYED, account="default")


class Sink:
    """A store that commits what it is given, and whose answers get lost as often as it is told."""

    def __init__(self) -> None:
        self.usage: dict[UUID, int] = {}
        self.audit: dict[UUID, int] = {}
        self.asked = 0
        self.lost_answers = 0
        self.errors = 0
        self.error: Exception = UnavailableError("The database cannot be reached.")

    async def write_usage(self, batch: Batch) -> None:
        await self._answer(self.usage, batch.batch_id, sum(batch.counts.values()))

    async def write_requests(self, events: Sequence[RequestEvent], batch_id: UUID) -> None:
        await self._answer(self.audit, batch_id, len(events))

    async def _answer(self, table: dict[UUID, int], batch_id: UUID, count: int) -> None:
        self.asked += 1
        if self.errors:
            self.errors -= 1
            raise self.error
        assert table.setdefault(batch_id, count) == count
        if self.lost_answers:
            self.lost_answers -= 1
            raise UnavailableError("The connection was lost.")


@pytest.fixture
def observers() -> Observers:
    return Observers(Usage(), Audit("denials", lambda _: "192.0.2.1", per_second=1e9))


def totals(sink: Sink) -> tuple[int, int]:
    return sum(sink.usage.values()), sum(sink.audit.values())


async def test_a_batch_whose_answer_was_lost_is_sent_again_under_its_id(observers: Observers) -> None:
    sink = Sink()
    sink.lost_answers = 2
    for _ in range(50):
        observers.observe(DENIAL, {})
    assert not await observers.flush(sink)
    for _ in range(5):
        observers.observe(DENIAL, {})
    assert await observers.flush(sink)
    assert totals(sink) == (55, 55)
    assert len(sink.audit) == 2


async def test_the_end_waits_for_a_store_that_comes_back(
    observers: Observers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hub, "END_PAUSE_S", 0.0)
    monkeypatch.setattr(hub, "END_PATIENCE_S", 60.0)
    sink = Sink()
    async with observers.flushing(sink, every_s=3600):
        for _ in range(7):
            observers.observe(DENIAL, {})
        sink.errors = 9
    assert totals(sink) == (7, 7)
    assert not any("lost" in message for message in caplog.messages)


async def test_what_is_lost_is_told_by_its_number(
    observers: Observers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hub, "END_PATIENCE_S", 0.05)
    sink = Sink()
    sink.errors = 1_000_000
    async with observers.flushing(sink, every_s=3600):
        for _ in range(708):
            observers.observe(DENIAL, {})
    lost = [record for record in caplog.records if record.__dict__["event"].endswith(".lost")]
    assert [record.getMessage() for record in lost] == [
        "usage.lost: 708 requests could not be written before the shutdown",
        "audit.lost: 708 requests could not be written before the shutdown",
    ]
    assert {record.levelname for record in lost} == {"ERROR"}


async def test_an_end_with_nothing_to_write_waits_for_nobody(observers: Observers) -> None:
    sink = Sink()
    sink.errors = 1
    async with observers.flushing(sink, every_s=3600):
        pass
    assert sink.asked == 0


class DiskFullError(Exception):
    """As asyncpg raises it."""


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (UnavailableError("The database cannot be reached."), "The database cannot be reached."),
        (DiskFullError("could not extend file with 'a secret'"), "DiskFullError."),
    ],
)
async def test_a_store_that_cannot_be_written_is_a_warning_once_for_each_outage(
    observers: Observers, caplog: pytest.LogCaptureFixture, error: Any, text: str
) -> None:
    sink = Sink()
    for _ in range(2):
        sink.error, sink.errors = error, 16
        while not await _flushed(observers, sink):
            pass
    assert caplog.messages == 2 * [
        f"usage.not_written: {text} The batch is kept and written again.",
        f"audit.not_written: {text} The batch is kept and written again.",
        "usage.recovered",
        "audit.recovered",
    ]
    assert {record.levelname for record in caplog.records} == {"WARNING"}


async def _flushed(observers: Observers, sink: Sink) -> bool:
    observers.observe(DENIAL, {})
    return await observers.flush(sink)
