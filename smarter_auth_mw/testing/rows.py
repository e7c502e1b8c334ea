"""Rows of the store in memory, made from its records."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Any

from smarter_auth_mw.domain import Key, KeyToken, RegisteredResource
from smarter_auth_mw.errors import InvalidReferenceError
from smarter_auth_mw.routing.references import rfc1034


class Row:
    """A row like asyncpg's: columns by name and by index, the key's columns last."""

    def __init__(self, head: dict[str, Any], of_key: tuple[Any, ...]) -> None:
        self._head = head
        self._columns = (*head.values(), *of_key)

    def __getitem__(self, column: str | slice) -> Any:
        return self._head[column] if isinstance(column, str) else self._columns[column]


NO_KEY = (None,) * 10


def key_columns(key: Key, token: KeyToken | None) -> tuple[Any, ...]:
    ends = [end.timestamp() for end in (key.expires_at, token.valid_until if token else None) if end]
    is_revoked, expires_at_s = key.revoked_at is not None, min(ends, default=float("inf"))
    digest, token_key = (token.digest, token.token_key) if token else (b"", "")
    return (
        str(key.key_id),
        key.name,
        key.account,
        key.is_active,
        is_revoked,
        True,
        digest,
        token_key,
        expires_at_s,
        None,
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
