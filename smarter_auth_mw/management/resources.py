"""The write side of resources: each act is one transaction with its audit row."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Literal, Protocol, Self

from smarter_auth_mw.decision import Require
from smarter_auth_mw.domain import OnError, Protection, RegisteredResource, Resource
from smarter_auth_mw.errors import ConflictError, NotFoundError, OutOfScopeError, RefusedError
from smarter_auth_mw.postgres.storable import checked, checked_resource
from smarter_auth_mw.postgres.transaction import Transaction


class Unchanged(Enum):
    """Marks a value to keep as it is, since None means "no value"."""

    UNCHANGED = "unchanged"


UNCHANGED = Unchanged.UNCHANGED
_IN_THE_PLATFORM = "Change it there, for example in its Django admin: smarter-auth never writes the platform's rows."
Maybe = str | None | Literal[Unchanged.UNCHANGED]
FEW = 2
"""This many keys show whether a resource has any, and whether it has another one."""


class Ledger(Protocol):
    """A store that keeps the records."""

    def transaction(self, scope: str | None = None) -> AbstractAsyncContextManager[Transaction]: ...


class ResourceManagement:
    """Acts on resources, in the name of ``actor``.

    ``scope`` is the name of an account to which all acts are limited: records of another account are not found, as if
    they did not exist, and no message names them. Resources can be registered, moved and removed, and their domain and
    ``on_error`` set, only without a scope.

    ``longest_life`` limits how long a key may be valid from now on, however it is created, extended or rotated.
    ``require`` is the setting ``REQUIRE``: an act that opens a protected resource raises
    ``WouldOpenError`` unless it is given ``allow_anonymous``. Nothing loads all keys of a resource while it is locked.

    Raises ``NotFoundError``, ``ConflictError`` for what already exists, ``OutOfScopeError`` for what is out of scope,
    existing or not, ``RefusedError`` for what is not allowed, ``UsageError`` for text that cannot be stored, and
    ``UnavailableError`` or ``SchemaError`` from the database. If an error is raised, nothing was changed.
    """

    def __init__(
        self,
        store: Ledger,
        actor: str,
        *,
        scope: str | None = None,
        default_account: str = "default",
        require: Require = "bound",
        longest_life: timedelta | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store: Ledger = store
        self._longest_life = longest_life
        self._actor = checked(actor, "actor")
        self._scope = scope
        self._default_account = scope or default_account
        self._require: Require = require
        self._clock = clock

    @asynccontextmanager
    async def together(self) -> AsyncIterator[Self]:
        """Run the block in one transaction: all of it takes effect, or nothing does."""
        async with self._store.transaction(self._scope) as transaction:
            joined = copy(self)
            joined._store = _Joined(transaction)
            yield joined

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
        self._check_unscoped()
        account = self._account(account)
        checked_resource(resource)
        _check_texts(name=name, domain=domain)
        protection = Protection.DECLARED if protect else Protection.OPEN
        async with self._store.transaction(self._scope) as transaction:
            await _check_claim(transaction, resource, domain)
            known = await transaction.resource(resource, most=0)
            if known is not None and known.is_platforms:
                raise ConflictError(
                    f"{resource} belongs to the platform and is registered there.",
                    hint="To protect it: smarter-auth resource protect",
                )
            added = await transaction.add_resource(
                resource, account, name=name, domain=domain, protection=protection, on_error=on_error
            )
            found = await registered(transaction, resource)
            if not added:
                raise ConflictError(
                    f"{resource} is already registered.", hint="To change it: smarter-auth resource set"
                )
            await transaction.audit(self._actor, "resource.add", found, after=found)
        return found

    async def number_resource(
        self, kind: str, *, name: str | None = None, account: str | None = None
    ) -> RegisteredResource:
        """Register an open resource of the kind, with the next unused number as its reference."""
        self._check_unscoped()
        account = self._account(account)
        _check_texts(kind=kind, name=name)
        async with self._store.transaction(self._scope) as transaction:
            if await transaction.is_platforms(kind):
                raise RefusedError(f"Resources of the kind {kind} are created in the platform.", hint=_IN_THE_PLATFORM)
            while (ref := await transaction.number_resource(kind, account, name)) is None:
                pass  # The number was used by hand: try the next one.
            found = await registered(transaction, checked_resource(Resource(kind, ref)))
            await transaction.audit(self._actor, "resource.add", found, after=found)
        return found

    async def set_resource(
        self,
        resource: Resource,
        *,
        name: Maybe = UNCHANGED,
        account: str | Literal[Unchanged.UNCHANGED] = UNCHANGED,
        domain: Maybe = UNCHANGED,
        on_error: OnError | Literal[Unchanged.UNCHANGED] = UNCHANGED,
        most: int | None = None,
    ) -> RegisteredResource:
        """Change a resource, and return it as ``resource`` does.

        Its account cannot change while keys are bound to it.
        """
        changes = changed(name=name, account=account, domain=domain, on_error=on_error)
        if changes.keys() - {"name"}:
            self._check_unscoped()
        _check_texts(**{name: value for name, value in changes.items() if isinstance(value, str)})
        async with self._store.transaction(self._scope) as transaction:
            before = await registered(transaction, resource)
            if before.is_platforms and changes.keys() - {"on_error"}:
                raise RefusedError(f"{resource} belongs to the platform.", hint=_IN_THE_PLATFORM)
            await self._note(transaction, before)
            if before.keys and changes.get("account", before.account) != before.account:
                raise RefusedError(f"{resource} has keys of account {before.account!r}.", hint="Unbind them first.")
            await _check_claim(transaction, resource, changes.get("domain"))
            await transaction.set_resource(replace(before, **changes))
            after = await registered(transaction, resource)
            await transaction.audit(self._actor, "resource.set", after, before=before, after=after)
        return await self.resource(resource, most=most)

    async def protect(self, resource: Resource, *, most: int | None = None) -> RegisteredResource:
        """Declare a resource protected, with or without bindings, and return it as ``resource`` does."""
        async with self._store.transaction(self._scope) as transaction:
            before = await registered(transaction, resource)
            if before.protection is not Protection.DECLARED:
                await self._note(transaction, before)
                await transaction.declare(resource)
                after = await registered(transaction, resource)
                await transaction.audit(self._actor, "resource.protect", after, before=before, after=after)
        return await self.resource(resource, most=most)

    async def unprotect(self, resource: Resource) -> RegisteredResource:
        """Open a resource to anonymous traffic; refused while keys are bound to it."""
        async with self._store.transaction(self._scope) as transaction:
            held = await registered(transaction, resource)
            if held.keys:
                raise RefusedError(
                    f"{resource} has bindings, each of which protects it.",
                    hint=f"First: smarter-auth key unbind {held.keys[0].key_id} {resource}",
                )
            await transaction.release(resource, self._actor, "resource unprotect")
            return await registered(transaction, resource)

    async def remove_resource(self, resource: Resource, *, allow_anonymous: bool = False) -> None:
        """Remove a resource and its bindings. It is open afterwards, so a protected one needs ``allow_anonymous``."""
        self._check_unscoped()
        async with self._store.transaction(self._scope) as transaction:
            held = await registered(transaction, resource)
            if held.is_platforms:
                raise RefusedError(f"{resource} belongs to the platform.", hint=_IN_THE_PLATFORM)
            if held.is_protected and not allow_anonymous:
                raise RefusedError(
                    f"{resource} is protected, and would be open to anyone once it is removed.",
                    hint=f"Unbind its keys, then: smarter-auth resource unprotect {resource}",
                )
            await transaction.unbind_all(resource, self._actor)
            await transaction.release(resource, self._actor, "removed with allow_anonymous")
            await transaction.delete_resource(resource)
            await transaction.audit(self._actor, "resource.remove", held, before=held)

    async def resource(self, resource: Resource, *, most: int | None = None) -> RegisteredResource:
        """Return the resource with its keys, or with at most ``most`` of them, without their tokens and bindings."""
        async with self._store.transaction(self._scope) as transaction:
            return registered_so(resource, await transaction.resource(resource, most=most))

    async def resources(self, kind: str | None = None) -> list[RegisteredResource]:
        """Return all resources, or those of a kind, with their keys."""
        async with self._store.transaction(self._scope) as transaction:
            return await transaction.resources(kind)

    async def transaction_id(self) -> int:
        """Return the id of the transaction of acts in ``together``."""
        async with self._store.transaction(self._scope) as transaction:
            return await transaction.transaction_id()

    async def _held(
        self, transaction: Transaction, resource: Resource, account: str, *, register: bool
    ) -> tuple[RegisteredResource, bool]:
        """Lock the resource, and return it and whether it was registered just now."""
        known = await transaction.resource(resource, lock=True, most=FEW)
        if known is not None and not known.is_platforms:
            return registered_so(resource, known), False
        created = False
        if known is not None:
            await self._note(transaction, known)
        elif register and self._scope is None:
            created = await transaction.add_resource(resource, account)
        return await registered(transaction, resource), created

    async def _note(self, transaction: Transaction, held: RegisteredResource) -> None:
        """Create an own row for a platform's resource, for fields that the platform does not have."""
        if held.is_platforms:
            await transaction.add_resource(held.resource, held.account)

    def _check_unscoped(self) -> None:
        if self._scope is not None:
            raise OutOfScopeError()

    def _account(self, account: str | None) -> str:
        if self._scope is not None and account not in (None, self._scope):
            raise OutOfScopeError(f"This operator can create records only in account {self._scope!r}.")
        return checked(account or self._default_account, "account")


