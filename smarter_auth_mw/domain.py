"""The domain types: resources, keys, bindings, principals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal, NamedTuple
from uuid import UUID

from starlette.authentication import BaseUser

AliasForm = Literal["name", "label", "domain"]
OnError = Literal["stale", "deny"]

FEW = 8
"""Up to this many bindings are compared one by one: an index would take more memory than they do."""


class Resource(NamedTuple):
    """A protected thing: its ``kind`` and canonical ``ref``, written ``kind:ref``."""

    kind: str
    ref: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.ref}"

    @property
    def lookup(self) -> str:
        """The key for look-ups and the cache: slugs that differ only in ``-`` and ``_`` share it."""
        return f"{self.kind}:{self.lookup_ref}"

    @property
    def lookup_ref(self) -> str:
        """The part of ``lookup`` after the kind."""
        return self.ref.replace("_", "-")


class Alias(NamedTuple):
    """A name, a host label or a custom domain that stands for a resource; the directory says for which."""

    kind: str
    form: AliasForm
    value: str
    account: str | None = None

    def __str__(self) -> str:
        within = f"@{self.account}" if self.account else ""
        return f"{self.kind}:{self.form}={self.value}{within}"

    @property
    def lookup(self) -> str:
        """The key for look-ups and the cache: it has a slash, so it differs from that of every resource."""
        return f"{self.kind}:{self.form}/{self.account or ''}/{self.value.replace('_', '-')}"


@dataclass(frozen=True, slots=True)
class Target:
    """The resource that a route names, as far as the request alone shows.

    ``account`` is the pattern's ``{account}``, which must turn out to be the resource's own; ``always`` marks a route
    that is protected without any binding; ``exact`` one whose application compares references byte for byte. ``also``
    is a second name from the same request: the directory must confirm that both mean the same resource.
    """

    names: Resource | Alias
    account: str | None = None
    always: bool = False
    exact: bool = False
    also: Target | None = None
    lookup: str = field(init=False, compare=False, repr=False)
    name_alone: Resource | Alias | None = field(init=False, compare=False, repr=False)
    """Its name, or None if a second name has to be looked up too."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "lookup", self.names.lookup)
        object.__setattr__(self, "name_alone", self.names if self.account is None and self.also is None else None)


class Protection(StrEnum):
    """The latch: ``open``, closed by a first binding, or declared protected by an operator."""

    OPEN = "open"
    BOUND = "bound"
    DECLARED = "declared"


class Binding(NamedTuple):
    """One token of one key that is bound to the resource, with everything that decides whether it opens it.

    ``digest`` has 64 bytes, or none if the platform wrote an empty one; ``expires_at_s`` is Unix time, the earlier
    one of the key's expiry and the token's (infinity: never).
    """

    key_id: str
    key_name: str
    account: str
    digest: bytes
    token_key: str
    is_active: bool = True
    is_revoked: bool = False
    owner_is_active: bool = True
    expires_at_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Bindings:
    """All bindings of one resource, and its latch: the facts for a decision.

    An unknown resource has ``account`` None, is open and has no bindings. ``resource`` is the registered spelling; it
    has no reference if an alias resolves to nothing, or to several resources (then it is declared protected).
    """

    resource: Resource
    account: str | None = None
    protection: Protection = Protection.OPEN
    on_error: OnError = "stale"
    bindings: tuple[Binding, ...] = ()
    _index: Mapping[bytes, tuple[Binding, ...]] | None = field(init=False, compare=False, repr=False)
    may_expire: bool = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_index", _index(self.bindings) if len(self.bindings) > FEW else None)
        object.__setattr__(self, "may_expire", bool({binding.expires_at_s for binding in self.bindings} - {math.inf}))

    def like(self, digest: bytes) -> tuple[Binding, ...]:
        """Return the bindings that may have this digest, for comparison: all of them if they are few."""
        return self.bindings if self._index is None else self._index.get(digest, ())


def _index(bindings: tuple[Binding, ...]) -> dict[bytes, tuple[Binding, ...]]:
    index: dict[bytes, tuple[Binding, ...]] = {}
    for binding in bindings:
        digest = binding.digest
        if digest:
            index[digest] = (*index[digest], binding) if digest in index else (binding,)
    return index


