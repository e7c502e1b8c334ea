"""What settings ask for that this installation cannot give: known before anything is opened."""

from __future__ import annotations

from collections.abc import Iterator

from smarter_auth_mw.cache.backends import backend_of
from smarter_auth_mw.config.origins import PREFIX
from smarter_auth_mw.config.settings import Settings, mask_url
from smarter_auth_mw.errors import ConfigurationError, Mistake, SmarterAuthError
from smarter_auth_mw.postgres.embedded import cluster as embedded


def mistakes_of(settings: Settings) -> Iterator[Mistake]:
    """A mistake for each URL whose client is not installed, or that its client does not take; connects to nothing."""
    yield from _of_cache(settings.cache_url.get_secret_value())
    yield from _of_database(settings.database_url.get_secret_value())


def _of_cache(url: str) -> Iterator[Mistake]:
    try:
        backend_of(url)
    except ConfigurationError as error:
        yield from error.mistakes


def _of_database(url: str) -> Iterator[Mistake]:
    try:
        if embedded.is_embedded(url):
            embedded.check(url)
    except SmarterAuthError as error:
        yield Mistake(f"{PREFIX}DATABASE_URL", mask_url(url), f"{error.message}. {error.hint}")
