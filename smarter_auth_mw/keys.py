"""The write side: what may be done to resources, keys and bindings; each act one transaction with its audit row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Literal, Protocol
from uuid import UUID

from smarter_auth_mw.domain import Key, OnError, Protection, RegisteredResource, Resource
from smarter_auth_mw.errors import ConflictError, NotFoundError, RefusedError, UsageError
from smarter_auth_mw.inputs import checked, checked_resource
from smarter_auth_mw.records import Records
from smarter_auth_mw.tokens import Token, mint

MAX_DESCRIPTION = 10_000


class Unchanged(Enum):
    """Stands for a value that is to stay as it is, since None means that there is none."""

    UNCHANGED = "unchanged"


UNCHANGED = Unchanged.UNCHANGED
Maybe = str | None | Literal[Unchanged.UNCHANGED]


@dataclass(frozen=True, slots=True)
class Minted:
    """A new key and its token, which is seen this once; ``created`` are the resources that were registered with it."""

    key: Key
    token: Token
    created: tuple[Resource, ...]


@dataclass(frozen=True, slots=True)
class Bound:
    """A key after it was bound; ``created``: the resource had not been registered before."""

    key: Key
    created: bool


class Ledger(Protocol):
    """Where the records are kept."""

    def transaction(self) -> AbstractAsyncContextManager[Records]: ...


class Keys:
    """Everything that is done to resources and keys, in the name of ``actor``.

    Raises ``NotFoundError``, ``ConflictError`` for what exists already, ``RefusedError`` for what may not be,
    ``UsageError`` for text that cannot be stored, and ``UnavailableError`` or ``SchemaError`` from the database.
    Whatever is raised, nothing was changed.
    """

    def __init__(
        self,
        store: Ledger,
        actor: str,
        *,
        default_account: str = "default",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._actor = checked(actor, "actor")
        self._default_account = default_account
        self._clock = clock

    async def add_resource(
        self,
        resource: Resource,
        *,
        name: str | None = None,
        account: str | None = None,
        domain: str | None = None,
        protect: bool = False,
        on_error: OnError = "stale",
    ) -> RegisteredResource:
        """Register a resource, open unless ``protect``."""
        account = self._account(account)
        checked_resource(resource)
        _check_texts(name=name, domain=domain)
        protection = Protection.DECLARED if protect else Protection.OPEN
        async with self._store.transaction() as records:
            await _check_claim(records, resource, domain)
            added = await records.add_resource(
                resource, account, name=name, domain=domain, protection=protection, on_error=on_error
            )
            found = await _registered(records, resource)
            if not added:
                raise ConflictError(
                    f"{resource} is registered already.", hint="To change it: smarter-auth resource set"
                )
            await records.audit(self._actor, "resource.add", found, after=found)
        return found

    async def create(
        self,
        name: str,
        *,
        account: str | None = None,
        description: str = "",
        expires_at: datetime | None = None,
        bind: Iterable[Resource] = (),
    ) -> Minted:
        """Mint a key, and bind it; a resource that is not there yet is registered in the key's account."""
        account = self._account(account)
        checked(name, "name")
        checked(description, "description", shortest=0, longest=MAX_DESCRIPTION)
        self._check_expiry(expires_at)
        token = mint()
        async with self._store.transaction() as records:
            key_id = await records.add_key(account, name, description, expires_at)
            if key_id is None:
                raise ConflictError(
                    f"Account {account} has a key of the name {name!r}.", hint="Revoke it, or take another name."
                )
            key = await _key(records, key_id)
            await records.add_token(token, key)
            await records.audit(self._actor, "key.create", key, after=key)
            # In one order, so that two who bind the same resources cannot wait for each other.
            created = tuple([resource for resource in sorted(set(bind)) if await self._bind(records, key, resource)])
            return Minted(await _key(records, key_id), token, created)

    async def bind(self, key_id: UUID, resource: Resource) -> Bound:
        """Let the key open the resource, which is protected from now on, and registered if it was not."""
        async with self._store.transaction() as records:
            created = await self._bind(records, await _living_key(records, key_id), resource)
            return Bound(await _key(records, key_id), created)

    async def _bind(self, records: Records, key: Key, resource: Resource) -> bool:
        checked_resource(resource)
        created = await records.add_resource(resource, key.account)
        held = await _registered(records, resource)
        if created:
            await records.audit(self._actor, "resource.add", held, after=held)
        if held.account != key.account:
            raise RefusedError(
                f"{resource} belongs to account {held.account!r}, the key to {key.account!r}.",
                hint="A key opens only resources of its own account.",
            )
        if not await records.add_binding(resource, key):
            raise ConflictError(f"The key {key.key_id} is bound to {resource} already.")
        await records.audit(self._actor, "key.bind", key, resource=resource)
        return created

    async def set_resource(
        self,
        resource: Resource,
        *,
        name: Maybe = UNCHANGED,
        account: str | Literal[Unchanged.UNCHANGED] = UNCHANGED,
        domain: Maybe = UNCHANGED,
        on_error: OnError | Literal[Unchanged.UNCHANGED] = UNCHANGED,
    ) -> RegisteredResource:
        """Change what is known of a resource. Its account stays while keys are bound to it."""
        values: dict[str, Any] = {"name": name, "account": account, "domain": domain, "on_error": on_error}
        changes = {name: value for name, value in values.items() if value is not UNCHANGED}
        _check_texts(**{name: value for name, value in changes.items() if isinstance(value, str)})
        async with self._store.transaction() as records:
            before = await _registered(records, resource)
            if before.keys and changes.get("account", before.account) != before.account:
                raise RefusedError(f"{resource} has keys of account {before.account!r}.", hint="Unbind them first.")
            await _check_claim(records, resource, changes.get("domain"))
            await records.set_resource(replace(before, **changes))
            after = await _registered(records, resource)
            await records.audit(self._actor, "resource.set", after, before=before, after=after)
        return after

    async def protect(self, resource: Resource) -> RegisteredResource:
        """Declare a resource protected, with or without bindings."""
        async with self._store.transaction() as records:
            before = await _registered(records, resource)
            if before.protection is Protection.DECLARED:
                return before
            await records.declare(resource)
            after = await _registered(records, resource)
            await records.audit(self._actor, "resource.protect", after, before=before, after=after)
        return after

    async def unprotect(self, resource: Resource) -> RegisteredResource:
        """Open a resource to anonymous traffic; refused while keys are bound to it."""
        async with self._store.transaction() as records:
            held = await _registered(records, resource)
            if held.keys:
                raise RefusedError(
                    f"{resource} has {len(held.keys)} bindings, each of which protects it.",
                    hint=f"First: smarter-auth key unbind {held.keys[0].key_id} {resource}",
                )
            await records.release(resource, self._actor, "resource unprotect")
            return await _registered(records, resource)

    async def remove_resource(self, resource: Resource) -> None:
        """Forget a resource that is open: unknown it would be open too, so a protected one is refused."""
        async with self._store.transaction() as records:
            held = await _registered(records, resource)
            if held.is_protected:
                raise RefusedError(
                    f"{resource} is protected, and would be open to anyone once it is removed.",
                    hint=f"Unbind its keys, then: smarter-auth resource unprotect {resource}",
                )
            await records.delete_resource(resource)
            await records.audit(self._actor, "resource.remove", held, before=held)

    async def resource(self, resource: Resource) -> RegisteredResource:
        """The resource with its keys."""
        async with self._store.transaction() as records:
            return await _registered(records, resource, lock=False)

    async def resources(self, kind: str | None = None) -> list[RegisteredResource]:
        """All resources, or those of a kind, with their keys."""
        async with self._store.transaction() as records:
            return await records.resources(kind)

    async def key(self, key_id: UUID) -> Key:
        """The key with its bindings."""
        async with self._store.transaction() as records:
            return await _key(records, key_id)

    async def keys(self, resource: Resource | None = None) -> list[Key]:
        """All keys, or those that are bound to a resource."""
        async with self._store.transaction() as records:
            if resource is None:
                return await records.keys()
            return list((await _registered(records, resource, lock=False)).keys)

    async def unbind(self, key_id: UUID, resource: Resource, *, allow_anonymous: bool = False) -> Key:
        """Take the key off the resource. The last one needs ``allow_anonymous``, and opens the resource to anyone.

        A resource that was declared protected stays so.
        """
        async with self._store.transaction() as records:
            key = await _key(records, key_id, lock=True)
            held = await _registered(records, resource)
            if key_id not in {bound.key_id for bound in held.keys}:
                raise NotFoundError(f"The key {key_id} is not bound to {resource}.")
            is_last = len(held.keys) == 1
            if is_last and not allow_anonymous:
                raise RefusedError(
                    f"This is the last binding of {resource}: without it the resource is open to anyone.",
                    hint="If that is meant: --allow-anonymous. If not: bind another key first, or revoke this one.",
                )
            await records.delete_binding(resource, key_id)
            await records.audit(self._actor, "key.unbind", key, resource=resource)
            if is_last and held.protection is Protection.BOUND:
                await records.release(resource, self._actor, "unbind --allow-anonymous")
            return await _key(records, key_id)

    async def activate(self, key_id: UUID) -> Key:
        """Let the key's tokens open what it is bound to again."""
        return await self._set_active(key_id, is_active=True)

    async def deactivate(self, key_id: UUID) -> Key:
        """Let the key open nothing for now; what it is bound to stays protected."""
        return await self._set_active(key_id, is_active=False)

    async def _set_active(self, key_id: UUID, *, is_active: bool) -> Key:
        async with self._store.transaction() as records:
            before = await _living_key(records, key_id)
            if before.is_active == is_active:
                return before
            await records.set_active(key_id, is_active=is_active)
            return await self._changed(records, "key.activate" if is_active else "key.deactivate", before)

    async def revoke(self, key_id: UUID) -> Key:
        """End the key for good; what it is bound to stays protected. Done once, it stays done."""
        async with self._store.transaction() as records:
            before = await _key(records, key_id, lock=True)
            if before.revoked_at is not None:
                return before
            await records.revoke(key_id)
            return await self._changed(records, "key.revoke", before)

    async def _changed(self, records: Records, action: str, before: Key) -> Key:
        after = await _key(records, before.key_id)
        await records.audit(self._actor, action, after, before=before, after=after)
        return after

    def _account(self, account: str | None) -> str:
        return checked(account or self._default_account, "account")

    def _check_expiry(self, expires_at: datetime | None) -> None:
        if expires_at is None:
            return
        if expires_at.tzinfo is None:
            raise UsageError(f"The expiry {expires_at.isoformat()} does not say its time zone.")
        if expires_at <= self._clock():
            raise RefusedError(f"The expiry {expires_at.isoformat()} is past.")


