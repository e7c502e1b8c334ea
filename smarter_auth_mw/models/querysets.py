"""Lazy sets of objects: filter, get, count, iterate, create, delete."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Generic, NamedTuple, TypeVar

from smarter_auth_mw.errors import ConflictError, UsageError
from smarter_auth_mw.model_sessions import current
from smarter_auth_mw.models.lookups import check, holds, sorting, value_of
from smarter_auth_mw.models.stored import StoredModel
from smarter_auth_mw.postgres.transaction import Transaction

M = TypeVar("M", bound=StoredModel)

CHUNK = 500
"""The number of objects that are read at once."""


class Created(NamedTuple, Generic[M]):
    """A new key and its token, which is shown only once; it may be passed wherever a key is expected."""

    key: M
    token: str


Lookups = tuple[tuple[str, Any], ...]
Fetch = Callable[[], Awaitable[Sequence[Any]]]
"""Returns the objects of a set that are not read from the database."""
_USUAL = (
    *("all", "filter", "exclude", "order_by", "get", "first", "last", "exists", "count", "in_bulk", "values"),
    *("values_list", "select_related", "create", "get_or_create", "update", "delete", "slices"),
)


class Rows:
    """Fields of the objects of a set; await it to get a list."""

    def __init__(self, objects: Callable[[], Awaitable[Sequence[Any]]], read: Callable[[Any], Any]) -> None:
        self._objects = objects
        self._read = read

    def __await__(self) -> Generator[Any, None, list[Any]]:
        return self._list().__await__()

    async def __aiter__(self) -> AsyncGenerator[Any, None]:
        for row in await self._list():
            yield row

    async def _list(self) -> list[Any]:
        return [self._read(one) for one in await self._objects()]


class QuerySet(Generic[M]):
    """The objects of a model that match all conditions; await it to get a list.

    The ids are read at once, the objects in chunks. The database evaluates conditions on bindings, keys, references and
    names; the others are evaluated in Python.
    """

    def __init__(
        self,
        model: type[M],
        lookups: tuple[tuple[str, Any], ...] = (),
        *,
        excluded: tuple[Lookups, ...] = (),
        order: tuple[str, ...] = (),
        windows: tuple[slice, ...] = (),
        fetch: Fetch | None = None,
    ) -> None:
        self.model = model
        self._lookups = lookups
        self._excluded = excluded
        self._order = order
        self._windows = windows
        self._fetch = fetch

    def _with(self, **changes: Any) -> QuerySet[M]:
        known = {"excluded": self._excluded, "order": self._order, "windows": self._windows, "fetch": self._fetch}
        return QuerySet(self.model, **({"lookups": self._lookups} | known | changes))

    def _plain(self, lookups: Mapping[str, Any]) -> Lookups:
        """Check the lookups, whose values may be new keys."""
        if self._windows:
            raise UsageError("A slice cannot be filtered or ordered.", hint="Filter first, then slice.")
        for lookup in lookups:
            check(self.model, lookup)
        return tuple((lookup, value.key if isinstance(value, Created) else value) for lookup, value in lookups.items())

    def filter(self, **lookups: Any) -> QuerySet[M]:
        """Keep the objects that match these lookups: ``name="x"``, ``api_key__is_active=True``, ``id__in=[1, 2]``.

        Raises ``UsageError`` for an unknown field.
        """
        return self._with(lookups=(*self._lookups, *self._plain(lookups)))

    def exclude(self, **lookups: Any) -> QuerySet[M]:
        """Return a queryset without the objects that match all of these lookups."""
        return self._with(excluded=(*self._excluded, self._plain(lookups)))

    def order_by(self, *fields: str) -> QuerySet[M]:
        """Return the objects in the order of these fields; a leading ``-`` means descending."""
        self._plain(dict.fromkeys(field.removeprefix("-") for field in fields))
        return self._with(order=fields)

    def all(self) -> QuerySet[M]:
        """Return the queryset itself."""
        return self._with()

    def select_related(self, *_: str) -> QuerySet[M]:
        """Return the queryset unchanged: related objects are always loaded."""
        return self._with()

    def values_list(self, *fields: str, flat: bool = False) -> Rows:
        """Return rows that, awaited, are a tuple of these fields per object, or with ``flat`` the only field."""
        if flat and len(fields) != 1:
            raise UsageError("flat takes exactly one field.")
        read = self._reader(fields)
        return Rows(self._list, (lambda one: read(one)[0]) if flat else read)

    def values(self, *fields: str) -> Rows:
        """Return rows that, awaited, are a dictionary of these fields per object."""
        read, names = self._reader(fields), fields or tuple(self.model._fields)
        return Rows(self._list, lambda one: dict(zip(names, read(one), strict=True)))

    def _reader(self, fields: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
        fields = fields or tuple(self.model._fields)
        for field in fields:
            check(self.model, field)
        return lambda one: tuple(value_of(one, field.split("__")) for field in fields)

    def __getitem__(self, place: int | slice) -> Any:
        """Return a slice, or an awaitable for the object at this index, which raises IndexError if there is none."""
        parts = (place.start, place.stop) if isinstance(place, slice) else (place,)
        if (isinstance(place, slice) and place.step is not None) or any(
            part is not None and part < 0 for part in parts
        ):
            raise UsageError("A slice has no negative index and no step.", hint="For the end: order_by, last()")
        return self._with(windows=(*self._windows, place)) if isinstance(place, slice) else self._at(place)

    async def _at(self, place: int) -> M:
        found: list[M] = await self[place : place + 1]
        return found[0]

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{type(self).__name__} has no {name}: of Django's managers, it has {', '.join(_USUAL)}.")

    async def last(self) -> M | None:
        """Return the last object in its order, or None."""
        found = await self
        return found[-1] if found else None

    async def in_bulk(self, ids: Sequence[Any] | None = None, *, field_name: str = "pk") -> dict[Any, M]:
        """Return a dictionary of the objects by primary key or another field: all, or those with these ids."""
        asked = self if ids is None else self.filter(**{f"{field_name}__in": ids})
        found = {getattr(one, field_name): one for one in await asked}
        if None in found:
            raise UsageError(
                f"Some {self.model.__name__} objects have no {field_name}.", hint="Use another field_name."
            )
        return found

    async def update(self, **values: Any) -> int:
        """Write these values to all objects in one transaction; return their number. Raises ``UsageError``."""
        if fixed := [name for name in values if name not in self.model._changeable]:
            raise UsageError(f"{', '.join(fixed)} of a {self.model.__name__} cannot be changed.")
        changed = await self
        connection = await current()
        async with connection.writing() as (acts, touched):
            for one in changed:
                for name, value in values.items():
                    setattr(one, name, value)
                touched.update(one._sources(await one._update(acts, values)))
        return len(changed)

    async def get(self, **lookups: Any) -> M:
        """Return the only object; raises the model's ``DoesNotExist`` and ``MultipleObjectsReturned``."""
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
        """Return the object that was created first, or None."""
        async with aclosing(self.__aiter__()) as objects:
            async for one in objects:
                return one
        return None

    async def exists(self) -> bool:
        """Return whether any object matches."""
        return await self.first() is not None

    async def count(self) -> int:
        """Return the number of objects."""
        if not (self._lookups or self._excluded or self._windows or self._fetch):
            connection = await current()
            async with connection.reading() as transaction:
                if not await self.model._elsewhere(transaction, ()):
                    return len(await self.model._all_ids(transaction))
        async with aclosing(self._chunks()) as chunks:
            return sum([len(chunk) async for chunk in chunks])

    async def delete(self, *, allow_anonymous: bool = False) -> tuple[int, dict[str, int]]:
        """Delete all objects in one transaction; return their number, in total and by model.

        Raises ``RefusedError`` if that would open a resource to anyone, unless ``allow_anonymous``.
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
        """Return the model and the names of the conditions, without values, which may be secret."""
        asked = ", ".join(lookup for lookup, _ in self._lookups)
        return f"{self.model.__name__} ({asked})" if asked else self.model.__name__

    def __repr__(self) -> str:
        return f"<QuerySet of {self}>"

    async def _list(self) -> list[M]:
        return [one async for one in self]

    async def _chunks(self) -> AsyncGenerator[list[M], None]:
        async with aclosing(self._matching()) as chunks:
            if not (self._order or self._windows):
                async for chunk in chunks:
                    yield chunk
                return
            found = [one async for chunk in chunks for one in chunk]
        for field in reversed(self._order):
            found.sort(key=lambda one: sorting(one, field), reverse=field.startswith("-"))
        for window in self._windows:
            found = found[window]
        yield found

    async def _matching(self) -> AsyncGenerator[list[M], None]:
        """Yield the matching objects in chunks, in the order of their creation."""
        if self._fetch is not None:
            yield [one for one in await self._fetch() if self._matches(one, self._lookups)]
            return
        connection = await current()
        others = self._lookups_by(is_narrow=False)
        async with connection.reading() as transaction:
            ids = await self._ids(transaction)
            elsewhere = list(map(self.model._of, await self.model._elsewhere(transaction, self._lookups)))
        complete = {getattr(one, self.model._identity) for one in elsewhere}
        for start in range(0, len(ids), CHUNK):
            async with connection.reading() as transaction:
                found = await self.model._load(transaction, ids[start : start + CHUNK])
            own = [one for one in map(self.model._of, found) if getattr(one, self.model._identity) not in complete]
            yield [one for one in own if self._matches(one, others)]
        if elsewhere:
            yield [one for one in elsewhere if self._matches(one, self._lookups)]

    def _matches(self, one: M, lookups: Iterable[tuple[str, Any]]) -> bool:
        is_found = all(holds(one, *lookup) for lookup in lookups)
        return is_found and not any(all(holds(one, *lookup) for lookup in group) for group in self._excluded)

    async def _ids(self, transaction: Transaction) -> Sequence[Any]:
        """Return the ids of the objects that match every narrowing; without any, of all objects."""
        ids: Sequence[Any] | None = None
        for name, value in self._lookups_by(is_narrow=True):
            found = await self.model._narrowings[name](transaction, value)
            both = set(found).intersection(found if ids is None else ids)
            ids = [one for one in found if one in both]
        return await self.model._all_ids(transaction) if ids is None else ids

    def _lookups_by(self, *, is_narrow: bool) -> list[tuple[str, Any]]:
        """Return the lookups that the database evaluates, or the others."""
        return [
            (name, value)
            for name, value in self._lookups
            if (name in self.model._narrowings and value is not None) is is_narrow
        ]


class BaseManager(QuerySet[M]):
    """The base of all managers."""

    async def get_or_create(self, defaults: Mapping[str, Any] | None = None, **fields: Any) -> tuple[M, bool]:
        """Return the only object with these fields, or a new one, also with ``defaults``; and whether it is new."""
        asked = self.filter(**fields)
        try:
            return await asked.get(), False
        except self.model.DoesNotExist:
            pass
        try:
            return await self.make(**fields, **(defaults or {})), True
        except ConflictError:  # Another task was faster, or it differs in a field that is not a condition.
            found = await asked.first()
            if found is None:
                raise
            return found, False

    async def make(self, **fields: Any) -> M:
        """Create and save an object; raises ``UsageError`` for a field that ``create`` does not accept."""
        fields = dict(self._lookups) | fields
        if strange := sorted(fields.keys() - self.model._made_from):
            raise UsageError(
                f"{self.model.__name__} takes {', '.join(self.model._made_from)}, not {', '.join(strange)}."
            )
        made = self.model(**fields)
        await made.save()
        return made

    async def delete(self, *, allow_anonymous: bool = False, **lookups: Any) -> tuple[int, dict[str, int]]:
        """Delete the objects that match, all or none; to delete every object, write ``all().delete()``."""
        if not (lookups or self._lookups):
            raise UsageError(f"This would delete every {self.model.__name__}.", hint="To confirm: all().delete()")
        return await self.filter(**lookups).delete(allow_anonymous=allow_anonymous)


class Manager(BaseManager[M]):
    """All objects of a model, or those that belong to another object: ``objects``, ``llmclientapikey_set``."""

    async def create(self, **fields: Any) -> M:
        """Create and save an object; raises UsageError, ConflictError, RefusedError and NotFoundError."""
        return await self.make(**fields)


class Objects:
    """The descriptor that returns the manager of the model it is read from."""

    def __get__(self, _: object, model: type[M]) -> Manager[M]:
        return Manager(model)
