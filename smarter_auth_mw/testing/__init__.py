"""Test an app without a database: the real middleware on a store in memory and a clock that the test moves.

Routing, credentials, cache and decision are the same code as in production. Nothing here needs pytest.
Begin with ``AuthKit``; its store is in :mod:`~smarter_auth_mw.testing.store`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self, TypeVar
from uuid import UUID
from weakref import WeakSet

from limits import parse

from smarter_auth_mw.authentication.throttle import BoundedCounters, Throttle
from smarter_auth_mw.cache.listener import Beat, Connect, Notified
from smarter_auth_mw.config.settings import Settings
from smarter_auth_mw.configured import compile_routes
from smarter_auth_mw.decision import Anonymous, Decision, Denial, Grant
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.engine.engine import Engine, KnowDomains
from smarter_auth_mw.engine.stand_in import PLACE
from smarter_auth_mw.errors import UnknownKindError, UsageError
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.management.rotations import OVERLAP
from smarter_auth_mw.observers.hub import Observers
from smarter_auth_mw.postgres.store import Store
from smarter_auth_mw.testing.store import MemoryStore
from smarter_auth_mw.testing.tables import Tables
from smarter_auth_mw.tokens import MintedToken

UNSAID = ["unsaid /unsaid/{ref}"]
"""Used instead of routes from elsewhere while the other settings are checked."""
PATIENCE_S = 5.0
BEGINS = datetime(2030, 1, 1, tzinfo=UTC)
"""The time at which the clock of every test begins."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TestKey:
    """A key for a test, with its token; ``headers`` send the token with a request."""

    __test__ = False  # so that pytest does not collect it

    key_id: UUID
    name: str
    token: MintedToken

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Token {self.token}"}


