"""What the store in memory derives from its records."""

from __future__ import annotations

import math
from contextlib import suppress
from datetime import datetime

from smarter_auth_mw.domain import Binding, Key, KeyToken, RegisteredResource
from smarter_auth_mw.errors import InvalidReferenceError
from smarter_auth_mw.routing.references import rfc1034


def binding_of(key: Key, token: KeyToken | None) -> Binding:
    ends = [end.timestamp() for end in (key.expires_at, token.valid_until if token else None) if end]
    return Binding(
        str(key.key_id),
        key.name,
        key.account,
        token.digest if token else b"",
        token.token_key if token else "",
        key.is_active,
        key.revoked_at is not None,
        expires_at_s=min(ends, default=math.inf),
    )


def aliases_of(held: RegisteredResource) -> list[tuple[str, str, str]]:
    found = [("domain", "", held.domain)] if held.domain else []
    if held.name:
        found.append(("name", held.account, held.name.replace("_", "-")))
        with suppress(InvalidReferenceError):
            found.append(("label", held.account, rfc1034(held.name)))
    return found


def is_held(key: Key) -> bool:
    """Return whether the key protects its resources even with REQUIRE=active: it is not merely deactivated."""
    return key.is_active or key.revoked_at is not None


def in_order(key: Key) -> tuple[str, str, datetime]:
    return key.account, key.name, key.created_at
