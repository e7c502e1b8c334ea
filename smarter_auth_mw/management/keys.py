"""The write side of keys: create, bind, rotate, revoke; each act one transaction with its audit row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import attrgetter
from types import MappingProxyType
from typing import Literal
from uuid import UUID

from smarter_auth_mw.domain import Key, Protection, RegisteredBinding, RegisteredResource, Resource
from smarter_auth_mw.errors import ConflictError, NotFoundError, RefusedError
from smarter_auth_mw.management.lifetimes import check_expiry, check_policy, check_time_zone, is_beyond, latest, within
from smarter_auth_mw.management.opening import MayOpen, judged
from smarter_auth_mw.management.resources import (
    UNCHANGED,
    ResourceManagement,
    Unchanged,
    changed,
    registered,
    registered_so,
)
from smarter_auth_mw.management.rotations import OVERLAP, check_rotation, end_of_overlap
from smarter_auth_mw.management.token_formats import minter
from smarter_auth_mw.postgres.storable import checked, checked_labels, checked_resource
from smarter_auth_mw.postgres.transaction import Transaction
from smarter_auth_mw.tokens import Token, TokenFormat

MAX_DESCRIPTION = 10_000


@dataclass(frozen=True, slots=True)
class Minted:
    """A new key and its token, which is shown only once; ``created`` are the resources registered with it."""

    key: Key
    token: Token
    created: tuple[Resource, ...]


@dataclass(frozen=True, slots=True)
class BoundKey:
    """A key after it was bound; ``created``: the resource had not been registered before."""

    key: Key
    created: bool


@dataclass(frozen=True, slots=True)
class Rotated:
    """A key with its new token, which is shown only once, and the end of the previous token's validity."""

    key: Key
    token: Token
    previous_valid_until: datetime


@dataclass(frozen=True, slots=True)
class Leaked:
    """The keys that leaked tokens belong to, now revoked, and how many tokens belong to none."""

    keys: tuple[Key, ...]
    unknown: int


