"""The records of the store in memory, and what is read off them."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from smarter_auth_mw.domain import Binding, Key, KeyToken, RegisteredResource
from smarter_auth_mw.errors import InvalidReferenceError
from smarter_auth_mw.routing.references import rfc1034


@dataclass(frozen=True, slots=True)
class BindingRow:
    """A binding, by the look-up of its resource and its key."""

    id: int
    lookup: str
    key_id: UUID
    created_at: datetime
    updated_at: datetime


@dataclass
class Tables:
    """All records; a transaction works on a copy. Records are immutable, so a copy is shallow."""

    resources: dict[str, RegisteredResource] = field(default_factory=dict)
    """Resources by look-up, without their keys; keys are stored without their bindings."""
    keys: dict[UUID, Key] = field(default_factory=dict)
    bindings: dict[tuple[str, UUID], BindingRow] = field(default_factory=dict)
    events: list[tuple[str, str]] = field(default_factory=list)
    """Pairs of actor and action."""

    def copy(self) -> Tables:
        return Tables(dict(self.resources), dict(self.keys), dict(self.bindings), list(self.events))

    def key(self, key_id: UUID) -> Key:
        """Return the key with its bindings."""
        bound = sorted(self.resources[lookup].resource for lookup, bound_id in self.bindings if bound_id == key_id)
        return replace(self.keys[key_id], bindings=tuple(bound))

    def resource(self, lookup: str) -> RegisteredResource:
        """Return the resource with its keys."""
        keys = [self.key(key_id) for bound, key_id in self.bindings if bound == lookup]
        return replace(self.resources[lookup], keys=tuple(sorted(keys, key=in_order)))


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
