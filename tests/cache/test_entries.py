"""The cache in front of the store: fresh or not served, one query however many ask, nothing older than it says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from smarter_auth_mw.cache.changes import Changes, Snapshot
from smarter_auth_mw.cache.codec import SharedEntry
from smarter_auth_mw.cache.entries import FILL_ATTEMPTS, Cache, Entry, Limits
from smarter_auth_mw.decision import Grant, decide
from smarter_auth_mw.domain import Binding, Bindings, Principal, Resource, Target
from smarter_auth_mw.errors import UnavailableError
from smarter_auth_mw.tokens import Token

BOT = Target(Resource("bot", "1"))
TOKEN = Token(b"secret")
LIMITS = Limits(max_entries=10, max_bindings=100)


@dataclass
class Answer:
    bindings: Bindings
    snapshot: str = "10:10:"
    sources: tuple[str, ...] = ("resource:bot:1", "key:1")


@dataclass
class Reader:
    """A database that answers when it is told to."""

    answer: Answer = field(default_factory=lambda: Answer(Bindings(Resource("bot", "1"), "default")))
    queries: int = 0
    error: Exception | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self, target: Target) -> Answer:
        self.queries += 1
        await self.gate.wait()
        if self.error:
            raise self.error
        assert isinstance(target.names, Resource)
        return replace(self.answer, bindings=replace(self.answer.bindings, resource=target.names))


class World:
    def __init__(self, limits: Limits = LIMITS) -> None:
        self.now_s = 1000.0
        self.reader = Reader()
        self.reader.gate.set()
        self.changes = Changes()
        self.cache = Cache(self.reader, limits, self.changes, clock=lambda: self.now_s)


async def under_way(world: World, queries: int = 1) -> None:
    while world.reader.queries < queries:
        await asyncio.sleep(0)


@pytest.fixture
def world() -> World:
    return World()


async def test_a_second_look_costs_no_query(world: World) -> None:
    assert world.cache.peek(BOT) is None
    first = await world.cache.get(BOT)
    assert world.cache.peek(BOT) is first
    assert world.reader.queries == 1


async def test_a_thousand_cold_callers_make_one_query(world: World) -> None:
    world.reader.gate.clear()
    callers = [asyncio.create_task(world.cache.get(BOT)) for _ in range(1000)]
    await asyncio.sleep(0)
    world.reader.gate.set()
    assert len({id(found) for found in await asyncio.gather(*callers)}) == 1
    assert world.reader.queries == 1


async def test_a_cancelled_caller_never_cancels_the_flight(world: World) -> None:
    world.reader.gate.clear()
    leader, other = asyncio.create_task(world.cache.get(BOT)), asyncio.create_task(world.cache.get(BOT))
    await under_way(world)
    leader.cancel()
    await asyncio.sleep(0)
    world.reader.gate.set()
    assert (await other).bindings.resource == BOT.names
    assert leader.cancelled()
    assert world.reader.queries == 1


async def test_a_flight_that_everybody_left_still_lands(world: World) -> None:
    world.reader.gate.clear()
    leader = asyncio.create_task(world.cache.get(BOT))
    await under_way(world)
    leader.cancel()
    await asyncio.wait([leader])
    world.reader.gate.set()
    assert (await world.cache.get(BOT)).bindings.resource == BOT.names
    assert world.reader.queries == 1


async def test_a_failure_reaches_everybody_who_waits_and_is_not_remembered(world: World) -> None:
    world.reader.error = UnavailableError("down")
    world.reader.gate.clear()
    callers = [asyncio.create_task(world.cache.get(BOT)) for _ in range(3)]
    await asyncio.sleep(0)
    world.reader.gate.set()
    errors = await asyncio.gather(*callers, return_exceptions=True)
    assert [str(error) for error in errors] == ["down"] * 3
    world.reader.error = None
    assert await world.cache.get(BOT)
    assert world.reader.queries == 2


async def test_without_a_heartbeat_nothing_serves_longer_than_the_staleness_allowed(world: World) -> None:
    await world.cache.get(BOT)
    world.now_s += LIMITS.max_staleness_s - 0.001
    assert world.cache.peek(BOT) is not None
    world.now_s += 0.001
    assert world.cache.peek(BOT) is None
    await world.cache.get(BOT)
    assert world.reader.queries == 2


async def test_the_age_counts_from_when_the_query_was_sent(world: World) -> None:
    world.reader.gate.clear()
    caller = asyncio.create_task(world.cache.get(BOT))
    await under_way(world)
    world.now_s += 3
    world.reader.gate.set()
    await caller
    world.now_s += 2
    assert world.cache.peek(BOT) is None


async def test_a_heartbeat_keeps_entries_serving_until_their_time_is_over(world: World) -> None:
    await world.cache.get(BOT)
    for _ in range(74):
        world.now_s += 4
        world.cache.vouch(world.now_s)
        assert world.cache.peek(BOT) is not None
    world.now_s = 1000.0 + LIMITS.cache_ttl_s
    world.cache.vouch(world.now_s)
    assert world.cache.peek(BOT) is None


async def test_a_change_heard_makes_a_miss_of_what_did_not_see_it(world: World) -> None:
    await world.cache.get(BOT)
    world.changes.hear("key:2", 11)
    assert world.cache.peek(BOT) is not None
    world.changes.hear("key:1", 11)
    assert world.cache.peek(BOT) is None


async def test_a_fill_that_began_before_the_notification_does_not_bring_the_revoked_key_back(world: World) -> None:
    world.reader.gate.clear()
    caller = asyncio.create_task(world.cache.get(BOT))
    await under_way(world)
    world.changes.hear("key:1", 11)
    world.reader.gate.set()
    await caller
    assert world.reader.queries == 2
    assert world.cache.peek(BOT) is not None


async def test_what_changes_faster_than_it_can_be_read_is_refused(world: World) -> None:
    class Restless(Reader):
        async def read(self, target: Target) -> Answer:
            world.changes.hear("key:1", 100 + self.queries)
            return await super().read(target)

    restless = Restless()
    restless.gate.set()
    cache = Cache(restless, LIMITS, world.changes, clock=lambda: world.now_s)
    with pytest.raises(UnavailableError, match="changes faster"):
        await cache.get(BOT)
    assert restless.queries == FILL_ATTEMPTS


async def test_what_is_unknown_is_remembered_for_a_shorter_time(world: World) -> None:
    world.reader.answer = Answer(Bindings(Resource("bot", "1")), sources=("resource:bot:1",))
    await world.cache.get(BOT)
    world.now_s += LIMITS.negative_ttl_s - 1
    world.cache.vouch(world.now_s)
    assert world.cache.peek(BOT) is not None
    world.now_s += 1
    world.cache.vouch(world.now_s)
    assert world.cache.peek(BOT) is None


async def test_a_flood_of_unknown_references_evicts_only_unknown_ones(world: World) -> None:
    await world.cache.get(BOT)
    world.reader.answer = Answer(Bindings(Resource("bot", "1")), sources=())
    for ref in range(100, 300):
        await world.cache.get(Target(Resource("bot", str(ref))))
    assert world.cache.peek(BOT) is not None
    assert world.cache.peek(Target(Resource("bot", "299"))) is not None
    assert world.cache.peek(Target(Resource("bot", "298"))) is None


async def test_bindings_count_against_their_own_bound(world: World) -> None:
    many = tuple(Binding(str(n), "", "default", n.to_bytes(64), "") for n in range(60))
    world.reader.answer = Answer(Bindings(Resource("bot", "1"), "default", bindings=many), sources=())
    await world.cache.get(BOT)
    await world.cache.get(Target(Resource("bot", "2")))
    assert world.cache.peek(BOT) is None


async def test_spellings_that_are_one_resource_share_one_entry(world: World) -> None:
    await world.cache.get(Target(Resource("bot", "my-bot")))
    assert world.cache.peek(Target(Resource("bot", "my_bot"))) is not None
    assert world.reader.queries == 1


def test_an_entry_gives_a_grant_again_until_it_expires() -> None:
    binding = Binding("key-1", "laptop", "default", TOKEN.digest, "", expires_at_s=1000)
    entry = Entry(Bindings(Resource("bot", "1"), "default", bindings=(binding,)), Snapshot.parse("10:10:"), (), 0, 0)
    grant = decide(entry.bindings, TOKEN, 1000)
    assert isinstance(grant, Grant)
    entry.keep_granted(TOKEN.fingerprint, grant)
    assert entry.granted_before(TOKEN.fingerprint, 1000) is grant
    assert entry.granted_before(TOKEN.fingerprint, 1000.001) is None
    assert entry.granted_before(Token(b"other").fingerprint, 1000) is None


def test_what_one_entry_has_granted_is_no_other_entrys_grant() -> None:
    first, other = (Entry(Bindings(Resource("bot", "1")), Snapshot.parse("10:10:"), (), 0, 0) for _ in range(2))
    first.keep_granted(TOKEN.fingerprint, Grant(Resource("bot", "1"), Principal("key-1", "laptop", "default")))
    assert other.granted_before(TOKEN.fingerprint, 0) is None


@dataclass
class Shelf:
    """A shared tier that keeps what it is given, and finds nothing."""

    put_there: list[str] = field(default_factory=list)

    async def get(self, lookup: str) -> SharedEntry | None:
        return None

    async def put(self, lookup: str, entry: SharedEntry) -> None:
        self.put_there.append(lookup)


@pytest.mark.parametrize(("silent_s", "expected"), [(0, [BOT.lookup]), (5, [])])
async def test_what_is_read_while_no_heartbeat_holds_is_not_shared(
    world: World, silent_s: float, expected: list[str]
) -> None:
    world.cache.shared = shelf = Shelf()
    world.cache.vouch(world.now_s)
    world.now_s += silent_s
    await world.cache.get(BOT)
    await asyncio.sleep(0)  # It is put there by a task of its own.
    assert shelf.put_there == expected