class Management(ResourceManagement):
    """All acts on keys and resources, in the name of ``actor``; raises as ``ResourceManagement`` does."""

    async def create(
        self,
        name: str,
        *,
        account: str | None = None,
        description: str = "",
        expires_at: datetime | None = None,
        labels: Mapping[str, str] = MappingProxyType({}),
        bind: Iterable[Resource] = (),
        form: TokenFormat | None = None,
        prefix: str | None = None,
        max_lifetime: timedelta | None = None,
    ) -> Minted:
        """Create a key and bind it; an unregistered resource is registered in the key's account.

        With ``max_lifetime``, a key that never expires, or only later, is refused. A key without an expiry gets the
        longest lifetime that the settings allow, and a longer one is refused.
        """
        account = self._account(account)
        checked(name, "name")
        _check_description(description)
        check_expiry(expires_at, max_lifetime, self._clock())
        expires_at = within(expires_at, self._longest_life, self._clock())
        checked_labels(labels)
        token = minter(form, prefix)()
        async with self._store.transaction(self._scope) as transaction:
            key_id = await transaction.add_key(account, name, description, expires_at)
            if key_id is None:
                raise _taken(account, name)
            key = await _key(transaction, key_id)
            if labels:
                await transaction.set_key(key, {"labels": dict(labels)})
                key = await _key(transaction, key_id)
            await transaction.add_token(token, key)
            await transaction.audit(self._actor, "key.create", key, after=key)
            # In a fixed order, so that two transactions that bind the same resources cannot deadlock.
            created = tuple(
                [resource for resource in sorted(set(bind)) if await self._bind(transaction, key, resource)]
            )
            return Minted(await _key(transaction, key_id), token, created)

    async def bind(
        self, key_id: UUID, resource: Resource, *, register: bool = True, allow_anonymous: MayOpen = False
    ) -> BoundKey:
        """Bind the key to the resource, which is protected from now on, and registered if necessary.

        Without ``register``, or within a scope, an unregistered resource is not found. If deactivated keys do not
        protect (REQUIRE=active), binding one may open a resource without keys: that needs ``allow_anonymous``.
        """
        async with self._store.transaction(self._scope) as transaction:
            key = await _living_key(transaction, key_id)
            created = await self._bind(transaction, key, resource, register=register, allow_anonymous=allow_anonymous)
            return BoundKey(await _key(transaction, key_id), created)

    async def _bind(
        self,
        transaction: Transaction,
        key: Key,
        resource: Resource,
        *,
        register: bool = True,
        allow_anonymous: MayOpen = False,
    ) -> bool:
        held, created = await self._held(transaction, checked_resource(resource), key.account, register=register)
        if created:
            await transaction.audit(self._actor, "resource.add", held, after=held)
        if held.account != key.account:
            raise RefusedError(
                f"{resource} belongs to account {held.account!r}, the key to {key.account!r}.",
                hint="A key opens only resources of its own account.",
            )
        # While each key protects what it is bound to, a binding opens nothing.
        opening = [resource] if self._require == "active" else []
        async with judged(transaction, opening, self._require, allow_anonymous=allow_anonymous):
            if not await transaction.add_binding(resource, key):
                raise ConflictError(f"The key {key.key_id} is already bound to {resource}.")
            await transaction.audit(self._actor, "key.bind", key, resource=resource)
        return created

    async def unbind(self, key_id: UUID, resource: Resource, *, allow_anonymous: MayOpen = False) -> Key:
        """Unbind the key from the resource. The last one needs ``allow_anonymous``, and opens the resource to anyone.

        A resource that was declared protected stays so.
        """
        async with self._store.transaction(self._scope) as transaction:
            key = await _key(transaction, key_id, lock=True)
            held = await registered(transaction, resource)
            async with judged(transaction, [resource], self._require, allow_anonymous=allow_anonymous):
                await self._unbind(transaction, key, held, releases=True)
            return await _key(transaction, key_id)

    async def _unbind(self, transaction: Transaction, key: Key, held: RegisteredResource, *, releases: bool) -> None:
        """Unbind the key; with ``releases``, removing the last binding opens the latch again."""
        if not await transaction.delete_binding(held.resource, key.key_id):
            raise _not_bound(key.key_id, held.resource)
        await transaction.audit(self._actor, "key.unbind", key, resource=held.resource)
        if releases and len(held.keys) == 1 and held.protection is Protection.BOUND:
            await transaction.release(held.resource, self._actor, "unbind --allow-anonymous")

    async def binding(self, key_id: UUID, resource: Resource) -> RegisteredBinding:
        """Return the binding of the key to the resource."""
        async with self._store.transaction(self._scope) as transaction:
            return await _binding(transaction, key_id, resource)

    async def touch_binding(self, key_id: UUID, resource: Resource) -> RegisteredBinding:
        """Record in the audit that a binding was saved, though nothing of it can change."""
        async with self._store.transaction(self._scope) as transaction:
            await _key(transaction, key_id, lock=True)
            held = await _binding(transaction, key_id, resource)
            await transaction.touch_binding(held.id)
            await transaction.audit(self._actor, "binding.touch", held.key, resource=resource)
            return await _binding(transaction, key_id, resource)

    async def set_key(
        self,
        key_id: UUID,
        *,
        name: str | Literal[Unchanged.UNCHANGED] = UNCHANGED,
        description: str | Literal[Unchanged.UNCHANGED] = UNCHANGED,
        expires_at: datetime | Literal[Unchanged.UNCHANGED] | None = UNCHANGED,
        labels: Mapping[str, str | None] = MappingProxyType({}),
    ) -> Key:
        """Change a key. An expiry may be in the past: then the key is expired at once.

        ``labels`` are added to the existing ones; the value None removes one.
        """
        changes = changed(name=name, description=description, expires_at=expires_at)
        if "name" in changes:
            checked(changes["name"], "name")
        if "description" in changes:
            _check_description(changes["description"])
        if "expires_at" in changes:
            check_time_zone(changes["expires_at"])
            check_policy(changes["expires_at"], self._longest_life, self._clock())
        async with self._store.transaction(self._scope) as transaction:
            before = await _living_key(transaction, key_id)
            if labels:
                merged = {**before.labels, **labels}
                kept = {name: value for name, value in merged.items() if value is not None}
                changes["labels"] = checked_labels(kept)
            if not await transaction.set_key(before, changes):
                raise _taken(before.account, changes["name"])
            await self._changed(transaction, "key.set", before)
            return await _key(transaction, key_id)

    async def activate(self, key_id: UUID) -> Key:
        """Activate the key, so that its tokens open its resources again."""
        return await self._set_active(key_id, is_active=True)

    async def deactivate(self, key_id: UUID, *, allow_anonymous: MayOpen = False) -> Key:
        """Deactivate the key until it is activated again; its resources stay protected.

        With ``require="active"``, deactivating the last active key opens a resource, and needs ``allow_anonymous``.
        """
        return await self._set_active(key_id, is_active=False, allow_anonymous=allow_anonymous)

    async def toggle_active(self, key_id: UUID, *, allow_anonymous: MayOpen = False) -> Key:
        """Deactivate the key if it is active, else activate it."""
        return await self._set_active(key_id, is_active=None, allow_anonymous=allow_anonymous)

    async def _set_active(self, key_id: UUID, *, is_active: bool | None, allow_anonymous: MayOpen = False) -> Key:
        async with self._store.transaction(self._scope) as transaction:
            before = await _living_key(transaction, key_id)
            if before.is_active != is_active:
                bound = await self._lock_resources_of(transaction, [key_id])
                async with judged(transaction, bound, self._require, allow_anonymous=allow_anonymous):
                    await transaction.set_active(key_id, is_active=not before.is_active)
                await self._changed(transaction, "key.deactivate" if before.is_active else "key.activate", before)
            return await _key(transaction, key_id)

    async def _lock_resources_of(self, transaction: Transaction, key_ids: Sequence[UUID]) -> Sequence[Resource]:
        """Lock what a change of these keys may open: nothing if deactivated keys still protect."""
        return await transaction.lock_resources_of(key_ids) if self._require == "active" else ()

    async def rotate(
        self,
        key_id: UUID,
        overlap: timedelta = OVERLAP,
        *,
        force: bool = False,
        form: TokenFormat | None = None,
        prefix: str | None = None,
        replaces: str | None = None,
    ) -> Rotated:
        """Give the key a new token; the previous one stays valid for ``overlap``, which may be 0.

        Bindings and usage stay. While an earlier rotation overlaps, another one is refused unless ``force``. The new
        token has the format and the prefix of the previous one, unless ``form`` or ``prefix`` is given. ``replaces`` is
        the public head of the token to replace: if the newest token is another one, the key was already rotated.
        """
        async with self._store.transaction(self._scope) as transaction:
            before = await _living_key(transaction, key_id)
            now = self._clock()
            check_rotation(before, now, force=force, replaces=replaces)
            until = end_of_overlap(overlap, before, now)
            token = minter(form, prefix, before.token_keys[-1] if before.tokens else "")()
            await transaction.expire_tokens(key_id, until)
            await transaction.add_token(token, before)
            if is_beyond(before.expires_at, self._longest_life, now):
                await transaction.set_key(before, {"expires_at": latest(self._longest_life, now)})
            reason = f"the previous token is valid until {until.isoformat()}, the new one begins with {token.token_key}"
            await self._changed(transaction, "key.rotate", before, reason)
            after = await _key(transaction, key_id)
        return Rotated(after, token, until)

    async def revoke(self, key_id: UUID, *, unbind: bool = False, allow_anonymous: bool = False) -> Key:
        """Revoke the key for good; its resources stay protected. Revoking it again changes nothing.

        With ``unbind``, it is also unbound from everything. A resource that loses its last binding this way still stays
        protected, unless ``allow_anonymous``.
        """
        async with self._store.transaction(self._scope) as transaction:
            before = await _key(transaction, key_id, lock=True)
            bound = await transaction.lock_resources_of([key_id]) if unbind else ()
            async with judged(transaction, bound, self._require, allow_anonymous=allow_anonymous):
                for resource in bound:
                    await self._unbind(
                        transaction, before, await registered(transaction, resource), releases=allow_anonymous
                    )
            if before.revoked_at is None:
                await transaction.revoke(key_id)
                await self._changed(transaction, "key.revoke", before)
            return await _key(transaction, key_id)

    async def revoke_tokens(self, tokens: Iterable[Token]) -> Leaked:
        """Revoke the keys that these tokens belong to or belonged to, each in a transaction of its own."""
        digests = [token.digest for token in tokens]
        async with self._store.transaction(self._scope) as transaction:
            owners = await transaction.owners(digests)
            found = await transaction.keys_by_id(sorted(set(owners.values())))
        # Own keys first: the refusal of the platform's must not prevent their revocation.
        found_ids = sorted(found, key=lambda key_id: (found[key_id].is_platforms, key_id))
        keys = [await self.revoke(key_id) for key_id in found_ids]
        return Leaked(tuple(keys), sum(digest not in owners for digest in digests))

    async def owners(self, digests: Sequence[bytes]) -> dict[bytes, Key]:
        """Return the keys that tokens of these digests belong to, by digest."""
        async with self._store.transaction(self._scope) as transaction:
            owners = await transaction.owners(digests)
            found = await transaction.keys_by_id(sorted(set(owners.values())), 0)
            return {digest: found[key_id] for digest, key_id in owners.items() if key_id in found}

    async def held_key(self, key_id: UUID) -> Key:
        """Return the key, locked until the transaction ends (``together``)."""
        async with self._store.transaction(self._scope) as transaction:
            return await _key(transaction, key_id, lock=True)

    async def owner(self, digest: bytes) -> Key:
        """Return the key of the token with this digest."""
        async with self._store.transaction(self._scope) as transaction:
            owners = await transaction.owners([digest])
            if digest not in owners:
                raise NotFoundError("No key has a token with this digest.")
            return await _key(transaction, owners[digest])

    async def key(self, key_id: UUID) -> Key:
        """Return the key with its bindings."""
        async with self._store.transaction(self._scope) as transaction:
            return await _key(transaction, key_id)

    async def keys(
        self,
        resource: Resource | None = None,
        *,
        expiring_within: timedelta | None = None,
        max_lifetime: timedelta | None = None,
    ) -> list[Key]:
        """Return all keys, or those that are bound to a resource.

        ``expiring_within``: keys that will expire within this time, the next one first. ``max_lifetime``: keys with a
        valid token that is older than this.
        """
        async with self._store.transaction(self._scope) as transaction:
            if resource is None:
                found = await transaction.keys()
            else:
                found = list(registered_so(resource, await transaction.resource(resource)).keys)
        now = self._clock()
        if max_lifetime is not None:
            found = [key for key in found if key.is_older_than(max_lifetime, now)]
        if expiring_within is not None:
            found = [key for key in found if key.expires_within(expiring_within, now)]
            found.sort(key=attrgetter("expires_at"))
        return found

    async def _changed(self, transaction: Transaction, action: str, before: Key, reason: str = "") -> None:
        after = await _key(transaction, before.key_id, most=0)
        await transaction.audit(self._actor, action, after, before=before, after=after, reason=reason)


