"""The models' database: the one of a ``connect()`` block, or the one of the middleware in this process."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from weakref import WeakKeyDictionary, WeakSet

from smarter_auth_mw.cache.bounded import BoundedMemoryCache
from smarter_auth_mw.config.settings import DatabaseSettings, Settings
from smarter_auth_mw.domain import Bindings, Resource, Target
from smarter_auth_mw.engine.assembly import open_engine
from smarter_auth_mw.engine.engine import Engine
from smarter_auth_mw.engine.engines import Engines, every
from smarter_auth_mw.engine.stand_in import PLACE
from smarter_auth_mw.errors import UsageError
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.postgres.transaction import Transaction

ACTOR = "models"
"""The default actor for what models do."""
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


class ModelSession:
    """The engine of one event loop, as models use it: they read, they write, and they look into the cache."""

    def __init__(self, engine: Engine, settings: Settings, actor: str = ACTOR) -> None:
        self.loop = asyncio.get_running_loop()
        self.is_open = True
        self.database = database_of(settings)
        self._engine = engine
        self._settings = settings
        self._actor = actor

    @property
    def remembered(self) -> BoundedMemoryCache:
        """Return what models have read for the bindings of a resource, by its look-up, together with those bindings."""
        if self._engine not in _remembered:
            _remembered[self._engine] = BoundedMemoryCache(MAX_REMEMBERED, weigh=lambda kept: len(kept[1]) + 1)
        return _remembered[self._engine]

    def reading(self) -> AbstractAsyncContextManager[Transaction]:
        """One transaction to read in."""
        return self._engine.store.transaction()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[tuple[Management, set[str]]]:
        """One transaction to write in, and a set that takes the sources it changes.

        This process does not wait for notifications of its own changes: its cache is updated when the block ends.
        """
        keys = Management(
            self._engine.store,
            _acting.get() or self._actor,
            default_account=self._settings.default_account,
            require=self._settings.require,
            longest_life=self._settings.longest_key_life,
        )
        touched: set[str] = set()
        async with keys.together() as acts:
            yield acts, touched
            tx = await acts.transaction_id()
        for source in touched:
            self._engine.changes.hear(source, tx, is_proven=True)

    async def bindings(self, resource: Resource, *, invalidate: bool = False) -> Bindings:
        """The bindings of the resource as a request would find them, or, with ``invalidate``, read now."""
        target, cache = Target(resource), self._engine.cache
        if invalidate:
            return (await cache.refresh(target)).bindings
        return (cache.peek(target) or await cache.get(target)).bindings


@asynccontextmanager
async def connect(settings: Settings | None = None, *, actor: str = ACTOR) -> AsyncIterator[None]:
    """Open what the models need, for as long as the block lasts, by ``SMARTER_AUTH_*`` unless settings are given.

    ``actor`` is the audit's actor for what is done in the block. Raises ``ConfigurationError``, ``UnavailableError``
    and ``SchemaError``.
    """
    settings = settings or DatabaseSettings()
    async with open_engine(settings) as engine:
        session, outer = ModelSession(engine, settings, actor), _chosen.get()
        with _lock:
            _connected.add(session)
        _chosen.set(session)
        try:
            yield
        finally:
            session.is_open = False
            _chosen.set(outer)  # Not by its token: a fixture's end may run in another context than its beginning.


@contextmanager
def acting_as(actor: str) -> Iterator[None]:
    """The actor that the audit names for what models do in the block."""
    token = _acting.set(actor)
    try:
        yield
    finally:
        _acting.reset(token)


async def current() -> ModelSession:
    """Return the database of the models: of ``connect()`` around them, of this process's middleware, or the only one.

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
    for database, session in meant.items():
        session = here.get(database, session)
        return await _opened(session) if isinstance(session, Engines) else session
    raise NotConnectedError()


async def _opened(engines: Engines) -> ModelSession:
    return ModelSession(await engines.get(), engines.settings or Settings())


def _open_on(loop: asyncio.AbstractEventLoop) -> dict[tuple[str, str], ModelSession]:
    ready = [(each.settings, engine) for each in every() if (engine := each.ready()) is not None]
    sessions = [ModelSession(engine, settings) for settings, engine in ready if settings is not None]
    with _lock:
        sessions += [one for one in _connected if one.is_open and one.loop is loop]
    return {session.database: session for session in sessions}


def _meant(here: Mapping[tuple[str, str], ModelSession]) -> Mapping[tuple[str, str], ModelSession | Engines]:
    """The candidates outside any connect(): the middlewares that are open here, or may still open.

    Without any it is a ``connect()`` whose block is around a server's life, say, and not around the task that asks; and
    without that a middleware that was opened on another event loop.
    """
    known = [(database_of(each.settings), each) for each in every() if each.settings is not None]
    likely = {database: one for database, one in known if database in here or not one.was_opened}
    return likely or here or dict(known)


def database_of(settings: Settings) -> tuple[str, str]:
    """Return what makes two databases different to models: the URL, and the account used when none is given.

    With an ``AuthKit`` in place there is no other database than its own.
    """
    url = settings.database_url.get_secret_value() if PLACE.stand_in is None else ""
    return url, settings.default_account


_chosen: ContextVar[ModelSession | None] = ContextVar("smarter_auth_chosen", default=None)
_acting: ContextVar[str] = ContextVar("smarter_auth_acting", default="")
_connected: WeakSet[ModelSession] = WeakSet()
_remembered: WeakKeyDictionary[Engine, BoundedMemoryCache] = WeakKeyDictionary()
_lock = threading.Lock()
