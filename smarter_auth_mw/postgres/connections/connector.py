"""Opens all connections to PostgreSQL, to the primary that a URL leads to."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg

from smarter_auth_mw.config.database_urls import (
    DEFAULT_PORT,
    DatabaseAddress,
    DatabaseUrlError,
    Host,
    parse_database_url,
)
from smarter_auth_mw.config.masking import mask_url
from smarter_auth_mw.errors import SmarterAuthError, UnavailableError
from smarter_auth_mw.postgres.connections import tls
from smarter_auth_mw.postgres.connections.election import elect
from smarter_auth_mw.postgres.connections.timestamps import read_all_timestamps
from smarter_auth_mw.postgres.faults import AwayError, close, explained, is_said

CONNECT_TIMEOUT_S = 8
"""The deadline for one host, from the first packet to a session; ``connect_timeout`` in the URL overrides it."""
MAX_CONNECT_TIMEOUT_S = 60

SOCKET_DIRECTORIES = ("/run/postgresql", "/var/run/postgresql", "/tmp", "/private/tmp")  # noqa: S108
KEEPALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
"""Seconds, seconds, probes: a silently lost connection is noticed within a minute, and firewalls see no idle ones."""
_SOCKET_OPTIONS = {
    "keepalives_idle": "TCP_KEEPIDLE",
    "keepalives_interval": "TCP_KEEPINTVL",
    "keepalives_count": "TCP_KEEPCNT",
    "tcp_user_timeout": "TCP_USER_TIMEOUT",
}
_REFUSED_OPTIONS = (
    asyncpg.UndefinedObjectError,
    asyncpg.InvalidParameterValueError,
    asyncpg.CantChangeRuntimeParamError,
)


class Connector:
    """Opens connections to the primary among the hosts of a URL, each with the same session.

    ``settings`` are PostgreSQL's own. With ``statement_cache_size`` 0, statements are unnamed. ``prepare`` is run on
    each new connection, which is closed if it raises.
    """

    def __init__(
        self,
        url: str,
        *,
        application: str = "smarter_auth",
        settings: Mapping[str, str] | None = None,
        command_timeout_s: float | None = None,
        statement_cache_size: int = 0,
        prepare: Callable[[Any], Awaitable[object]] | None = None,
    ) -> None:
        self.where = mask_url(url)
        self._url = url
        self._application = application
        self._settings = dict(settings or {})
        self._command_timeout_s = command_timeout_s
        self._statement_cache_size = statement_cache_size
        self._prepare = prepare

    async def connect(self) -> Any:
        """Return a connection to the primary; raises only SmarterAuthErrors."""
        try:
            address = parse_database_url(self._url)
            hosts = address.hosts or (_local_host(address),)
            if len(hosts) == 1:
                return await self._open(hosts[0], address, self.where)
            return await elect(hosts, lambda host: self._open(host, address, f"{host} of {self.where}"), self.where)
        except SmarterAuthError:
            raise
        except DatabaseUrlError as error:
            raise UnavailableError(f"{self.where} is not the address of a database: {error}.") from None
        except Exception as error:
            raise explained(error, self.where) from None

    async def _open(self, host: Host, address: DatabaseAddress, where: str) -> Any:
        """Return a connection to this host, primary or not, within the timeout."""
        bound_s = _bound_s(address)
        try:
            async with asyncio.timeout(bound_s):
                connection = await self._speak(host, address)
        except TimeoutError:
            hint = "Check its load and the network. connect_timeout=SECONDS in the URL sets how long to wait."
            raise UnavailableError(f"{where} did not answer within {bound_s:g} s.", hint=hint) from None
        except _REFUSED_OPTIONS as error:
            hint = "Remove it from options=… in the URL, or from PGOPTIONS."
            raise UnavailableError(f"{where} does not know an option of the URL: {error.args[0]}.", hint=hint) from None
        except SmarterAuthError:
            raise
        except Exception as error:
            raise explained(error, where) from None
        return await self._prepared(connection, where)

    async def _speak(self, host: Host, address: DatabaseAddress) -> Any:
        """Connect with or without TLS according to ``sslmode``, one after the other if it allows both."""
        attempts = (None,) if host.is_socket else tls.attempts(address.options)
        for context in attempts[:-1]:
            with suppress(_NotSoError):
                return await self._attempt(host, address, context)
        try:
            return await self._attempt(host, address, attempts[-1])
        except _NotSoError as error:
            raise error.cause from None

    async def _attempt(self, host: Host, address: DatabaseAddress, context: tls.Attempt) -> Any:
        options = address.options
        try:
            connection = await asyncpg.connect(**self._arguments(host, options, context))
        except (ConnectionRefusedError, asyncpg.InvalidPasswordError):
            raise
        except (ConnectionError, ssl.SSLError, asyncpg.InvalidAuthorizationSpecificationError) as error:
            raise _NotSoError(_without_tls(error, host, options)) from None
        try:
            _keep_alive(connection, options)
            await read_all_timestamps(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    def _arguments(self, host: Host, options: Mapping[str, str], context: tls.Attempt) -> dict[str, Any]:
        startup = {"options": options["options"]} if "options" in options else {}
        application = {"application_name": _application(options, self._application)}
        return {
            "host": host.name,
            "port": host.port,
            "user": options.get("user"),
            "password": options.get("password"),
            "passfile": Path(options["passfile"]) if "passfile" in options else None,
            "database": options.get("dbname"),
            "ssl": context or False,
            "direct_tls": context is not None and options.get("sslnegotiation") == "direct",
            "timeout": MAX_CONNECT_TIMEOUT_S,
            "command_timeout": self._command_timeout_s,
            "statement_cache_size": self._statement_cache_size,
            "server_settings": startup | application | self._settings,
            "target_session_attrs": "any",
            **{name: options[name] for name in ("krbsrvname", "gsslib") if name in options},
        }

    async def _prepared(self, connection: Any, where: str) -> Any:
        if self._prepare is None:
            return connection
        try:
            await self._prepare(connection)
        except BaseException as error:
            await close(connection)
            if isinstance(error, SmarterAuthError) or not isinstance(error, Exception):
                raise
            failure = explained(error, where)
            if not is_said(error):  # The connection was lost, which the driver reports in many ways.
                failure = AwayError(failure.message, hint=failure.hint)
            raise failure from None
        return connection


class _NotSoError(Exception):
    """The server refuses this attempt, with or without TLS, and may accept the other."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause


