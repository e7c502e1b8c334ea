"""Warm decisions: what is decided by what is at hand is what a closer look would say."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smarter_auth_mw.authentication.authenticator import Authenticator
from smarter_auth_mw.cache.changes import Changes, Snapshot
from smarter_auth_mw.cache.entries import Cache, Entry, Limits
from smarter_auth_mw.decision import Anonymous, Decision, Grant
from smarter_auth_mw.domain import Alias, Binding, Bindings, Protection, Resource, Target
from smarter_auth_mw.errors import UnavailableError
from smarter_auth_mw.http.credentials import Extractor
from smarter_auth_mw.tokens import MAX_TOKEN_BYTES, Token

NOW_S = 1000.0
LIMITS = Limits(max_staleness_s=5, cache_ttl_s=12)
TOKENS = [b"ab12", b"a_b"]
BOT = Target(Resource("bot", "my-bot"))
EXTRACTORS = [
    Extractor(["token", "bearer", "x-api-key"]),
    Extractor(["bearer"]),
    Extractor(["token", "bearer", "x-api-key", "subprotocol"]),
]


@dataclass
class Answer:
    bindings: Bindings
    snapshot: str = "10:10:"
    sources: tuple[str, ...] = ("resource:bot:my-bot",)


class Reader:
    """A database that knows one bot, two tokens of which open it until the end of time, or until now."""

    def __init__(self, expires_at_s: float = math.inf) -> None:
        bound = [
            Binding(str(number), "laptop", "default", Token(token).digest, "", expires_at_s=expires_at_s)
            for number, token in enumerate(TOKENS)
        ]
        self.bindings = Bindings(Resource("bot", "my-bot"), "default", Protection.BOUND, "stale", tuple(bound))

        self.is_down = False

    async def read(self, target: Target) -> Answer:
        if self.is_down:
            raise UnavailableError("The database cannot be reached.")
        return Answer(self.bindings)


class World:
    def __init__(self, extractor: Extractor = EXTRACTORS[0], expires_at_s: float = math.inf) -> None:
        self.now_s = NOW_S
        self._extractor = extractor
        self.changes = Changes()
        self.reader = Reader(expires_at_s)
        self.cache = Cache(self.reader, LIMITS, self.changes, clock=lambda: self.now_s)
        self.authenticator = Authenticator(self.cache, clock=lambda: self.now_s)
        asyncio.run(self.cache.get(BOT))
        for token in TOKENS:
            assert isinstance(self.warm((b"authorization", b"Bearer " + token)), Grant)

    def take(self, step: str) -> None:
        """Let time pass, or have something heard or read."""
        match step:
            case "a moment":
                self.now_s += 0.001
            case "a second":
                self.now_s += 1
            case "a heartbeat":
                self.cache.vouch(self.now_s)
            case "its change":
                self.changes.hear("resource:bot:my-bot", 11)
            case "another change":
                self.changes.hear("key:7", 11)
            case _:
                asyncio.run(self.cache.refresh(BOT))

    def warm(self, *headers: tuple[bytes, bytes], target: Target = BOT) -> Decision | None:
        return self.authenticator.warm(target, headers, self._extractor)


@pytest.fixture
def world() -> World:
    return World()


NAMES = st.sampled_from([b"authorization", b"x-api-key", b"sec-websocket-protocol", b"x-other"])
VALUES = st.lists(
    st.sampled_from([b"Token", b"token", b"TOKEN", b"bearer", b"Basic", b"smarter-auth", b" ", b"\t", b",", *TOKENS])
).map(b"".join)
TARGETS = [
    BOT,
    Target(Resource("bot", "my_bot")),
    Target(Resource("bot", "my_bot"), exact=True),
    Target(BOT.names, account="default"),
    Target(BOT.names, account="acme"),
    Target(BOT.names, always=True),
    Target(BOT.names, also=Target(Alias("bot", "name", "x"))),
]
_WORLD = World()
WORLDS = {EXTRACTORS[0]: _WORLD, EXTRACTORS[1]: World(EXTRACTORS[1]), EXTRACTORS[2]: _WORLD}
"""By extractor: those of one authenticator accept the same schemes."""


@given(st.lists(st.tuples(NAMES, VALUES), max_size=3), st.sampled_from(TARGETS), st.sampled_from(EXTRACTORS))
@example([(b"authorization", b" ab12")], BOT, EXTRACTORS[0])
@example([(b"authorization", b"Token ab12")], BOT, EXTRACTORS[1])
@example([(b"authorization", b"Token  ab12")], BOT, EXTRACTORS[0])
@example([(b"authorization", b"x-api-key ab12")], BOT, EXTRACTORS[0])
@example([(b"x-api-key", b"Token ab12")], BOT, EXTRACTORS[0])
@example([(b"x-api-key", b"ab12")], BOT, EXTRACTORS[1])
@example([(b"x-api-key", b"Bearer ab12")], BOT, EXTRACTORS[0])
@example([(b"authorization", b"ab12")], BOT, EXTRACTORS[0])
@example([(b"x-api-key", b" ab12 ")], BOT, EXTRACTORS[0])
@example([(b"sec-websocket-protocol", b"ab12")], BOT, EXTRACTORS[2])
@example([(b"authorization", b"Token ab12"), (b"authorization", b"Basic x")], BOT, EXTRACTORS[0])
@example([(b"authorization", b"Token ab12"), (b"x-api-key", b"a_b")], BOT, EXTRACTORS[0])
@example([(b"authorization", b"Token " + b"a" * (MAX_TOKEN_BYTES + 1))], BOT, EXTRACTORS[0])
@example([(b"authorization", b"Token ab12")], Target(Resource("bot", "my_bot")), EXTRACTORS[0])
@example([(b"authorization", b"Token ab12")], Target(BOT.names, account="acme"), EXTRACTORS[0])
@example([(b"authorization", b"Token ab12")], TARGETS[-1], EXTRACTORS[0])
def test_what_is_granted_again_would_be_granted_after_a_closer_look(
    headers: list[tuple[bytes, bytes]], target: Target, extractor: Extractor
) -> None:
    authenticator = WORLDS[extractor].authenticator
    first, found = (authenticator.warm(target, headers, extractor) for _ in range(2))
    assert first == found
    entry = Entry(Reader().bindings, Snapshot.parse("10:10:"), (), 0, 0)  # one that has granted nothing yet
    assert found == authenticator._look_closer(entry, target, extractor(headers))


@pytest.mark.parametrize(
    "header",
    [
        (b"authorization", b"Token ab12"),
        (b"authorization", b"token ab12"),
        (b"authorization", b"Bearer a_b"),
        (b"x-api-key", b"ab12"),
    ],
)
def test_what_was_granted_is_not_looked_at_closer(
    world: World, header: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = world.warm(header)
    monkeypatch.delattr(Authenticator, "_look_closer")
    assert isinstance(first, Grant)
    assert world.warm((b"host", b"x"), header) is first


@pytest.mark.parametrize("blanks", [b"  ", b" \t", b"\t"])
def test_a_header_that_is_spelled_unusually_is_granted_and_not_kept(world: World, blanks: bytes) -> None:
    entry = world.cache.peek(BOT)
    assert entry is not None
    before = dict(entry.authorized)
    for times in range(1, 20):
        assert isinstance(world.warm((b"authorization", b"Token" + blanks * times + b"ab12")), Grant)
    assert entry.authorized == before


def test_an_outage_does_not_end_with_a_decision_from_memory(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def decide(target: Target) -> None:
        asyncio.run(world.authenticator.authenticate(target, None))

    world.reader.is_down = True
    for target in (Target(Resource("bot", "other")), BOT, Target(Resource("bot", "third")), BOT):
        decide(target)
    world.reader.is_down = False
    decide(Target(Resource("bot", "other")))
    assert [line.partition(":")[0] for line in caplog.messages] == ["store.unavailable", "store.recovered"]


def test_outages_that_follow_each_other_quickly_are_reported_at_intervals(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    begins_s = world.now_s
    for at in range(100):
        world.now_s = begins_s + at / 4
        world.reader.is_down = at % 2 == 0
        asyncio.run(world.authenticator.authenticate(Target(Resource("bot", f"other-{at}")), None))
    assert [line.partition(":")[0] for line in caplog.messages] == ["store.unavailable", "store.recovered"] * 3


def test_a_grant_is_given_again_until_the_token_expires() -> None:
    world = World(expires_at_s=NOW_S + 1)
    header = (b"x-api-key", b"ab12")
    world.now_s = NOW_S + 1
    assert isinstance(world.warm(header), Grant)
    world.now_s = NOW_S + 1.5
    assert not isinstance(world.warm(header), Grant)


@pytest.mark.parametrize("source", ["resource:bot:my-bot", "*"])
def test_nothing_is_granted_again_once_a_change_was_heard(world: World, source: str) -> None:
    world.changes.hear(source, 11)
    assert world.warm((b"x-api-key", b"ab12")) is None


def test_another_change_makes_no_difference(world: World) -> None:
    world.changes.hear("key:7", 11)
    assert isinstance(world.warm((b"x-api-key", b"ab12")), Grant)


def test_nothing_is_granted_again_by_what_is_too_old(world: World) -> None:
    world.now_s = NOW_S + LIMITS.max_staleness_s
    assert world.warm((b"x-api-key", b"ab12")) is None
    world.now_s = NOW_S + LIMITS.max_staleness_s - 0.001
    assert isinstance(world.warm((b"x-api-key", b"ab12")), Grant)


def test_heartbeats_keep_it_but_not_for_ever(world: World) -> None:
    header = (b"x-api-key", b"ab12")
    while world.now_s < NOW_S + LIMITS.cache_ttl_s - 1:
        world.now_s += 1
        world.cache.vouch(world.now_s)
        assert isinstance(world.warm(header), Grant)
    world.now_s += 1
    assert world.warm(header) is None


def test_every_look_at_what_is_at_hand_is_a_hit(world: World) -> None:
    before = world.cache.hits.total()
    for headers in ([(b"x-api-key", b"ab12")], [(b"x-api-key", b"another")], []):
        world.warm(*headers)
    world.changes.hear("key:7", 11)
    world.warm()
    assert world.cache.hits.total() - before == 4


STEPS = st.sampled_from(["a moment", "a second", "a heartbeat", "its change", "another change", "read again"])


@given(st.lists(STEPS, max_size=12), st.sampled_from([math.inf, NOW_S + 1.5]), st.sampled_from(["ab12", "another", ""]))
@example(["its change"], math.inf, "ab12")
@example(["read again"], math.inf, "ab12")
@example(["a second", "a second"], NOW_S + 1.5, "ab12")
@example(["a second"] * 5, math.inf, "ab12")
def test_a_decision_that_holds_would_be_made_again(steps: list[str], expires_at_s: float, token: str) -> None:
    world = World(expires_at_s=expires_at_s)
    headers = [(b"x-api-key", token.encode())] if token else []
    decision = world.warm(*headers)
    holds = world.authenticator.holding(BOT, decision)
    assert holds() is isinstance(decision, Grant)
    for step in steps:
        world.take(step)
        if holds():
            assert world.warm(*headers) is decision


@pytest.mark.parametrize(
    ("step", "held"),
    [("a moment", True), ("a heartbeat", True), ("its change", False), ("read again", False)],
)
def test_a_decision_holds_until_something_is_heard_or_read(world: World, step: str, held: bool) -> None:
    holds = world.authenticator.holding(BOT, world.warm((b"x-api-key", b"ab12")))
    world.take(step)
    assert holds() is held


def test_a_decision_about_what_nobody_knows_does_not_hold(world: World) -> None:
    assert not world.authenticator.holding(BOT, None)()
    other = Target(Resource("bot", "other"))
    assert not world.authenticator.holding(other, Anonymous(Resource("bot", "other")))()
