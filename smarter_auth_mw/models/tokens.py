"""Keys as objects, each identified by its newest token."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self, TypeVar
from uuid import UUID

from smarter_auth_mw.domain import Key
from smarter_auth_mw.errors import NotFoundError, UsageError
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.management.rotations import OVERLAP
from smarter_auth_mw.model_sessions import current
from smarter_auth_mw.models.base import TIMES, TimestampedModel
from smarter_auth_mw.models.querysets import BaseManager, Created
from smarter_auth_mw.postgres.storable import is_storable
from smarter_auth_mw.postgres.transaction import Transaction
from smarter_auth_mw.tokens import MintedToken, TokenFormat

_DIGEST = re.compile(r"[0-9a-fA-F]{128}")

T = TypeVar("T", bound="TokenModel")


class TokenManager(BaseManager[T]):
    """All keys that are not revoked."""

    async def create(self, **fields: Any) -> Created[T]:
        """Create a key, and return it with its token, which is shown only once; only ``name`` is required."""
        key = await self.make(**fields)
        return Created(key, key.token or "")


class TokenObjects:
    """The manager of keys."""

    def __get__(self, _: object, model: type[T]) -> TokenManager[T]:
        return TokenManager(model)


class TokenModel(TimestampedModel):
    """An API key, identified by its newest token: ``digest`` and ``token_key`` are the token's, the rest is the key's.

    ``expiry`` may be given as a time or as a duration from now. Deleting a key revokes it, and a revoked key no longer
    exists here.
    """

    key_id: UUID
    digest: str
    token_key: str
    created: datetime
    last_used_at: datetime | None
    token: MintedToken | None = None
    """The token itself, only in the object that created it."""
    objects = TokenObjects()

    _made_from = ("name", "description", "account", "is_active", "expiry", "labels", "format", "prefix", "max_lifetime")
    _changeable = ("name", "description", "is_active", "expiry", "labels")
    _fields = dict.fromkeys(
        ("key_id", *_changeable, "account", "digest", "token_key", "last_used_at", "created", *TIMES)
    )
    _hidden = ("digest",)
    _identity = "key_id"

    def __init__(
        self,
        *,
        name: str,
        description: str = "",
        account: str | None = None,
        is_active: bool = True,
        expiry: datetime | timedelta | None = None,
        labels: Mapping[str, str] | None = None,
        format: TokenFormat | None = None,  # noqa: A002 - As the command line has it.
        prefix: str | None = None,
        max_lifetime: timedelta | None = None,
    ) -> None:
        self.name = name
        self.description = description
        self.account = account
        self.is_active = is_active
        self.expiry = _time(expiry)
        self.labels = dict(labels or {})
        self._minting: Mapping[str, Any] = {"form": format, "prefix": prefix, "max_lifetime": max_lifetime}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._narrowings = {
            "key_id": cls._ids_by_key_id,
            "digest": cls._ids_by_digest,
            "pk": cls._ids_by_digest,
            "token_key": cls._ids_by_token_key,
            "name": cls._ids_by_name,
        }

    @property
    def pk(self) -> str:
        """The digest of the newest token, as the platform has it."""
        return self.digest

    async def activate(self) -> None:
        """Activate the key, so that its tokens open its resources again."""
        await self._turn(lambda acts: acts.activate(self.key_id))

    async def deactivate(self, *, allow_anonymous: bool = False) -> None:
        """Deactivate the key until it is activated again; its resources stay protected.

        Raises ``WouldOpenError`` if that would open a resource to anyone (``REQUIRE=active``), unless
        ``allow_anonymous``.
        """
        await self._turn(lambda acts: acts.deactivate(self.key_id, allow_anonymous=allow_anonymous))

    async def toggle_active(self, *, allow_anonymous: bool = False) -> None:
        """Deactivate the key if it is active in the database, else activate it."""
        await self._turn(lambda acts: acts.toggle_active(self.key_id, allow_anonymous=allow_anonymous))

    async def rotate(self, overlap: timedelta = OVERLAP, *, force: bool = False) -> Created[Self]:
        """Give the key a new token; the one before stays valid for ``overlap``. See ``Management.rotate``."""
        connection = await current()
        async with connection.writing() as (acts, touched):
            rotated = await acts.rotate(self.key_id, overlap, force=force)
            touched.update(self._sources(rotated.key))
        self._take(rotated.key)
        self.token = MintedToken(rotated.token.reveal())
        return Created(self, self.token)

    async def _turn(self, turn: Callable[[Management], Awaitable[Key]]) -> None:
        connection = await current()
        async with connection.writing() as (acts, touched):
            key = await turn(acts)
            touched.update(self._sources(key))
        self._take(key)

    @classmethod
    async def _ids_by_key_id(cls, _: Transaction, value: Any) -> Sequence[UUID]:
        try:
            key_id = value if isinstance(value, UUID) else UUID(str(value))
        except ValueError:
            return []
        return [key_id]

    @classmethod
    async def _ids_by_digest(cls, transaction: Transaction, value: Any) -> Sequence[UUID]:
        """Find the key by the digest of any of its tokens, replaced ones included."""
        is_digest = isinstance(value, str) and _DIGEST.fullmatch(value)
        return list((await transaction.owners([bytes.fromhex(value)])).values()) if is_digest else []

    @classmethod
    async def _ids_by_token_key(cls, transaction: Transaction, value: Any) -> Sequence[UUID]:
        return await transaction.key_ids(token_key=value) if _is_text(value) else []

    @classmethod
    async def _ids_by_name(cls, transaction: Transaction, value: Any) -> Sequence[UUID]:
        return await transaction.key_ids(name=value) if _is_text(value) else []

    @classmethod
    async def _all_ids(cls, transaction: Transaction) -> Sequence[UUID]:
        return await transaction.key_ids()

    @classmethod
    async def _load(cls, transaction: Transaction, ids: Sequence[UUID]) -> list[Key]:
        found = await transaction.keys_by_id(ids)
        return [found[key_id] for key_id in ids if key_id in found and found[key_id].revoked_at is None]

    @classmethod
    async def _elsewhere(cls, transaction: Transaction, lookups: Sequence[tuple[str, Any]]) -> list[Key]:
        if any(name in ("key_id", "digest", "pk") and value is not None for name, value in lookups):
            return []  # The database finds the platform's keys by these as it finds our own.
        return list((await transaction.keys_by_id(await transaction.platform_key_ids())).values())

    @classmethod
    def _values(cls, record: Key) -> Mapping[str, Any]:
        newest = record.tokens[-1] if record.tokens else None
        return {
            "key_id": record.key_id,
            "name": record.name,
            "description": record.description,
            "account": record.account,
            "is_active": record.is_active and record.revoked_at is None,
            "expiry": record.expires_at,
            "labels": dict(record.labels),
            "digest": newest.digest.hex() if newest else "",
            "token_key": newest.token_key if newest else "",
            "created": record.created_at,
            "created_at": record.created_at,
            "updated_at": record.updated_at,
            "last_used_at": record.last_used_at,
        }

    @classmethod
    def _sources(cls, record: Key) -> Iterable[str]:
        return [f"key:{record.key_id}"]

    async def _insert(self, acts: Management) -> Key:
        minted = await acts.create(
            self.name,
            account=self.account,
            description=self.description,
            expires_at=self.expiry,
            labels=self.labels,
            **self._minting,
        )
        self.token = MintedToken(minted.token.reveal())
        return minted.key if self.is_active else await acts.deactivate(minted.key.key_id)

    async def _update(self, acts: Management, changes: Mapping[str, Any]) -> Key:
        if (await acts.key(self.key_id)).revoked_at is not None:
            raise NotFoundError("It is revoked.")
        values = {name: value for name, value in changes.items() if name != "is_active"}
        if "expiry" in values:
            values["expires_at"] = _time(values.pop("expiry"))
        if "labels" in values:
            values["labels"] = {**dict.fromkeys(self._record.labels), **values["labels"]}
        key = await acts.set_key(self.key_id, **values)
        if "is_active" in changes:
            key = await (acts.activate if self.is_active else acts.deactivate)(self.key_id)
        return key

    async def _remove(self, acts: Management, *, allow_anonymous: bool) -> None:
        await acts.revoke(self.key_id, unbind=True, allow_anonymous=allow_anonymous)

    def __str__(self) -> str:
        return f"{self.name} ({self.token_key}…)" if self.ready else self.name


def key_reference(value: object) -> UUID | bytes:
    """Return the id of the key or the digest of one of its tokens; raises ``UsageError`` without the value."""
    if isinstance(value, Created):
        value = value.key
    if isinstance(value, TokenModel) and value.ready:
        return value.key_id
    if isinstance(value, str) and _DIGEST.fullmatch(value):
        return bytes.fromhex(value)
    try:
        return value if isinstance(value, UUID) else UUID(str(value))
    except ValueError:
        raise UsageError("This is neither a saved key, nor a key_id, nor a digest.") from None


def _time(expiry: datetime | timedelta | None) -> datetime | None:
    return datetime.now(UTC) + expiry if isinstance(expiry, timedelta) else expiry


def _is_text(value: object) -> bool:
    return isinstance(value, str) and is_storable(value)