class AuthKit:
    """Replaces the database in tests inside ``with kit:``; a process can have one kit at a time.

    Every middleware that opens its connections inside the block uses the kit. A middleware that is created without
    settings inside the block has those of the kit: ``routes``, and other settings by name. Settings that are not given
    come from the usual places (environment, ``.env``, TOML file).

    A resource is written as ``kind:ref``, in the spelling of the kit's routes. The acts of the command line
    are plain methods here; they raise the errors of ``Management`` and take effect with the next request. Raises
    ConfigurationError.
    """

    def __init__(self, routes: Sequence[str] = (), **settings: Any) -> None:
        self.decisions: list[Decision] = []
        """The decisions about requests for resources so far, in order."""
        self.now = BEGINS
        self._memory = MemoryStore(lambda: self.now)
        self._given = {"database_url": "postgresql://in-memory/", "cache_url": "memory://", **settings}
        known = Settings(**(self._given | {"routes": list(routes) or UNSAID}))  # Mistakes are raised here.
        self._routes = compile_routes(known) if routes else None
        if routes:
            self._given["routes"] = list(routes)
        self._keys = Management(self.store, "test", require=known.require, clock=lambda: self.now)
        self._observers: WeakSet[Observers] = WeakSet()
        self._counters = BoundedCounters(clock=self.clock)
        self._open: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any], threading.Event]] = []

    def __enter__(self) -> Self:
        if PLACE.stand_in is not None:
            raise UsageError("Another AuthKit is active.", hint="Leave its block first.")
        PLACE.stand_in = self
        return self

    def __exit__(self, *_: object) -> None:
        PLACE.stand_in = None
        self._memory.is_down = True  # An app that still uses the store then refuses everything.
        self._memory.replace(Tables())
        for loop, task, ended in self._open:
            with suppress(RuntimeError):  # The loop and its connections may already be closed.
                loop.call_soon_threadsafe(task.cancel)
                if loop.is_running() and loop is not asyncio._get_running_loop():
                    ended.wait(PATIENCE_S)  # The loop of a WSGI app continues, and opens new connections.

    # The interface for engines.

    @property
    def settings(self) -> Settings:
        """Return the kit's settings; raises ConfigurationError."""
        return Settings(**self._given)

    @property
    def store(self) -> Store:
        return self._memory.as_store

    @property
    def connect(self) -> Connect:
        return self._connect

    @asynccontextmanager
    async def _connect(self, _: Notified | None) -> AsyncIterator[Self]:
        yield self

    async def beat(self, _: str | None) -> Beat:
        """Return an empty heartbeat, since every change was already delivered."""
        return Beat(self._memory.snapshot, "memory ")

    def clock(self) -> float:
        """Return the time of the test, in seconds (Unix)."""
        return self.now.timestamp()

    def throttle(self, rate: str) -> Throttle | None:
        return Throttle(parse(rate), self._counters) if rate else None

    @contextmanager
    def opened(self, engine: Engine, know_domains: KnowDomains, observers: Observers | None) -> Iterator[None]:
        """Deliver all changes to the engine and to its observers at once."""

        def follow(tx: int) -> None:
            engine.changes.hear("*", tx, is_proven=True)
            know_domains(self._memory.claims)

        if observers is not None and observers not in self._observers:
            self._observers.add(observers)
            observers.add(lambda decision, _: self.decisions.append(decision))
        if observers is not None:
            self._note_task()
        self._memory.followers.append(follow)
        try:
            yield
        finally:
            self._memory.followers.remove(follow)

    def _resource(self, text: str) -> Resource:
        kind, _, ref = text.partition(":")
        if self._routes is None:
            return Resource(kind, ref)
        if kind not in self._routes.kinds:
            raise UnknownKindError(f"No route of the kit has the kind {kind!r}, only {', '.join(self._routes.kinds)}.")
        return self._routes.canonical(kind, ref)

    def _note_task(self) -> None:
        """Remember the current task, which holds the open engine and must end with the kit."""
        task, ended = asyncio.current_task(), threading.Event()
        if task is not None:
            task.add_done_callback(lambda _: ended.set())
            self._open.append((task.get_loop(), task, ended))

    # The interface for tests: acts.

    def advance(self, span: timedelta) -> None:
        """Move the clock forward by this time."""
        self.now += span

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Simulate a database that cannot be reached while the block runs."""
        self._memory.is_down = True
        try:
            yield
        finally:
            self._memory.is_down = False

    def add(
        self,
        resource: str,
        *,
        name: str | None = None,
        account: str | None = None,
        domain: str | None = None,
        protect: bool = False,
    ) -> None:
        """Register a resource: open, unless ``protect``."""
        _done(
            self._keys.add_resource(
                self._resource(resource), name=name, account=account, domain=domain, protect=protect
            )
        )

    def mint(
        self,
        *resources: str,
        name: str | None = None,
        account: str | None = None,
        expires_in: timedelta | None = None,
    ) -> TestKey:
        """Create a key bound to these resources, which are protected from now on and registered if necessary."""
        expires_at = None if expires_in is None else self.now + expires_in
        name = name or f"key {len(self._memory.tables.keys) + 1}"
        bind = [self._resource(resource) for resource in resources]
        minted = _done(self._keys.create(name, account=account, expires_at=expires_at, bind=bind))
        return TestKey(minted.key.key_id, name, MintedToken(minted.token.reveal()))

    def rotate(self, key: TestKey, overlap: timedelta = OVERLAP) -> TestKey:
        """Return the key with a new token; the previous token stays valid for ``overlap``."""
        rotated = _done(self._keys.rotate(key.key_id, overlap))
        return TestKey(key.key_id, key.name, MintedToken(rotated.token.reveal()))

    def bind(self, key: TestKey, resource: str) -> None:
        _done(self._keys.bind(key.key_id, self._resource(resource)))

    def unbind(self, key: TestKey, resource: str, *, allow_anonymous: bool = False) -> None:
        """Unbind a key; the last one needs ``allow_anonymous``."""
        _done(self._keys.unbind(key.key_id, self._resource(resource), allow_anonymous=allow_anonymous))

    def activate(self, key: TestKey) -> None:
        _done(self._keys.activate(key.key_id))

    def deactivate(self, key: TestKey, *, allow_anonymous: bool = False) -> None:
        """Deactivate a key; with ``REQUIRE=active``, the last active key needs ``allow_anonymous``."""
        _done(self._keys.deactivate(key.key_id, allow_anonymous=allow_anonymous))

    def revoke(self, key: TestKey) -> None:
        _done(self._keys.revoke(key.key_id))

    def protect(self, resource: str) -> None:
        """Protect a resource that is registered, with or without keys."""
        _done(self._keys.protect(self._resource(resource)))

    def unprotect(self, resource: str) -> None:
        """Open a resource; refused while keys are bound to it."""
        _done(self._keys.unprotect(self._resource(resource)))

    # The interface for tests: assertions.

    @property
    def decision(self) -> Decision:
        """The decision about the last request for a resource; raises AssertionError if there was none."""
        assert self.decisions, "No request for a resource has been decided: do the routes include its path?"  # noqa: S101
        return self.decisions[-1]

    def assert_granted(self, key: TestKey | None = None) -> Grant:
        """Assert that the last request was granted, to this key if one is given."""
        decision = self.decision
        if not isinstance(decision, Grant):
            raise AssertionError(f"The last request was not granted: {_described(decision)}.")
        if key is not None and decision.key_id != str(key.key_id):
            raise AssertionError(
                f"The last request was granted to {decision.principal.display_name!r}, and not to {key.name!r}."
            )
        return decision

    def assert_denied(self, reason: str | None = None) -> Denial:
        """Assert that the last request was denied, for this (true) reason if one is given."""
        decision = self.decision
        if not isinstance(decision, Denial):
            raise AssertionError(f"The last request was not denied: {_described(decision)}.")
        if reason is not None and decision.reason != reason:
            raise AssertionError(
                f"The last request was denied for another reason than {reason!r}: {_described(decision)}."
            )
        return decision

    def assert_anonymous(self) -> Anonymous:
        """Assert that the last request was for an open resource."""
        decision = self.decision
        if not isinstance(decision, Anonymous):
            raise AssertionError(f"The last request was not anonymous: {_described(decision)}.")
        return decision


def _described(decision: Decision) -> str:
    if isinstance(decision, Denial):
        return f"{decision.resource} was denied ({decision.reason.value})"
    return f"{decision.resource} was {'granted' if isinstance(decision, Grant) else 'open'}"


def _done(act: Coroutine[Any, Any, T]) -> T:
    """Run an act and return its result: in memory nothing waits, so no event loop is needed."""
    try:
        act.send(None)
    except StopIteration as done:
        returned: T = done.value
        return returned
    raise RuntimeError("The store in memory must not wait, and did.")
