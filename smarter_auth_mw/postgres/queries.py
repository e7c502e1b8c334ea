"""What store, records and migrations share: the named statements, and what the database's errors mean to people."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any

import aiosql
import asyncpg

from smarter_auth_mw.errors import ConflictError, RefusedError, SchemaError, SmarterAuthError, UnavailableError

SQL = resources.files("smarter_auth_mw.postgres") / "sql"
QUERIES: Any = aiosql.from_str((SQL / "queries.sql").read_text("utf-8"), "asyncpg")
"""The statements of ``queries.sql``, by name."""

SCHEMA = 5
"""The newest schema that this release knows: the number of its last migration."""

CONNECT_TIMEOUT_S = 5

FAULTS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What the database and the network raise."""

READ_COMMITTED = {"default_transaction_isolation": "read committed"}
"""Whatever the database's own default is: a serializable reader makes serializable writers fail."""

_POOLER = "Behind a pooler, set SMARTER_AUTH_STATEMENT_CACHE_SIZE=0, and SMARTER_AUTH_LISTEN_URL to the primary itself."
_MEANINGS: tuple[tuple[tuple[type[BaseException], ...], type[SmarterAuthError], str, str], ...] = (
    (
        (
            asyncpg.InvalidSchemaNameError,
            asyncpg.UndefinedTableError,
            asyncpg.UndefinedColumnError,
            asyncpg.UndefinedFunctionError,
        ),
        SchemaError,
        "{where} has no schema that this release works on",
        SchemaError.default_hint,
    ),
    (
        (asyncpg.InvalidAuthorizationSpecificationError,),
        UnavailableError,
        "{where} refused the log-in",
        "Check user and password in SMARTER_AUTH_DATABASE_URL, and the server's pg_hba.conf.",
    ),
    (
        (asyncpg.InvalidCatalogNameError,),
        UnavailableError,
        "{where} is not there",
        "Create the database, or name another one in SMARTER_AUTH_DATABASE_URL.",
    ),
    (
        (asyncpg.InsufficientPrivilegeError,),
        UnavailableError,
        "{where} does not let this role do that",
        "Run, as the owner of the schema: smarter-auth db migrate --runtime-role ROLE",
    ),
    (
        (asyncpg.TooManyConnectionsError,),
        UnavailableError,
        "{where} has no connection left",
        "Lower SMARTER_AUTH_POOL_MAX, or raise the server's max_connections.",
    ),
    (
        (asyncpg.CannotConnectNowError, asyncpg.AdminShutdownError),
        UnavailableError,
        "{where} is starting up or shutting down",
        "Try again in a moment.",
    ),
    (
        (asyncpg.TargetServerAttributeNotMatched,),
        UnavailableError,
        "None of the hosts of {where} is the primary",
        "Wait for the failover, or name the primary too.",
    ),
    (
        (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError, asyncpg.ProtocolViolationError),
        UnavailableError,
        "{where} does not keep our session",
        _POOLER,
    ),
    (
        (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError),
        UnavailableError,
        "{where} was changed by somebody else at the same moment, and nothing was done",
        "Try again.",
    ),
    ((asyncpg.UniqueViolationError,), ConflictError, "It exists already", ""),
    (
        (asyncpg.IntegrityConstraintViolationError, asyncpg.ObjectInUseError),
        RefusedError,
        "The database refused it",
        "",
    ),
    (
        (TimeoutError, asyncpg.QueryCanceledError),
        UnavailableError,
        "{where} did not answer in time",
        "Is it overloaded, or the network cut? SMARTER_AUTH_QUERY_TIMEOUT_S says how long we wait.",
    ),
    (
        (OSError, asyncpg.PostgresConnectionError),
        UnavailableError,
        "{where} cannot be reached",
        "Is PostgreSQL running there, and SMARTER_AUTH_DATABASE_URL right?",
    ),
    (
        (ValueError, asyncpg.ClientConfigurationError),
        UnavailableError,
        "{where} is no address of a database",
        "Write it as postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with %-encoding in the password.",
    ),
    ((asyncpg.PostgresError, asyncpg.InterfaceError), UnavailableError, "{where} failed", ""),
)


@contextmanager
def reported(where: str) -> Iterator[None]:
    """Turn whatever the database or the network raises into an error that says what to do.

    ``where`` names the database without its password. The original is not chained: its text may hold a part of the URL
    or of a row.
    """
    try:
        yield
    except FAULTS as error:
        raise explained(error, where) from None


@contextmanager
def connecting(where: str) -> Iterator[None]:
    """The same while a connection is opened, where the URL itself may be wrong."""
    with reported(where):
        try:
            yield
        except ValueError as error:
            raise explained(error, where) from None


async def close(connections: Any) -> None:
    """Close a connection or a pool, whatever state it is in, in bounded time."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await connections.close()
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connections.terminate()


def explained(error: BaseException, where: str) -> SmarterAuthError:
    """What an error of asyncpg or of the network means."""
    for types, meaning, sentence, hint in _MEANINGS:
        if isinstance(error, types):
            message, said = sentence.format(where=where), _said(error)
            told = hint if hint is _POOLER else getattr(error, "hint", None) or hint  # asyncpg's names none of ours.
            return meaning(f"{message}: {said}" if said else f"{message}.", hint=told)
    return UnavailableError(f"{where} failed: {type(error).__name__}.")


def _said(error: BaseException) -> str:
    """The words of the server or of the network. Those of a parser are left out: they quote what they stumbled over."""
    if isinstance(error, asyncpg.PostgresError):
        return str(error.args[0]) if error.args else ""  # Without its DETAIL, which quotes rows.
    return str(error) if isinstance(error, OSError) else ""
