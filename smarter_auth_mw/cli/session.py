"""The context of a command: settings and routes, from the environment or an app, and the write side."""

from __future__ import annotations

import getpass
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property

from smarter_auth_mw.cli import user_app as apps
from smarter_auth_mw.cli.guards import FoundMiddleware
from smarter_auth_mw.cli.output import note
from smarter_auth_mw.config.settings import DatabaseSettings, Settings
from smarter_auth_mw.configured import compile_routes, load_settings
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.management import naming
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.management.listings import Listings
from smarter_auth_mw.postgres.embedded.cluster import is_embedded, place_of
from smarter_auth_mw.postgres.opening import open_store
from smarter_auth_mw.postgres.store import Store
from smarter_auth_mw.routing.routes import Routes

LIST_TIMEOUT_S = 30.0
"""The timeout of one page of a list; no request waits for it."""


def say_where_data_is(settings: Settings | DatabaseSettings, tell: Callable[[str], None] = note) -> None:
    """Print the directory of an embedded database: apps that name the same one share their keys."""
    if is_embedded(url := settings.database_url.get_secret_value()):
        tell(f"The embedded PostgreSQL keeps its data in {place_of(url)}.")


@dataclass
class Session:
    """One run of one command."""

    from_app: str | None = None
    actor: str | None = None
    exit_code: int = 0
    as_json: bool = False

    @property
    def routes_from(self) -> str:
        """The source of the routes: the app, ``environment``, or the path of a file."""
        return self.from_app or self.settings.origin("routes")

    @property
    def root_path(self) -> str:
        """The prefix that the app itself puts into the scope."""
        return self.found.root_path if self.found else ""

    @cached_property
    def found(self) -> FoundMiddleware | None:
        """The SmarterAuthMiddleware of the app that ``--app`` names."""
        return apps.middleware_of(self.from_app) if self.from_app else None

    @cached_property
    def settings(self) -> Settings:
        """The settings that serving needs; raises ConfigurationError."""
        return (self.found and self.found.settings) or load_settings()

    @cached_property
    def database_settings(self) -> Settings:
        """Return the settings for commands that need no routes."""
        return self.settings if self.from_app else DatabaseSettings()

    @cached_property
    def routes(self) -> Routes:
        """The routes, compiled as the middleware compiles them; raises ConfigurationError."""
        return compile_routes(self.settings, self.found and self.found.app)

    @asynccontextmanager
    async def keys(self) -> AsyncIterator[Management]:
        """Open the write side on the settings' database, in the name of the actor."""
        async with open_store(self.database_settings) as store:
            yield self.keys_of(store)

    def keys_of(self, store: Store) -> Management:
        """Return the write side on a store that is already open."""
        settings = self.database_settings
        return Management(
            store,
            self.actor or os_user(),
            default_account=settings.default_account,
            require=settings.require,
            longest_life=settings.longest_key_life,
        )

    @asynccontextmanager
    async def listings(self) -> AsyncIterator[Listings]:
        """Open the lists of the settings' database."""
        settings = self.database_settings
        patience_s = max(LIST_TIMEOUT_S, settings.query_timeout_s)
        async with open_store(settings.model_copy(update={"query_timeout_s": patience_s})) as store:
            yield Listings(store)

    def tell_protected(self, resource: Resource) -> None:
        """Print which URLs require a token from now on."""
        urls = naming.urls(self.routes, resource)
        note(f"{resource} now requires a token: {', '.join(urls)}" if urls else f"No route leads to {resource}.")

    def tell_bound(self, resource: Resource, *, created: bool) -> None:
        """Print which URLs require a token now, and whether the resource was newly registered."""
        if created:
            note(f"{resource} was not registered before; it is now.")
        self.tell_protected(resource)


def os_user() -> str:
    """Return the name of the user that runs this process, or its number if it has no name."""
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
    except ImportError:  # The module does not exist on Windows.
        return getpass.getuser()
