"""No history lets a revoked token in after the bound."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from smarter_auth_mw.cache.changes import Changes, Snapshot, SnapshotRead
from smarter_auth_mw.cache.entries import FILL_ATTEMPTS, Cache, Limits
from smarter_auth_mw.cache.listener import Beat, Listener
from smarter_auth_mw.domain import Bindings, Resource, Target
from smarter_auth_mw.errors import UnavailableError

BOT = Target(Resource("bot", "1"))


@dataclass
class Answer:
    """What a database found, by default before transaction 10."""

    bindings: Bindings = field(default_factory=lambda: Bindings(Resource("bot", "1"), "default"))
    snapshot: str = "10:10:"
    sources: tuple[str, ...] = ("key:1",)


class Database:
    """Answers when it is told to, while the clock goes on."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.asked: list[asyncio.Future[Answer]] = []
        self.changes = Changes()
        self.cache = Cache(self, Limits(max_staleness_s=5), self.changes, lambda: self.now_s)

    async def read(self, target: Target) -> Answer:
        self.asked.append(asyncio.get_running_loop().create_future())
        return await self.asked[-1]

    async def asked_for(self, times: int) -> None:
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(self.asked) == times


class Wire:
    """A primary whose answers are given one by one."""

    def __init__(self, *answers: Beat) -> None:
        self.answers = list(answers)

    async def beat(self, previous: str | None) -> Beat:
        return self.answers.pop(0)


async def met(server: str) -> None:
    """Nothing is shared here."""


def listener_of(changes: Changes) -> Listener:
    return Listener(
        lambda notified: pytest.fail("connects to nothing"),
        changes,
        held=lambda sent_at_s, is_coherent: None,
        met=met,
        heartbeat_s=1,
        kept_s=100,
    )


async def test_what_was_written_while_a_trigger_was_missing_is_not_vouched_for_when_it_is_back() -> None:
    changes = Changes()
    listener = listener_of(changes)
    wire = Wire(Beat("10:10:", "a"), Beat("11:11:", "a", is_coherent=False), Beat("14:14:", "a"))
    await listener.beat(wire)
    await listener.beat(wire)
    entry = SnapshotRead(Snapshot.parse("12:12:"), frozenset({"key:1"}), changes.heard, changes.server)
    await listener.beat(wire)  # 12 revoked key:1, and wrote no change
    assert not changes.is_current(entry)


async def test_a_trigger_that_was_away_between_two_heartbeats_flushes() -> None:
    changes = Changes()
    listener = listener_of(changes)
    wire = Wire(Beat("10:10:", "a", guard="1"), Beat("14:14:", "a", guard="3"))
    await listener.beat(wire)
    entry = SnapshotRead(Snapshot.parse("12:12:"), frozenset({"key:1"}), changes.heard, changes.server)
    await listener.beat(wire)
    assert not changes.is_current(entry)


async def test_a_notification_of_more_digits_than_python_reads_is_malformed() -> None:
    listener = listener_of(Changes())
    listener.notified("key:1:" + "9" * 5000)
    assert listener.malformed == 1


async def test_an_answer_that_comes_too_late_is_asked_for_again() -> None:
    database = Database()
    caller = asyncio.create_task(database.cache.get(BOT))
    await database.asked_for(1)
    database.now_s += 5
    database.asked[0].set_result(Answer())
    await database.asked_for(2)
    assert not caller.done()
    database.asked[1].set_result(Answer())
    assert await caller


async def test_what_is_always_answered_too_late_is_refused() -> None:
    database = Database()
    caller = asyncio.create_task(database.cache.get(BOT))
    for attempt in range(FILL_ATTEMPTS):
        await database.asked_for(attempt + 1)
        database.now_s += 5
        database.asked[attempt].set_result(Answer())
    with pytest.raises(UnavailableError, match="read too slowly"):
        await caller


async def test_what_always_lies_too_long_before_its_caller_comes_to_it_is_refused() -> None:
    database, loop = Database(), asyncio.get_running_loop()
    caller = asyncio.create_task(database.cache.get(BOT))
    for attempt in range(FILL_ATTEMPTS):
        await database.asked_for(attempt + 1)
        database.asked[attempt].set_result(Answer())
        loop.call_soon(setattr, database, "now_s", database.now_s + 5)
    with pytest.raises(UnavailableError, match="changes faster"):
        await caller


async def test_nobody_is_answered_by_a_flight_that_has_landed_already() -> None:
    database, loop = Database(), asyncio.get_running_loop()
    first = asyncio.create_task(database.cache.get(BOT))
    await database.asked_for(1)
    # All in one turn of the loop: the answer, the notification, and a request that comes after both.
    database.asked[0].set_result(Answer())
    loop.call_soon(database.changes.hear, "key:1", 11)
    second = asyncio.create_task(database.cache.get(BOT))
    await database.asked_for(2)
    assert not first.done()
    assert not second.done()
    database.asked[1].set_result(Answer(snapshot="12:12:"))
    assert await first is await second


async def test_an_answer_that_lay_too_long_before_its_caller_came_to_it_is_asked_for_again() -> None:
    database, loop = Database(), asyncio.get_running_loop()
    caller = asyncio.create_task(database.cache.get(BOT))
    await database.asked_for(1)
    database.asked[0].set_result(Answer())
    loop.call_soon(setattr, database, "now_s", database.now_s + 5)  # The process is frozen for a while.
    await database.asked_for(2)
    assert not caller.done()
    database.asked[1].set_result(Answer())
    assert await caller
