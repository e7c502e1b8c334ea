"""The statements of the write side, each as a method, in one transaction; ``management`` decides what is allowed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from smarter_auth_mw.domain import (
    Bindings,
    Key,
    KeyToken,
    Protection,
    RegisteredBinding,
    RegisteredResource,
    Resource,
)
from smarter_auth_mw.postgres.queries import QUERIES, closure, key_of, platforms_resource, resource_of
from smarter_auth_mw.tokens import Token

_PRUNED_AT_ONCE = 20_000


class Transaction:
    """Resources, keys, bindings and the audit, on one connection in one transaction.

    ``scope`` is an account. Every statement that reads, locks or changes something has it in its WHERE, so records of
    other accounts and of an attached platform do not exist for it. None means all accounts.
    """

    def __init__(self, connection: Any, scope: str | None = None) -> None:
        self._connection = connection
        self._scope = scope

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[Transaction]:
        """Run the block completely or not at all, within the same transaction."""
        async with self._connection.transaction():
            yield self

    async def resource(
        self, resource: Resource, *, lock: bool = False, most: int | None = None
    ) -> RegisteredResource | None:
        """Return the resource with this look-up; with ``lock``, nothing can bind or change it until the end.

        ``most``: at most this many of its keys are loaded, without their tokens and bindings.
        """
        look_up = QUERIES.lock_resource if lock else QUERIES.find_resource_id
        resource_id = await look_up(self._connection, **self._at(resource))
        found = [] if resource_id is None else await self._resources([resource_id], most)
        own = found[0] if found else None
        row = await QUERIES.find_platform_resource(self._connection, **self._at(resource))
        return (
            own if row is None else platforms_resource(own, resource.kind, row, await self._keys(row["key_ids"][:most]))
        )

    async def resources(self, kind: str | None = None) -> list[RegisteredResource]:
        """Return all resources, or those of one kind; those of a platform only if they are protected."""
        found = await self._resources(
            await _column(QUERIES.list_resource_ids(self._connection, scope=self._scope, kind=kind))
        )
        known = {one.resource: one for one in found}
        rows = [row async for row in QUERIES.list_platform_resources(self._connection, scope=self._scope, kind=kind)]
        keys = await self.keys_by_id(list({key_id for row in rows for key_id in row["key_ids"]}))
        for row in rows:
            bound = [keys[key_id] for key_id in row["key_ids"] if key_id in keys]
            resource = Resource(row["kind"], row["ref"])
            known[resource] = platforms_resource(known.get(resource), resource.kind, row, bound)
        return list(known.values())

    async def is_platforms(self, kind: str) -> bool:
        """Return whether an attached platform creates the resources of the kind."""
        return bool(await QUERIES.is_platforms(self._connection, kind=kind))

    async def claimant(self, domain: str) -> str | None:
        """Return the resource with the custom domain, as ``kind:ref``."""
        claimant: str | None = await QUERIES.find_claimant(self._connection, scope=self._scope, domain=domain)
        return claimant

    async def add_resource(
        self,
        resource: Resource,
        account: str,
        *,
        name: str | None = None,
        domain: str | None = None,
        protection: Protection = Protection.OPEN,
        on_error: str = "stale",
    ) -> bool:
        """Register a resource; False if its look-up is taken."""
        added = await QUERIES.insert_resource(
            self._connection,
            kind=resource.kind,
            ref=resource.ref,
            account=account,
            name=name,
            domain=domain,
            protection=protection.value,
            on_error=on_error,
        )
        return added is not None

    async def number_resource(self, kind: str, account: str, name: str | None) -> str | None:
        """Register a resource under the next number; None if that is taken."""
        ref: str | None = await QUERIES.insert_numbered_resource(
            self._connection, kind=kind, account=account, name=name
        )
        return ref

    async def set_resource(self, changed: RegisteredResource) -> None:
        """Write the fields that may change: name, account, domain, on_error."""
        await QUERIES.update_resource(
            self._connection,
            **self._at(changed.resource),
            name=changed.name,
            account=changed.account,
            domain=changed.domain,
            on_error=changed.on_error,
        )

    async def declare(self, resource: Resource) -> None:
        """Protect a resource, with or without bindings."""
        await QUERIES.declare_protected(self._connection, **self._at(resource))

    async def release(self, resource: Resource, actor: str, reason: str) -> None:
        """Open the latch, together with its audit row; the database refuses while there are bindings."""
        await QUERIES.release(self._connection, **self._at(resource), actor=actor, reason=reason)
        await QUERIES.release_platform(self._connection, **self._at(resource), actor=actor, reason=reason)

    async def closures(self, resources: Sequence[Resource]) -> list[Bindings]:
        """Return the facts for ``is_protected`` about these resources, with at most one key each."""
        kinds, lookups = [one.kind for one in resources], [one.lookup_ref for one in resources]
        return [
            closure(Resource(row["kind"], row["ref"]), row["protection"], row["is_bound"], row["is_held"])
            async for row in QUERIES.find_closures(self._connection, kinds=kinds, lookups=lookups)
        ]

    async def lock_resources_of(self, key_ids: Sequence[UUID]) -> list[Resource]:
        """Return and lock the resources that the keys are bound to. The keys must be locked before."""
        found = QUERIES.lock_resources_of(self._connection, scope=self._scope, key_ids=list(key_ids))
        return [Resource(row["kind"], row["ref"]) async for row in found]

    async def unbind_all(self, resource: Resource, actor: str) -> None:
        """Unbind every key from a resource, with audit events."""
        await QUERIES.unbind_all(self._connection, **self._at(resource), actor=actor)

    async def delete_resource(self, resource: Resource) -> None:
        """Delete a resource; the database refuses while it is protected."""
        await QUERIES.delete_resource(self._connection, **self._at(resource))

    async def key(self, key_id: UUID, *, lock: bool = False, most: int | None = None) -> Key | None:
        """Return the key with at most that many bindings; with ``lock``, nothing can change it until the end."""
        if lock:
            await QUERIES.lock_key(self._connection, scope=self._scope, key_id=key_id)
        found = await self._keys([key_id], most)
        return found[0] if found else None

    async def keys(self) -> list[Key]:
        """Return all keys."""
        return await self._keys(await _column(QUERIES.list_key_ids(self._connection, scope=self._scope)))

    async def add_key(self, account: str, name: str, description: str, expires_at: datetime | None) -> UUID | None:
        """Add a key and return its id; None if the account has an unrevoked key with that name."""
        key_id: UUID | None = await QUERIES.insert_key(
            self._connection, account=account, name=name, description=description, expires_at=expires_at
        )
        return key_id

    async def set_active(self, key_id: UUID, *, is_active: bool) -> None:
        await QUERIES.set_active(self._connection, scope=self._scope, key_id=key_id, is_active=is_active)

    async def revoke(self, key_id: UUID) -> None:
        await QUERIES.revoke_key(self._connection, scope=self._scope, key_id=key_id)

    async def set_key(self, key: Key, changes: Mapping[str, Any]) -> bool:
        """Write the fields that may change: name, description, expires_at, labels; False if the name is taken."""
        after = replace(key, **changes)
        if "labels" in changes:
            await self._set_labels(key.key_id, after.labels)
        written = await QUERIES.update_key(
            self._connection,
            scope=self._scope,
            key_id=key.key_id,
            account=key.account,
            name=after.name,
            description=after.description,
            expires_at=after.expires_at,
        )
        return written is not None

    async def _set_labels(self, key_id: UUID, labels: Mapping[str, str]) -> None:
        await QUERIES.delete_labels(self._connection, scope=self._scope, key_id=key_id)
        await QUERIES.insert_labels(
            self._connection, scope=self._scope, key_id=key_id, names=list(labels), values=list(labels.values())
        )

    async def expire_tokens(self, key_id: UUID, valid_until: datetime) -> None:
        """End the validity of a key's tokens at this time, unless they end earlier."""
        await QUERIES.expire_tokens(self._connection, scope=self._scope, key_id=key_id, valid_until=valid_until)
        await QUERIES.touch_key(self._connection, scope=self._scope, key_id=key_id)

    async def owners(self, digests: Sequence[bytes]) -> dict[bytes, UUID]:
        """Return the keys of the tokens with these digests."""
        found = QUERIES.find_owners(self._connection, scope=self._scope, digests=list(digests))
        return {row["digest"]: row["key_id"] async for row in found}

    async def add_token(self, token: Token, key: Key) -> None:
        await QUERIES.insert_token(
            self._connection, digest=token.digest, token_key=token.token_key, key_id=key.key_id, account=key.account
        )

    async def add_binding(self, resource: Resource, key: Key) -> bool:
        """Bind the key; False if it is already bound."""
        added = await QUERIES.insert_binding(
            self._connection, **self._at(resource), key_id=key.key_id, account=key.account
        )
        return added is not None

    async def delete_binding(self, resource: Resource, key_id: UUID) -> bool:
        """Unbind the key without changing the latch; False if it was not bound."""
        deleted = await QUERIES.delete_binding(self._connection, **self._at(resource), key_id=key_id)
        return deleted is not None

    async def transaction_id(self) -> int:
        """Return the transaction id that listeners will see in its changes."""
        tx: int = await QUERIES.read_transaction_id(self._connection)
        return tx

    async def resource_ids(self, kind: str, name: str | None = None) -> list[int]:
        """Return ids of the kind's resources, in the order of their creation."""
        return list(await QUERIES.find_resource_ids(self._connection, scope=self._scope, kind=kind, name=name))

    async def resource_id(self, resource: Resource) -> list[int]:
        """Return the id of the resource, or an empty list."""
        found = await QUERIES.find_resource_id(self._connection, **self._at(resource))
        return [] if found is None else [found]

    async def resources_by_id(self, ids: Sequence[int]) -> dict[int, RegisteredResource]:
        """Return resources by id, without their keys."""
        found = QUERIES.find_resources(self._connection, scope=self._scope, ids=list(ids))
        return {row["id"]: resource_of(row, {}) async for row in found}

    async def key_ids(self, *, name: str | None = None, token_key: str | None = None) -> list[UUID]:
        """Return ids of unrevoked keys, in the order of their creation."""
        return list(
            await QUERIES.find_living_key_ids(self._connection, scope=self._scope, name=name, token_key=token_key)
        )

    async def platform_key_ids(self) -> list[UUID]:
        """Keys of an attached platform, in the order in which they were made."""
        return list(await QUERIES.find_platform_key_ids(self._connection, scope=self._scope))

    async def keys_by_id(self, key_ids: Sequence[UUID], most: int | None = None) -> dict[UUID, Key]:
        """Return keys by id, each with at most that many bindings."""
        return {key.key_id: key for key in await self._keys(list(key_ids), most)}

    async def binding_ids(
        self, kind: str, *, resource: Resource | None = None, key_id: UUID | None = None
    ) -> list[int]:
        """Return ids of bindings, by kind, resource or key, in the order of their creation."""
        if resource is not None:
            found = await QUERIES.find_binding_ids_of_resource(self._connection, **self._at(resource))
        elif key_id is not None:
            found = await QUERIES.find_binding_ids_of_key(self._connection, scope=self._scope, kind=kind, key_id=key_id)
        else:
            found = await QUERIES.find_binding_ids(self._connection, scope=self._scope, kind=kind)
        return list(found)

    async def binding(self, resource: Resource, key_id: UUID) -> RegisteredBinding | None:
        """Return the binding of the key to the resource."""
        binding_id = await QUERIES.find_binding_id(self._connection, **self._at(resource), key_id=key_id)
        found = [] if binding_id is None else await self.bindings(resource.kind, [binding_id])
        return found[0] if found else None

    async def bindings(self, kind: str, ids: Sequence[int]) -> list[RegisteredBinding]:
        """Return the bindings whose resource is of this kind."""
        rows = [
            row async for row in QUERIES.find_bindings(self._connection, scope=self._scope, kind=kind, ids=list(ids))
        ]
        resources = await self.resources_by_id(list({row["resource_id"] for row in rows}))
        if resources and await self.is_platforms(kind):
            for row_id, own in resources.items():
                resources[row_id] = replace(await self.resource(own.resource) or own, keys=())
        keys = await self.keys_by_id(list({row["key_id"] for row in rows}))
        return [
            RegisteredBinding(
                row["id"], row["created_at"], row["updated_at"], resources[row["resource_id"]], keys[row["key_id"]]
            )
            for row in rows
        ]

    async def touch_binding(self, binding_id: int | None) -> None:
        await QUERIES.touch_binding(self._connection, scope=self._scope, id=binding_id)

    async def audit(
        self,
        actor: str,
        action: str,
        about: Key | RegisteredResource,
        *,
        resource: Resource | None = None,
        before: Key | RegisteredResource | None = None,
        after: Key | RegisteredResource | None = None,
        reason: str = "",
    ) -> None:
        """Write an audit event in the same transaction as the change; ``resource`` is the bound resource."""
        if isinstance(about, RegisteredResource):
            resource = about.resource
        await QUERIES.write_event(
            self._connection,
            actor=actor,
            action=action,
            kind=resource and resource.kind,
            ref=resource and resource.ref,
            account=about.account,
            key_id=about.key_id if isinstance(about, Key) else None,
            reason=reason,
            before=before and _as_json(before),
            after=after and _as_json(after),
        )

    async def prune_audit(self, before: datetime, actor: str) -> int:
        """Delete older events in batches, and record their number in the audit."""
        pruned = 0
        while gone := await QUERIES.prune_audit(self._connection, before=before, most=_PRUNED_AT_ONCE):
            pruned += gone
        document = json.dumps({"older_than": before.isoformat(), "events": pruned})
        about = dict.fromkeys(("kind", "ref", "account", "key_id", "after"))
        await QUERIES.write_event(
            self._connection, actor=actor, action="audit.prune", reason="", before=document, **about
        )
        return pruned

    def _at(self, resource: Resource) -> dict[str, str | None]:
        return {**by_lookup(resource), "scope": self._scope}

    async def bound_keys(self, resource_ids: Sequence[int], most: int | None) -> dict[int, list[Key]]:
        """Return the keys bound to these resources, at most that many each, without their tokens and bindings."""
        keys: dict[int, list[Key]] = {}
        rows = QUERIES.find_bound_keys(self._connection, resource_ids=list(resource_ids), most=most)
        async for row in rows:
            values = dict(row) | {"bindings": (), "labels": ()}
            keys.setdefault(values.pop("resource_id"), []).append(key_of(values, ()))
        return keys

    async def _first_keys(self, resource_id: int, most: int) -> list[Key]:
        rows = QUERIES.find_first_bound_keys(self._connection, resource_id=resource_id, most=most)
        found = [key_of(dict(row) | {"bindings": (), "labels": ()}, ()) async for row in rows]
        return sorted(found, key=lambda key: (key.name, key.created_at))

    async def _resources(self, ids: list[int], most: int | None = None) -> list[RegisteredResource]:
        found = [row async for row in QUERIES.find_resources(self._connection, scope=self._scope, ids=ids)]
        if most is not None:
            return [
                resource_of(row, {Resource(row["kind"], row["ref"]): await self._first_keys(row["id"], most)})
                for row in found
            ]
        keys = await self._keys(await _column(QUERIES.list_bound_key_ids(self._connection, resource_ids=ids)))
        by_resource: dict[Resource, list[Key]] = {}
        for key in keys:
            for resource in key.bindings:
                by_resource.setdefault(resource, []).append(key)
        return [resource_of(row, by_resource) for row in found]

    async def _keys(self, key_ids: list[UUID], most: int | None = None) -> list[Key]:
        tokens: dict[UUID, list[KeyToken]] = {}
        async for row in QUERIES.find_tokens(self._connection, scope=self._scope, key_ids=key_ids):
            values = dict(row)
            tokens.setdefault(values.pop("key_id"), []).append(KeyToken(**values))
        found = QUERIES.find_keys(self._connection, scope=self._scope, key_ids=key_ids, most=most)
        return [key_of(row, tokens.get(row["key_id"], ())) async for row in found]


def _as_json(about: Key | RegisteredResource) -> str:
    """Return a record as JSON for the audit: no token, no digest, and nothing that other rows contain."""
    names: tuple[str, ...]
    if isinstance(about, Key):
        names = ("name", "description", "is_active", "expires_at", "revoked_at", "labels")
    else:
        names = ("name", "account", "domain", "protection", "on_error")
    return json.dumps({name: getattr(about, name) for name in names}, default=datetime.isoformat)


def by_lookup(resource: Resource) -> dict[str, str]:
    return {"kind": resource.kind, "lookup": resource.lookup_ref}


async def _column(rows: Any) -> list[Any]:
    return [row[0] async for row in rows]
