"""No history lets a revoked token in after the bound."""

from __future__ import annotations

import pytest

from smarter_auth_mw.changes import Changes, Reading, Snapshot
from smarter_auth_mw.listener import Beat, Listener


class Wire:
    """A primary whose answers are given one by one."""

    def __init__(self, *answers: Beat) -> None:
        self.answers = list(answers)

    async def beat(self, previous: str | None) -> Beat:
        return self.answers.pop(0)


def listener_of(changes: Changes) -> Listener:
    return Listener(
        lambda notified: pytest.fail("connects to nothing"),
        changes,
        held=lambda sent_at_s, is_coherent: None,
        met=lambda server: None,
        heartbeat_s=1,
        kept_s=100,
    )


async def test_what_was_written_while_a_trigger_was_missing_is_not_vouched_for_when_it_is_back() -> None:
    changes = Changes()
    listener = listener_of(changes)
    wire = Wire(Beat("10:10:", "a"), Beat("11:11:", "a", is_coherent=False), Beat("14:14:", "a"))
    await listener.beat(wire)
    await listener.beat(wire)
    entry = Reading(Snapshot.parse("12:12:"), frozenset({"key:1"}), changes.heard, changes.server)
    await listener.beat(wire)  # 12 revoked key:1, and wrote no change
    assert not changes.is_current(entry)


async def test_a_trigger_that_was_away_between_two_heartbeats_flushes() -> None:
    changes = Changes()
    listener = listener_of(changes)
    wire = Wire(Beat("10:10:", "a", guard="1"), Beat("14:14:", "a", guard="3"))
    await listener.beat(wire)
    entry = Reading(Snapshot.parse("12:12:"), frozenset({"key:1"}), changes.heard, changes.server)
    await listener.beat(wire)
    assert not changes.is_current(entry)


async def test_a_notification_of_more_digits_than_python_reads_is_malformed() -> None:
    listener = listener_of(Changes())
    listener.notified("key:1:" + "9" * 5000)
    assert listener.malformed == 1