async def _registered(records: Records, resource: Resource, *, lock: bool = True) -> RegisteredResource:
    """The resource, held until the transaction ends unless ``lock`` says otherwise."""
    found = await records.resource(resource, lock=lock)
    if found is None:
        raise NotFoundError(
            f"There is no resource {resource}.", hint=f"To register it: smarter-auth resource add {resource}"
        )
    if found.resource != resource:
        raise NotFoundError(
            f"There is no resource {resource}, but there is {found.resource}.",
            hint="The two differ only in - and _, and count as one: write it as it is registered.",
        )
    return found


async def _key(records: Records, key_id: UUID, *, lock: bool = False) -> Key:
    found = await records.key(key_id, lock=lock)
    if found is None:
        raise NotFoundError(f"There is no key {key_id}.", hint="To see what there is: smarter-auth key list")
    return found


async def _living_key(records: Records, key_id: UUID) -> Key:
    key = await _key(records, key_id, lock=True)
    if key.revoked_at is not None:
        raise RefusedError(
            f"The key {key_id} is revoked, and stays so.", hint="Create another: smarter-auth key create"
        )
    return key


async def _check_claim(records: Records, resource: Resource, domain: str | None) -> None:
    claimant = None if domain is None else await records.claimant(domain)
    if claimant not in (None, str(resource)):
        raise ConflictError(f"The domain {domain} is that of {claimant}.", hint="A domain names one resource.")


def _check_texts(**texts: str | None) -> None:
    for what, text in texts.items():
        if text is not None:
            checked(text, what)
