"""The engine of one event loop: its parts are opened together, connected to each other, and closed together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, nullcontext
from dataclasses import fields
from datetime import timedelta
from functools import partial
from secrets import SystemRandom
from typing import Any

from smarter_auth_mw.authentication.authenticator import Authenticator
from smarter_auth_mw.authentication.known_tokens import KnownTokens
from smarter_auth_mw.authentication.throttle import Throttle, open_throttle
from smarter_auth_mw.authentication.wall_clock import WallClock
from smarter_auth_mw.cache.backends import backend_of
from smarter_auth_mw.cache.changes import Changes
from smarter_auth_mw.cache.entries import Cache, Limits
from smarter_auth_mw.cache.failover import Failover
from smarter_auth_mw.cache.listener import Connect, Listener
from smarter_auth_mw.cache.shared import SharedBackend, SharedCounts, SharedTier
from smarter_auth_mw.cache.timelines import newest_timeline
from smarter_auth_mw.config.settings import Settings
from smarter_auth_mw.engine.engine import Engine, KnowDomains
from smarter_auth_mw.engine.health import Health
from smarter_auth_mw.engine.key_counts import KeyCounter
from smarter_auth_mw.engine.stand_in import PLACE
from smarter_auth_mw.errors import SmarterAuthError
from smarter_auth_mw.log import log
from smarter_auth_mw.observers.hub import Observers
from smarter_auth_mw.postgres.notifications import open_wire
from smarter_auth_mw.postgres.opening import database_url, listens, pool_of
from smarter_auth_mw.postgres.store import Store

CHANGES_KEPT = timedelta(hours=1)
"""The time for which a worker may be cut off without having to flush its cache."""
FIRST_BEAT_WITHIN_S = 0.5
"""The time that a start waits for the first heartbeat; entries that are read earlier are read again."""
PURGE_EVERY_S = 600.0
DOMAINS_PAUSE_S = 0.05


@asynccontextmanager
async def open_engine(
    settings: Settings, know_domains: KnowDomains = lambda _: None, observers: Observers | None = None
) -> AsyncIterator[Engine]:
    """Open everything that decides requests, and listen for changes. Raises ``UnavailableError`` or ``SchemaError``.

    ``know_domains`` is called with all custom domains, before anything is decided and whenever they may change.
    The records of ``observers`` are written to the store.
    """
    if (stand_in := PLACE.stand_in) is not None:
        throttle, connect = stand_in.throttle(settings.failed_attempts), stand_in.connect
        engine = _assembled(settings, stand_in.store, throttle, None, connect, stand_in.clock)
        async with _running(engine, settings, know_domains, observers):
            with stand_in.opened(engine, know_domains, observers):
                yield engine
        return
    cache_url = settings.cache_url.get_secret_value()
    async with (
        database_url(settings) as url,
        pool_of(settings, url) as pool,
        open_throttle(settings.failed_attempts, cache_url) as throttle,
        _backend(cache_url) as backend,
    ):
        connect = partial(
            open_wire,
            settings.listen_url.get_secret_value() or url,
            listens=listens(settings),
            timeout_s=settings.query_timeout_s,
            statement_cache_size=settings.statement_cache_size,
        )
        engine = _assembled(settings, Store(pool), throttle, backend, connect)
        async with _running(engine, settings, know_domains, observers):
            yield engine


@asynccontextmanager
async def _running(
    engine: Engine, settings: Settings, know_domains: KnowDomains, observers: Observers | None
) -> AsyncIterator[None]:
    know_domains(await engine.store.domains())
    async with (
        running(engine.listener.run()),
        running(_keeping_domains(engine, know_domains)),
        running(_purging(engine.store)),
        running(engine.key_counter.run()),
        observers.flushing(engine.store, settings.usage_flush_s) if observers else nullcontext(),
    ):
        await engine.listener.begun(FIRST_BEAT_WITHIN_S)
        yield


def _assembled(
    settings: Settings,
    store: Store,
    throttle: Throttle | None,
    backend: SharedBackend | None,
    connect: Connect,
    clock: Callable[[], float] | None = None,
) -> Engine:
    changes = Changes()
    cache = Cache(store, limits(settings), changes, clock=clock or time.monotonic)

    open_tier = None if backend is None else partial(_tier, backend, store, settings.cache_ttl_s)
    newest = None if backend is None else partial(_newest_timeline, backend, store)
    failover = Failover(cache, settings.max_staleness_s, open_tier, newest)
    listener = Listener(
        connect,
        changes,
        failover.held,
        failover.met,
        heartbeat_s=settings.heartbeat_s,
        kept_s=2 * settings.cache_ttl_s,  # One lifetime in the shared tier, and then one in a process.
        clock=clock or time.monotonic,
    )
    store.is_followed = failover.is_followed
    failover.start_over, failover.hurry = listener.meet_anew, listener.hurry
    wall = WallClock()
    listener.tell_time = wall.compare
    authenticator = authenticator_of(settings, store, cache, changes, throttle, clock or wall.now_s)
    health = Health(
        store,
        cache,
        listener,
        listens=listens(settings),
        stale_after_s=settings.max_staleness_s,
        gone_after_s=settings.max_staleness_s + settings.stale_if_error_s,
        kept_s=settings.cache_ttl_s,
        skew_s=lambda: wall.skew_s,
        shared=backend,
    )
    counts = backend.counts if backend else SharedCounts()
    return Engine(store, cache, changes, listener, authenticator, counts, health, throttle, KeyCounter(store))


async def _tier(backend: SharedBackend, store: Store, ttl_s: float, server: str) -> SharedTier:
    return SharedTier(backend, await store.secret(), server, ttl_s)


async def _newest_timeline(backend: SharedBackend, store: Store, system: str, timeline: int) -> int:
    return await newest_timeline(backend, await store.secret(), system, timeline)


def authenticator_of(
    settings: Settings,
    store: Store,
    cache: Cache | None = None,
    changes: Changes | None = None,
    throttle: Throttle | None = None,
    clock: Callable[[], float] | None = None,
) -> Authenticator:
    """Return the authenticator; for a single decision it needs only the store."""
    bounds = limits(settings)
    changes = Changes() if changes is None else changes  # Changes is false while it is empty.
    known_tokens = KnownTokens(store, bounds, changes) if settings.open_bad_token == "reject" else None
    cache = cache or Cache(store, bounds, changes)
    return Authenticator(cache, settings.require, clock, throttle=throttle, known_tokens=known_tokens)


def limits(settings: Settings) -> Limits:
    """Return the limits of the cache: how much it keeps, and for how long."""
    return Limits(**{field.name: getattr(settings, field.name) for field in fields(Limits)})


@asynccontextmanager
async def _backend(cache_url: str) -> AsyncIterator[SharedBackend | None]:
    backend = backend_of(cache_url)
    if backend is None:
        yield None
        return
    shared = SharedBackend(backend)
    try:
        yield shared
    finally:
        await shared.close()


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run the work in the background while the block runs."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _keeping_domains(engine: Engine, know_domains: KnowDomains) -> None:
    """Look up the custom domains when a directory changes, so that an unknown host causes no query."""
    changed = engine.changes.directory_changed
    while True:
        await changed.wait()
        changed.clear()
        try:
            know_domains(await engine.store.domains())
        except SmarterAuthError:
            changed.set()
        await asyncio.sleep(DOMAINS_PAUSE_S)


async def _purging(store: Store) -> None:
    """Delete old changes and old usage now and then; one worker does it for all."""
    while True:
        await asyncio.sleep(PURGE_EVERY_S * SystemRandom().uniform(0.5, 1.5))  # spreads the fleet
        try:
            await store.purge_changes(CHANGES_KEPT)
            await store.drop_old_usage()
        except SmarterAuthError as error:
            log("store.not_purged", "%s", error)