def check_files(url: str) -> None:
    """Raise UnavailableError if a certificate or key in the URL cannot be used, without connecting."""
    address = parse_database_url(url)
    if not all(host.is_socket for host in address.hosts):
        tls.attempts(address.options)


def _bound_s(address: DatabaseAddress) -> float:
    asked_s = address.number("connect_timeout", 0)
    return min(asked_s, MAX_CONNECT_TIMEOUT_S) if asked_s > 0 else CONNECT_TIMEOUT_S


def _without_tls(error: Exception, host: Host, options: Mapping[str, str]) -> Exception:
    """Return the error, with a better message if the server has no TLS."""
    if "rejected SSL upgrade" not in str(error):
        return error
    asking = "channel_binding=require" if options.get("channel_binding") == "require" else "sslmode"
    return UnavailableError(
        f"{host} offers no TLS, and {asking} in the URL asks for it.",
        hint="Enable TLS on the server, or use sslmode=prefer if the network is your own.",
    )


def _application(options: Mapping[str, str], ours: str) -> str:
    """Return the application name, with the URL's name instead of ``smarter_auth``."""
    named = options.get("application_name")
    return ours.replace("smarter_auth", named) if named else ours


def _local_host(address: DatabaseAddress) -> Host:
    """Return the socket of this machine's server, or its port if there is no socket."""
    port = address.number("port", DEFAULT_PORT)
    for directory in SOCKET_DIRECTORIES:
        if Path(directory, f".s.PGSQL.{port}").exists():
            return Host(directory, port)
    return Host("localhost", port)


def _keep_alive(connection: Any, options: Mapping[str, str]) -> None:
    """Enable TCP keepalive, as far as the system supports these options."""
    with suppress(AttributeError, OSError):
        line = connection._transport.get_extra_info("socket")
        if line is None or line.family not in (socket.AF_INET, socket.AF_INET6):
            return
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(options.get("keepalives", "1")))
        for name, option in _SOCKET_OPTIONS.items():
            value = int(options.get(name, KEEPALIVE.get(name, 0)))
            if value and hasattr(socket, option):
                line.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
