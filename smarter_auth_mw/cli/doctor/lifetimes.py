"""Findings about keys that are valid for longer than MAX_KEY_LIFETIME allows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from smarter_auth_mw.cli.doctor.routes import Finding
from smarter_auth_mw.config.settings import Settings
from smarter_auth_mw.domain import Key
from smarter_auth_mw.management.listings import KeyFilters, Listings
from smarter_auth_mw.postgres.store import Store

SHOWN_KEYS = 10


async def of_key_lifetimes(settings: Settings, store: Store) -> AsyncIterator[Finding]:
    """Yield findings about keys that were created before MAX_KEY_LIFETIME was set and exceed it."""
    longest = settings.longest_key_life
    if longest is None:
        return
    beyond = await _first(store, KeyFilters(expiring_after=longest))
    beyond += await _first(store, KeyFilters(never_expires=True))
    for key in beyond[:SHOWN_KEYS]:
        until = "without end" if key.expires_at is None else f"until {key.expires_at.isoformat()}"
        allowed = settings.max_key_lifetime
        yield Finding(
            "warning",
            "lifetime",
            f"The key {key.name!r} ({key.key_id}) is valid {until}: MAX_KEY_LIFETIME allows {allowed}.",
            f"Run: smarter-auth key set {key.key_id} --expires-in {allowed}",
        )
    if len(beyond) > SHOWN_KEYS:
        yield Finding("warning", "lifetime", "More keys are valid for longer than MAX_KEY_LIFETIME allows.", "")


async def _first(store: Store, filters: KeyFilters) -> list[Key]:
    """Return the first few keys, and one more if there are more."""
    found: list[Key] = []
    async with aclosing(Listings(store).every_key(filters)) as keys:
        async for key in keys:
            found.append(key)
            if len(found) > SHOWN_KEYS:
                break
    return found
