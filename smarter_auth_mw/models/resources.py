"""Resources as objects: the base of chatbots and LLM clients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from smarter_auth_mw.domain import OnError, RegisteredResource, Resource
from smarter_auth_mw.errors import UsageError
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.models.base import TIMES, TimestampedModel
from smarter_auth_mw.models.querysets import Objects
from smarter_auth_mw.postgres.storable import is_storable
from smarter_auth_mw.postgres.transaction import Transaction
from smarter_auth_mw.routing.references import integer, plain


class ResourceModel(TimestampedModel):
    """A resource of one kind. ``id`` is its reference as a number, None if the reference is not a number.

    If created without ``id`` and ``ref``, it gets the next free number as its reference.
    """

    kind: ClassVar[str] = ""
    objects = Objects()

    _made_from = ("id", "ref", "name", "account", "domain", "on_error")
    _changeable = ("name", "account", "domain", "on_error")
    is_billable_resource = True
    _fields = dict.fromkeys((*_made_from, "is_protected", *TIMES))
    _identity = "ref"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._narrowings = dict.fromkeys(("ref", "id", "pk"), cls._ids_by_ref) | {"name": cls._ids_by_name}

    def __init__(
        self,
        *,
        id: int | None = None,  # noqa: A002
        ref: str | None = None,
        name: str | None = None,
        account: str | None = None,
        domain: str | None = None,
        on_error: OnError = "stale",
    ) -> None:
        self.id = id
        self.ref = str(id) if ref is None and id is not None else ref
        self.name = name
        self.account = account
        self.domain = domain
        self.on_error = on_error
        self.is_protected = False

    @property
    def resource(self) -> Resource:
        """The resource as requests and the command line name it."""
        if not self.ready or self.ref is None:
            raise UsageError(f"This {type(self).__name__} was never saved.", hint="First: await ….save()")
        return Resource(self.kind, self.ref)

    @classmethod
    async def _all_ids(cls, transaction: Transaction) -> Sequence[int]:
        return await transaction.resource_ids(cls.kind)

    @classmethod
    async def _ids_by_ref(cls, transaction: Transaction, value: Any) -> Sequence[int]:
        ref = str(value)
        return await transaction.resource_id(Resource(cls.kind, ref)) if plain(ref) else []

    @classmethod
    async def _ids_by_name(cls, transaction: Transaction, value: Any) -> Sequence[int]:
        is_text = isinstance(value, str) and is_storable(value)
        return await transaction.resource_ids(cls.kind, value) if is_text else []

    @classmethod
    async def _load(cls, transaction: Transaction, ids: Sequence[int]) -> list[RegisteredResource]:
        found = await transaction.resources_by_id(ids)
        return [found[row_id] for row_id in ids if row_id in found]

    @classmethod
    async def _elsewhere(cls, transaction: Transaction, lookups: Sequence[tuple[str, Any]]) -> list[RegisteredResource]:
        """Return the platform's resource with this number, or all that are protected."""
        if not await transaction.is_platforms(cls.kind):
            return []
        refs = [str(value) for name, value in lookups if name in ("id", "ref", "pk") and value is not None]
        if not refs:
            return await transaction.resources(cls.kind)
        found = await transaction.resource(Resource(cls.kind, refs[0])) if plain(refs[0]) else None
        return [found] if found else []

    @classmethod
    def _values(cls, record: RegisteredResource) -> Mapping[str, Any]:
        number = integer(record.resource.ref)
        return {
            "id": None if number is None else int(number),
            "created_at": record.created_at,
            "updated_at": record.updated_at,
            "ref": record.resource.ref,
            "name": record.name,
            "account": record.account,
            "domain": record.domain,
            "on_error": record.on_error,
            "is_protected": record.is_protected,
        }

    @classmethod
    def _sources(cls, record: RegisteredResource) -> Iterable[str]:
        return [f"resource:{record.resource.lookup}", f"directory:{record.resource.kind}"]

    async def _insert(self, acts: Management) -> RegisteredResource:
        if self.ref is None:
            made = await acts.number_resource(self.kind, name=self.name, account=self.account)
            if self.domain is None and self.on_error == "stale":
                return made
            return await acts.set_resource(made.resource, domain=self.domain, on_error=self.on_error)
        if not plain(self.ref) or (self.id is not None and self.ref != str(self.id)):
            raise UsageError(f"{self.ref!r} is not a reference of a {type(self).__name__} with this id.")
        return await acts.add_resource(
            Resource(self.kind, self.ref),
            name=self.name,
            account=self.account,
            domain=self.domain,
            on_error=self.on_error,
        )

    async def _update(self, acts: Management, changes: Mapping[str, Any]) -> RegisteredResource:
        return await acts.set_resource(self.resource, **changes)

    async def _remove(self, acts: Management, *, allow_anonymous: bool) -> None:
        await acts.remove_resource(self.resource, allow_anonymous=allow_anonymous)
