"""Tries every statement that serving needs on the real database, without changing anything."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg

from smarter_auth_mw.errors import SmarterAuthError
from smarter_auth_mw.postgres.queries import QUERIES
from smarter_auth_mw.postgres.store import Store

_EMPTY: Sequence[Any] = ()
STATEMENTS: Mapping[str, Sequence[Any]] = {
    "read_schema": (),
    "read_bindings": ("", ""),
    "read_alias": ("", "name", "", ""),
    "read_token": (b"",),
    "list_protected_kinds": (),
    "list_domains": (),
    "read_secret": (),
    "beat": (None,),
    "name_incarnation": (),
    "settle_platform": (),
    "purge_changes": (timedelta(days=36_500),),
    "write_usage": (UUID(int=0), timedelta(0), *7 * [_EMPTY]),
    "drop_old_usage": (),
    "count_keys": (1,),
    "write_requests": (UUID(int=0), *9 * [_EMPTY]),
}
"""The statements by name, with arguments that match nothing."""


async def failing(store: Store) -> AsyncIterator[tuple[str, SmarterAuthError]]:
    """Run each statement in a transaction that is rolled back, and yield those that fail, with the reason."""
    for name, arguments in STATEMENTS.items():
        try:
            async with store.bare_transaction() as connection:
                await _try(connection, getattr(QUERIES, name).sql, arguments)
        except SmarterAuthError as error:
            yield name, error


async def _try(connection: Any, statement: str, arguments: Sequence[Any]) -> None:
    savepoint = connection.transaction()
    await savepoint.start()
    try:
        with suppress(asyncpg.LockNotAvailableError):  # A lock of another session is not the statement's fault.
            await connection.fetch(statement, *arguments)
    finally:
        await savepoint.rollback()