class Principal(BaseUser):
    """The principal of an accepted key, as Starlette's ``BaseUser``: the key's name and account."""

    __slots__ = ("account", "key_id", "key_name")
    key_id: str
    key_name: str
    account: str

    def __init__(self, key_id: str, key_name: str, account: str) -> None:
        for name, value in (("key_id", key_id), ("key_name", key_name), ("account", account)):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} is not set: a key's requests share its principal. Use request.state.")

    @property
    def is_authenticated(self) -> bool:
        return True

    @property
    def display_name(self) -> str:
        return self.key_name

    @property
    def identity(self) -> str:
        return self.key_id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Principal) and (self.key_id, self.account) == (other.key_id, other.account)

    def __hash__(self) -> int:
        return hash((self.key_id, self.account))

    def __repr__(self) -> str:
        return f"Principal(key_id={self.key_id!r}, key_name={self.key_name!r}, account={self.account!r})"


class KeyState(StrEnum):
    """The state of a key: the first one that applies, in this order."""

    REVOKED = "revoked"
    EXPIRED = "expired"
    INACTIVE = "inactive"
    ACTIVE = "active"


@dataclass(frozen=True, slots=True)
class KeyToken:
    """One token of a key, by its digest and its public head; ``valid_until`` is set once it is rotated out."""

    token_key: str
    created_at: datetime
    valid_until: datetime | None = None
    last_used_at: datetime | None = None
    digest: bytes = field(default=b"", repr=False)

    def is_valid(self, now: datetime) -> bool:
        return self.valid_until is None or now <= self.valid_until


@dataclass(frozen=True, slots=True)
class Key:
    """An API key as operators manage it; its tokens, the newest one last, are known only by their digests.

    ``is_platforms``: it belongs to an attached platform, and is changed only there.
    """

    key_id: UUID
    account: str
    name: str
    description: str
    is_active: bool
    expires_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime
    updated_at: datetime
    is_platforms: bool = False
    tokens: tuple[KeyToken, ...] = ()
    bindings: tuple[Resource, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def token_keys(self) -> tuple[str, ...]:
        """The public heads of its tokens."""
        return tuple(token.token_key for token in self.tokens)

    @property
    def last_used_at(self) -> datetime | None:
        """The time when one of the key's tokens was last used successfully."""
        return max((token.last_used_at for token in self.tokens if token.last_used_at), default=None)

    def previous_tokens(self, now: datetime) -> tuple[KeyToken, ...]:
        """Return the tokens that a rotation has replaced and that are still valid."""
        return tuple(token for token in self.tokens[:-1] if token.is_valid(now))

    def expires_within(self, span: timedelta, now: datetime) -> bool:
        """Return whether it is valid now, and will expire within this time."""
        if self.expires_at is None or self.state(now) in (KeyState.REVOKED, KeyState.EXPIRED):
            return False
        return self.expires_at - now <= span

    def is_older_than(self, span: timedelta, now: datetime) -> bool:
        """Return whether it has a valid token that was minted longer ago than this."""
        if self.state(now) in (KeyState.REVOKED, KeyState.EXPIRED):
            return False
        return any(token.is_valid(now) and now - token.created_at > span for token in self.tokens)

    def state(self, now: datetime) -> KeyState:
        if self.revoked_at is not None:
            return KeyState.REVOKED
        if self.expires_at is not None and self.expires_at < now:
            return KeyState.EXPIRED
        return KeyState.ACTIVE if self.is_active else KeyState.INACTIVE


@dataclass(frozen=True, slots=True)
class RegisteredResource:
    """A resource as operators manage it, with the keys that are bound to it.

    ``is_platforms``: it belongs to an attached platform, which has its name and account.
    """

    resource: Resource
    account: str
    name: str | None
    domain: str | None
    protection: Protection
    on_error: OnError
    created_at: datetime
    updated_at: datetime
    keys: tuple[Key, ...] = ()
    is_platforms: bool = False

    @property
    def is_protected(self) -> bool:
        return self.protection is not Protection.OPEN or bool(self.keys)


@dataclass(frozen=True, slots=True)
class RegisteredBinding:
    """A binding by itself, with the resource (without all its keys) and the key that it binds."""

    id: int | None
    """None for a binding in the tables of an attached platform."""
    created_at: datetime
    updated_at: datetime
    resource: RegisteredResource
    key: Key
