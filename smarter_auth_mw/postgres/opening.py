"""Opens the database of the settings, as a store or a URL, and starts the bundled server for ``embedded:``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Literal

from anyio import CancelScope, to_thread

from smarter_auth_mw.config.settings import Settings
from smarter_auth_mw.log import log
from smarter_auth_mw.postgres.embedded import cluster as embedded
from smarter_auth_mw.postgres.pool import Pool, open_pool
from smarter_auth_mw.postgres.store import Store

Role = Literal["owner", "runtime"]


@asynccontextmanager
async def open_store(settings: Settings, role: Role = "runtime") -> AsyncIterator[Store]:
    """Open the store of the settings' database; a bundled server runs while this is open.

    ``role`` applies only to the bundled database: ``owner`` migrates it, ``runtime`` serves. Raises
    ``UnavailableError`` or ``SchemaError``.
    """
    async with database_url(settings, role) as url, pool_of(settings, url) as pool:
        yield Store(pool)


@asynccontextmanager
async def database_url(settings: Settings, role: Role = "runtime") -> AsyncIterator[str]:
    """Yield the URL of the settings' database, starting the bundled server for ``embedded:``."""
    url = settings.database_url.get_secret_value()
    if not embedded.is_embedded(url):
        yield url
        return
    cluster = await to_thread.run_sync(embedded.Cluster.start, embedded.directory_of(url))
    log("store.embedded", "the embedded PostgreSQL keeps its data in %s", cluster.home)
    try:
        yield cluster.url(role)
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(cluster.stop)


def pool_of(settings: Settings, url: str) -> AbstractAsyncContextManager[Pool]:
    """Return a pool of connections to that URL, configured by the settings."""
    return open_pool(
        url,
        pool_min=settings.pool_min,
        pool_max=settings.pool_max,
        query_timeout_s=settings.query_timeout_s,
        statement_cache_size=settings.statement_cache_size,
    )


def listens(settings: Settings) -> bool:
    """Return whether LISTEN works: behind a transaction pooler only if LISTEN_URL names the primary."""
    return bool(settings.listen_url.get_secret_value() or settings.statement_cache_size)
