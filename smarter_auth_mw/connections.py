"""Which database the models work on: that of a ``connect()``, or that of the middleware in this process."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar
from weakref import WeakSet

from smarter_auth_mw.domain import Bindings, Resource, Target
from smarter_auth_mw.errors import UsageError
from smarter_auth_mw.keys import Keys
from smarter_auth_mw.memory import BoundedMemoryCache
from smarter_auth_mw.parts import Parts, open_parts
from smarter_auth_mw.records import Records
from smarter_auth_mw.settings import DatabaseSettings, Settings

T = TypeVar("T")

ACTOR = "models"
"""Who does what models do, where nobody says more."""
MAX_REMEMBERED = 1000


class NotConnectedError(UsageError):
    """The models have no database to work on."""

    code = "not_connected"
    default_hint = "In a script: async with smarter_auth_mw.connect(): …"


class AmbiguousConnectionError(UsageError):
    """There is more than one database in this process that could be meant."""

    code = "ambiguous_connection"
    default_hint = "Say which one is meant: async with smarter_auth_mw.connect(settings): …"


class Connection:
    """The parts of one event loop, as models use them: they read, they write, and they look into the cache."""

    def __init__(self, parts: Parts, settings: Settings, actor: str = ACTOR) -> None:
        self.loop = asyncio.get_running_loop()
        self.is_open = True
        self.remembered = BoundedMemoryCache(MAX_REMEMBERED)
        """What models have made of bindings, by the resource's look-up, together with those bindings."""
        self.database = database_of(settings)
        self._parts = parts
        self._settings = settings
        self._actor = actor

    def reading(self) -> AbstractAsyncContextManager[Records]:
        """One transaction to read in."""
        return self._parts.store.transaction()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[tuple[Keys, set[str]]]:
        """One transaction to write in, and a set that takes the sources it changes.

        This process does not wait to be told of what it has changed itself: its cache knows when the block ends.
        """
        keys = Keys(self._parts.store, _acting.get() or self._actor, default_account=self._settings.default_account)
        touched: set[str] = set()
        async with keys.together() as acts:
            yield acts, touched
            tx = await acts.transaction_id()
        for source in touched:
            self._parts.changes.hear(source, tx)

    async def bindings(self, resource: Resource, *, invalidate: bool = False) -> Bindings:
        """The bindings of the resource as a request would find them, or, with ``invalidate``, read now."""
        target, cache = Target(resource), self._parts.cache
        if invalidate:
            return await cache.refresh(target)
        return cache.peek(target) or await cache.get(target)


class Middleware(Protocol):
    """A middleware, as far as it can connect the models."""

    @property
    def settings(self) -> Settings | None: ...
    async def connection(self) -> Connection: ...


@asynccontextmanager
async def connect(settings: Settings | None = None, *, actor: str = ACTOR) -> AsyncIterator[None]:
    """Open what the models need, for as long as the block lasts, by ``SMARTER_AUTH_*`` unless settings are given.

    ``actor`` stands in the audit for what is done in the block. Raises ``ConfigurationError``, ``UnavailableError`` and
    ``SchemaError``.
    """
    settings = settings or DatabaseSettings()
    async with open_parts(settings) as parts:
        connection, outer = Connection(parts, settings, actor), _chosen.get()
        _connections.add(connection)
        _chosen.set(connection)
        try:
            yield
        finally:
            connection.is_open = False
            _chosen.set(outer)  # Not by its token: a fixture's end may run in another context than its beginning.


@contextmanager
def acting_as(actor: str) -> Iterator[None]:
    """Whose name stands in the audit for what models do in the block."""
    token = _acting.set(actor)
    try:
        yield
    finally:
        _acting.reset(token)


def register(middleware: Middleware) -> None:
    """Let models find this middleware, for as long as anybody holds it."""
    with _lock:
        _middlewares.add(middleware)


async def current() -> Connection:
    """What models work on: the ``connect()`` around them, the middleware in this process, or the only ``connect()``.

    Raises NotConnectedError and AmbiguousConnectionError.
    """
    loop, chosen = asyncio.get_running_loop(), _chosen.get()
    if chosen is not None and chosen.is_open and chosen.loop is loop:
        return chosen
    if middleware := _only_middleware():
        return await middleware.connection()
    # A connect() around a server's life or a fixture's, say: its block is not around the task that asks.
    return _only({one.database: one for one in list(_connections) if one.is_open and one.loop is loop})


def _only_middleware() -> Middleware | None:
    if len(_usable_middlewares()) > 1:
        gc.collect()  # One that nobody holds any more holds itself, until it is collected.
    found = _usable_middlewares()
    return _only(found) if found else None


def _usable_middlewares() -> dict[tuple[str, str], Middleware]:
    with _lock:
        return {database_of(one.settings): one for one in _middlewares if one.settings is not None}


def _only(found: dict[tuple[str, str], T]) -> T:
    if not found:
        raise NotConnectedError()
    if len(found) > 1:
        raise AmbiguousConnectionError()
    return next(iter(found.values()))


def database_of(settings: Settings) -> tuple[str, str]:
    """What makes two databases different to models: the URL, and the account of what names none."""
    return settings.database_url.get_secret_value(), settings.default_account


_chosen: ContextVar[Connection | None] = ContextVar("smarter_auth_chosen", default=None)
_acting: ContextVar[str] = ContextVar("smarter_auth_acting", default="")
_connections: WeakSet[Connection] = WeakSet()
_middlewares: WeakSet[Middleware] = WeakSet()
_lock = threading.Lock()