async def _key(transaction: Transaction, key_id: UUID, *, lock: bool = False, most: int | None = None) -> Key:
    """Return the key; with ``lock``, locked until the transaction ends and without its bindings."""
    found = await transaction.key(key_id, lock=lock, most=0 if lock else most)
    if found is None:
        raise NotFoundError(f"There is no key {key_id}.", hint="To list the keys: smarter-auth key list")
    if lock and found.is_platforms:
        raise RefusedError(
            f"The key {found.name!r} ({key_id}) belongs to the platform, whose rows smarter-auth never writes.",
            hint="Change it there, for example in its Django admin: the change takes effect here at once.",
        )
    return found


async def _binding(transaction: Transaction, key_id: UUID, resource: Resource) -> RegisteredBinding:
    found = await transaction.binding(resource, key_id)
    if found is None:
        raise _not_bound(key_id, resource)
    return found


async def _living_key(transaction: Transaction, key_id: UUID) -> Key:
    key = await _key(transaction, key_id, lock=True)
    if key.revoked_at is not None:
        raise RefusedError(f"The key {key_id} is revoked for good.", hint="Create another: smarter-auth key create")
    return key


def _not_bound(key_id: UUID, resource: Resource) -> NotFoundError:
    return NotFoundError(f"The key {key_id} is not bound to {resource}.")


def _taken(account: str, name: str) -> ConflictError:
    return ConflictError(
        f"Account {account} already has a key named {name!r}.", hint="Revoke it, or choose another name."
    )


def _check_description(description: str) -> None:
    checked(description, "description", shortest=0, longest=MAX_DESCRIPTION)
