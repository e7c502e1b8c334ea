"""Translates errors of PostgreSQL and the network into errors that people can act on."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg

from smarter_auth_mw.errors import ConflictError, RefusedError, SchemaError, SmarterAuthError, UnavailableError

CLOSE_TIMEOUT_S = 5.0
CANCEL_TIMEOUT_S = 1.0
"""The deadline for cancelling a statement that was not answered in time."""

FAULTS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""The errors that the database driver and the network raise by intention; ``is_fault`` knows the others too."""
_DRIVER = "asyncpg"
_LAST_WORDS = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleSessionTimeoutError,
)
"""The errors with which a server ends a connection."""


READ_ONLY = "a standby, or default_transaction_read_only is on for this role, its database or the server"
READ_ONLY_HINT = (
    "Name the primary in SMARTER_AUTH_DATABASE_URL. If it is the primary (SELECT pg_is_in_recovery() is false): "
    "ALTER ROLE or ALTER DATABASE … SET default_transaction_read_only = off, or remove it from options=… in the URL"
)


class WrongServerError(UnavailableError):
    """The server that answers is not the one to read from."""


class AwayError(UnavailableError):
    """The server is away, for example while it restarts."""


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
        "{where} does not exist",
        "Create the database, or name another one in SMARTER_AUTH_DATABASE_URL.",
    ),
    (
        (asyncpg.InsufficientPrivilegeError,),
        UnavailableError,
        "{where} does not permit this role to do that",
        "Run, as the owner of the schema: smarter-auth db migrate --runtime-role ROLE",
    ),
    (
        (asyncpg.TooManyConnectionsError,),
        UnavailableError,
        "{where} has no free connection",
        "Lower SMARTER_AUTH_POOL_MAX, or raise the server's max_connections.",
    ),
    (
        (asyncpg.DiskFullError,),
        UnavailableError,
        "{where} has no space left on its disk",
        "Free some space on the disk of the database server.",
    ),
    (
        (asyncpg.CannotConnectNowError, asyncpg.AdminShutdownError, asyncpg.CrashShutdownError),
        AwayError,
        "{where} is starting up or shutting down",
        "Try again in a moment.",
    ),
    (
        (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError),
        UnavailableError,
        "{where} does not keep the session",
        _POOLER,
    ),
    (
        # The table that names the server is UNLOGGED: on a standby no statement may touch it.
        (asyncpg.ReadOnlySQLTransactionError, asyncpg.FeatureNotSupportedError),
        WrongServerError,
        f"{{where}} is read-only: {READ_ONLY}",
        READ_ONLY_HINT,
    ),
    (
        (asyncpg.LockNotAvailableError,),
        UnavailableError,
        "{where} has a table that another session has locked; nothing was changed",
        "Try again. To see what holds the lock: SELECT pid, query FROM pg_stat_activity WHERE state <> 'idle';"
        " SELECT gid FROM pg_prepared_xacts",
    ),
    (
        (asyncpg.SerializationError, asyncpg.DeadlockDetectedError),
        UnavailableError,
        "{where} was changed by another session at the same moment; nothing was changed",
        "Try again.",
    ),
    (
        (asyncpg.UniqueViolationError,),
        ConflictError,
        "It already exists",
        "It may have been created at the same moment: try again.",
    ),
    (
        (asyncpg.IntegrityConstraintViolationError, asyncpg.ObjectInUseError),
        RefusedError,
        "The database refused the statement",
        "",
    ),
    (
        (TimeoutError, asyncpg.QueryCanceledError),
        UnavailableError,
        "{where} did not answer in time",
        "Check its load and the network. SMARTER_AUTH_QUERY_TIMEOUT_S sets how long to wait.",
    ),
    (
        (ssl.SSLCertVerificationError,),
        UnavailableError,
        "{where} has a certificate that is not trusted",
        "Name its CA in the URL: sslrootcert=FILE, or sslrootcert=system. channel_binding=require and"
        " sslmode=verify-full verify the certificate; sslmode=require alone encrypts without verification.",
    ),
    (
        (ssl.SSLError,),
        UnavailableError,
        "{where} and this machine do not agree on TLS",
        "Check that the port speaks PostgreSQL's TLS. sslmode in the URL sets what is required.",
    ),
    (
        (socket.gaierror,),
        UnavailableError,
        "{where} has a host name that cannot be resolved",
        "Check the name in SMARTER_AUTH_DATABASE_URL.",
    ),
    (
        (PermissionError,),
        UnavailableError,
        "{where} may not be opened by this user",
        "Let this user enter the socket's directory and write to the socket, or name a host.",
    ),
    (
        # The driver's internal error: a connection that was cut in the middle of a message.
        (OSError, asyncpg.PostgresConnectionError, asyncpg.InternalClientError),
        AwayError,
        "{where} cannot be reached",
        "Check that PostgreSQL runs there, and that SMARTER_AUTH_DATABASE_URL is right.",
    ),
    ((asyncpg.PostgresError, asyncpg.InterfaceError), UnavailableError, "{where} failed", ""),
)


