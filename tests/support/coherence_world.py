"""Workers with their caches on a database, and everything that can come between them, one step at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from smarter_auth_mw.authentication.authenticator import Authenticator
from smarter_auth_mw.cache.changes import Changes, Snapshot
from smarter_auth_mw.cache.entries import Cache, Limits
from smarter_auth_mw.cache.listener import Beat, Listener
from smarter_auth_mw.decision import Anonymous, Decision, Denial, Grant, Reason
from smarter_auth_mw.domain import Protection, Target
from smarter_auth_mw.errors import UnavailableError
from smarter_auth_mw.http.credentials import Extractor
from smarter_auth_mw.tokens import Token
from tests.support.model_database import (
    BindingRow,
    Database,
    Facts,
    KeyRow,
    Read,
    RefusedError,
    ResourceRow,
    Server,
    TokenRow,
    Transaction,
    new_id,
)

LIMITS = Limits(cache_ttl_s=60, negative_ttl_s=20, max_staleness_s=5)
KEPT_S = 100
TOKENS = {None: None} | {name: Token(name.encode()) for name in ("a1", "a2", "b1", "b2")}
EXTRACTOR = Extractor(["x-api-key"])
ALL_TURNS = 5
"""So many turns of the loop, and nothing is left to do."""


class WrongAnswerError(AssertionError):
    """A request got an answer that was not true at any moment within the bound."""


@dataclass(frozen=True)
class Parts:
    """What the world is made of: the real parts, unless a bug is put in on purpose."""

    cache: type[Cache] = Cache
    changes: type[Changes] = Changes
    listener: type[Listener] = Listener
    server: type[Server] = Server
    pool_follows: bool = True
    """Once another server was met, nothing is read from the deposed one."""
    saves_whole_keys: bool = False
    """Usage is written back with the whole record that the worker knows."""


class Exchange:
    """A statement on its way: sent, executed, delivered or lost, each at a time of its own."""

    def __init__(self, ask: Callable[[Server], Any], sent_to: Server, wire: Wire | None) -> None:
        self.ask = ask
        self.sent_to = sent_to
        self.wire = wire
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.result: Any = None


class Wire:
    """A worker's listening connection to one server."""

    def __init__(self, worker: Worker, server: Server) -> None:
        self.worker = worker
        self.server = server
        self.is_cut = False
        self.notifications: list[tuple[str, int]] = []

    def cut(self) -> None:
        """Silently: whoever waits for an answer goes on waiting."""
        self.is_cut = True
        self.notifications.clear()

    async def beat(self, previous: str | None) -> Beat:
        beat: Beat = await self.worker.world.send(lambda server: server.beat(previous), self)
        self.worker.told(self.server, beat)
        return beat


class SharedTier:
    """What all workers share of one server's; puts land when they like, or not at all."""

    def __init__(self, world: World, server: str) -> None:
        self._world = world
        self._server = server

    async def get(self, lookup: str) -> Read | None:
        return self._world.shared.get((self._server, lookup))

    async def put(self, lookup: str, entry: Any) -> None:
        self._world.puts.append(((self._server, lookup), entry))
        if "puts" in self._world.swift:
            self._world.land(self._world.puts[-1])


class Worker:
    """One process: the real cache, listener and authenticator on a wire and a pool that are not."""

    def __init__(self, world: World) -> None:
        parts = world.parts
        self.world = world
        self.changes = parts.changes()
        self.cache = parts.cache(self, LIMITS, self.changes, world.clock)
        self.listener = parts.listener(
            connect=lambda _: self.never(),
            changes=self.changes,
            held=lambda sent_s, is_coherent: self.cache.vouch(sent_s) if is_coherent else None,
            met=self.met,
            heartbeat_s=1,
            kept_s=KEPT_S,
            clock=world.clock,
        )
        self.authenticator = Authenticator(self.cache, clock=world.clock)
        self.wire = Wire(self, world.database.primary)
        self.beating: asyncio.Task[None] | None = None
        self.unheard = {(world.database.primary.number, 0, "all before")}
        self.used: dict[str, KeyRow] = {}

    def never(self) -> Any:
        raise NotImplementedError

    async def met(self, server: str) -> None:
        """What others read of another server is out of reach at once; what they share of this one, by its secret."""
        self.cache.shared = None
        await self.world.send(lambda primary: primary.name)
        tier: Any = SharedTier(self.world, server)
        self.cache.shared = tier

    def warm(self, target: Target, token: str | None) -> Decision | None:
        headers = [] if token is None else [(b"x-api-key", token.encode())]
        return self.authenticator.warm(target, headers, EXTRACTOR)

    async def read(self, target: Target) -> Any:
        return await self.world.send(lambda server: server.read(target))

    def notified(self, source: str, tx: int) -> None:
        self.listener.notified(f"{source}:{tx}")
        self.unheard.discard((self.wire.server.number, tx, source))

    def hear_all(self) -> None:
        for source, tx in self.wire.notifications:
            self.notified(source, tx)
        self.wire.notifications.clear()

    def told(self, server: Server, beat: Beat) -> None:
        """What a heartbeat answered is heard: all that its snapshot saw."""
        sees = Snapshot.parse(beat.snapshot).sees
        self.unheard = {
            (number, tx, source)
            for number, tx, source in self.unheard
            if number > server.number or (number == server.number and not (sees(tx) and (source or beat.is_coherent)))
        }


