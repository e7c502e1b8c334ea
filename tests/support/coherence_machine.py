"""Any history of writers, wires, workers and clocks, and every answer held against what was committed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from smarter_auth_mw.cache.changes import EVERYTHING
from smarter_auth_mw.cache.listener import Listener
from smarter_auth_mw.domain import Alias, Protection, Resource, Target
from tests.support.coherence_world import ALL_TURNS, TOKENS, Exchange, Parts, Worker, World
from tests.support.model_database import KIND, RefusedError, Server, Transaction

REFS, KEYS, NAMES = ("1", "2"), ("a", "b"), ("n", "m")
TARGETS = (*(Target(Resource(KIND, ref)) for ref in REFS), *(Target(Alias(KIND, "name", name)) for name in NAMES))

Write = Callable[[Transaction, str, str, float], None]
"""Something that people do, with a key, a reference, and the time."""

STORIES: dict[str, dict[str, Write]] = {
    "bindings": {
        "bind": lambda tx, key, ref, now_s: tx.bind(key, ref),
        "unbind": lambda tx, key, ref, now_s: tx.unbind(key, ref, allow_anonymous=False),
        "unbind and open": lambda tx, key, ref, now_s: tx.unbind(key, ref, allow_anonymous=True),
    },
    "activity": {
        "activate": lambda tx, key, ref, now_s: tx.set_active(key, is_active=True),
        "deactivate": lambda tx, key, ref, now_s: tx.set_active(key, is_active=False),
    },
    "bulk": {
        "activate all": lambda tx, key, ref, now_s: tx.set_active(*KEYS, is_active=True),
        "deactivate all": lambda tx, key, ref, now_s: tx.set_active(*KEYS, is_active=False),
        "truncate bindings": lambda tx, key, ref, now_s: tx.truncate_bindings(),
    },
    "ends": {
        "revoke": lambda tx, key, ref, now_s: tx.revoke(key),
        "rotate": lambda tx, key, ref, now_s: tx.rotate(key, f"{key}2", now_s),
        "rotate with overlap": lambda tx, key, ref, now_s: tx.rotate(key, f"{key}2", now_s + 5),
        "expire": lambda tx, key, ref, now_s: tx.expire(key, now_s),
        "expire soon": lambda tx, key, ref, now_s: tx.expire(key, now_s + 3),
    },
    "keys": {
        "create": lambda tx, key, ref, now_s: tx.create(key, f"{key}1"),
        "delete": lambda tx, key, ref, now_s: tx.delete(key),
        "bind": lambda tx, key, ref, now_s: tx.bind(key, ref),
    },
    "latches": {
        "protect": lambda tx, key, ref, now_s: tx.protect(ref, Protection.DECLARED),
        "unprotect": lambda tx, key, ref, now_s: tx.protect(ref, Protection.OPEN),
    },
    "names": {
        "rename": lambda tx, key, ref, now_s: tx.rename(**{f"_{ref}": NAMES[0]}),
        "rename otherwise": lambda tx, key, ref, now_s: tx.rename(**{f"_{ref}": NAMES[1]}),
        "take the name away": lambda tx, key, ref, now_s: tx.rename(**{f"_{ref}": None}),
        "swap": lambda tx, key, ref, now_s: tx.swap(*REFS),
    },
    "resources": {
        "add": lambda tx, key, ref, now_s: tx.add(ref, None),
        "add with a name": lambda tx, key, ref, now_s: tx.add(ref, NAMES[0]),
        "remove": lambda tx, key, ref, now_s: tx.remove(ref),
        "unbind and open": lambda tx, key, ref, now_s: tx.unbind(key, ref, allow_anonymous=True),
    },
}
WRITES = {name: write for story in STORIES.values() for name, write in story.items()}


@dataclass(frozen=True)
class Focus:
    """What one history is about: a few things again and again find more than all things once.

    What is ``swift`` arrives in no time, so that the history has more steps left for the rest.
    """

    stories: tuple[str, ...]
    keys: tuple[str, ...]
    refs: tuple[str, ...]
    targets: tuple[Target, ...]
    workers: tuple[int, ...]
    fates: tuple[str, ...]
    troubles: tuple[str, ...]
    turns: tuple[int, ...]
    seconds: tuple[float, ...]
    swift: frozenset[str]

    @property
    def writes(self) -> list[str]:
        return [write for story in self.stories for write in STORIES[story]]


def some(values: Iterable[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    """One or two of them."""
    return st.lists(st.sampled_from(list(values)), min_size=1, max_size=2, unique=True).map(tuple)


FATES = (("both",), ("executed", "delivered"), ("executed", "delivered", "both", "lost"))
TROUBLES = ("forgery", "cut", "put", "usage", "another server", "crash", "purge", "triggers", "settle")
FOCUSES = st.builds(
    Focus,
    stories=some(STORIES),
    keys=some(KEYS),
    refs=some(REFS),
    targets=some(TARGETS),
    workers=some((0, 1)),
    fates=st.sampled_from(FATES),
    troubles=some(TROUBLES),
    turns=st.sampled_from([(ALL_TURNS,)] * 3 + [(ALL_TURNS, 1, 0)]),
    seconds=some((0.25, 1, 2, 4.75, 5, 30, 70)),
    swift=st.frozensets(st.sampled_from(["puts", "notifications", "fills", "heartbeats"])),
)
SOURCES = ("key:a", "key:b", "resource:bot:1", f"directory:{KIND}", EVERYTHING)
HEARTBEAT = 3
PICKS = st.sampled_from([0, 0, 0, 1, 1, 2, 2, HEARTBEAT])


def one(field: str) -> st.SearchStrategy[Any]:
    """One of what the history is about."""
    return st.runner().flatmap(lambda machine: st.sampled_from(getattr(machine.focus, field)))


class Coherence(RuleBasedStateMachine):
    """The world, one step after the other."""

    focus: Focus

    def __init__(self, parts: Parts | None = None, **about: Any) -> None:
        """``about`` fixes fields of what every history is about."""
        super().__init__()
        self.about = about
        self.world = World(parts or Parts())
        self.transactions: list[Transaction] = []

    def teardown(self) -> None:
        try:
            for transaction in self.transactions:
                self.world.database.roll_back(transaction)
            if not self.world.database.primary.has_triggers:
                self.world.database.primary.turn_triggers(on=True)
            self.world.turn()
            self.world.settle(TARGETS)
        finally:
            self.world.close()

    @initialize(is_warm=st.sampled_from([True, True, False]), focus=FOCUSES)
    def begin(self, is_warm: bool, focus: Focus) -> None:
        self.focus = replace(focus, **self.about)
        self.world.swift = set(self.focus.swift)
        if is_warm:
            self.world.settle(TARGETS)

    @invariant()
    def what_is_at_hand_is_true(self) -> None:
        for worker in self.world.workers:
            for target in TARGETS:
                if worker.cache.peek(target):
                    for token in TOKENS:
                        self.world.look(worker, target, token)

    @rule(
        what=one("writes"),
        key=one("keys"),
        ref=one("refs"),
        how=st.sampled_from(["at once"] * 3 + ["and waits"] * 2 + ["commits"] * 2 + ["rolls back"]),
    )
    def write(self, what: str, key: str, ref: str, how: str) -> None:
        """In a transaction of its own, or in one that stays open; or the first that is open comes to its end."""
        if how in ("commits", "rolls back") and self.transactions:
            self._end(self.transactions.pop(0), how)
            return
        if how == "at once" or len(self.transactions) < 2:
            self.transactions.append(Transaction(self.world.database.primary))
        with suppress(RefusedError):
            WRITES[what](self.transactions[-1], key, ref, self.world.now_s)
        if how == "at once":
            self._end(self.transactions.pop(), "commits")

    def _end(self, transaction: Transaction, how: str) -> None:
        if how == "commits":
            self.world.commit(transaction)
        else:
            self.world.database.roll_back(transaction)

    @rule(worker=one("workers"), asked=one("targets"), is_evicted=st.booleans(), turns=one("turns"))
    def request(self, worker: int, asked: Target, is_evicted: bool, turns: int) -> None:
        """With each token and with none; what was known may have made room for something else."""
        which = self.world.workers[worker]
        if is_evicted:
            which.cache._known.drop(asked.lookup)
        for token in TOKENS:
            self.world.start(self.world.ask(which, asked, token))
        self.world.turn(turns)

    @rule(worker=one("workers"), pick=PICKS, fate=one("fates"), on_deposed=st.booleans(), turns=one("turns"))
    def traffic(self, worker: int, pick: int, fate: str, on_deposed: bool, turns: int) -> None:
        """Something that is under way gets on, in any order; or a heartbeat is sent."""
        told = [(which, change) for which in self.world.workers for change in which.wire.notifications]
        under_way: list[Exchange | tuple[Worker, tuple[str, int]]] = [*self.world.exchanges, *told]
        if pick == HEARTBEAT or not under_way:
            self.world.beat(self.world.workers[worker])
        else:
            self._get_on(under_way[pick % len(under_way)], fate, on_deposed)
        self.world.turn(turns)

    def _get_on(self, under_way: Exchange | tuple[Worker, tuple[str, int]], fate: str, on_deposed: bool) -> None:
        if isinstance(under_way, tuple):
            worker, change = under_way
            if fate != "executed":  # Otherwise it will come again.
                worker.wire.notifications.remove(change)
            if fate != "lost":
                self.world.loop.call_soon(worker.notified, *change)
            return
        if fate in ("executed", "both"):
            self.world.execute(under_way, on_deposed=on_deposed)
        if fate in ("delivered", "both"):
            self.world.deliver(under_way)
        elif fate == "lost":
            self.world.lose(under_way)

    @rule(seconds=one("seconds"))
    def wait(self, seconds: float) -> None:
        self.world.now_s += seconds
        if "heartbeats" in self.focus.swift:
            for worker in self.world.workers:
                self.world.beat(worker)
            self.world.turn()

    @rule(
        what=one("troubles"),
        worker=one("workers"),
        pick=PICKS,
        source=st.sampled_from(SOURCES),
        next_tx=st.sampled_from([None, None, 3, 1000]),
    )
    def trouble(self, what: str, worker: int, pick: int, source: str, next_tx: int | None) -> None:
        which = self.world.workers[worker]
        match what:
            case "forgery":
                self._forge(which.listener, source, pick - 2)
            case "cut":
                which.wire.cut()
            case "put" if self.world.puts:
                self.world.land(self.world.puts[pick % len(self.world.puts)], is_lost=next_tx == 3)
            case "usage":
                self.world.write_usage(which)
            case _:
                self._befall(self.world.database.primary, what, pick, next_tx)

    def _befall(self, primary: Server, what: str, pick: int, next_tx: int | None) -> None:
        """Something that happens to the database itself; ``settle``: nothing does, for once."""
        if what in ("another server", "crash"):
            self.transactions.clear()
        match what:
            case "another server":
                self.world.fail_over(pick, next_tx)
            case "crash":
                self.world.crash(lost=pick if next_tx else 0, reused=pick)
            case "purge":
                primary.purge()
            case "triggers":
                with suppress(RefusedError):
                    primary.turn_triggers(on=not primary.has_triggers)
            case "settle" if primary.has_triggers:
                self.world.turn()
                self.world.settle(TARGETS)

    def _forge(self, listener: Listener, source: str, ahead: int) -> None:
        """Of a transaction that is running, has ended, or has not begun; and what is no notification at all."""
        server = self.world.database.primary
        known = [(known, tx) for tx, running in server.running.items() for known in running.sources]
        for change, tx in known or [(source, server.next_tx + ahead)]:
            for payload in (f"{change}:{tx}", "", ":", change, f"{change}:", f"{change}:-1", f"{change}:{10**21}"):
                listener.notified(payload)
