"""What takes the place of the database for a whole process: the test kit's store in memory."""

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
    """Replaces database, shared cache and clock; ``connect`` opens the connection that changes come by."""

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
    """Where a stand-in is put; only ``smarter_auth_mw.testing`` does."""

    stand_in: StandIn | None = None


PLACE = _Place()


def own_settings() -> Settings:
    """Return the settings of a middleware that was given none; raises ConfigurationError."""
    return PLACE.stand_in.settings if PLACE.stand_in else Settings()
