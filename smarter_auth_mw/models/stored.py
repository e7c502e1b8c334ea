"""The declarations of a model that querysets use: its fields, and how it is read and written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

from smarter_auth_mw.errors import MultipleObjectsReturned, ObjectDoesNotExist, ObjectNotUpdated
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.postgres.transaction import Transaction

Narrowing = Callable[[Transaction, Any], Awaitable[Sequence[Any]]]


class StoredModel:
    """An object that stands for a record of the database."""

    _fields: ClassVar[Mapping[str, type[StoredModel] | None]] = {}
    """The fields of an object; if a field is an object, with its model."""
    _made_from: ClassVar[tuple[str, ...]] = ()
    """The arguments of ``create``."""
    _changeable: ClassVar[tuple[str, ...]] = ()
    """The fields that ``save`` writes."""
    _hidden: ClassVar[tuple[str, ...]] = ()
    """The fields that ``to_json`` leaves out."""
    _identity: ClassVar[str] = "id"
    """The field that identifies an object; the others may change."""
    _narrowings: ClassVar[Mapping[str, Narrowing]] = {}
    """Functions that find the ids of the objects with a value, by field."""

    DoesNotExist: ClassVar[type[ObjectDoesNotExist]]
    MultipleObjectsReturned: ClassVar[type[MultipleObjectsReturned]]
    NotUpdated: ClassVar[type[ObjectNotUpdated]]

    _record: Any = None

    def __init_subclass__(cls) -> None:
        """Give each model errors of its own."""
        super().__init_subclass__()
        for base, name in _ERRORS.items():
            nested = {"__module__": cls.__module__, "__qualname__": f"{cls.__name__}.{name}", "__doc__": base.__doc__}
            setattr(cls, name, type(name, (base,), nested))

    @classmethod
    async def _all_ids(cls, transaction: Transaction) -> Sequence[Any]:
        """The ids of all objects, in the order in which they were made."""
        raise NotImplementedError

    @classmethod
    async def _load(cls, transaction: Transaction, ids: Sequence[Any]) -> list[Any]:
        """The records with these ids, in their order; those that are gone are left out."""
        raise NotImplementedError

    @classmethod
    def _values(cls, record: Any) -> Mapping[str, Any]:
        """The fields of the object that a record is."""
        raise NotImplementedError

    @classmethod
    def _sources(cls, record: Any) -> Iterable[str]:
        """Return the sources that change with the record."""
        raise NotImplementedError

    async def _insert(self, acts: Management) -> Any:
        """Make the record."""
        raise NotImplementedError

    async def _update(self, acts: Management, changes: Mapping[str, Any]) -> Any:
        """Write these changes; the record with them."""
        raise NotImplementedError

    async def _remove(self, acts: Management, *, allow_anonymous: bool) -> None:
        """Delete the record."""
        raise NotImplementedError

    @classmethod
    def _of(cls, record: Any) -> Self:
        """The object that a record is."""
        made = cls.__new__(cls)
        made._take(record)
        return made

    def _take(self, record: Any) -> None:
        self._record = record
        for name, value in self._values(record).items():
            setattr(self, name, value)

    @classmethod
    async def _elsewhere(cls, transaction: Transaction, lookups: Sequence[tuple[str, Any]]) -> list[Any]:
        """Return the records in an attached platform's own tables: at least those that the lookups may find."""
        del transaction, lookups
        return []

    async def save(self) -> None:
        """Write the object."""
        raise NotImplementedError


_ERRORS = {
    ObjectDoesNotExist: "DoesNotExist",
    MultipleObjectsReturned: "MultipleObjectsReturned",
    ObjectNotUpdated: "NotUpdated",
}
