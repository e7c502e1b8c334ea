"""An operation, one call of it by an operator, and its answer: what a handler receives, and what it returns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from smarter_auth_mw.admin.problems import ForbiddenError, PreconditionError
from smarter_auth_mw.admin.requests import NoQuery
from smarter_auth_mw.admin.services import Services
from smarter_auth_mw.admin.values import UUID_TEXT
from smarter_auth_mw.domain import Key, RegisteredResource, Resource
from smarter_auth_mw.errors import NotFoundError
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.management.listings import Listings
from smarter_auth_mw.management.many_keys import ManyKeys
from smarter_auth_mw.management.opening import MayOpen
from smarter_auth_mw.management.operators import Operator, Role, is_allowed, is_in_scope
from smarter_auth_mw.postgres.storable import is_storable

MAX_BODY = 65_536
INNER = 10
"""The number of entries shown in lists inside a document."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The response of a handler; ``lines`` are sent as one document per line instead of ``document``."""

    document: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    lines: list[Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class Call:
    """One call: the operator, and the checked path, query and body."""

    operator: Operator
    services: Services
    path: Mapping[str, str]
    query: Any
    body: Any
    if_match: str | None = None
    opens: Collection[Resource] = ()
    """Resources whose opening was confirmed."""

    @cached_property
    def keys(self) -> Management:
        """The write side, in the operator's name and within the operator's account."""
        settings = self.services.settings
        return Management(
            self.services.store,
            self.operator.actor,
            scope=self.operator.account,
            default_account=settings.default_account,
            require=settings.require,
            longest_life=settings.longest_key_life,
        )

    @cached_property
    def many_keys(self) -> ManyKeys:
        """Acts on many keys, in the operator's name and within the operator's account."""
        settings = self.services.settings
        return ManyKeys(
            self.services.store,
            self.operator.actor,
            scope=self.operator.account,
            require=settings.require,
            longest_life=settings.longest_key_life,
        )

    @cached_property
    def listings(self) -> Listings:
        """The lists, within the operator's account."""
        return Listings(self.services.store, scope=self.operator.account)

    @property
    def resource(self) -> Resource:
        """The resource that the path names, as it is registered."""
        resource = Resource(self.path["kind"], self.path["ref"])
        if not is_storable(f"{resource}") or len(resource.ref) > 255 or len(resource.kind) > 255:
            raise NotFoundError("There is no such resource.")
        return resource

    @property
    def key_id(self) -> UUID:
        """The key that the path names."""
        text = self.path["key_id"]
        if not UUID_TEXT.fullmatch(text):
            raise NotFoundError("There is no such key.", hint="A key_id is a UUID in lower case, with hyphens.")
        return UUID(text)

    def require(self, role: Role, *, everywhere: bool = False) -> None:
        """Raise ForbiddenError unless the operator may do this."""
        if not is_allowed(self.operator, role, everywhere=everywhere):
            raise ForbiddenError(role, everywhere=everywhere)

    def may_open(self) -> MayOpen:
        """Return what this act may open: by its query, or what was confirmed; ForbiddenError unless an admin asks."""
        if self.query.allow_anonymous or self.opens:
            self.require(Role.ADMIN)
        return bool(self.query.allow_anonymous) or self.opens

    def check_account(self, account: str | None) -> None:
        """Raise ForbiddenError if a query or body names another account, whether that exists or not."""
        if account is not None and not is_in_scope(self.operator, account):
            raise ForbiddenError(self.operator.role, message="This operator is limited to another account.")

    async def find_key(self, key_id: UUID) -> Key:
        """Return a key of the operator's account; raises NotFoundError."""
        return await self.listings.key(str(key_id), inner=INNER)

    async def find_key_id(self, text: str) -> UUID:
        """Return the id of a key that a query names, if the operator may know of it; raises NotFoundError."""
        return (await self.find_key(UUID(text))).key_id

    async def find_resource(self, resource: Resource) -> RegisteredResource:
        """Return a resource of the operator's account; raises NotFoundError."""
        return await self.keys.resource(resource, most=INNER + 1)

    def check_etag(self, updated_at: datetime) -> None:
        """Raise PreconditionError if If-Match names another state."""
        if self.if_match is None or self.if_match.strip() == "*":
            return
        if etag(updated_at) not in {one.strip() for one in self.if_match.split(",")}:
            raise PreconditionError()


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: who may do it, what it takes, and what it answers.

    ``everywhere``: only for operators of all accounts. ``is_versioned``: it takes If-Match. ``also``: another status
    of success.
    """

    method: str
    path: str
    name: str
    summary: str
    role: Role
    handler: Callable[[Call], Awaitable[Answer]]
    answer: type[BaseModel]
    query: type[BaseModel] = NoQuery
    body: type[BaseModel] | None = None
    status: int = 200
    also: int | None = None
    everywhere: bool = False
    is_versioned: bool = False
    max_body: int = MAX_BODY

    def check_role(self, operator: Operator) -> None:
        """Raise ForbiddenError unless the operator may do this."""
        if not is_allowed(operator, self.role, everywhere=self.everywhere):
            raise ForbiddenError(self.role, everywhere=self.everywhere)


def etag(updated_at: datetime) -> str:
    """Return the entity tag of a record that was changed at that time."""
    since = updated_at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return f'"{since.days * 86_400_000_000 + since.seconds * 1_000_000 + since.microseconds}"'