class _Joined:
    """An open transaction for acts that begin their own: each act is applied completely or not at all."""

    def __init__(self, transaction: Transaction) -> None:
        self._records = transaction

    def transaction(self, scope: str | None = None) -> AbstractAsyncContextManager[Transaction]:  # noqa: ARG002
        return self._records.savepoint()


async def registered(transaction: Transaction, resource: Resource) -> RegisteredResource:
    """Lock the resource, and return it with at most two of its keys; raises NotFoundError."""
    return registered_so(resource, await transaction.resource(resource, lock=True, most=FEW))


def registered_so(resource: Resource, found: RegisteredResource | None) -> RegisteredResource:
    """Return ``found``; raises NotFoundError if it is None, or spelled differently."""
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


def changed(**values: Any) -> dict[str, Any]:
    """Return the values to change, without those that are UNCHANGED."""
    return {name: value for name, value in values.items() if value is not UNCHANGED}


async def _check_claim(transaction: Transaction, resource: Resource, domain: str | None) -> None:
    claimant = None if domain is None else await transaction.claimant(domain)
    if claimant not in (None, str(resource)):
        raise ConflictError(f"The domain {domain} belongs to {claimant}.", hint="A domain names one resource.")


def _check_texts(**texts: str | None) -> None:
    for what, text in texts.items():
        if text is not None:
            checked(text, what)
