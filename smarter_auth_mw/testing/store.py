"""The store in memory, for tests: the same records and facts for decisions, without a database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, ClassVar, cast
from uuid import UUID, uuid4

from smarter_auth_mw.domain import (
    Alias,
    Bindings,
    Key,
    KeyToken,
    OnError,
    Protection,
    RegisteredBinding,
    RegisteredResource,
    Resource,
    Target,
)
from smarter_auth_mw.errors import RefusedError, UnavailableError, UsageError
from smarter_auth_mw.observers.audit import RequestEvent
from smarter_auth_mw.observers.usage import Batch
from smarter_auth_mw.postgres.pool import PoolSizes
from smarter_auth_mw.postgres.queries import closure
from smarter_auth_mw.postgres.reports import KeyCounts
from smarter_auth_mw.postgres.store import Read, Store, check_storable
from smarter_auth_mw.postgres.transaction import Transaction
from smarter_auth_mw.testing.tables import BindingRow, Tables, aliases_of, binding_of, in_order, is_held
from smarter_auth_mw.tokens import Token

_numbers = count(1)

NEEDS_A_DATABASE = (
    "Test models, lists, usage and the audit with DATABASE_URL=embedded:. In memory, create resources and keys with "
    "the methods of AuthKit, and check its decisions."
)


class NoDatabase:
    """Refuses in words what ``_original`` can do and the class in memory cannot."""

    _original: ClassVar[type]

    def __getattr__(self, name: str) -> Any:
        if hasattr(self._original, name):
            raise UsageError("AuthKit has no database, and this needs one.", hint=NEEDS_A_DATABASE)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class MemoryTransaction(NoDatabase):
    """One transaction on a copy of the tables; no method waits."""

    _original = Transaction

    def __init__(self, tables: Tables, clock: Callable[[], datetime], tx: int, scope: str | None = None) -> None:
        self.tables = tables
        self._scope = scope
        self._clock = clock
        self._tx = tx

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[MemoryTransaction]:
        before = self.tables.copy()
        try:
            yield self
        except BaseException:
            self.tables = before
            raise

    async def resource(
        self,
        resource: Resource,
        *,
        lock: bool = False,  # noqa: ARG002
        most: int | None = None,  # noqa: ARG002
    ) -> RegisteredResource | None:
        found = self.tables.resource(resource.lookup) if resource.lookup in self.tables.resources else None
        return found if found is not None and self._sees(found) else None

    async def resources(self, kind: str | None = None) -> list[RegisteredResource]:
        found = filter(self._sees, map(self.tables.resource, self.tables.resources))
        return sorted((one for one in found if kind in (None, one.resource.kind)), key=lambda one: one.resource)

    async def is_platforms(self, kind: str) -> bool:  # noqa: ARG002
        return False

    async def platform_key_ids(self) -> list[UUID]:
        return []

    async def claimant(self, domain: str) -> str | None:
        return next((str(one.resource) for one in self.tables.resources.values() if one.domain == domain), None)

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
        if resource.lookup in self.tables.resources:
            return False
        now, policy = self._clock(), cast("OnError", on_error)
        self.tables.resources[resource.lookup] = RegisteredResource(
            resource, account, name, domain, protection, policy, now, now
        )
        return True

    async def number_resource(self, kind: str, account: str, name: str | None) -> str | None:
        ref = str(next(_numbers))
        return ref if await self.add_resource(Resource(kind, ref), account, name=name) else None

    async def set_resource(self, changed: RegisteredResource) -> None:
        self._set_resource(
            changed.resource,
            name=changed.name,
            account=changed.account,
            domain=changed.domain,
            on_error=changed.on_error,
        )

    async def declare(self, resource: Resource) -> None:
        self._set_resource(resource, protection=Protection.DECLARED)

    async def release(self, resource: Resource, actor: str, reason: str) -> None:  # noqa: ARG002
        held = self.tables.resource(resource.lookup)
        if held.keys:
            raise RefusedError(f"{resource} still has bindings.")
        if held.protection is not Protection.OPEN:
            self._set_resource(resource, protection=Protection.OPEN)
            self.tables.events.append((actor, "resource.unprotect"))

    async def delete_resource(self, resource: Resource) -> None:
        if self.tables.resources[resource.lookup].protection is not Protection.OPEN:
            raise RefusedError(f"{resource} is protected, and stays so.")
        del self.tables.resources[resource.lookup]

    async def key(self, key_id: UUID, *, lock: bool = False, most: int | None = None) -> Key | None:  # noqa: ARG002
        found = self.tables.key(key_id) if key_id in self.tables.keys else None
        return found if found is not None and self._sees(found) else None

    async def keys(self) -> list[Key]:
        return sorted(filter(self._sees, map(self.tables.key, self.tables.keys)), key=in_order)

    async def keys_by_id(self, key_ids: Sequence[UUID], most: int | None = None) -> dict[UUID, Key]:  # noqa: ARG002
        return {key.key_id: key for key in await self.keys() if key.key_id in key_ids}

    async def add_key(self, account: str, name: str, description: str, expires_at: datetime | None) -> UUID | None:
        if self._is_taken(account, name):
            return None
        key_id, now = uuid4(), self._clock()
        self.tables.keys[key_id] = Key(key_id, account, name, description, True, expires_at, None, now, now)
        return key_id

    async def set_active(self, key_id: UUID, *, is_active: bool) -> None:
        self._set_key(key_id, is_active=is_active)

    async def revoke(self, key_id: UUID) -> None:
        self._set_key(key_id, revoked_at=self._clock())

    async def set_key(self, key: Key, changes: Mapping[str, Any]) -> bool:
        if self._is_taken(key.account, changes.get("name", key.name), but=key.key_id):
            return False
        self._set_key(key.key_id, **changes)
        return True

    async def expire_tokens(self, key_id: UUID, valid_until: datetime) -> None:
        tokens = self.tables.keys[key_id].tokens
        self._set_key(
            key_id,
            tokens=tuple(replace(one, valid_until=min(one.valid_until or valid_until, valid_until)) for one in tokens),
        )

    async def owners(self, digests: Sequence[bytes]) -> dict[bytes, UUID]:
        return {
            token.digest: key.key_id
            for key in filter(self._sees, self.tables.keys.values())
            for token in key.tokens
            if token.digest in digests
        }

    async def add_token(self, token: Token, key: Key) -> None:
        added = KeyToken(token.token_key, self._clock(), digest=token.digest)
        held = self.tables.keys[key.key_id]
        self.tables.keys[key.key_id] = replace(held, tokens=(*held.tokens, added))

    async def add_binding(self, resource: Resource, key: Key) -> bool:
        if (resource.lookup, key.key_id) in self.tables.bindings:
            return False
        now = self._clock()
        bound = BindingRow(next(_numbers), resource.lookup, key.key_id, now, now)
        self.tables.bindings[resource.lookup, key.key_id] = bound
        if self.tables.resources[resource.lookup].protection is Protection.OPEN:
            self._set_resource(resource, protection=Protection.BOUND)
        return True

    async def delete_binding(self, resource: Resource, key_id: UUID) -> bool:
        return self.tables.bindings.pop((resource.lookup, key_id), None) is not None

    async def unbind_all(self, resource: Resource, actor: str) -> None:
        for key in self.tables.resource(resource.lookup).keys:
            await self.delete_binding(resource, key.key_id)
            await self.audit(actor, "key.unbind", key)

    async def closures(self, resources: Sequence[Resource]) -> list[Bindings]:
        held = [self.tables.resource(one.lookup) for one in resources if one.lookup in self.tables.resources]
        return [closure(one.resource, one.protection, bool(one.keys), any(map(is_held, one.keys))) for one in held]

    async def lock_resources_of(self, key_ids: Sequence[UUID]) -> list[Resource]:
        return sorted({resource for key_id in key_ids for resource in self.tables.key(key_id).bindings})

    async def transaction_id(self) -> int:
        return self._tx

    async def binding(self, resource: Resource, key_id: UUID) -> RegisteredBinding | None:
        bound = self.tables.bindings.get((resource.lookup, key_id))
        held = None if bound is None else self.tables.resources[bound.lookup]
        if bound is None or held is None or not self._sees(held):
            return None
        return RegisteredBinding(bound.id, bound.created_at, bound.updated_at, held, self.tables.key(key_id))

    async def touch_binding(self, binding_id: int | None) -> None:
        for place, bound in self.tables.bindings.items():
            if bound.id == binding_id:
                self.tables.bindings[place] = replace(bound, updated_at=self._clock())
                return

    async def audit(self, actor: str, action: str, about: Key | RegisteredResource, **_: Any) -> None:  # noqa: ARG002
        self.tables.events.append((actor, action))

    def _sees(self, found: Key | RegisteredResource) -> bool:
        return self._scope in (None, found.account)

    def _is_taken(self, account: str, name: str, *, but: UUID | None = None) -> bool:
        return any(
            (key.account, key.name) == (account, name) and key.revoked_at is None and key.key_id != but
            for key in self.tables.keys.values()
        )

    def _set_resource(self, resource: Resource, **changes: Any) -> None:
        held = self.tables.resources[resource.lookup]
        self.tables.resources[resource.lookup] = replace(held, **changes, updated_at=self._clock())

    def _set_key(self, key_id: UUID, **changes: Any) -> None:
        self.tables.keys[key_id] = replace(self.tables.keys[key_id], **changes, updated_at=self._clock())


class MemoryStore(NoDatabase):
    """The store on tables in memory.

    ``followers`` are called with the number of each committed transaction.
    """

    _original = Store

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.tables = Tables()
        self.followers: list[Callable[[int], object]] = []
        self.is_down = False
        """Set to True to behave like a database that cannot be reached."""
        self._clock = clock
        self._tx = 1

    @property
    def as_store(self) -> Store:
        """Return this object for code that is written for ``Store``."""
        return cast("Store", self)

    async def check(self) -> None:
        self._check_up()

    async def read(self, target: Target) -> Read:
        self._check_up()
        names = target.names
        if isinstance(names, Alias):
            return self._read_alias(names)
        check_storable(names.lookup_ref)
        return self._as_read(self._bindings(names.lookup) if names.lookup in self.tables.resources else Bindings(names))

    async def read_token(self, digest: bytes) -> Read:
        self._check_up()
        own = Resource("token", digest.hex())
        for key in self.tables.keys.values():
            for token in key.tokens:
                if token.digest == digest:
                    bound = (binding_of(key, token),)
                    return self._as_read(Bindings(own, key.account, Protection.BOUND, bindings=bound))
        return self._as_read(Bindings(own))

    @asynccontextmanager
    async def transaction(self, scope: str | None = None) -> AsyncIterator[MemoryTransaction]:
        self._check_up()
        before = self.tables
        transaction = MemoryTransaction(before.copy(), self._clock, self._tx + 1, scope)
        yield transaction
        if self.tables is not before:
            raise UnavailableError("It was changed by another session at the same moment; nothing was changed.")
        self.replace(transaction.tables)

    def replace(self, tables: Tables) -> None:
        """Replace all tables, and notify the followers."""
        self.tables, self._tx = tables, self._tx + 1
        for follower in list(self.followers):
            follower(self._tx)

    @property
    def snapshot(self) -> str:
        """Return the snapshot of a read now: every committed transaction is visible."""
        return f"{self._tx + 1}:{self._tx + 1}:"

    @property
    def claims(self) -> list[tuple[str, str]]:
        """Return every custom domain, with the kind of its resource."""
        return [(one.domain, one.resource.kind) for one in self.tables.resources.values() if one.domain]

    @property
    def pool_sizes(self) -> PoolSizes:
        return PoolSizes(0, 0)

    async def domains(self) -> list[tuple[str, str]]:
        self._check_up()
        return self.claims

    async def protected_kinds(self) -> frozenset[str]:
        held = self.tables.resources.values()
        return frozenset(one.resource.kind for one in held if one.protection is not Protection.OPEN)

    async def secret(self) -> bytes:
        return b"nothing is shared"

    async def purge_changes(self, keep: timedelta) -> int:  # noqa: ARG002
        return 0

    async def drop_old_usage(self) -> int:
        return 0

    async def count_keys(self, most: int) -> KeyCounts:  # noqa: ARG002
        """Return zero counts: a test has no metrics of keys."""
        return KeyCounts(0, 0, 0, 0, 0, 0)

    async def write_usage(self, batch: Batch) -> None:
        """Do nothing: usage is not stored."""

    async def write_requests(self, events: Sequence[RequestEvent], batch_id: UUID | None = None) -> None:
        """Do nothing: requests are not stored; tests read the decisions."""

    def _check_up(self) -> None:
        if self.is_down:
            raise UnavailableError("The store in memory is down.")

    def _read_alias(self, alias: Alias) -> Read:
        is_domain = alias.form == "domain"
        account, value = ("", alias.value) if is_domain else (alias.account or "", alias.value.replace("_", "-"))
        check_storable(account + value)
        claimants = [
            lookup
            for lookup, one in self.tables.resources.items()
            if one.resource.kind == alias.kind and (alias.form, account, value) in aliases_of(one)
        ]
        if len(claimants) == 1:
            return self._as_read(self._bindings(claimants[0]))
        nobody = Resource(alias.kind, "")
        if not claimants:
            return self._as_read(Bindings(nobody))
        return self._as_read(Bindings(nobody, self.tables.resources[claimants[0]].account, Protection.DECLARED))

    def _bindings(self, lookup: str) -> Bindings:
        held = self.tables.resource(lookup)
        bound = tuple(binding_of(key, token) for key in held.keys for token in key.tokens or (None,))
        return Bindings(held.resource, held.account, held.protection, held.on_error, bound)

    def _as_read(self, bindings: Bindings) -> Read:
        return Read(bindings, self.snapshot, ())  # Each change is one of everything, so no other source is needed.
