"""Operators, who manage keys through the management API and its pages: what they may do and what they may see.

``is_allowed`` and ``is_in_scope`` are pure decisions. ``Operators`` is the write side, only for the owner of the
schema; ``Doorkeeper`` authenticates an operator by token or session, in every process that serves the API.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Literal, Protocol
from uuid import UUID

from smarter_auth_mw.errors import ConflictError, NotFoundError, RefusedError, UsageError
from smarter_auth_mw.management.lifetimes import latest
from smarter_auth_mw.management.resources import UNCHANGED, Unchanged, changed
from smarter_auth_mw.postgres.operators import OperatorRecords, OperatorSessions
from smarter_auth_mw.postgres.storable import checked
from smarter_auth_mw.tokens import Token, digest_of, mint_operator_token

_LIST = "To list the operators: smarter-auth operator list"


class Role(StrEnum):
    """The rights of an operator; each role includes the previous ones."""

    VIEWER = "viewer"
    """Reads, and checks requests."""
    MANAGER = "manager"
    """Also creates, changes, binds, rotates and revokes keys, protects resources, and reports leaked tokens."""
    ADMIN = "admin"
    """Also opens resources."""


_RANKS = tuple(Role)


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator's name and role, and the account that limits what they see (None: all accounts)."""

    operator_id: UUID
    name: str
    role: Role
    account: str | None = None
    expires_at: datetime | None = None
    token_key: str = ""

    @property
    def actor(self) -> str:
        """The operator's name in the audit."""
        return f"operator {self.name}"


def is_allowed(operator: Operator, least: Role, *, everywhere: bool = False) -> bool:
    """Return whether the operator has at least this role, and all accounts where an act needs them (``everywhere``)."""
    return _RANKS.index(operator.role) >= _RANKS.index(least) and (operator.account is None or not everywhere)


def is_in_scope(operator: Operator, account: str | None) -> bool:
    """Return whether the operator may see records of the account; those of no account need all accounts."""
    return operator.account is None or operator.account == account


@dataclass(frozen=True, slots=True)
class OperatorToken:
    """A token of an operator, without its secret."""

    token_key: str
    created_at: datetime
    valid_until: datetime | None = None
    last_used_at: datetime | None = None

    def is_valid(self, now: datetime) -> bool:
        return self.valid_until is None or now <= self.valid_until


@dataclass(frozen=True, slots=True)
class RegisteredOperator:
    """An operator as the owner of the schema manages it."""

    operator_id: UUID
    name: str
    role: Role
    account: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    tokens: tuple[OperatorToken, ...] = ()

    def state(self, now: datetime) -> str:
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


@dataclass(frozen=True, slots=True)
class MintedOperator:
    """An operator and a new token, which is shown only once."""

    operator: RegisteredOperator
    token: Token


class OwnersStore(Protocol):
    """The part of a store that the owner of the schema uses."""

    def bare_transaction(self) -> AbstractAsyncContextManager[Any]: ...


class SessionStore(Protocol):
    """The part of a store that authenticates operators."""

    def operator_sessions(self) -> AbstractAsyncContextManager[OperatorSessions]: ...