class World:
    """The database, two workers, and what is on its way between them."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.now_s = 1000.0
        self.loop = asyncio.new_event_loop()
        self.database = Database(_first_facts(), self.clock, parts.server)
        self.exchanges: list[Exchange] = []
        self.shared: dict[tuple[str, str], Read] = {}
        self.puts: list[tuple[tuple[str, str], Read]] = []
        self.swift: set[str] = set()
        self.tasks: list[asyncio.Task[None]] = []
        self.workers = [Worker(self), Worker(self)]

    def clock(self) -> float:
        return self.now_s

    def turn(self, times: int = ALL_TURNS) -> None:
        """Let the loop turn so many times, and raise what was found wrong."""

        def tick(left: int) -> None:
            if left:
                self.loop.call_soon(tick, left - 1)
            else:
                self.loop.stop()

        if times:
            self.loop.call_soon(tick, times - 1)
            self.loop.run_forever()
        done, self.tasks = (
            [task for task in self.tasks if task.done()],
            [task for task in self.tasks if not task.done()],
        )
        for task in done:
            task.result()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.loop.create_task(work)
        self.tasks.append(task)
        return task

    def close(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.tasks.clear()
        self.turn()
        self.loop.close()

    # Statements

    async def send(self, ask: Callable[[Server], Any], wire: Wire | None = None) -> Any:
        exchange = Exchange(ask, self.database.primary, wire)
        self.exchanges.append(exchange)
        if ("heartbeats" if wire else "fills") in self.swift:
            self.execute(exchange)
            self.deliver(exchange)
        return await exchange.answer

    def execute(self, exchange: Exchange, *, on_deposed: bool = False) -> None:
        """On the primary; on the one that it was sent to if that still answers; nowhere if the wire is gone."""
        if exchange.result is not None or (exchange.wire and exchange.wire.server is not self.database.primary):
            return
        deposed = self.database.deposed
        is_possible = deposed and not exchange.wire and (exchange.sent_to is deposed or not self.parts.pool_follows)
        server = deposed if deposed and on_deposed and is_possible else self.database.primary
        exchange.result = exchange.ask(server)

    def deliver(self, exchange: Exchange) -> None:
        if exchange.result is None:
            self.lose(exchange)
            return
        self.exchanges.remove(exchange)
        exchange.answer.set_result(exchange.result)

    def lose(self, exchange: Exchange) -> None:
        self.exchanges.remove(exchange)
        exchange.answer.set_exception(UnavailableError("lost"))

    def land(self, put: tuple[tuple[str, str], Read], *, is_lost: bool = False) -> None:
        self.puts.remove(put)
        if not is_lost:
            self.shared[put[0]] = put[1]

    # The write side

    def commit(self, transaction: Transaction) -> None:
        server, old = self.database.primary, self.database.now
        told = self.database.commit(transaction)
        tx = transaction.tx
        if tx is None or self.database.now == old:
            return
        unheard = {(server.number, *change[::-1]) for change in told}
        if transaction.is_untold:
            unheard.add((server.number, tx, ""))
        for worker in self.workers:
            worker.unheard |= unheard
            if worker.wire.server is server and not worker.wire.is_cut:
                worker.wire.notifications += told
                if "notifications" in self.swift:
                    worker.hear_all()

    def fail_over(self, lost: int, next_tx: int | None) -> None:
        self.database.fail_over(lost, next_tx)
        self._cut_all()

    def crash(self, lost: int, reused: int) -> None:
        self.database.crash(lost, reused)
        self._cut_all()

    def _cut_all(self) -> None:
        for worker in self.workers:
            worker.wire.cut()
            worker.unheard.add((self.database.primary.number, 0, "all before"))

    def write_usage(self, worker: Worker) -> None:
        """Who was seen is written down, in batches and late."""
        for key, known in worker.used.items():
            transaction = Transaction(self.database.primary, is_usage=True)
            row = known if self.parts.saves_whole_keys else transaction.facts.rows.get((KeyRow, key))
            with suppress(RefusedError):
                if isinstance(row, KeyRow):
                    transaction.write({(KeyRow, key): row._replace(last_used_s=self.now_s)})
            self.commit(transaction)
        worker.used.clear()

    # Requests

    def since(self, worker: Worker) -> int:
        """From which moment on an answer must be true: the present one, if the worker has heard of all there is."""
        return 0 if worker.unheard else self.database.now

    async def ask(self, worker: Worker, target: Target, token: str | None) -> None:
        since = self.since(worker)
        decision = await worker.authenticator.authenticate(target, TOKENS[token])
        self.judge(worker, target, token, decision, since)
        known = worker.cache.peek(target)
        if isinstance(decision, Grant) and known is not None:
            bindings = {binding.key_id: binding for binding in known.bindings.bindings}
            if binding := bindings.get(decision.key_id):
                worker.used[decision.key_id] = KeyRow(binding.is_active, binding.is_revoked)

    def look(self, worker: Worker, target: Target, token: str | None) -> None:
        decision = worker.warm(target, token)
        if decision is not None:
            self.judge(worker, target, token, decision, self.since(worker))

    def judge(self, worker: Worker, target: Target, token: str | None, decision: Decision, since: int) -> None:
        said = _said(decision)
        if said == "unavailable":
            return
        if not self.database.was_true(said, target, token, since=since, within_s=LIMITS.max_staleness_s):
            number = self.workers.index(worker)
            raise WrongAnswerError(f"worker {number} says {said} for {token} on {target.names}")

    # Heartbeats

    def beat(self, worker: Worker) -> None:
        """One at a time, on a new wire where the last one is cut."""
        if worker.beating is None or worker.beating.done():
            if worker.wire.is_cut:
                worker.wire = Wire(worker, self.database.primary)
            worker.beating = self.start(self._beat(worker))

    async def _beat(self, worker: Worker) -> None:
        with suppress(UnavailableError):
            await worker.listener.beat(worker.wire)

    # All well again

    def settle(self, targets: Iterable[Target]) -> None:
        """Everything arrives, and every worker beats: then each answer is the committed one, and is kept."""
        self.complete_all()
        for worker in self.workers:
            worker.hear_all()
            self.beat(worker)
            self.turn()
            self.complete_all()
            assert not worker.unheard
            for target in targets:
                self.check_settled(worker, target)

    def complete_all(self) -> None:
        while self.exchanges:
            self.execute(self.exchanges[0])
            self.deliver(self.exchanges[0])
            self.turn()

    def check_settled(self, worker: Worker, target: Target) -> None:
        self.start(self.ask(worker, target, None))
        self.turn()
        self.complete_all()
        for token in TOKENS:
            decision = worker.warm(target, token)
            if decision is None or _said(decision) == "unavailable":
                raise WrongAnswerError(f"all is well, and {target.names} is not at hand")
            self.judge(worker, target, token, decision, self.database.now)


def _said(decision: Decision) -> str:
    match decision:
        case Grant():
            return "grant"
        case Anonymous():
            return "anonymous"
        case Denial(reason=Reason.UNAVAILABLE | Reason.NOT_FOUND | Reason.AMBIGUOUS as reason):
            return reason.replace("_", " ")
        case Denial():
            return "deny"


def _first_facts() -> Facts:
    """One protected resource with a name, one open one, and two keys, of which one opens the first."""
    first, second = new_id(), new_id()
    return Facts(
        {
            (ResourceRow, "1"): ResourceRow(first, "n", Protection.BOUND),
            (ResourceRow, "2"): ResourceRow(second),
            (KeyRow, "a"): KeyRow(),
            (KeyRow, "b"): KeyRow(),
            (TokenRow, "a1"): TokenRow("a"),
            (TokenRow, "b1"): TokenRow("b"),
            (BindingRow, f"{first}:a"): BindingRow(first, "a"),
        }
    )
