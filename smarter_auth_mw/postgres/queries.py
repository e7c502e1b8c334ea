"""The named statements of ``sql/queries.sql``, their schema, and the records of their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import resources
from typing import Any

import aiosql

from smarter_auth_mw.domain import Binding, Bindings, Key, KeyToken, Protection, RegisteredResource, Resource

SQL = resources.files("smarter_auth_mw.postgres") / "sql"
QUERIES: Any = aiosql.from_str((SQL / "queries.sql").read_text("utf-8"), "asyncpg")
"""The statements of ``queries.sql``, by name."""

SCHEMA = 11
"""The newest schema that this release knows: the number of its last migration."""


def closure(resource: Resource, protection: str, is_bound: bool, is_held: bool) -> Bindings:  # noqa: FBT001
    """Return the facts that decide whether a resource is protected; ``is_held``: a key is more than deactivated."""
    binding = Binding("", "", "", b"", "", is_active=is_held)
    return Bindings(resource, None, Protection(protection), "stale", (binding,) if is_bound else ())


def resource_of(row: Any, keys: Mapping[Resource, Sequence[Key]]) -> RegisteredResource:
    resource = Resource(row["kind"], row["ref"])
    return RegisteredResource(
        resource,
        row["account"],
        row["name"],
        row["domain"],
        Protection(row["protection"]),
        row["on_error"],
        row["created_at"],
        row["updated_at"],
        tuple(keys.get(resource, ())),
    )


def platforms_resource(own: RegisteredResource | None, kind: str, row: Any, keys: Sequence[Key]) -> RegisteredResource:
    """Return a resource of an attached platform, completed with its own row here if it has one."""
    if own is None:
        never = datetime.fromtimestamp(0, UTC)
        own = RegisteredResource(
            Resource(kind, row["ref"]), row["account"], None, None, Protection.OPEN, "stale", never, never
        )
    is_lost = row["is_latched"] and own.protection is Protection.OPEN
    return replace(
        own,
        account=row["account"],
        name=row["name"],
        domain=row["domain"],
        protection=Protection.BOUND if is_lost else own.protection,
        keys=(*own.keys, *keys),
        is_platforms=True,
    )


def key_of(row: Any, tokens: Sequence[KeyToken]) -> Key:
    values = dict(row)
    values["bindings"] = tuple(Resource(*bound.split(":", 1)) for bound in values["bindings"])
    values["labels"] = dict(label.split("=", 1) for label in values["labels"])
    return Key(**values, tokens=tuple(tokens))
