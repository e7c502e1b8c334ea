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
"""The most bindings that models cache in total."""


class NotConnectedError(UsageError):
    """The models have no database to work on."""

    code = "not_connected"
    default_hint = "In a script: async with smarter_auth_mw.connect(): …"


class AmbiguousConnectionError(UsageError):
    """There are several databases in this process, and none was chosen."""

    code = "ambiguous_connection"
    default_hint = "Name the one to use: async with smarter_auth_mw.connect(settings): …"


class ModelSession:
    """The engine of one event loop, as models use it: to read, to write, and to read the cache."""

    def __init__(self, engine: Engine, settings: Settings, actor: str = ACTOR) -> None:
        self.loop = asyncio.get_running_loop()
        self.is_open = True
        self.database = database_of(settings)
        self._engine = engine
        self._settings = settings
        self._actor = actor

    @property
    def remembered(self) -> BoundedMemoryCache:
        """Return the cache of what models have read for a resource's bindings, by its look-up."""
        if self._engine not in _remembered:
            _remembered[self._engine] = BoundedMemoryCache(MAX_REMEMBERED, weigh=lambda kept: len(kept[1]) + 1)
        return _remembered[self._engine]

    def reading(self) -> AbstractAsyncContextManager[Transaction]:
        """Open a transaction for reading."""
        return self._engine.store.transaction()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[tuple[Management, set[str]]]:
        """Open a transaction for writing, with a set for the sources that it changes.

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
        """Return the bindings of the resource from the cache of requests, or with ``invalidate`` from the database."""
        target, cache = Target(resource), self._engine.cache
        if invalidate:
            return (await cache.refresh(target)).bindings
        return (cache.peek(target) or await cache.get(target)).bindings


@asynccontextmanager
async def connect(settings: Settings | None = None, *, actor: str = ACTOR) -> AsyncIterator[None]:
    """Open what the models need for the block, configured by ``SMARTER_AUTH_*`` unless settings are given.

    ``actor`` is the actor in the audit for changes in the block. Raises ``ConfigurationError``, ``UnavailableError``
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
            _chosen.set(outer)  # Not reset by token: a fixture may end in another context than it began in.


@contextmanager
def acting_as(actor: str) -> Iterator[None]:
    """Set the actor in the audit for changes by models in the block."""
    token = _acting.set(actor)
    try:
        yield
    finally:
        _acting.reset(token)


async def current() -> ModelSession:
    """Return the models' database: that of the surrounding ``connect()``, or of this process's only middleware.

    Raises NotConnectedError and AmbiguousConnectionError.
    """
    loop, chosen = asyncio.get_running_loop(), _chosen.get()
    if chosen is not None and chosen.is_open and chosen.loop is loop:
        return chosen
    here = _open_on(loop)
    meant = _meant(here)
    if len(meant) > 1 or not meant.keys() <= here.keys():
        del meant
        gc.collect()  # An unreferenced middleware is part of a cycle, and exists until it is collected.
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
    """Return the candidates outside any connect(): the middlewares that are open here, or may still open.

    Without any, it is a ``connect()`` block in another task, for example around a server's lifespan; without that,
    a middleware that was opened on another event loop.
    """
    known = [(database_of(each.settings), each) for each in every() if each.settings is not None]
    likely = {database: one for database, one in known if database in here or not one.was_opened}
    return likely or here or dict(known)


def database_of(settings: Settings) -> tuple[str, str]:
    """Return what identifies a database for models: the URL, and the account used when none is given.

    With an ``AuthKit`` in place, its store is the only database.
    """
    url = settings.database_url.get_secret_value() if PLACE.stand_in is None else ""
    return url, settings.default_account


_chosen: ContextVar[ModelSession | None] = ContextVar("smarter_auth_chosen", default=None)
_acting: ContextVar[str] = ContextVar("smarter_auth_acting", default="")
_connected: WeakSet[ModelSession] = WeakSet()
_remembered: WeakKeyDictionary[Engine, BoundedMemoryCache] = WeakKeyDictionary()
_lock = threading.Lock()
