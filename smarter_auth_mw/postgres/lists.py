"""Pages of keys, resources and the audit, in one read-only transaction; ``lists.sql`` explains how."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import aiosql

from smarter_auth_mw.domain import Key, RegisteredResource, Resource
from smarter_auth_mw.postgres.queries import QUERIES, SQL, platforms_resource, resource_of
from smarter_auth_mw.postgres.reports import AuditEvent
from smarter_auth_mw.postgres.transaction import Transaction, by_lookup

STATEMENTS: Any = aiosql.from_str((SQL / "lists.sql").read_text("utf-8"), "asyncpg")
"""The statements of ``lists.sql``, by name."""

Arguments = Mapping[str, Any]


class FoundRows(NamedTuple):
    """The rows of a page, and the row where the search ended if there are fewer than requested."""

    rows: Sequence[Any]
    end: Any | None


class AttentionCounts(NamedTuple):
    """How much needs attention: keys, keys that are being rotated, and open resources.

    ``used_old_tokens``: how many of the rotating keys have an old token that was used after the rotation. ``has_keys``:
    whether there is any key at all.
    """

    expiring: int
    unused: int
    rotating: int
    used_old_tokens: int
    open_resources: int
    has_keys: bool


class Moment(NamedTuple):
    """A snapshot, and its server: snapshots of different servers cannot be compared."""

    snapshot: str
    at: datetime
    server: str


class Lists:
    """The statements of lists, each as a method; ``management.listings`` decides their arguments."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._transaction = Transaction(connection)

    async def plan_by_index(self) -> None:
        """Make every statement of this transaction read indexes in order, whatever the statistics say."""
        await STATEMENTS.plan_by_index(self._connection)

    async def keys(self, arguments: Arguments) -> FoundRows:
        return _found([row async for row in STATEMENTS.list_keys(self._connection, **arguments)])

    async def attention(self, arguments: Arguments) -> AttentionCounts:
        """Count what needs attention, each up to the most."""
        return AttentionCounts(**await STATEMENTS.count_attention(self._connection, **arguments))

    async def platform_keys(self, after_id: UUID, most: int) -> list[UUID]:
        """Return the ids of an attached platform's keys after that one."""
        rows = STATEMENTS.list_platform_keys(self._connection, after_id=after_id, most=most)
        return [row["key_id"] async for row in rows]

    async def load_keys(self, key_ids: Sequence[UUID], most_bound: int | None) -> list[Key]:
        """Return the keys with these ids, in their order, each with at most that many bindings."""
        found = await self._transaction.keys_by_id(key_ids, most_bound)
        return [found[key_id] for key_id in key_ids if key_id in found]

    async def owners(self, digests: Sequence[bytes]) -> list[UUID]:
        """Return the ids of the keys of the tokens with these digests."""
        return list((await self._transaction.owners(digests)).values())

    async def resources(self, arguments: Arguments) -> FoundRows:
        return _found([row async for row in STATEMENTS.list_resources(self._connection, **arguments)])

    async def platform_resources(self, after_kind: str, after_ref: str, most: int) -> list[Resource]:
        """Return an attached platform's protected resources after that one, without those that have an own row."""
        rows = STATEMENTS.list_platform_resources(
            self._connection, after_kind=after_kind, after_lookup=after_ref, most=most
        )
        return [Resource(row["kind"], row["ref"]) async for row in rows]

    async def load_resources(
        self, ids: Sequence[int], most_bound: int | None, scope: str | None
    ) -> list[RegisteredResource]:
        """Return the resources with these ids, in their order, each with at most that many keys (without tokens).

        With a scope, those of an attached platform are left out.
        """
        keys = await self._transaction.bound_keys(ids, most_bound)
        rows = [row async for row in QUERIES.find_resources(self._connection, ids=list(ids), scope=scope)]
        kinds = {kind for kind in {row["kind"] for row in rows} if await self._transaction.is_platforms(kind)}
        found = {row["id"]: _resource(row, keys.get(row["id"], ())) for row in rows}
        for resource_id, own in found.items():
            if own.resource.kind in kinds:
                found[resource_id] = await self._with_platforms(own)
        return [found[one] for one in ids if one in found]

    async def load_platform_resource(self, resource: Resource) -> RegisteredResource | None:
        """Return a resource of an attached platform that has no own row."""
        row = await QUERIES.find_platform_resource(self._connection, **by_lookup(resource), scope=None)
        return row and platforms_resource(None, resource.kind, row, await self._platforms_keys(row))

    async def _with_platforms(self, own: RegisteredResource) -> RegisteredResource:
        row = await QUERIES.find_platform_resource(self._connection, **by_lookup(own.resource), scope=None)
        return own if row is None else platforms_resource(own, own.resource.kind, row, await self._platforms_keys(row))

    async def _platforms_keys(self, row: Any) -> Sequence[Key]:
        return list((await self._transaction.keys_by_id(row["key_ids"])).values())

    async def audit(self, arguments: Arguments) -> FoundRows:
        return _found([row async for row in STATEMENTS.list_audit(self._connection, **arguments)])

    async def moment(self) -> Moment:
        """Return the current snapshot and server."""
        return Moment(**await STATEMENTS.read_moment(self._connection))

    async def follow(self, arguments: Arguments) -> FoundRows:
        return _found([row async for row in STATEMENTS.follow_audit(self._connection, **arguments)])

    async def series(self, arguments: Arguments) -> list[Any]:
        """Return the series of requests, ordered by resource and key."""
        rows = [row async for row in STATEMENTS.list_series(self._connection, **arguments)]
        return sorted(rows, key=lambda row: (row["kind"], row["ref"].replace("_", "-"), row["key_id"] or UUID(int=0)))

    async def count_usage(self, series_ids: Sequence[int], span: Arguments) -> dict[int, Any]:
        """Return the counts of these series in a period."""
        rows = STATEMENTS.count_usage(self._connection, series_ids=list(series_ids), **span)
        return {row["series_id"]: row async for row in rows}

    async def sum_usage(self, arguments: Arguments) -> list[Any]:
        """Return the steps of all usage, and the keys that were used most."""
        return [row async for row in STATEMENTS.sum_usage(self._connection, **arguments)]

    async def accounts_of_keys(self, key_ids: Sequence[UUID]) -> dict[UUID, str]:
        """Return the accounts of these keys, without those of an attached platform."""
        rows = STATEMENTS.find_accounts_of_keys(self._connection, key_ids=list(key_ids))
        return {row["key_id"]: row["account"] async for row in rows}

    async def is_of_account(self, account: str, resource: Resource | None, key_id: UUID | None) -> bool:
        """Return whether the key, or without one the resource, belongs to the account."""
        where = {"kind": None, "lookup": None} if resource is None else by_lookup(resource)
        return bool(await STATEMENTS.is_of_account(self._connection, account=account, key_id=key_id, **where))


def event_of(row: Any) -> AuditEvent:
    """Return the event of a row of the audit."""
    values = {name: row[name] for name in AuditEvent.__slots__}
    return AuditEvent(**values | {name: values[name] and json.loads(values[name]) for name in ("before", "after")})


def _resource(row: Any, keys: Iterable[Key]) -> RegisteredResource:
    bound = sorted(keys, key=lambda key: (key.name, key.created_at))
    return resource_of(row, {Resource(row["kind"], row["ref"]): bound})


def _found(rows: list[Any]) -> FoundRows:
    end = next((row for row in rows if not row["is_found"]), None)
    return FoundRows([row for row in rows if row["is_found"]], end)
