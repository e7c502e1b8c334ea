"""Checks whether the installation has what the settings need, before anything is opened."""

from __future__ import annotations

from collections.abc import Iterator

from smarter_auth_mw.cache.backends import backend_of
from smarter_auth_mw.config.masking import mask_url
from smarter_auth_mw.config.origins import PREFIX
from smarter_auth_mw.config.settings import Settings
from smarter_auth_mw.errors import ConfigurationError, Mistake, SmarterAuthError
from smarter_auth_mw.postgres.connections.connector import check_files
from smarter_auth_mw.postgres.embedded import cluster as embedded


def mistakes_of(settings: Settings) -> Iterator[Mistake]:
    """Yield a mistake for each URL whose client is not installed or refuses the URL, without connecting."""
    yield from _check_cache(settings.cache_url.get_secret_value())
    yield from _check_database("DATABASE_URL", settings.database_url.get_secret_value())
    yield from _check_database("LISTEN_URL", settings.listen_url.get_secret_value())


def _check_cache(url: str) -> Iterator[Mistake]:
    try:
        backend_of(url)
    except ConfigurationError as error:
        yield from error.mistakes


def _check_database(setting: str, url: str) -> Iterator[Mistake]:
    try:
        if embedded.is_embedded(url):
            embedded.check(url)
        elif url:
            check_files(url)
    except SmarterAuthError as error:
        yield Mistake(f"{PREFIX}{setting}", mask_url(url), f"{error.message.removesuffix('.')}. {error.hint}")
