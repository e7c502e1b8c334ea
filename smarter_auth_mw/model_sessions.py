"""Which database the models work on: that of a ``connect()``, or that of the middleware in this process."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Protocol
from weakref import WeakSet

from smarter_auth_mw.cache.bounded import BoundedMemoryCache
from smarter_auth_mw.config.settings import DatabaseSettings, Settings
from smarter_auth_mw.domain import Bindings, Resource, Target
from smarter_auth_mw.engine.assembly import Parts, open_parts
from smarter_auth_mw.errors import UsageError
from smarter_auth_mw.management.keys import Keys
from smarter_auth_mw.postgres.transaction import Records

ACTOR = "models"
"""Who does what models do, where nobody says more."""
MAX_REMEMBERED = 10_000
"""Bindings that models keep, in all."""


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
        self.pid = os.getpid()
        self.remembered = BoundedMemoryCache(MAX_REMEMBERED, weigh=lambda remembered: len(remembered[1]) + 1)
        """What models have read for the bindings of a resource, by its look-up, together with those bindings."""
        self.database = database_of(settings)
        self._parts = parts
        self._settings = settings
        self._actor = actor
        with _lock:
            _connections.add(self)

    @property
    def parts(self) -> Parts:
        return self._parts

    async def connection(self) -> Connection:
        """Itself: it is open."""
        return self

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
            return (await cache.refresh(target)).bindings
        return (cache.peek(target) or await cache.get(target)).bindings


class Connectable(Protocol):
    """Whoever can connect the models."""

    async def connection(self) -> Connection: ...


class Middleware(Connectable, Protocol):
    """A middleware, as far as models are concerned."""

    @property
    def settings(self) -> Settings | None: ...
    @property
    def was_opened(self) -> bool: ...


@asynccontextmanager
async def connect(settings: Settings | None = None, *, actor: str = ACTOR) -> AsyncIterator[None]:
    """Open what the models need, for as long as the block lasts, by ``SMARTER_AUTH_*`` unless settings are given.

    ``actor`` stands in the audit for what is done in the block. Raises ``ConfigurationError``, ``UnavailableError`` and
    ``SchemaError``.
    """
    settings = settings or DatabaseSettings()
    async with open_parts(settings) as parts:
        connection, outer = Connection(parts, settings, actor), _chosen.get()
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
    here = _open_on(loop)
    meant = _meant(here)
    if len(meant) > 1 or not meant.keys() <= here.keys():
        del meant
        gc.collect()  # A middleware that nobody holds any more holds itself, until it is collected.
        meant = _meant(here)
    if len(meant) > 1:
        raise AmbiguousConnectionError()
    for one in meant.values():
        return await one.connection()
    raise NotConnectedError()


def _open_on(loop: asyncio.AbstractEventLoop) -> dict[tuple[str, str], Connection]:
    with _lock:
        return {one.database: one for one in _connections if one.is_open and one.loop is loop}


def _meant(here: Mapping[tuple[str, str], Connection]) -> Mapping[tuple[str, str], Connectable]:
    """What could be meant by who is inside no connect(): the middlewares that are open here, or may be yet.

    Without any it is a ``connect()`` whose block is around a server's life, say, and not around the task that asks; and
    without that a middleware that was opened on another event loop.
    """
    with _lock:
        known = [(database_of(one.settings), one) for one in _middlewares if one.settings is not None]
    likely = {database: one for database, one in known if database in here or not one.was_opened}
    return likely or here or dict(known)


def database_of(settings: Settings) -> tuple[str, str]:
    """What makes two databases different to models: the URL, and the account of what names none."""
    return settings.database_url.get_secret_value(), settings.default_account


_chosen: ContextVar[Connection | None] = ContextVar("smarter_auth_chosen", default=None)
_acting: ContextVar[str] = ContextVar("smarter_auth_acting", default="")
_connections: WeakSet[Connection] = WeakSet()
_middlewares: WeakSet[Middleware] = WeakSet()
_lock = threading.Lock()
