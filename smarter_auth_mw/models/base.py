"""The base of all models, after the platform's ``TimestampedModel``: fields, errors, save, delete, refresh."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Self
from uuid import UUID

from smarter_auth_mw.errors import NotFoundError, UsageError
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.model_sessions import current
from smarter_auth_mw.models.querysets import QuerySet
from smarter_auth_mw.models.stored import StoredModel
from smarter_auth_mw.routing.references import HASH_FLOOR, hashed_id, unhash

TIMES = ("created_at", "updated_at")


class TimestampedModel(StoredModel):
    """One record of the database as an object with asynchronous methods.

    A model declares its fields, reads and writes as ``StoredModel`` lists them; the rest is here.
    """

    HASH_PREFIX: ClassVar[str] = "r"
    HASH_SUFFIX: ClassVar[str] = "x"
    HASH_FLOOR: ClassVar[int] = HASH_FLOOR
    cache_expiration: ClassVar[int] = 0
    """The maximum age of ``get_cached_object`` in seconds: 0, since it always queries the database."""
    is_billable_resource: ClassVar[bool] = False

    id: int | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None

    async def save(self, update_fields: Iterable[str] | None = None) -> None:
        """Write the object: a new one completely, an existing one's changed fields or ``update_fields``.

        Raises ``NotUpdated`` if it no longer exists, ``ConflictError``, ``RefusedError`` and ``UsageError``.
        """
        changes = self._changes(update_fields)
        connection = await current()
        async with connection.writing() as (acts, touched):
            record = await self._written(acts, changes)
            touched.update(self._sources(record))
        self._take(record)

    async def _written(self, acts: Management, changes: Mapping[str, Any]) -> Any:
        if not self.ready:
            return await self._insert(acts)
        try:
            return await self._update(acts, changes)
        except NotFoundError as error:
            raise self.NotUpdated(f"{self} was not updated: {error.message}") from None

    def _changes(self, only: Iterable[str] | None) -> dict[str, Any]:
        was = self._values(self._record) if self.ready else {}
        changes = {name: getattr(self, name) for name, value in was.items() if getattr(self, name) != value}
        if only is not None:
            only = set(only)
            changes = {name: value for name, value in changes.items() if name in only}
        if fixed := [name for name in changes if name not in self._changeable]:
            raise UsageError(f"{', '.join(fixed)} of a {type(self).__name__} cannot be changed.")
        return changes

    async def delete(self, *, allow_anonymous: bool = False) -> tuple[int, dict[str, int]]:
        """Delete the object; return the number of deleted objects, in total and by model.

        Raises ``RefusedError`` if that would open a resource to anyone, unless ``allow_anonymous``. Raises
        ``DoesNotExist`` if the object no longer exists.
        """
        if not self.ready:
            raise self.DoesNotExist(f"This {type(self).__name__} was never saved.")
        connection = await current()
        async with connection.writing() as (acts, touched):
            try:
                await self._remove(acts, allow_anonymous=allow_anonymous)
            except NotFoundError as error:
                raise self.DoesNotExist(error.message) from None
            touched.update(self._sources(self._record))
        return 1, {type(self).__name__: 1}

    async def refresh_from_db(self) -> None:
        """Reload all fields from the database; raises ``DoesNotExist``."""
        found = await QuerySet(type(self)).get(**{self._identity: getattr(self, self._identity)})
        self._take(found._record)

    def validate(self) -> None:
        """Raise UsageError if ``save`` would refuse the object because of a field that cannot be changed."""
        self._changes(None)

    @classmethod
    async def get_cached_object(cls, invalidate: bool = False, pk: Any = None) -> Self:  # noqa: FBT001, FBT002
        """Return the object with this primary key, always read from the database; raises ``DoesNotExist``."""
        del invalidate
        return await cls._all().get(pk=pk)

    @classmethod
    def get_cached_objects(cls, invalidate: bool = False) -> QuerySet[Self]:  # noqa: FBT001, FBT002
        """Return all objects, always as the database has them."""
        del invalidate
        return cls._all()

    @classmethod
    def _all(cls) -> QuerySet[Self]:
        if not cls._fields:
            raise NotImplementedError(f"{cls.__name__} has no objects: use one of the models.")
        return QuerySet(cls)

    @property
    def pk(self) -> Any:
        """The primary key."""
        return self.id

    @property
    def ready(self) -> bool:
        """True if the object has been saved."""
        return self._record is not None

    @property
    def hashed_id(self) -> str | None:
        """The platform's hashed id of its number, ``rMTAwMDA0Mgx`` of 42."""
        return None if self.id is None else hashed_id(self.id)

    @staticmethod
    def id_from_hashed_id(text: str) -> int | None:
        """Return the number of a hashed id, or None if the text is not one."""
        return unhash(text)

    @classmethod
    def hash_regex(cls) -> re.Pattern[str]:
        """Return a pattern for candidates of hashed ids; ``id_from_hashed_id`` decides whether a match is one."""
        return re.compile(f"{cls.HASH_PREFIX}[A-Za-z0-9_-]+{cls.HASH_SUFFIX}")

    @staticmethod
    def find_hash(value: str) -> str | None:
        """Return the first hashed id among the segments of a URL or path, or None."""
        return next((segment for segment in re.split(r"[/?#&=]", value) if unhash(segment) is not None), None)

    @property
    def record_locator(self) -> str | None:
        """The model and the hashed id: ``chatbot-rMTAwMDA0Mgx``."""
        return None if self.id is None else f"{type(self).__name__.lower()}-{self.hashed_id}"

    @classmethod
    async def get_object_by_locator(cls, locator: str) -> Self | None:
        """Return the object of a record locator, or None if it does not exist or belongs to another model."""
        model, _, text = locator.partition("-")
        number = unhash(text) if model == cls.__name__.lower() else None
        return None if number is None else await QuerySet(cls).filter(id=number).first()

    @property
    def elapsed_updated(self) -> int | None:
        """The whole seconds since the last update."""
        return None if self.updated_at is None else abs(int((datetime.now(UTC) - self.updated_at).total_seconds()))

    def to_json(self) -> dict[str, Any]:
        """Return the object as JSON values, without digests and related objects."""
        names = [name for name, model in self._fields.items() if model is None and name not in self._hidden]
        values = {name: _json(getattr(self, name)) for name in names}
        return values | {"record_locator": self.record_locator, "elapsed_updated": self.elapsed_updated}

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self) or not self.ready:
            return self is other
        return bool(getattr(self, self._identity) == getattr(other, self._identity))

    def __hash__(self) -> int:
        if not self.ready:
            raise TypeError(f"A {type(self).__name__} that was never saved has no hash.")
        return hash((type(self), getattr(self, self._identity)))

    def __str__(self) -> str:
        return f"{type(self).__name__}({self._identity}={getattr(self, self._identity, None)})"

    def __repr__(self) -> str:
        return f"<{self}>"


def _json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value
