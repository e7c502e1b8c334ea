"""Each mistake that a cache in front of PostgreSQL invites, made on purpose: the state machine finds it.

A history is about what the mistake has to do with, since one that is about everything finds it too, only later.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from smarter_auth_mw.cache.changes import BORROWED, Changes, SnapshotRead
from smarter_auth_mw.cache.entries import Cache, Entry
from smarter_auth_mw.cache.listener import Beat
from smarter_auth_mw.domain import Resource, Target
from tests.support.coherence_machine import TARGETS, Coherence, Focus
from tests.support.coherence_world import ALL_TURNS, Parts, WrongAnswerError
from tests.support.model_database import KIND, BindingRow, Facts, Place, Read, Row, Server

EXAMPLES = 3000
"""A mistake that is not found in so many histories is not found."""
SEEDS = {
    "a counter instead of snapshots": 4,
    "a check only before the await": 15,
    "the transactions of two servers taken for one another's": 4,
    "write-back of whole records": 3,
    "a crash that gives transaction numbers out again, and is not noticed": 15,
}
"""With these each mistake is found within a dozen histories; with another seed it takes up to a few hundred."""

BOT_2 = Target(Resource(KIND, "2"))
QUICK: dict[str, Any] = {
    "fates": ("executed", "delivered", "both"),
    "turns": (ALL_TURNS,),
    "seconds": (0.25, 1),
    "swift": frozenset({"puts", "notifications", "fills", "heartbeats"}),
    "troubles": ("settle",),
    "workers": (0,),
}
"""Everything arrives at once, and time hardly passes."""
FOCUS = QUICK | {"stories": ("bindings", "activity"), "targets": (BOT_2,), "keys": ("b",), "refs": ("2",)}
SLOW = QUICK | {"stories": ("activity",), "targets": TARGETS[:1], "keys": ("a",), "troubles": ("cut",)}


class CountsInsteadOfSnapshots(Server):
    """An entry knows the number that the last change had when it was read, and not who was still writing."""

    def read(self, target: Target) -> Read:
        return replace(super().read(target), snapshot=f"{self.next_tx}:{self.next_tx}:")


class JoinsBindingsToNameResources(Server):
    """The trigger of a key tells of the resources that it finds bound to it, as far as the writer can see."""

    def sources(self, place: Place, old: Row | None, new: Row | None, seen: Facts) -> Any:
        for source in super().sources(place, old, new, seen):
            if not source.startswith("key:"):
                yield source
                continue
            bindings = (row for row in seen.rows.values() if isinstance(row, BindingRow))
            yield from (f"bindings:{row.resource_id}" for row in bindings if row.key == source[4:])


class ChecksBeforeTheAwaitAlone(Cache):
    """What comes back from the database is new by definition."""

    def _entry(self, *answer: Any) -> Entry:
        entry = super()._entry(*answer)
        entry.checked = self.changes.heard
        return entry


class BeatsWithoutCatchingUp(Server):
    """The database answers, so that its notifications must have come too."""

    def beat(self, previous: str | None) -> Beat:
        return replace(super().beat(previous), changes=())


class TrustsTheSharedTierByItself(Cache):
    """What others read is as good as what was read here, whether anybody vouches for it or not."""

    @property
    def heartbeat_age_s(self) -> float:
        return 0

    def _entry(self, read: Any, got_at_s: float, begun: int, server: int) -> Entry:
        return super()._entry(read, got_at_s, 0 if begun == BORROWED else begun, server)


class HasNoSourceForTheDirectory(Server):
    """An alias depends on the resource that it stood for."""

    def read(self, target: Target) -> Read:
        read = super().read(target)
        return replace(read, sources=tuple(source for source in read.sources if not source.startswith("directory:")))


class ForgetsWhichServer(Changes):
    """The transactions of one server are told from those of another by nothing."""

    def is_current(self, reading: SnapshotRead) -> bool:
        reading.server = self.server
        return super().is_current(reading)


class KeepsItsNameThroughACrash(Server):
    """The start time and the timeline of a server whose backend was killed say that it is the same one."""

    def recovered(self, *known: Any) -> Server:
        server = super().recovered(*known)
        server.name = self.name
        return server


UNNOTICED_CRASH = "a crash that gives transaction numbers out again, and is not noticed"
MISTAKES: dict[str, tuple[Parts, dict[str, Any]]] = {
    "a counter instead of snapshots": (
        Parts(server=CountsInsteadOfSnapshots),
        QUICK | {"stories": ("activity",), "targets": TARGETS[:1], "keys": ("a",)},
    ),
    "a check only before the await": (
        Parts(cache=ChecksBeforeTheAwaitAlone),
        SLOW
        | {"swift": frozenset({"notifications", "heartbeats"}), "seconds": (0.25,), "fates": ("executed", "delivered")},
    ),
    "a heartbeat taken for proof without its catch-up": (
        Parts(server=BeatsWithoutCatchingUp),
        QUICK | {"stories": ("activity",), "swift": frozenset({"fills", "heartbeats"})},
    ),
    "the shared tier trusted without a live heartbeat": (
        Parts(cache=TrustsTheSharedTierByItself),
        SLOW | {"swift": frozenset({"puts", "notifications", "fills"}), "workers": (0, 1), "seconds": (5,)},
    ),
    "no directory source for aliases": (
        Parts(server=HasNoSourceForTheDirectory),
        QUICK | {"stories": ("names",), "targets": TARGETS[2:]},
    ),
    "write-back of whole records": (
        Parts(saves_whole_keys=True),
        QUICK | {"stories": ("activity",), "targets": TARGETS[:1], "keys": ("a",), "troubles": ("usage", "settle")},
    ),
    "the transactions of two servers taken for one another's": (
        Parts(changes=ForgetsWhichServer),
        QUICK | {"stories": ("activity",), "troubles": ("another server",)},
    ),
    UNNOTICED_CRASH: (
        Parts(server=KeepsItsNameThroughACrash),
        QUICK
        | {"stories": ("activity",), "targets": TARGETS[:1], "keys": ("a",), "troubles": ("crash",), "seconds": (1, 2)}
        | {"swift": frozenset({"puts", "notifications", "fills", "heartbeats"})},
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_found(mistake: str) -> None:
    parts, about = MISTAKES[mistake]

    class Mistaken(Coherence):
        def __init__(self) -> None:
            super().__init__(parts, **about)

        def teardown(self) -> None:
            if mistake == UNNOTICED_CRASH:  # Settling would find answers that are missing before one that is wrong.
                self.world.close()
            else:
                super().teardown()

    with pytest.raises(WrongAnswerError, match="says"):
        run_state_machine_as_test(
            seed(SEEDS.get(mistake, 1))(Mistaken),
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=30,
                phases=[Phase.generate],
                derandomize=False,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )


class TestACrashThatGivesNumbersOutAgain:
    """A deactivation that is rolled back, a crash, and another one that gets its number: an entry saw the first."""

    def history(self, parts: Parts) -> None:
        machine = Coherence(parts)
        machine.begin(is_warm=True, focus=Focus(**FOCUS | {"targets": TARGETS[:1], "keys": ("a",)}))
        try:
            machine.write("deactivate", "a", "1", "and waits")
            machine.write("", "", "", "rolls back")
            machine.request(0, TARGETS[0], is_evicted=True, turns=ALL_TURNS)
            machine.wait(1)
            machine.trouble("crash", 0, 2, "", None)
            machine.write("deactivate", "a", "1", "at once")
            for _ in range(6):
                machine.wait(1)
                machine.what_is_at_hand_is_true()
        finally:
            machine.world.close()

    def test_is_another_server(self) -> None:
        self.history(Parts())

    def test_is_not_the_same_server(self) -> None:
        with pytest.raises(WrongAnswerError, match="says grant for a1 on bot:1"):
            self.history(Parts(server=KeepsItsNameThroughACrash))


class TestBindAgainstDeactivate:
    """The history that a trigger which joins bindings does not survive: steps of the machine, for it is a rare one."""

    def history(self, parts: Parts) -> None:
        machine = Coherence(parts)
        machine.begin(is_warm=True, focus=Focus(**FOCUS))
        try:
            machine.write("bind", "b", "2", "and waits")
            machine.write("deactivate", "b", "2", "and waits")  # Its writer sees no binding yet.
            machine.write("", "", "", "commits")
            machine.request(0, BOT_2, is_evicted=False, turns=ALL_TURNS)
            machine.write("", "", "", "commits")
            machine.what_is_at_hand_is_true()
        finally:
            machine.world.close()

    def test_is_told_of_by_the_sources_themselves(self) -> None:
        self.history(Parts())

    def test_is_not_told_of_by_the_resources_that_a_trigger_finds(self) -> None:
        with pytest.raises(WrongAnswerError, match="says grant for b1 on bot:2"):
            self.history(Parts(server=JoinsBindingsToNameResources))
