"""Replaces the database for a whole process with the test kit's store in memory."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from smarter_auth_mw.authentication.throttle import Throttle
from smarter_auth_mw.cache.listener import Connect
from smarter_auth_mw.config.settings import Settings
from smarter_auth_mw.engine.engine import Engine, KnowDomains
from smarter_auth_mw.observers.hub import Observers
from smarter_auth_mw.postgres.store import Store


class StandIn(Protocol):
    """Replaces database, shared cache and clock; ``connect`` opens the connection that reports changes."""

    @property
    def settings(self) -> Settings: ...
    @property
    def store(self) -> Store: ...
    @property
    def connect(self) -> Connect: ...
    def clock(self) -> float: ...
    def throttle(self, rate: str) -> Throttle | None: ...
    def opened(
        self, engine: Engine, know_domains: KnowDomains, observers: Observers | None
    ) -> AbstractContextManager[None]: ...


class _Place:
    """Holds the stand-in, which only ``smarter_auth_mw.testing`` sets."""

    stand_in: StandIn | None = None


PLACE = _Place()


def own_settings() -> Settings:
    """Return the settings of a middleware that was created without any; raises ConfigurationError."""
    return PLACE.stand_in.settings if PLACE.stand_in else Settings()
