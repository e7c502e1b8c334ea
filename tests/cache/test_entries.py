"""The cache in front of the store: fresh or not served, one query however many ask, nothing older than it says."""

from __future__ import annotations

import asyncio
import math
from dataclasses import asdict, dataclass, field, fields, replace

import pytest

from smarter_auth_mw.cache.changes import Changes, Snapshot
from smarter_auth_mw.cache.codec import SharedEntry
from smarter_auth_mw.cache.entries import FILL_ATTEMPTS, Cache, Entry, Limits, Sizes
from smarter_auth_mw.config.settings import DatabaseSettings
from smarter_auth_mw.decision import Anonymous, Denial, Grant, Reason, decide
from smarter_auth_mw.domain import Binding, Bindings, OnError, Principal, Resource, Target
from smarter_auth_mw.errors import OverloadedError, UnavailableError
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
    assert (world.cache.counts.fills, world.cache.counts.outdated_fills, world.cache.counts.misses) == (2, 1, 1)


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
    grant = Grant(Resource("bot", "1"), Principal("key-1", "laptop", "default"))
    held = replace(grant, binding=Binding("key-1", "laptop", "default", TOKEN.digest, ""))
    first.keep_granted(TOKEN.fingerprint, held)
    first.keep_granted(b"fingerprint of another token", grant)
    assert first.granted_before(TOKEN.fingerprint, 0) is held
    assert first.granted_before(b"fingerprint of another token", 0) is None  # It does not say when it expires.
    assert other.granted_before(TOKEN.fingerprint, 0) is None
    first.keep_authorized(b"fingerprint of a header", held)
    assert first.authorized == {b"fingerprint of a header": held}
    assert other.authorized == {}


def test_a_decision_without_a_token_is_kept_apart_for_routes_that_always_protect() -> None:
    entry = Entry(Bindings(Resource("bot", "1")), Snapshot.parse("10:10:"), (), 0, 0)
    assert (entry.serves_until_s, entry.tokenless, entry.tokenless_always) == (-math.inf, None, None)
    passed, denied = Anonymous(Resource("bot", "1")), Denial(Reason.MISSING_CREDENTIALS)
    entry.keep_tokenless(passed, always=False)
    entry.keep_tokenless(denied, always=True)
    assert (entry.tokenless, entry.tokenless_always) == (passed, denied)


def test_the_limits_are_those_of_the_settings() -> None:
    settings = DatabaseSettings.model_fields
    assert {one.name: one.default for one in fields(Limits)} == {
        one.name: settings[one.name].default for one in fields(Limits)
    }


async def test_what_the_cache_does_is_counted_and_what_it_holds_is_known() -> None:
    world = World(replace(LIMITS, max_entries=20))
    assert asdict(world.cache.counts) == dict.fromkeys(asdict(world.cache.counts), 0)
    await world.cache.get(BOT)
    world.reader.answer = Answer(Bindings(Resource("bot", "1")), sources=())
    for ref in "234":  # The last one evicts the first: a tenth of the entries may be unknown.
        await world.cache.get(Target(Resource("bot", ref)))
    for ref in "1234":
        world.cache.peek(Target(Resource("bot", ref)))
    world.changes.hear("key:1", 11)
    world.cache.peek(BOT)
    counts = world.cache.counts
    assert (world.cache.hits.total(), counts.negative_hits, counts.misses, counts.fills) == (1, 2, 4, 4)
    assert world.cache.sizes == Sizes(known=1, unknown=2, bindings=1, evictions=1)


@pytest.mark.parametrize("answers", [("default", None), (None, "default")])
async def test_what_is_registered_or_removed_is_cached_as_what_it_is_now(
    world: World, answers: tuple[str | None, str | None]
) -> None:
    for number, account in enumerate(answers):
        world.reader.answer = Answer(Bindings(Resource("bot", "1"), account), f"{10 + number}:{10 + number}:")
        world.changes.hear("key:1", 9 + number)
        await world.cache.get(BOT)
    found = world.cache.peek(BOT)
    assert found is not None
    assert found.bindings.account == answers[1]
    assert world.cache.sizes[:2] == ((0, 1) if answers[1] is None else (1, 0))


async def test_an_entry_is_read_again_where_it_must_be_newer_than_the_cache(world: World) -> None:
    first = await world.cache.get(BOT)
    again = await world.cache.refresh(BOT)
    assert again is not first
    assert world.cache.peek(BOT) is again


@pytest.mark.parametrize(
    ("on_error", "change", "silent_s", "serves"),
    [
        ("stale", "key:2", 64.999, True),
        ("stale", "key:2", 65, False),
        ("stale", "key:1", 1, False),
        ("deny", "key:2", 1, False),
    ],
)
async def test_an_old_entry_serves_for_as_long_as_is_allowed_unless_a_change_is_known(
    on_error: OnError, change: str, silent_s: float, serves: bool
) -> None:
    world = World(replace(LIMITS, stale_if_error_s=60))
    world.reader.answer = Answer(Bindings(Resource("bot", "1"), "default", on_error=on_error))
    assert world.cache.stale(BOT) is None
    entry = await world.cache.get(BOT)
    world.changes.hear(change, 11)
    world.cache.vouch(world.now_s + 10)
    world.now_s += 10 + silent_s
    assert world.cache.stale(BOT) is (entry if serves else None)


async def test_what_is_not_registered_is_still_known_when_the_store_is_down(world: World) -> None:
    world.reader.answer = Answer(Bindings(Resource("bot", "1")), sources=())
    entry = await world.cache.get(BOT)
    assert world.cache.stale(BOT) is entry


