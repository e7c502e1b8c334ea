"""The one place that assembles concrete parts: settings in, something that answers requests out."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import fields
from typing import Any, Literal

from anyio import to_thread

from smarter_auth_mw import embedded
from smarter_auth_mw.authenticator import Authenticator
from smarter_auth_mw.cache import Cache, Limits
from smarter_auth_mw.changes import Changes
from smarter_auth_mw.decision import Decision, Denial, Reason
from smarter_auth_mw.domain import Target
from smarter_auth_mw.errors import ConfigurationError, SmarterAuthError, UnavailableError
from smarter_auth_mw.http_auth import Credentials, Extractor, Rejections, is_preflight
from smarter_auth_mw.known_tokens import KnownTokens
from smarter_auth_mw.loops import PerLoop
from smarter_auth_mw.mounts import mounts_of
from smarter_auth_mw.near_misses import NearMisses
from smarter_auth_mw.peers import Peers
from smarter_auth_mw.routing import Routes
from smarter_auth_mw.settings import RouteSettings, Settings
from smarter_auth_mw.store import Store, open_pool
from smarter_auth_mw.throttle import Throttle, is_guess, open_throttle, window_s

Role = Literal["owner", "runtime"]

logger = logging.getLogger("smarter_auth_mw")


@asynccontextmanager
async def open_store(settings: Settings, role: Role = "runtime") -> AsyncIterator[Store]:
    """The store of the settings' database; the bundled server runs for as long as this is open.

    ``role`` counts for the bundled database alone: ``owner`` migrates it, ``runtime`` works with it. Raises
    ``UnavailableError`` or ``SchemaError``.
    """
    async with (
        database_url(settings, role) as url,
        open_pool(
            url,
            pool_min=settings.pool_min,
            pool_max=settings.pool_max,
            query_timeout_s=settings.query_timeout_s,
            statement_cache_size=settings.statement_cache_size,
        ) as pool,
    ):
        yield Store(pool)


@asynccontextmanager
async def database_url(settings: Settings, role: Role = "runtime") -> AsyncIterator[str]:
    """The URL of the settings' database as asyncpg takes it, starting the bundled server where that is meant."""
    url = settings.database_url.get_secret_value()
    if not embedded.is_embedded(url):
        yield url
        return
    cluster = await to_thread.run_sync(embedded.Cluster.start, embedded.directory_of(url))
    try:
        yield cluster.url(role)
    finally:
        await to_thread.run_sync(cluster.stop)


class Wiring:
    """Everything that a shell needs, made from the settings; it keeps their mistakes and never raises for them."""

    def __init__(self, app: Any, settings: Settings | None = None) -> None:
        self.settings: Settings | None = settings
        self.routes: Routes | None = None
        self.mistakes: ConfigurationError | None = None
        try:
            self.settings = settings or Settings()
        except ConfigurationError as error:
            self._note(error)
        try:
            self.routes = compile_routes(self.settings or RouteSettings(), app)
        except ConfigurationError as error:
            self._note(error)
        known = self.settings or Settings.model_construct()  # the defaults, which are enough to refuse everything
        self.extractors = {
            "http": Extractor(known.credentials),
            "websocket": Extractor((*known.credentials, "subprotocol")),
        }
        self.rejections = Rejections(
            known.credentials, known.realm, known.error_format, throttled_for_s=window_s(known.failed_attempts)
        )
        self.hides_credentials = known.hide_credentials
        self._passes_preflights = known.preflight == "pass"
        self._peers = Peers(known.trusted_proxies)
        self._near_misses = NearMisses()
        self._parts = PerLoop(self._opened)
        self.authenticator = self._parts.ready

    def _report(self, error: SmarterAuthError) -> None:
        logger.error("%s %s", error, error.hint)

    def _note(self, error: ConfigurationError) -> None:
        known = self.mistakes.mistakes if self.mistakes else ()
        self.mistakes = ConfigurationError((*known, *(new for new in error.mistakes if new not in known)))
        logger.error("%s", error)

    def resolve(self, scope: Mapping[str, Any]) -> Target | Denial | None:
        """What the request names; None only where it surely names no resource."""
        if self.routes is None:
            return Denial(Reason.UNAVAILABLE, detail="the routes have mistakes")
        target = self.routes.resolve(scope)
        if target is not None and self._passes_preflights and isinstance(target, Target) and is_preflight(scope):
            return None
        return target

    async def authenticate(self, target: Target, credentials: Credentials, scope: Mapping[str, Any]) -> Decision:
        """The decision of the running loop's authenticator, whose connections are opened if need be."""
        try:
            authenticator = await self._parts.get()
        except SmarterAuthError as error:
            self._report(error)
            return Denial(Reason.UNAVAILABLE, detail=error.message)
        return await authenticator.authenticate(target, credentials, self._peers.network(scope))

    async def denied(self, denial: Denial, scope: Mapping[str, Any]) -> Denial:
        """What the peer is to be told of a denial: that one, or that it has failed too often."""
        self._near_misses.note(denial, scope["path"])
        authenticator = self.authenticator()
        if authenticator is None or not is_guess(denial):
            return denial
        return await authenticator.throttled(denial, self._peers.network(scope))

    async def open(self) -> None:
        """Open the running loop's connections; a database that is down is reported, and tried again by requests."""
        try:
            await self._parts.get()
        except SmarterAuthError as error:
            self._report(error)

    async def close(self) -> None:
        """Close the running loop's connections."""
        await self._parts.close()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Authenticator]:
        if self.mistakes is not None or self.settings is None:
            raise self.mistakes or UnavailableError()
        settings, cache_url = self.settings, self.settings.cache_url.get_secret_value()
        async with open_store(settings) as store, open_throttle(settings.failed_attempts, cache_url) as throttle:
            yield authenticator_of(settings, store, throttle)


def authenticator_of(settings: Settings, store: Store, throttle: Throttle | None = None) -> Authenticator:
    """What decides requests, with a cache of its own before the store."""
    bounds, changes = limits(settings), Changes()
    known_tokens = KnownTokens(store, bounds, changes) if settings.open_bad_token == "reject" else None
    cache = Cache(store, bounds, changes)
    return Authenticator(cache, settings.require, throttle=throttle, known_tokens=known_tokens)


def compile_routes(settings: RouteSettings, app: Any = None) -> Routes:
    """The routes of the settings, with the mounts that the app itself tells of."""
    return Routes.parse(settings.routes, mounts=(*settings.mounts, *mounts_of(app)))


def limits(settings: Settings) -> Limits:
    """What the cache may keep, and for how long."""
    return Limits(**{field.name: getattr(settings, field.name) for field in fields(Limits)})
