"""Snapshots against changes: what was read before a change is not current, whatever the order things are heard in."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smarter_auth_mw.cache.changes import EVERYTHING, Changes, Snapshot, SnapshotRead

KEY, BOT = "key:1", "resource:bot:1"


def reading(snapshot: str, begun: int = 0, server: int = 0) -> SnapshotRead:
    return SnapshotRead(Snapshot.parse(snapshot), frozenset({KEY, BOT}), begun, server)


@pytest.mark.parametrize(
    ("snapshot", "tx", "seen"),
    [
        ("10:20:", 9, True),
        ("10:20:", 15, True),
        ("10:20:", 19, True),
        ("10:20:", 20, False),
        ("10:20:12,15", 15, False),
        ("10:20:12,15", 14, True),
        ("10:20:10", 10, False),
    ],
)
def test_a_snapshot_sees_what_had_ended_when_it_was_taken(snapshot: str, tx: int, seen: bool) -> None:
    assert Snapshot.parse(snapshot).sees(tx) is seen


def test_a_snapshot_is_written_as_it_was_read() -> None:
    assert str(Snapshot.parse("10:20:12,15")) == "10:20:12,15"
    assert str(Snapshot.parse("10:10:")) == "10:10:"


snapshots = st.builds(
    lambda xmin, length, xip: Snapshot(xmin, xmin + length, frozenset(tx for tx in xip if xmin <= tx < xmin + length)),
    st.integers(3, 12),
    st.integers(0, 6),
    st.sets(st.integers(3, 20), max_size=4),
)


@given(snapshots, snapshots)
def test_saw_all_of_means_what_it_says(one: Snapshot, other: Snapshot) -> None:
    saw_all = all(one.sees(tx) for tx in range(25) if other.sees(tx))
    if one.saw_all_of(other):
        assert saw_all
    if saw_all and one.xmax >= other.xmax:
        assert one.saw_all_of(other)


def test_a_change_that_was_not_seen_counts() -> None:
    changes, read = Changes(), reading("10:20:15")
    assert changes.is_current(read)
    assert read.checked == changes.heard  # A warm request compares these two and nothing else.
    changes.hear(KEY, 15)
    assert not changes.is_current(read)


def test_a_change_that_was_seen_does_not_count() -> None:
    changes, read = Changes(), reading("10:20:15")
    changes.hear(KEY, 14)
    changes.hear(BOT, 9)
    assert changes.is_current(read)


def test_a_change_of_another_source_does_not_count() -> None:
    changes, read = Changes(), reading("10:20:")
    changes.hear("key:2", 25)
    assert changes.is_current(read)


def test_a_change_of_everything_counts() -> None:
    changes, read = Changes(), reading("10:20:")
    changes.hear(EVERYTHING, 25)
    assert not changes.is_current(read)


def test_what_was_current_is_asked_again_after_each_change() -> None:
    changes, read = Changes(), reading("10:20:")
    for other in range(100):
        changes.hear(f"key:other{other}", 30 + other)
    assert changes.is_current(read)
    changes.hear(BOT, 500)
    assert not changes.is_current(read)


def test_a_reading_that_began_after_the_notification_is_excused_from_it() -> None:
    changes = Changes()
    changes.hear(KEY, 99)  # forged: no such transaction
    assert not changes.is_current(reading("10:20:"))
    read = reading("10:20:", begun=changes.heard)
    for other in range(10):
        changes.hear(f"key:other{other}", 30 + other)
    assert changes.is_current(read)


def test_a_change_that_is_heard_again_counts_although_others_came_between() -> None:
    changes = Changes()
    changes.hear(KEY, 15)
    changes.hear("key:2", 16)
    read = reading("10:20:15", begun=changes.heard)
    changes.hear(KEY, 15)
    assert not changes.is_current(read)


def test_a_change_that_is_heard_again_after_the_heartbeat_was_sent_is_not_judged_by_it() -> None:
    changes = Changes()
    changes.hear(KEY, 15)
    sent = changes.heard
    changes.hear(KEY, 15)
    assert changes.prove(sent) == 0
    assert not changes.is_current(reading("10:15:"))


@pytest.mark.parametrize(
    ("source", "is_set"), [("directory:bot", True), ("*", True), ("key:1", False), ("resource:bot:*", False)]
)
def test_aliases_are_looked_up_again_after_a_change_of_the_directory_or_of_everything(
    source: str, is_set: bool
) -> None:
    changes = Changes()
    changes.hear(source, 15)
    assert changes.directory_changed.is_set() is is_set
    changes.directory_changed.clear()
    changes.raise_floor(Snapshot.parse("10:10:"))
    assert changes.directory_changed.is_set()


def test_a_forgery_ahead_of_the_real_commit_excuses_nothing() -> None:
    changes = Changes()
    changes.hear(KEY, 15)  # forged, while 15 is still in progress
    read = reading("10:20:15", begun=changes.heard)
    assert changes.is_current(read)
    changes.hear(KEY, 15)  # 15 commits
    assert not changes.is_current(read)


@pytest.mark.parametrize("is_proven", [True, False])
def test_a_forgery_ahead_of_a_real_commit_does_not_hide_its_heartbeat(is_proven: bool) -> None:
    changes = Changes()
    changes.hear(KEY, 15)
    read = reading("10:20:15", begun=changes.heard)
    changes.prove(changes.heard)
    changes.hear(KEY, 15, is_proven=is_proven)
    assert not changes.is_current(read)


def test_a_transaction_that_has_not_begun_is_forged_and_dropped() -> None:
    changes = Changes()
    changes.hear(KEY, 99)
    read = reading("10:20:")
    assert not changes.is_current(read)
    changes.prove(changes.heard)
    assert changes.forged == 1
    assert changes.is_current(read)


def test_changes_that_no_heartbeat_reports_are_forged_and_dropped() -> None:
    changes = Changes()
    changes.hear(KEY, 15)
    changes.hear(BOT, 16)
    changes.hear(BOT, 16, is_proven=True)
    changes.hear("key:2", 17)  # Its transaction is still in progress: PostgreSQL would not have notified yet.
    read = reading("10:20:15")
    assert not changes.is_current(read)
    assert changes.prove(changes.heard) == 2
    assert len(changes) == 1
    assert changes.is_current(read)


def test_a_change_that_a_heartbeat_reported_stays_when_it_is_notified_again() -> None:
    changes, read = Changes(), reading("10:15:")
    changes.hear(KEY, 15, is_proven=True)
    changes.hear(KEY, 15)
    assert changes.prove(changes.heard) == 0
    assert not changes.is_current(read)


def test_what_was_heard_after_the_heartbeat_was_sent_is_not_judged_by_it() -> None:
    changes = Changes()
    sent = changes.heard
    changes.hear(KEY, 99)
    changes.prove(sent)
    assert changes.forged == 0
    assert not changes.is_current(reading("10:20:"))


def test_a_floor_forgets_what_it_saw_and_asks_as_much_of_every_reading() -> None:
    changes = Changes()
    changes.hear(KEY, 15)
    changes.hear(BOT, 40)
    changes.raise_floor(Snapshot.parse("20:30:"))
    assert len(changes) == 1
    assert not changes.is_current(reading("10:20:"))
    assert not changes.is_current(reading("20:30:"))
    assert changes.is_current(reading("45:45:"))
    assert not changes.is_current(reading("10:50:12"))
    changes.raise_floor(Snapshot.parse("50:50:"))
    assert not changes._by_hash  # It would grow with every key that ever changed.
    assert changes.prove(changes.heard) == 0


def test_a_floor_counts_for_what_was_found_current_before() -> None:
    changes, read = Changes(), reading("10:20:")
    assert changes.is_current(read)
    changes.raise_floor(Snapshot.parse("20:30:"))
    assert not changes.is_current(read)


def test_the_first_change_after_a_floor_counts_for_what_was_found_current_before() -> None:
    changes, read = Changes(), reading("10:20:")
    changes.hear("key:2", 5)
    assert changes.is_current(read)
    changes.raise_floor(Snapshot.parse("10:10:"))
    changes.hear(KEY, 25)
    assert not changes.is_current(read)


def test_nothing_read_from_another_server_counts_whatever_its_numbers_say() -> None:
    changes, old = Changes(), reading("900:1000:")
    assert changes.is_current(old)
    changes.restart(Snapshot.parse("90:100:"))
    assert not changes.is_current(old)
    assert changes.is_current(reading("100:100:", server=changes.server))


def test_a_change_heard_while_another_server_is_met_still_counts() -> None:
    changes = Changes()
    changes.hear(KEY, 105)
    changes.restart(Snapshot.parse("90:100:"))
    assert not changes.is_current(reading("100:102:", server=changes.server))
    assert changes.is_current(reading("106:106:", server=changes.server))


@given(
    heard=st.lists(st.tuples(st.sampled_from([KEY, BOT, "key:2", EVERYTHING]), st.integers(3, 25)), max_size=12),
    asked=st.lists(st.booleans(), min_size=12, max_size=12),
    snapshot=snapshots,
)
def test_asking_in_between_never_changes_the_answer(
    heard: list[tuple[str, int]], asked: list[bool], snapshot: Snapshot
) -> None:
    changes = Changes()
    patient, impatient = (SnapshotRead(snapshot, frozenset({KEY, BOT})) for _ in range(2))
    for (source, tx), asks in zip(heard, asked, strict=False):
        changes.hear(source, tx)
        if asks:
            changes.is_current(impatient)
    expected = all(snapshot.sees(tx) for source, tx in heard if source in {KEY, BOT, EVERYTHING})
    assert changes.is_current(patient) is changes.is_current(impatient) is expected


class Colliding(str):
    """A source whose hash is that of all others."""

    __slots__ = ()

    def __hash__(self) -> int:
        return 1


@pytest.mark.parametrize("others", [0, 9])
def test_two_sources_with_one_hash_cost_a_read_and_hide_no_change(others: int) -> None:
    changes, one, other = Changes(), Colliding(KEY), Colliding(BOT)
    read = SnapshotRead(Snapshot.parse("10:20:"), [one])
    changes.hear(one, 25)
    changes.hear(other, 25, is_proven=True)
    for number in range(others):
        changes.hear(f"key:{number}", 5)
    assert changes.prove(changes.heard) == 1 + others  # The first one was forged, and is forgotten.
    assert not changes.is_current(read)
    changes.raise_floor(Snapshot.parse("30:30:"))
    assert not changes._by_hash


def test_a_reading_keeps_a_number_for_each_source() -> None:
    sources = [f"key:{number}" for number in range(10_000)]
    read = SnapshotRead(Snapshot.parse("10:20:"), sources)
    assert len(read.source_hashes) == len(sources)
    assert sys.getsizeof(read._hashes) < 8 * len(sources) + 64
    changes = Changes()
    changes.hear("key:10000", 25)
    assert changes.is_current(read)
    changes.hear("key:9999", 25)
    assert not changes.is_current(read)
