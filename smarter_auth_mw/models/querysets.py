"""Sets of objects, found when they are asked for: filter, get, count, iterate, create, delete."""

from __future__ import annotations

import operator
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from smarter_auth_mw.errors import ConflictError, UsageError
from smarter_auth_mw.model_sessions import current
from smarter_auth_mw.postgres.transaction import Records

if TYPE_CHECKING:
    from smarter_auth_mw.models.base import TimestampedModel

M = TypeVar("M", bound="TimestampedModel")

CHUNK = 500
"""How many objects are read at once."""


class Created(NamedTuple, Generic[M]):
    """A new key and its token, which is seen this once; it stands for the key wherever one is asked for."""

    key: M
    token: str


class QuerySet(Generic[M]):
    """Objects of a model for which everything that was asked for holds; awaited, they are a list.

    Which objects there are is read at once, what they are in chunks. Conditions on what is bound, on keys, references
    and names are the database's; the others are looked at here.
    """

    def __init__(self, model: type[M], lookups: tuple[tuple[str, Any], ...] = ()) -> None:
        self.model = model
        self._lookups = lookups

    def filter(self, **lookups: Any) -> QuerySet[M]:
        """Those for which this holds too: ``name="x"``, ``api_key__is_active=True``, ``id__in=[1, 2]``.

        Raises ``UsageError`` for a field that there is not.
        """
        for lookup in lookups:
            _check(self.model, lookup)
        plain = ((lookup, value.key if isinstance(value, Created) else value) for lookup, value in lookups.items())
        return QuerySet(self.model, (*self._lookups, *plain))

    def all(self) -> QuerySet[M]:
        """All of them."""
        return QuerySet(self.model, self._lookups)

    async def get(self, **lookups: Any) -> M:
        """The only one; raises the model's ``DoesNotExist`` and ``MultipleObjectsReturned``."""
        asked = self.filter(**lookups)
        found: list[M] = []
        async with aclosing(asked.__aiter__()) as objects:
            async for one in objects:
                found.append(one)
                if len(found) > 1:
                    raise self.model.MultipleObjectsReturned(f"More than one {asked} matches.")
        if not found:
            raise self.model.DoesNotExist(f"No {asked} matches.")
        return found[0]

    async def first(self) -> M | None:
        """The one that was made first, or None."""
        async with aclosing(self.__aiter__()) as objects:
            async for one in objects:
                return one
        return None

    async def exists(self) -> bool:
        """Whether there is any."""
        return await self.first() is not None

    async def count(self) -> int:
        """How many there are."""
        if not self._lookups:
            connection = await current()
            async with connection.reading() as records:
                return len(await self.model._all_ids(records))
        async with aclosing(self._chunks()) as chunks:
            return sum([len(chunk) async for chunk in chunks])

    async def delete(self, *, allow_anonymous: bool = False) -> tuple[int, dict[str, int]]:
        """Delete them all or none, in one transaction; how many, also by model.

        Raises ``RefusedError`` where a resource would be open to anyone then, unless ``allow_anonymous``.
        """
        doomed = await self
        connection = await current()
        async with connection.writing() as (acts, touched):
            for one in doomed:
                await one._remove(acts, allow_anonymous=allow_anonymous)
                touched.update(one._sources(one._record))
        return len(doomed), {self.model.__name__: len(doomed)} if doomed else {}

    def __await__(self) -> Generator[Any, None, list[M]]:
        return self._list().__await__()

    async def __aiter__(self) -> AsyncGenerator[M, None]:
        async with aclosing(self._chunks()) as chunks:
            async for chunk in chunks:
                for one in chunk:
                    yield one

    def __str__(self) -> str:
        """The model and the names of what was asked for; no values, one of which may be a secret."""
        asked = ", ".join(lookup for lookup, _ in self._lookups)
        return f"{self.model.__name__} ({asked})" if asked else self.model.__name__

    def __repr__(self) -> str:
        return f"<QuerySet of {self}>"

    async def _list(self) -> list[M]:
        return [one async for one in self]

    async def _chunks(self) -> AsyncGenerator[list[M], None]:
        connection = await current()
        async with connection.reading() as records:
            ids = await self._ids(records)
        for start in range(0, len(ids), CHUNK):
            async with connection.reading() as records:
                found = await self.model._load(records, ids[start : start + CHUNK])
            objects = map(self.model._of, found)
            yield [one for one in objects if all(_holds(one, *lookup) for lookup in self._lookups_by(is_narrow=False))]

    async def _ids(self, records: Records) -> Sequence[Any]:
        """Of the objects that the database finds: those for which every narrowing holds, or all."""
        ids: Sequence[Any] | None = None
        for name, value in self._lookups_by(is_narrow=True):
            found = await self.model._narrowings[name](records, value)
            both = set(found).intersection(found if ids is None else ids)
            ids = [one for one in found if one in both]
        return await self.model._all_ids(records) if ids is None else ids

    def _lookups_by(self, *, is_narrow: bool) -> list[tuple[str, Any]]:
        """The lookups that the database answers, or the others; what is not there has no index."""
        return [
            (name, value)
            for name, value in self._lookups
            if (name in self.model._narrowings and value is not None) is is_narrow
        ]


