"""The statements about operators, each as a method; the SQL is in ``operators.sql``."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import aiosql
import asyncpg

from smarter_auth_mw.errors import RefusedError
from smarter_auth_mw.postgres.queries import SQL
from smarter_auth_mw.tokens import Token

STATEMENTS: Any = aiosql.from_str((SQL / "operators.sql").read_text("utf-8"), "asyncpg")
"""The statements of ``operators.sql``, by name."""

_AS_OWNER = "Run it as the owner of the schema: SMARTER_AUTH_DATABASE_URL=postgresql://OWNER@HOST/DATABASE"


class OperatorRecords:
    """Operators and their tokens, in a transaction of the schema's owner: no other role may read them."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @classmethod
    @asynccontextmanager
    async def as_owner(cls, connection: Any) -> AsyncIterator[OperatorRecords]:
        """Act as the owner of the schema until the transaction ends; raises RefusedError for any other role."""
        try:
            await STATEMENTS.act_as_owner(connection)
        except (asyncpg.InsufficientPrivilegeError, asyncpg.InvalidParameterValueError):
            raise RefusedError("Only the owner of the schema makes and changes operators.", hint=_AS_OWNER) from None
        yield cls(connection)

    async def add(self, name: str, role: str, account: str | None, expires_at: datetime | None) -> UUID | None:
        """Add an operator; None if the name was ever used."""
        added: UUID | None = await STATEMENTS.insert_operator(
            self._connection, name=name, role=role, account=account, expires_at=expires_at
        )
        return added

    async def add_token(self, operator_id: UUID, token: Token) -> None:
        await STATEMENTS.insert_token(
            self._connection, digest=token.digest, operator_id=operator_id, token_key=token.token_key
        )

    async def expire_tokens(self, operator_id: UUID, valid_until: datetime) -> None:
        """End the validity of an operator's tokens at this time, unless they end earlier."""
        await STATEMENTS.expire_tokens(self._connection, operator_id=operator_id, valid_until=valid_until)

    async def find(self, name: str) -> Any | None:
        """Return the row of the operator with this name, locked until the transaction ends."""
        return await STATEMENTS.lock_operator(self._connection, name=name)

    async def rows(self) -> list[Any]:
        """Return the rows of all operators, by name."""
        return [row async for row in STATEMENTS.list_operators(self._connection)]

    async def tokens(self, operator_ids: Sequence[UUID]) -> list[Any]:
        """Return the rows of these operators' tokens, the newest one of each last."""
        return [row async for row in STATEMENTS.find_tokens(self._connection, operator_ids=list(operator_ids))]

    async def update(self, operator_id: UUID, values: Mapping[str, Any]) -> None:
        """Write what may change: role, account, expires_at, revoked_at."""
        await STATEMENTS.update_operator(self._connection, operator_id=operator_id, **values)

    async def end_sessions(self, operator_id: UUID) -> None:
        await STATEMENTS.delete_sessions(self._connection, operator_id=operator_id)

    async def audit(
        self, actor: str, action: str, *, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, reason: str
    ) -> None:
        """Write an audit event, in the same transaction as the change."""
        await STATEMENTS.write_event(
            self._connection, actor=actor, action=action, reason=reason, before=_json(before), after=_json(after)
        )


class OperatorSessions:
    """The part for manager roles: they call functions that take digests, and cannot read the tables."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def by_token(self, digest: bytes) -> Any | None:
        """Return the operator of the token, if it is valid now."""
        return await STATEMENTS.find_by_token(self._connection, digest=digest)

    async def by_session(self, digest: bytes) -> Any | None:
        """Return the operator of the session, if it has not ended."""
        return await STATEMENTS.find_by_session(self._connection, digest=digest)

    async def open(self, token_digest: bytes, digest: bytes) -> bool:
        """Open a session; False for a token that is not valid."""
        return bool(await STATEMENTS.open_session(self._connection, token_digest=token_digest, digest=digest))

    async def end(self, digest: bytes) -> None:
        await STATEMENTS.end_session(self._connection, digest=digest)

    async def end_all(self, digest: bytes) -> int:
        """End all sessions of the operator that this one belongs to; returns how many there were."""
        return int(await STATEMENTS.end_sessions(self._connection, digest=digest))

    async def end_tokens(self, digests: Sequence[bytes], within: str | None, actor: str) -> int:
        """Revoke tokens of operators, of one account or of all; returns how many were valid."""
        return int(await STATEMENTS.end_tokens(self._connection, digests=list(digests), within=within, actor=actor))


def _json(values: Mapping[str, Any] | None) -> str | None:
    return None if values is None else json.dumps(values, default=datetime.isoformat)