_POOLERS_WORDS: tuple[tuple[str, str, str], ...] = (
    ("unsupported startup parameter|bind message|prepared statement", "{where} does not keep the session", _POOLER),
    (
        "statement pooling mode",
        "{where} uses statement pooling, and transactions are needed",
        "Set pool_mode = transaction in the pooler, and SMARTER_AUTH_STATEMENT_CACHE_SIZE=0.",
    ),
    (
        "auth|no such user|login rejected",
        "{where} refused the log-in",
        "Check user and password in SMARTER_AUTH_DATABASE_URL, and the pooler's list of users.",
    ),
    (
        "no more connections allowed",
        "{where} has no free connection",
        "Lower SMARTER_AUTH_POOL_MAX, or raise the pooler's max_client_conn.",
    ),
)
"""PgBouncer's errors by their text, because nearly all have the code of a protocol violation."""


_HARMLESS = ("connection is closed", "connection was closed", "pool is clos", "cannot perform operation", "cannot call")
"""Beginnings of asyncpg's own messages that quote nothing."""
_CLOSED = "connection is closed"
"""The end of asyncpg's messages about a connection that was lost before a call, for example before a COMMIT."""
_CLOSED_HINT = (
    "Try again in a moment. If it happens each time, the server's log says why it closes connections, for example"
    " because idle_in_transaction_session_timeout or transaction_timeout is too short for this role."
)


def read_only(where: str) -> WrongServerError:
    """Return the error for a server that answers but is read-only."""
    return WrongServerError(f"{where} is read-only: {READ_ONLY}.", hint=READ_ONLY_HINT)


@contextmanager
def reported(where: str) -> Iterator[None]:
    """Turn any error of the database or the network into one that says what to do.

    ``where`` names the database without its password. The original is not chained: its text may hold a part of the URL
    or of a row.
    """
    try:
        yield
    except Exception as error:
        if is_fault(error):
            raise explained(error, where) from None
        raise


async def close(connection: Any, error: BaseException | None = None) -> None:
    """Close a connection in bounded time, cancelling a statement that is still running."""
    is_silent = isinstance(error, TimeoutError)
    try:
        async with asyncio.timeout(CANCEL_TIMEOUT_S if is_silent else CLOSE_TIMEOUT_S):
            await connection.close()
    except Exception:  # Whatever it is: a lost connection raises what it likes.
        connection.terminate()


def is_fault(error: BaseException) -> bool:
    """Return whether the driver or the network raised the error, which may have any class if the wire has garbage."""
    return isinstance(error, FAULTS) or (isinstance(error, Exception) and _origin(error).partition(".")[0] == _DRIVER)


def _origin(error: Exception) -> str:
    """Return the name of the module that raised the error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return str(trace.tb_frame.f_globals.get("__name__", "")) if trace is not None else ""


def is_said(error: BaseException) -> bool:
    """Return whether it is the server's answer to a statement; any other error means that the connection is lost."""
    return isinstance(error, asyncpg.PostgresError) and not isinstance(error, _LAST_WORDS)


def explained(error: BaseException, where: str) -> SmarterAuthError:
    """Return the error to raise for an error of asyncpg or of the network."""
    if isinstance(error, asyncpg.InterfaceError) and str(error).endswith(_CLOSED):
        return AwayError(f"{where} cannot be reached: the connection was closed.", hint=_CLOSED_HINT)
    if isinstance(error, asyncpg.PostgresConnectionError) and (words := _poolers_words(_said(error))):
        sentence, hint = words
        return UnavailableError(f"{sentence.format(where=where)}: {_said(error).rstrip('.')}.", hint=hint)
    for types, meaning, sentence, hint in _MEANINGS:
        if isinstance(error, types):
            message, said = sentence.format(where=where), _said(error)
            # With a pooler asyncpg's own hint names other settings.
            advice = hint if hint is _POOLER else getattr(error, "hint", None) or hint
            return meaning(f"{message}: {said.rstrip('.')}." if said else f"{message}.", hint=advice)
    return AwayError(f"{where} failed: {type(error).__name__}.")


def _poolers_words(said: str) -> tuple[str, str] | None:
    """Return the sentence and the hint for what a pooler said, if its text is known."""
    rows = ((sentence, hint) for words, sentence, hint in _POOLERS_WORDS if re.search(words, said))
    return next(rows, None)


def _said(error: BaseException) -> str:
    """Return the text of the server or network error; a parser's text is left out, since it quotes its input."""
    if isinstance(error, asyncpg.DataError | asyncpg.ClientConfigurationError):
        return type(error).__name__  # Its text quotes a value, or the URL.
    if isinstance(error, asyncpg.PostgresError):
        return str(error.args[0]) if error.args else ""  # Without its DETAIL, which quotes rows.
    if isinstance(error, OSError):
        return str(error)
    if isinstance(error, asyncpg.InterfaceError):
        text = str(error)
        return text if text.startswith(_HARMLESS) else type(error).__name__
    return ""
