"""The services of the operations: a store with its own pool, routes, settings, and the throttle."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from smarter_auth_mw.authentication.throttle import Throttle, open_throttle
from smarter_auth_mw.config.settings import Settings
from smarter_auth_mw.engine.assembly import running
from smarter_auth_mw.engine.stand_in import PLACE
from smarter_auth_mw.errors import UnavailableError
from smarter_auth_mw.guard import Guard
from smarter_auth_mw.management.operators import Doorkeeper
from smarter_auth_mw.metrics import multiprocess
from smarter_auth_mw.postgres.opening import open_store
from smarter_auth_mw.postgres.store import Store
from smarter_auth_mw.routing.routes import Routes

POOL_MAX = 2
"""The most connections of this process, which are separate from those of the workers."""
TIMEOUT_S = 10.0
"""The timeout of a statement, unless QUERY_TIMEOUT_S is longer; no request for a resource waits for it."""


@dataclass(frozen=True, slots=True)
class Services:
    """The open services of one event loop."""

    store: Store
    door: Doorkeeper
    throttle: Throttle | None
    settings: Settings
    routes: Routes
    guard: Guard

    @property
    def within_s(self) -> float:
        """The number of seconds after which every worker knows of a change, whatever fails."""
        return self.settings.max_staleness_s + self.settings.stale_if_error_s


@asynccontextmanager
async def open_services(guard: Guard) -> AsyncIterator[Services]:
    """Open a store without cache and listener. Raises UnavailableError, SchemaError or ConfigurationError."""
    if guard.mistakes is not None or guard.settings is None or guard.routes is None:
        raise guard.mistakes or UnavailableError()
    if PLACE.stand_in is not None:
        raise UnavailableError("The management API needs PostgreSQL: the store in memory of AuthKit has no operators.")
    settings = guard.settings
    if settings.metrics_path:
        multiprocess.warn_of_one_worker()
    own = {"pool_min": 1, "pool_max": POOL_MAX, "query_timeout_s": max(TIMEOUT_S, settings.query_timeout_s)}
    cache_url = settings.cache_url.get_secret_value()
    async with (
        open_store(settings.model_copy(update=own)) as store,
        open_throttle(settings.failed_attempts, cache_url) as throttle,
        running(multiprocess.publishing()),
    ):
        yield Services(store, Doorkeeper(store), throttle, settings, guard.routes, guard)