async def test_a_store_that_is_down_is_probed_by_one_look_up_at_a_time(world: World) -> None:
    world.reader.error = UnavailableError("down")
    with pytest.raises(UnavailableError):
        await world.cache.get(BOT)
    assert world.cache.is_store_down
    world.reader.error = None
    world.reader.gate.clear()
    for ref in "123":
        world.cache.probe(Target(Resource("bot", ref)))
    await under_way(world, 2)
    world.reader.gate.set()
    await world.cache.get(BOT)
    assert (world.cache.is_store_down, world.reader.queries) == (False, 2)


async def test_a_store_without_a_free_place_is_not_probed() -> None:
    world = World(replace(LIMITS, max_lookups=1))
    assert world.cache.admission.try_enter("192.0.2.1")
    world.cache.probe(BOT)
    await asyncio.sleep(0)
    assert world.reader.queries == 0
    world.cache.admission.leave("192.0.2.1")
    world.cache.probe(BOT)
    await world.cache.get(BOT)
    assert world.reader.queries == 1


async def test_look_ups_wait_for_a_place_and_each_gives_its_own_back() -> None:
    world = World(replace(LIMITS, max_lookups=1))
    targets = [Target(Resource("bot", ref)) for ref in "12"]
    world.reader.gate.clear()
    first = asyncio.create_task(world.cache.get(targets[0]))
    await under_way(world)
    others = [asyncio.create_task(world.cache.get(targets[1], "192.0.2.1")) for _ in range(3)]
    await asyncio.sleep(0)
    assert world.reader.queries == 1
    world.reader.gate.set()
    found = {id(entry) for entry in await asyncio.gather(*others)}
    assert (len(found), world.reader.queries) == (1, 2)  # Those that came later took what the first of them read.
    assert await first
    assert await world.cache.get(Target(Resource("bot", "3")))  # All places are free again.


async def test_look_ups_that_wait_join_one_that_has_begun_meanwhile() -> None:
    world = World(replace(LIMITS, max_lookups=2))
    world.reader.gate.clear()
    for _ in range(2):
        assert world.cache.admission.try_enter("")
    waiting = [asyncio.create_task(world.cache.get(BOT)) for _ in range(2)]
    await asyncio.sleep(0)
    for _ in range(2):
        world.cache.admission.leave("")
    await under_way(world)
    world.reader.gate.set()
    assert len({id(entry) for entry in await asyncio.gather(*waiting)}) == 1
    assert world.reader.queries == 1
    assert all(world.cache.admission.try_enter("") for _ in range(2))


async def test_look_ups_do_not_wait_for_a_store_that_is_down() -> None:
    world = World(replace(LIMITS, max_lookups=1))
    assert world.cache.admission.try_enter("")
    world.cache.is_store_down = True
    caller = asyncio.create_task(world.cache.get(BOT))
    await asyncio.sleep(0)
    assert caller.done()
    with pytest.raises(OverloadedError):
        await caller


@dataclass
class Shelf:
    """A shared tier that keeps what it is given, and finds what was put there before."""

    found: SharedEntry | None = None
    put_there: list[str] = field(default_factory=list)

    async def get(self, lookup: str) -> SharedEntry | None:
        return self.found

    async def put(self, lookup: str, entry: SharedEntry) -> None:
        self.put_there.append(lookup)


SHARED = SharedEntry(Bindings(Resource("bot", "1"), "default"), "10:10:", ("key:1",))


@pytest.mark.parametrize(
    ("silent_s", "change", "queries"),
    [(4.999, "key:2", 0), (5, "key:2", 1), (0, "key:1", 1)],
)
async def test_a_shared_entry_serves_while_a_heartbeat_holds_and_no_change_is_known(
    world: World, silent_s: float, change: str, queries: int
) -> None:
    world.changes.restart(Snapshot.parse("10:10:"))
    world.cache.shared = Shelf(SHARED)
    world.cache.vouch(world.now_s)
    world.changes.hear(change, 11)
    world.now_s += silent_s
    entry = await world.cache.get(BOT)
    assert (world.reader.queries, world.cache.counts.shared_hits) == (queries, 1 - queries)
    if not queries:
        assert entry.serves_until_s == world.now_s - silent_s + LIMITS.max_staleness_s
        world.now_s += 5 - silent_s
        assert world.cache.peek(BOT) is None  # Only the heartbeat vouched for it.


async def test_a_shared_entry_is_not_excused_from_the_first_change_of_all(world: World) -> None:
    world.cache.shared = Shelf(SHARED)
    world.cache.vouch(world.now_s)
    world.changes.hear("key:1", 11)
    await world.cache.get(BOT)
    assert world.reader.queries == 1


async def test_what_is_unknown_is_not_shared(world: World) -> None:
    world.reader.answer = Answer(Bindings(Resource("bot", "1")), sources=())
    world.cache.shared = shelf = Shelf()
    world.cache.vouch(world.now_s)
    await world.cache.get(BOT)
    await asyncio.sleep(0)
    assert shelf.put_there == []


@pytest.mark.parametrize(("silent_s", "expected"), [(0, [BOT.lookup]), (5, [])])
async def test_what_is_read_while_no_heartbeat_holds_is_not_shared(
    world: World, silent_s: float, expected: list[str]
) -> None:
    world.cache.shared = shelf = Shelf()
    world.cache.vouch(world.now_s)
    world.now_s += silent_s
    await world.cache.get(BOT)
    assert len(world.cache._writes) == len(expected)  # Nothing else keeps the task that puts it there.
    await asyncio.sleep(0)
    assert shelf.put_there == expected
    await asyncio.sleep(0)
    assert not world.cache._writes
