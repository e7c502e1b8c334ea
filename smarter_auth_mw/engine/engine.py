"""The engine of one event loop: everything that decides requests there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from smarter_auth_mw.authentication.authenticator import Authenticator
from smarter_auth_mw.authentication.throttle import Throttle
from smarter_auth_mw.cache.changes import Changes
from smarter_auth_mw.cache.entries import Cache
from smarter_auth_mw.cache.listener import Listener
from smarter_auth_mw.cache.shared import SharedCounts
from smarter_auth_mw.engine.health import Health
from smarter_auth_mw.engine.key_counts import KeyCounter
from smarter_auth_mw.postgres.store import Store

KnowDomains = Callable[[Iterable[tuple[str, str]]], object]


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Engine:
    """The authenticator of one event loop, and the parts that it depends on."""

    store: Store
    cache: Cache
    changes: Changes
    listener: Listener
    authenticator: Authenticator
    shared: SharedCounts
    health: Health
    throttle: Throttle | None
    key_counter: KeyCounter