class Operators:
    """Acts on operators, in the name of ``actor``; each act is one transaction with its audit row.

    ``longest_life`` is how long an operator may be valid from now on. Raises ``RefusedError`` for any role but the
    owner of the schema, ``NotFoundError``, ``ConflictError`` and ``UsageError``.
    """

    def __init__(
        self,
        store: OwnersStore,
        actor: str,
        *,
        longest_life: timedelta | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._actor = checked(actor, "actor")
        self._longest_life = longest_life
        self._clock = clock

    async def create(
        self, name: str, role: Role, *, account: str | None = None, expires_at: datetime | None = None
    ) -> MintedOperator:
        """Create an operator with a first token. Names are never reused, since the audit refers to them."""
        checked(name, "name")
        _check_account(account)
        expires_at = self._checked_expiry(expires_at)
        token = mint_operator_token()
        async with self._owning() as records:
            operator_id = await records.add(name, role.value, account, expires_at)
            if operator_id is None:
                raise ConflictError(
                    f"The name {name!r} is or was used by an operator.",
                    hint="Choose another name: a name cannot be reused.",
                )
            await records.add_token(operator_id, token)
            made = await _found(records, name)
            await self._audit(records, "operator.create", after=made)
        return MintedOperator(made, token)

    async def set(
        self,
        name: str,
        *,
        role: Role | Literal[Unchanged.UNCHANGED] = UNCHANGED,
        account: str | Literal[Unchanged.UNCHANGED] | None = UNCHANGED,
        expires_at: datetime | Literal[Unchanged.UNCHANGED] | None = UNCHANGED,
    ) -> RegisteredOperator:
        """Change role, account or expiry, effective at the operator's next request in every process."""
        changes = changed(role=role, account=account, expires_at=expires_at)
        _check_account(changes.get("account"))
        if "expires_at" in changes:
            changes["expires_at"] = self._checked_expiry(changes["expires_at"])
        async with self._owning() as records:
            before = await _living(records, name)
            await records.update(before.operator_id, _columns(before) | changes)
            after = await _found(records, name)
            await self._audit(records, "operator.set", before=before, after=after)
        return after

    async def rotate(self, name: str, overlap: timedelta = timedelta(0)) -> MintedOperator:
        """Give an operator a new token; earlier ones, and sessions opened with them, end after ``overlap``."""
        if overlap < timedelta(0):
            raise UsageError("An overlap cannot be negative.")
        token = mint_operator_token()
        async with self._owning() as records:
            before = await _living(records, name)
            until = self._later(overlap)
            await records.expire_tokens(before.operator_id, until)
            await records.add_token(before.operator_id, token)
            after = await _found(records, name)
            reason = f"earlier tokens are valid until {until.isoformat()}, the new one begins with {token.token_key}"
            await self._audit(records, "operator.rotate", before=before, after=after, reason=reason)
        return MintedOperator(after, token)

    async def revoke(self, name: str) -> RegisteredOperator:
        """Revoke an operator for good, with all tokens and sessions. Revoking again changes nothing."""
        async with self._owning() as records:
            before = await _found(records, name)
            if before.revoked_at is not None:
                return before
            await records.update(before.operator_id, _columns(before) | {"revoked_at": self._clock()})
            await records.end_sessions(before.operator_id)
            after = await _found(records, name)
            await self._audit(records, "operator.revoke", before=before, after=after)
        return after

    async def all(self) -> list[RegisteredOperator]:
        """Return all operators by name, including revoked ones."""
        async with self._owning() as records:
            rows = await records.rows()
            tokens = await records.tokens([row["operator_id"] for row in rows])
        return [_registered(row, tokens) for row in rows]

    @asynccontextmanager
    async def _owning(self) -> AsyncIterator[OperatorRecords]:
        async with self._store.bare_transaction() as connection, OperatorRecords.as_owner(connection) as records:
            yield records

    async def _audit(
        self,
        records: OperatorRecords,
        action: str,
        *,
        before: RegisteredOperator | None = None,
        after: RegisteredOperator,
        reason: str = "",
    ) -> None:
        await records.audit(
            self._actor, action, before=None if before is None else _shown(before), after=_shown(after), reason=reason
        )

    def _checked_expiry(self, expires_at: datetime | None) -> datetime | None:
        """Return the expiry, or the latest allowed one if none is given; raises RefusedError."""
        if expires_at is not None and expires_at <= self._clock():
            raise RefusedError(f"The expiry {expires_at.isoformat()} is in the past.")
        end = latest(self._longest_life, self._clock())
        if end is not None and expires_at is not None and expires_at > end:
            raise RefusedError(
                f"The operator would be valid until {expires_at.isoformat()}; MAX_KEY_LIFETIME: {end.isoformat()}.",
                hint="Choose an earlier expiry: --expires-in",
            )
        return expires_at or end

    def _later(self, span: timedelta) -> datetime:
        try:
            return self._clock() + span
        except OverflowError:
            raise UsageError(f"{span} from now is too late: it is after the year 9999.") from None


class Doorkeeper:
    """Authenticates operators. Nothing is cached: a revocation or another role applies at the next request."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    async def by_token(self, token: Token) -> Operator | None:
        """Return the operator that the token belongs to; None if it is unknown, expired or revoked."""
        if not token.is_operators:
            return None
        async with self._store.operator_sessions() as sessions:
            return _operator(await sessions.by_token(token.digest))

    async def sign_in(self, token: Token) -> str | None:
        """Open a session and return its id; None for a token that is not valid."""
        if not token.is_operators:
            return None
        session_id = secrets.token_urlsafe(32)
        async with self._store.operator_sessions() as sessions:
            return session_id if await sessions.open(token.digest, _digest(session_id)) else None

    async def by_session(self, session_id: str) -> Operator | None:
        """Return the operator of the session; None if it has ended."""
        async with self._store.operator_sessions() as sessions:
            return _operator(await sessions.by_session(_digest(session_id)))

    async def sign_out(self, session_id: str, *, everywhere: bool = False) -> None:
        """End the session, or all sessions of its operator."""
        async with self._store.operator_sessions() as sessions:
            end = sessions.end_all if everywhere else sessions.end
            await end(_digest(session_id))

    async def end_tokens(self, digests: list[bytes], within: str | None, actor: str) -> int:
        """Revoke leaked tokens of operators, of one account or of all; returns how many were valid."""
        async with self._store.operator_sessions() as sessions:
            return await sessions.end_tokens(digests, within, actor)


def _digest(session_id: str) -> bytes:
    return digest_of(session_id.encode("utf-8", "surrogatepass"))


def _operator(row: Any | None) -> Operator | None:
    return None if row is None else Operator(**dict(row) | {"role": Role(row["role"])})


async def _found(records: OperatorRecords, name: str) -> RegisteredOperator:
    row = await records.find(checked(name, "name"))
    if row is None:
        raise NotFoundError(f"There is no operator {name!r}.", hint=_LIST)
    return _registered(row, await records.tokens([row["operator_id"]]))


async def _living(records: OperatorRecords, name: str) -> RegisteredOperator:
    found = await _found(records, name)
    if found.revoked_at is not None:
        raise RefusedError(
            f"The operator {name!r} is revoked for good.", hint="Create another: smarter-auth operator create"
        )
    return found


def _registered(row: Any, tokens: list[Any]) -> RegisteredOperator:
    own = (dict(token) for token in tokens if token["operator_id"] == row["operator_id"])
    held = tuple(OperatorToken(**{name: token[name] for name in OperatorToken.__slots__}) for token in own)
    return RegisteredOperator(**dict(row) | {"role": Role(row["role"]), "tokens": held})


def _columns(operator: RegisteredOperator) -> dict[str, Any]:
    return {name: getattr(operator, name) for name in ("role", "account", "expires_at", "revoked_at")}


def _shown(operator: RegisteredOperator) -> dict[str, Any]:
    """Return what the audit says of an operator: no token, no digest."""
    return {"name": operator.name, **_columns(operator)}


def _check_account(account: str | None) -> None:
    if account is not None:
        checked(account, "account")