class BaseManager(QuerySet[M]):
    """What managers of all models have in common."""

    async def get_or_create(self, defaults: Mapping[str, Any] | None = None, **fields: Any) -> tuple[M, bool]:
        """The only object with these fields, or a new one, with ``defaults`` too; and whether it is new."""
        asked = self.filter(**fields)
        try:
            return await asked.get(), False
        except self.model.DoesNotExist:
            pass
        try:
            return await self.make(**fields, **(defaults or {})), True
        except ConflictError:  # Somebody else was faster, or it differs in something that was not asked for.
            found = await asked.first()
            if found is None:
                raise
            return found, False

    async def make(self, **fields: Any) -> M:
        """A new object, saved; raises ``UsageError`` for a field that one cannot be made from."""
        fields = dict(self._lookups) | fields
        if strange := sorted(fields.keys() - self.model._made_from):
            raise UsageError(
                f"{self.model.__name__} is not made from {', '.join(strange)}, but {', '.join(self.model._made_from)}."
            )
        made = self.model(**fields)
        await made.save()
        return made

    async def delete(self, *, allow_anonymous: bool = False, **lookups: Any) -> tuple[int, dict[str, int]]:
        """Delete those for which this holds, all or none; for all that there are, write ``all().delete()``."""
        if not (lookups or self._lookups):
            raise UsageError(f"This would delete every {self.model.__name__}.", hint="If that is meant: all().delete()")
        return await self.filter(**lookups).delete(allow_anonymous=allow_anonymous)


class Manager(BaseManager[M]):
    """All objects of a model, or those that belong to another object: ``objects``, ``llmclientapikey_set``."""

    async def create(self, **fields: Any) -> M:
        """A new object, saved; raises ``UsageError``, ``ConflictError``, ``RefusedError`` and ``NotFoundError``."""
        return await self.make(**fields)


class Objects:
    """The manager of the model that it is asked of."""

    def __get__(self, _: object, model: type[M]) -> Manager[M]:
        return Manager(model)


def _same(found: Any, value: Any) -> bool:
    """Equal, or the primary key of the object that was found."""
    pk = getattr(found, "pk", None)
    return bool(found == value) or (pk is not None and bool(pk == value))


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda found, value: found is not None and compare(found, value)


_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "exact": _same,
    "in": lambda found, values: any(_same(found, value) for value in values),
    "isnull": lambda found, value: (found is None) is value,
    "lt": _ordered(operator.lt),
    "lte": _ordered(operator.le),
    "gt": _ordered(operator.gt),
    "gte": _ordered(operator.ge),
}


def _parsed(lookup: str) -> tuple[list[str], Callable[[Any, Any], bool]]:
    *path, last = lookup.split("__")
    if path and last in _OPERATORS:
        return path, _OPERATORS[last]
    return [*path, last], _same


def _check(model: type[TimestampedModel], lookup: str) -> None:
    at: type[TimestampedModel] | None = model
    for name in _parsed(lookup)[0]:
        if at is None or name not in (*at._fields, "pk"):
            known = ", ".join(at._fields) if at else "none"
            raise UsageError(f"{lookup!r} asks for what is no field: {name!r}. There are: {known}.")
        at = at._fields.get(name)


def _holds(thing: Any, lookup: str, value: Any) -> bool:
    path, holds = _parsed(lookup)
    for name in path:
        thing = getattr(thing, name, None)
    return holds(thing, value)
