"""Settings and routes, read and checked together, so that every mistake is reported at once."""

from __future__ import annotations

from typing import Any

from smarter_auth_mw.config.settings import RouteSettings, Settings
from smarter_auth_mw.engine.requirements import mistakes_of
from smarter_auth_mw.errors import ConfigurationError
from smarter_auth_mw.http import status_pages as pages
from smarter_auth_mw.routing.mounts import mounts_of
from smarter_auth_mw.routing.routes import Routes


def load_settings() -> Settings:
    """Return the settings of the environment and the files.

    Raises ConfigurationError with their mistakes and those of the routes together.
    """
    try:
        return Settings()
    except ConfigurationError as error:
        try:
            compile_routes(RouteSettings())
        except ConfigurationError as wrong_routes:
            raise together(error, wrong_routes) from None
        raise


def together(error: ConfigurationError, other: ConfigurationError) -> ConfigurationError:
    """Return both errors as one; for a setting with two mistakes, only the first."""
    named = {mistake.variable for mistake in error.mistakes}
    new = [mistake for mistake in other.mistakes if mistake.variable not in named]
    return ConfigurationError([*error.mistakes, *new], hint=error.hint or other.hint)


def compile_routes(settings: RouteSettings, app: Any = None) -> Routes:
    """Return the routes of the settings, with the mounts that the app itself reports.

    Raises ConfigurationError with every mistake that can be found before anything is opened.
    """
    mistakes, hint = list(mistakes_of(settings)) if isinstance(settings, Settings) else [], None
    try:
        routes = Routes.parse(
            settings.routes,
            mounts=(*settings.mounts, *mounts_of(app)),
            api_domains=settings.api_domains,
            platform_domains=settings.platform_domains,
            default_account=settings.default_account,
        )
        mistakes += pages.mistakes_of(settings, lambda path: routes.explain({"path": path}).result)
    except ConfigurationError as error:
        mistakes, hint = [*mistakes, *error.mistakes], error.hint
    if mistakes:
        raise ConfigurationError(settings.located(mistakes), hint=hint)
    return routes
