"""Hearing: notifications are hints, heartbeats are the truth, and a cut wire costs speed only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from smarter_auth_mw.cache.attention import DOUBTFUL, FIRST_PAUSE_S, MOST_A_SECOND, MOST_UNFOUNDED
from smarter_auth_mw.cache.changes import Changes, Snapshot, SnapshotRead
from smarter_auth_mw.cache.listener import MAX_HEARD, Beat, Listener, Notified
from smarter_auth_mw.errors import UnavailableError


class Wire:
    """A primary that answers heartbeats with what it was given, and whose line can be cut."""

    def __init__(self) -> None:
        self.answers: list[Beat] = []
        self.asked: list[str | None] = []
        self.connected = 0
        self.listened: list[bool] = []
        self.is_cut = False
        self.fails = 0
        """How many of the next heartbeats fail."""
        self.fails_to_close = False
        self.beaten = asyncio.Event()

    async def beat(self, previous: str | None) -> Beat:
        self.asked.append(previous)
        self.beaten.set()
        if self.is_cut or self.fails:
            self.fails -= not self.is_cut
            raise UnavailableError("cut")
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    @asynccontextmanager
    async def connect(self, notified: Notified | None) -> AsyncIterator[Wire]:
        self.notified = notified
        self.listened.append(notified is not None)
        self.connected += 1
        yield self
        if self.fails_to_close:
            self.fails_to_close = False
            raise UnavailableError("closed")


class World:
    def __init__(self) -> None:
        self.now_s = 1000.0
        self.changes = Changes()
        self.vouched: list[float] = []
        self.met: list[str] = []
        self.wire = Wire()
        self.listener = Listener(
            self.wire.connect,
            self.changes,
            held=self.held,
            met=self.meet,
            heartbeat_s=0.001,
            kept_s=600,
            clock=lambda: self.now_s,
        )

    async def meet(self, server: str) -> None:
        self.met.append(server)

    def held(self, sent_at_s: float, is_coherent: bool) -> None:
        if is_coherent:
            self.vouched.append(sent_at_s)

    async def beat(self, *beats: Beat) -> None:
        for beat in beats:
            self.wire.answers = [beat]
            await self.listener.beat(self.wire)

    def reading(self, snapshot: str, *sources: str) -> SnapshotRead:
        return SnapshotRead(Snapshot.parse(snapshot), frozenset(sources), 0, self.changes.server)


@pytest.fixture
def world() -> World:
    return World()


async def test_a_heartbeat_tells_what_no_notification_told(world: World) -> None:
    await world.beat(Beat("10:10:", "a"))
    entry = world.reading("10:10:", "key:1")
    assert world.changes.is_current(entry)
    await world.beat(Beat("12:12:", "a", [("key:1", 11)]))
    assert not world.changes.is_current(entry)


async def test_each_heartbeat_asks_from_where_the_last_one_ended(world: World) -> None:
    await world.beat(Beat("10:10:", "a"), Beat("12:15:13", "a"), Beat("16:16:", "a"))
    assert world.wire.asked == [None, "10:10:", "12:15:13"]


async def test_it_vouches_for_when_the_heartbeat_was_sent_not_when_it_was_answered(world: World) -> None:
    class Slow(Wire):
        async def beat(self, previous: str | None) -> Beat:
            world.now_s += 3
            return await super().beat(previous)

    slow = Slow()
    slow.answers = [Beat("10:10:", "a")]
    await world.listener.beat(slow)
    assert world.vouched == [1000.0]


async def test_where_a_trigger_is_missing_it_vouches_for_nothing(world: World) -> None:
    await world.beat(Beat("10:10:", "a", is_coherent=False))
    assert world.vouched == []


async def test_the_first_heartbeat_and_another_server_begin_anew(world: World) -> None:
    before = world.reading("10:10:", "key:1")
    await world.beat(Beat("20:20:", "a"))
    assert not world.changes.is_current(before)
    old = world.reading("25:25:", "key:1")
    assert world.changes.is_current(old)
    await world.beat(Beat("15:15:", "b"))
    assert not world.changes.is_current(old)
    assert world.met == ["a", "b"]
    assert world.listener.flushes == 2


async def test_changes_that_were_purged_before_they_were_heard_flush(world: World) -> None:
    await world.beat(Beat("10:10:", "a"))
    entry, newer = world.reading("10:10:", "key:1"), world.reading("90:90:", "key:1")
    await world.beat(Beat("90:90:", "a", is_complete=False))
    assert not world.changes.is_current(entry)
    assert world.changes.is_current(newer)


async def test_a_notification_is_heard_at_once(world: World) -> None:
    entry = world.reading("10:10:", "resource:bot:a:b")
    world.listener.notified("resource:bot:a:b:11")
    assert not world.changes.is_current(entry)


async def test_what_is_known_of_the_last_heartbeat_is_its_age_their_number_and_the_triggers(world: World) -> None:
    assert world.listener.is_coherent
    world.now_s += 2
    assert (world.listener.silent_s, world.listener.beats) == (2, 0)
    found = []
    for is_coherent in (True, False, False, True):
        await world.beat(Beat("10:10:", "a", is_coherent=is_coherent))
        found.append((world.listener.is_coherent, world.listener.flushes))
    assert found == [(True, 1), (False, 2), (False, 2), (True, 3)]
    world.now_s += 3
    assert (world.listener.silent_s, world.listener.beats) == (3, 4)


async def test_lag_counts_from_the_change_to_what_told_it_first(world: World) -> None:
    class Slow(Wire):
        async def beat(self, previous: str | None) -> Beat:
            world.listener.notified("key:3:13")
            world.now_s += 0.5
            return await super().beat(previous)

    compared: list[tuple[float, float]] = []
    world.listener.tell_time = lambda now_s, took_s: compared.append((now_s, took_s))
    slow = Slow()
    for now_s in (1000.0, 1000.25):
        world.now_s = now_s
        world.listener.notified("key:1:11")
    world.now_s = 1001.0
    slow.answers = [Beat("13:13:", "a", [("key:1", 11), ("key:2", 12)], ages_s=[2.0, 3.0], now_s=5000.0)]
    await world.listener.beat(slow)
    assert compared == [(5000.0, 0.5)]
    assert world.listener.lag.sum_s == (2.0 - 1) + (3.0 + 0.5)
    world.now_s = 1010.0  # What was notified during the last heartbeat is still known, what came before it is not.
    await world.beat(Beat("14:14:", "a", [("key:3", 13), ("key:1", 11)], ages_s=[10.0, 20.0]))
    assert world.listener.lag.sum_s == 4.5 + (10.0 - 9) + 20.0
    assert len(compared) == 1


@pytest.mark.parametrize("is_cut", [False, True])
async def test_readers_wait_until_the_first_heartbeat_is_answered_or_fails(world: World, is_cut: bool) -> None:
    world.wire.answers, world.wire.is_cut = [Beat("10:10:", "a")], is_cut
    await world.listener.begun(0)
    assert world.wire.asked == []
    running = asyncio.create_task(world.listener.run())
    async with asyncio.timeout(30):
        await world.listener.begun(3600)
    assert world.wire.asked
    assert bool(world.vouched) is not is_cut
    running.cancel()
    await asyncio.wait([running])


async def test_many_notifications_ask_for_a_heartbeat_that_judges_them(world: World) -> None:
    asked = world.listener._is_awaited
    for _ in range(DOUBTFUL - 1):
        world.listener.notified("key:1:11")
    assert not asked.is_set()
    world.listener.notified("key:1:11")
    assert asked.is_set()


async def test_a_transaction_has_twenty_digits_at_most(world: World) -> None:
    for digits in (20, 21):
        world.listener.notified("key:1:" + "1" * digits)
    assert (len(world.changes), world.listener.malformed) == (1, 1)


@pytest.mark.parametrize(
    "payload", ["", "key", "key:", ":11", "key:1:x", "key:1:-3", "key:1:٣", "key:1:1_0", "key:1: 1"]
)
async def test_a_malformed_notification_changes_nothing_but_a_counter(world: World, payload: str) -> None:
    assert world.listener.notified(payload)
    assert (world.changes.heard, world.listener.malformed) == (0, 1)


async def test_a_forged_notification_is_dropped_by_the_next_heartbeat(world: World) -> None:
    await world.beat(Beat("10:10:", "a"))
    entry = world.reading("10:10:", "key:1")
    world.listener.notified("key:1:999999")
    assert not world.changes.is_current(entry)
    await world.beat(Beat("11:11:", "a"))
    assert world.changes.is_current(entry)
    assert world.changes.forged == 1


async def test_what_was_heard_long_ago_is_forgotten_and_what_was_read_then_is_a_miss(world: World) -> None:
    await world.beat(Beat("10:10:", "a"))
    old = world.reading("10:10:", "key:2")
    world.listener.notified("key:1:12")
    for step in range(8):
        world.now_s += 200
        await world.beat(Beat(f"{20 + step}:{20 + step}:", "a"))
    assert len(world.changes) == 0
    assert not world.changes.is_current(old)
    assert world.changes.is_current(world.reading("27:27:", "key:1"))
    assert world.listener.flushes == 1


async def test_what_another_server_had_seen_is_asked_of_no_later_reading(world: World) -> None:
    await world.beat(Beat("900:900:", "a"))
    world.now_s += 500
    await world.beat(Beat("15:15:", "b"))
    world.now_s += 200
    await world.beat(Beat("16:16:", "b"))
    assert world.changes.is_current(world.reading("16:16:", "key:1"))


async def test_heartbeats_are_remembered_few_at_a_time(world: World) -> None:
    for _ in range(50):
        world.now_s += 20
        await world.beat(Beat("10:10:", "a"))
    assert len(world.listener._floors) <= 5


async def test_more_than_can_be_remembered_flushes(world: World) -> None:
    await world.beat(Beat("10:10:", "a"))
    entry = world.reading("10:10:", "key:other")
    await world.beat(Beat("12:12:", "a", [(f"key:{number}", 11) for number in range(MAX_HEARD + 1)]))
    assert len(world.changes) == 0
    assert not world.changes.is_current(entry)


async def test_a_wire_that_fails_is_replaced_and_nothing_in_between_is_lost(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.wire.answers = [Beat("10:10:", "a")]
    running = asyncio.create_task(world.listener.run())
    await world.wire.beaten.wait()
    world.wire.fails = 1
    while world.wire.connected < 2:
        await asyncio.sleep(0.01)
    entry = world.reading("10:10:", "key:1")
    world.wire.answers = [Beat("12:12:", "a", [("key:1", 11)])]
    vouched = len(world.vouched)
    while len(world.vouched) < vouched + 3:
        await asyncio.sleep(0.01)
    assert not world.changes.is_current(entry)
    assert world.listener.reconnects == 1
    assert caplog.messages == ["listener.lost: cut", "listener.recovered"]
    assert not caplog.records[0].exc_info
    running.cancel()
    await asyncio.wait([running])


async def test_whatever_a_wire_fails_with_another_one_takes_its_place(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.wire.answers = [Beat("no snapshot", "a")]
    running = asyncio.create_task(world.listener.run())
    while world.wire.connected < 2:
        await asyncio.sleep(0.01)
    world.wire.answers = [Beat("10:10:", "a")]
    while not world.vouched:
        await asyncio.sleep(0.01)
    assert caplog.records[0].exc_info
    running.cancel()
    await asyncio.wait([running])


async def test_another_server_that_somebody_asks_for_while_one_is_being_met_is_met_next(world: World) -> None:
    meet = world.listener._met

    async def meet_and_be_asked(server: str) -> None:
        await meet(server)
        world.listener.meet_anew()

    world.listener._met = meet_and_be_asked
    await world.beat(Beat("10:10:", "a"))
    believed_meanwhile = world.reading("10:10:", "key:1")
    world.listener._met = meet
    await world.beat(Beat("10:10:", "a"))
    assert not world.changes.is_current(believed_meanwhile)


async def test_server_whose_shared_tier_could_not_be_opened_is_met_again(world: World) -> None:
    meet = world.listener._met

    async def fail(server: str) -> None:
        raise UnavailableError(server)

    world.listener._met = fail
    with pytest.raises(UnavailableError):
        await world.beat(Beat("10:10:", "a"))
    assert not world.vouched
    world.listener._met = meet
    await world.beat(Beat("10:10:", "a"))
    assert world.met == ["a"]
    assert world.vouched


async def test_heartbeat_is_sent_early_where_a_server_answers_that_none_has_met(world: World) -> None:
    world.wire.answers = [Beat("10:10:", "a")]
    world.listener._heartbeat_s = 3600
    running = asyncio.create_task(world.listener.run())
    async with asyncio.timeout(30):
        await world.wire.beaten.wait()
        world.wire.beaten.clear()
        world.listener.hurry()
        await world.wire.beaten.wait()
    await asyncio.sleep(0.25)  # Nobody is in a hurry any more.
    running.cancel()
    await asyncio.wait([running])
    assert len(world.wire.asked) == 2


@pytest.mark.parametrize("is_closed", [True, False])
async def test_flood_ends_the_listening_for_a_while_and_heartbeats_go_on(world: World, is_closed: bool) -> None:
    world.wire.answers = [Beat("10:10:", "a")]
    running = asyncio.create_task(world.listener.run())
    async with asyncio.timeout(30):
        await world.wire.beaten.wait()
        assert all(world.listener.notified("key:1:12") for _ in range(MOST_A_SECOND))
        assert world.listener.notified("key:1:12") is False
        world.wire.fails_to_close = is_closed
        while len(world.wire.listened) < 2:
            await asyncio.sleep(0.01)
        vouched = len(world.vouched)
        while len(world.vouched) == vouched:
            await asyncio.sleep(0.01)
        assert world.wire.listened == [True, False]
        world.now_s += FIRST_PAUSE_S
        while len(world.wire.listened) < 3:
            await asyncio.sleep(0.01)
        assert world.wire.listened[2]
    assert not world.listener.is_flooded
    assert world.listener.reconnects == 0
    running.cancel()
    await asyncio.wait([running])


async def test_a_wire_that_fails_during_a_flood_is_not_replaced_without_a_pause(world: World) -> None:
    for _ in range(MOST_A_SECOND):
        world.listener.notified("key:1:12")
    world.listener._is_awaited.clear()
    world.listener.notified("key:1:12")
    assert world.listener._is_awaited.is_set()  # The next heartbeat is sent early.
    world.wire.is_cut = True
    running = asyncio.create_task(world.listener.run())
    async with asyncio.timeout(30):
        while not world.listener.reconnects:
            await asyncio.sleep(0.01)
    assert not any(world.wire.listened)
    running.cancel()
    await asyncio.wait([running])


async def test_notifications_that_say_nothing_are_not_listened_to_for_long(world: World) -> None:
    await world.beat(Beat("10:10:", "a"))
    for _ in range(3):
        for _ in range(MOST_UNFOUNDED):
            world.listener.notified("nonsense")
        await world.beat(Beat("10:10:", "a"))
    for _ in range(MOST_UNFOUNDED + 1):
        world.listener.notified("nonsense")
    assert not world.listener.is_flooded
    await world.beat(Beat("10:10:", "a"))
    assert world.listener.is_flooded


async def test_real_changes_however_many_are_not_taken_for_forged_ones(world: World) -> None:
    await world.beat(Beat("10:10:", "a"))
    changes = [(f"key:{number}", 10 + number) for number in range(900)]
    for source, tx in changes:
        world.listener.notified(f"{source}:{tx}")
    await world.beat(Beat("1000:1000:", "a", changes))
    for source, tx in changes[:50]:
        world.listener.notified(f"{source}:{tx}")  # Late, or again.
    await world.beat(Beat("1000:1000:", "a"))
    assert not world.listener.is_flooded
    assert world.changes.forged == 0
    assert not world.changes.is_current(world.reading("500:500:", "key:899"))
