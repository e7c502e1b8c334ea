"""PostgreSQL's URLs as psql takes them: each option is used, mapped to another, or refused with its name and advice."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from configparser import ConfigParser
from configparser import Error as ServiceFileError
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from smarter_auth_mw.errors import counted

DEFAULT_PORT = 5432

_SWITCH = "0|1|true|false|on|off|yes|no"
_NUMBER = r"\d{1,9}"
_TLS = r"TLSv1(\.[1-3])?"
_ANY = r".*"
_BY_CERTIFICATE = "the driver cannot enforce it: use sslmode=verify-full instead, which verifies the server"

OPTIONS: Mapping[str, tuple[str, str]] = {
    "host": (_ANY, ""),
    "hostaddr": (_ANY, ""),
    "port": (_ANY, ""),
    "dbname": (_ANY, ""),
    "user": (_ANY, ""),
    "password": (_ANY, ""),
    "passfile": (_ANY, ""),
    "service": (_ANY, ""),
    "servicefile": (_ANY, ""),
    "application_name": (_ANY, ""),
    "fallback_application_name": (_ANY, ""),
    "options": (_ANY, ""),
    "connect_timeout": (r"-?" + _NUMBER, "whole seconds for each host"),
    "keepalives": ("0|1", "1 or 0"),
    "keepalives_idle": (_NUMBER, "whole seconds"),
    "keepalives_interval": (_NUMBER, "whole seconds"),
    "keepalives_count": (_NUMBER, "a number"),
    "tcp_user_timeout": (_NUMBER, "milliseconds"),
    "sslmode": (
        "disable|allow|prefer|require|verify-ca|verify-full",
        "one of disable, allow, prefer, require, verify-ca, verify-full",
    ),
    "sslnegotiation": ("postgres|direct", "postgres or direct"),
    "sslrootcert": (_ANY, ""),
    "sslcert": (_ANY, ""),
    "sslkey": (_ANY, ""),
    "sslpassword": (_ANY, ""),
    "sslcrl": (_ANY, ""),
    "ssl_min_protocol_version": (_TLS, "one of TLSv1, TLSv1.1, TLSv1.2, TLSv1.3"),
    "ssl_max_protocol_version": (_TLS, "one of TLSv1, TLSv1.1, TLSv1.2, TLSv1.3"),
    "channel_binding": ("disable|prefer|require", "one of disable, prefer, require"),
    "target_session_attrs": (
        "any|read-write|primary",
        "keys are read from the primary only: use read-write, or leave it out",
    ),
    "krbsrvname": (_ANY, ""),
    "gsslib": ("gssapi|sspi", "gssapi or sspi"),
    # Options that the driver already follows, or that make no difference here.
    "client_encoding": ("(?i:utf-?8|unicode|auto)", "the connection always speaks UTF-8: leave it out"),
    "gssencmode": ("disable|prefer", "the driver has no GSSAPI encryption: use disable, and sslmode=require"),
    "gssdelegation": ("0", "the driver delegates no credentials: leave it out"),
    "load_balance_hosts": ("disable|random", "disable or random"),
    "max_protocol_version": (r"3\.\d|latest", "3.0 or latest"),
    "min_protocol_version": (r"3\.0", "the driver speaks 3.0: leave it out"),
    "replication": ("false|off|no|0", "keys cannot be read over a replication connection: leave it out"),
    "sslcertmode": ("disable|allow", "the driver cannot enforce it: leave it out"),
    "sslcompression": ("0|1", "0 or 1"),
    "sslsni": ("1", "the driver always names the host: leave it out"),
    # Options of other clients' URLs.
    "connection_limit": (_ANY, ""),
    "pool_timeout": (_ANY, ""),
    "socket_timeout": (_ANY, ""),
    "pgbouncer": ("true|false", "true or false"),
    "schema": (_ANY, ""),
    "supa": (_ANY, ""),
    "workaround": (_ANY, ""),
    "uselibpqcompat": (_SWITCH, "true or false"),
    # Options that would promise more than is kept.
    "require_auth": ("", _BY_CERTIFICATE),
    "requirepeer": ("", "the driver cannot enforce it: let only the server's user write into the socket's directory"),
    "sslcrldir": ("", "name one file with all lists in sslcrl"),
    "sslkeylogfile": ("", "set the environment variable SSLKEYLOGFILE"),
    "scram_client_key": ("", "give the password"),
    "scram_server_key": ("", "give the password"),
    **dict.fromkeys(
        ("oauth_issuer", "oauth_client_id", "oauth_client_secret", "oauth_scope", "oauth_ca_file"),
        ("", "the driver has no OAuth: give a password"),
    ),
    "sslaccept": ("", "use sslmode=require, or sslmode=verify-full if it was strict"),
    "sslidentity": ("", "name the client's certificate and key in sslcert and sslkey"),
    "statement_cache_size": ("", "set SMARTER_AUTH_STATEMENT_CACHE_SIZE"),
    "prepared_statement_cache_size": ("", "set SMARTER_AUTH_STATEMENT_CACHE_SIZE"),
    "unix_sock": ("", "name the directory of the socket in host"),
}
"""All known options: a pattern of accepted values, and the advice for other values."""

_RENAMED = {"database": "dbname", "requiressl": "ssl"}
_SSL = {"true": "require", "1": "require", "on": "require", "yes": "require", "no-verify": "require"} | dict.fromkeys(
    ("false", "0", "off", "no"), "disable"
)
"""The meaning of ``ssl=`` in URLs of JDBC, SQLAlchemy and node-postgres, and of psql's old ``requiressl=``."""
_OF_OTHERS = (
    ("pool|max_conn|conn_limit", "set SMARTER_AUTH_POOL_MAX"),
    ("prepare|statement_cache|exec_mode", "set SMARTER_AUTH_STATEMENT_CACHE_SIZE"),
    ("timeout", "set connect_timeout here, or SMARTER_AUTH_QUERY_TIMEOUT_S"),
    ("schema", "the tables are in a schema of their own, whatever the search_path: leave it out"),
)
"""Parts of the names of other clients' options, and what to use instead."""
_BRACKETS = "write an IPv6 address in brackets: [::1]:5432"
_AT_BEHIND_THE_HOST = "an @ after the host: write a / or ? of the password as %2F or %3F, and any other @ as %40"
_ENVIRONMENT = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "dbname": "PGDATABASE",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "passfile": "PGPASSFILE",
    "options": "PGOPTIONS",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "sslmode": "PGSSLMODE",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslcrl": "PGSSLCRL",
    "ssl_min_protocol_version": "PGSSLMINPROTOCOLVERSION",
    "ssl_max_protocol_version": "PGSSLMAXPROTOCOLVERSION",
    "channel_binding": "PGCHANNELBINDING",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "krbsrvname": "PGKRBSRVNAME",
    "gsslib": "PGGSSLIB",
}


class DatabaseUrlError(ValueError):
    """The URL cannot be used; the message says why and what to write, and quotes nothing that may be secret."""


class Host(NamedTuple):
    """The address of a server: a host name, an IP address, or the directory of a socket."""

    name: str
    port: int

    @property
    def is_socket(self) -> bool:
        return self.name.startswith("/")

    def __str__(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name and not self.is_socket else f"{self.name}:{self.port}"


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """A parsed URL, completed from its service and the environment; ``options`` have libpq's names.

    Without hosts it means this machine's own socket, wherever that is.
    """

    hosts: tuple[Host, ...]
    options: Mapping[str, str] = field(repr=False)

    @property
    def is_pooled(self) -> bool:
        """Return whether the URL names a transaction pooler."""
        return self.options.get("pgbouncer") == "true"

    def number(self, name: str, default: int) -> int:
        return int(self.options.get(name, default))


_QUOTES = ("'", '"')


def parse_database_url(url: str, environment: Mapping[str, str] = os.environ) -> DatabaseAddress:
    """Read a URL; raises DatabaseUrlError, without quoting anything that may be a part of the password."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("postgresql", "postgres"):
        raise DatabaseUrlError(_scheme_advice(scheme if separator else ""))
    if "#" in rest:
        raise DatabaseUrlError("a # ends a URL: write it as %23")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    if "@" in path:
        raise DatabaseUrlError(_AT_BEHIND_THE_HOST)
    try:
        given = {**_of_authority(authority), **({"dbname": _decoded(path)} if path else {}), **_of_query(query)}
        options = _completed(_checked(given), environment)
        return DatabaseAddress(tuple(_hosts(options)), options)
    except DatabaseUrlError:
        if "@" not in query:
            raise
        # The name of an option that it quotes may be a part of the password.
        raise DatabaseUrlError(_AT_BEHIND_THE_HOST) from None


def _scheme_advice(scheme: str) -> str:
    if scheme.lstrip()[:1] in _QUOTES or scheme.startswith("psql "):
        return "the URL alone, without quotes and without psql in front of it"
    if scheme.startswith(("postgresql+", "postgres+", "jdbc:postgresql")):
        return "a driver's own URL: write postgresql:// instead of the driver's scheme"
    return "a URL that begins with postgresql:// or embedded:"


def _of_authority(authority: str) -> dict[str, str]:
    user_info, _, hosts = authority.rpartition("@")
    if "@" in user_info:
        raise DatabaseUrlError("more than one @ before the host: write those of the password as %40")
    user, colon, password = user_info.partition(":")
    named = [_split_host(one) for one in hosts.split(",")] if hosts else []
    return {
        **({"user": _decoded(user)} if user else {}),
        **({"password": _decoded(password)} if colon else {}),
        **({"host": ",".join(host for host, _ in named)} if any(host for host, _ in named) else {}),
        **({"port": ",".join(port for _, port in named)} if any(port for _, port in named) else {}),
    }


def _split_host(text: str) -> tuple[str, str]:
    """Parse a host and its port, which may both be left out; an IPv6 address is in brackets."""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or ":" not in host or (port and not port.startswith(":")):
            raise DatabaseUrlError(_BRACKETS)
        return _decoded(host), port[1:]
    host, _, port = text.partition(":")
    if ":" in port:
        raise DatabaseUrlError(f"two colons after the host: {_BRACKETS}, and a / or ? of the password as %2F or %3F")
    return _decoded(host), port


def _of_query(query: str) -> dict[str, str]:
    pairs = [one.partition("=") for one in query.split("&") if one]
    if not all(separator for _, separator, _ in pairs):
        raise DatabaseUrlError("the ? is followed by NAME=VALUE, separated by &")
    return {_decoded(name): _decoded(value) for name, _, value in pairs}  # A + stays a +, as in psql.


def _decoded(text: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise DatabaseUrlError("a % begins two hexadecimal digits: write a plain one as %25")
    decoded = unquote(text, errors="replace")
    if "\0" in decoded or "\ufffd" in decoded:
        raise DatabaseUrlError("percent-encoded bytes must be UTF-8, without %00")
    return decoded


def _checked(given: Mapping[str, str]) -> dict[str, str]:
    """Return the options by libpq's names, each with an accepted value."""
    renamed = {_RENAMED.get(name, name): value for name, value in given.items() if value}
    if (ssl := renamed.pop("ssl", None)) is not None:
        mode = _SSL.get(ssl.lower(), ssl)
        if not re.fullmatch(OPTIONS["sslmode"][0], mode):
            raise DatabaseUrlError(f"ssl: true, false or a value of sslmode, which is {OPTIONS['sslmode'][1]}")
        renamed.setdefault("sslmode", mode)
    if renamed.get("sslmode") == "no-verify":
        renamed["sslmode"] = "require"
    for name, value in renamed.items():
        if name not in OPTIONS:
            raise DatabaseUrlError(_unknown(name))
        pattern, advice = OPTIONS[name]
        if not re.fullmatch(pattern, value, re.DOTALL):
            raise DatabaseUrlError(f"{name}: {advice}")
    return renamed


def _unknown(name: str) -> str:
    if not re.fullmatch(r"\w{1,63}", name, re.ASCII):
        return "the ? is followed by an option that psql does not know"
    taken = [option for option, (pattern, _) in OPTIONS.items() if pattern]
    nearest = next(iter(get_close_matches(name.lower(), taken, 1, cutoff=0.8)), None)
    instead = next((advice for part, advice in _OF_OTHERS if re.search(part, name, re.IGNORECASE)), None)
    if nearest or instead:
        return f"{name}: psql knows no such option; {f'the nearest is {nearest}' if nearest else instead}"
    return (
        f"{name}: psql knows no such option; leave it out, or, for a setting of the server, write"
        f" options=-c%20{name}%3DVALUE"
    )


def _completed(given: dict[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the options; missing ones come from the service, then from the environment."""
    service = given.get("service", environment.get("PGSERVICE", ""))
    if service:
        given = _checked(_of_service(service, given.get("servicefile"), environment)) | given
    defaults = {name: environment[variable] for name, variable in _ENVIRONMENT.items() if environment.get(variable)}
    if (
        "host" in given or "hostaddr" in given
    ):  # The URL names another server, so the environment's address and ports do not apply.
        defaults = {name: value for name, value in defaults.items() if name not in ("host", "hostaddr")}
    options = _checked(defaults) | given
    if "application_name" not in options and "fallback_application_name" in options:
        options["application_name"] = options["fallback_application_name"]
    if options.get("sslrootcert") == "system" and options.setdefault("sslmode", "verify-full") != "verify-full":
        raise DatabaseUrlError("sslrootcert: system needs sslmode=verify-full")
    _check_tls(options)
    return options


def _check_tls(options: Mapping[str, str]) -> None:
    """Refuse options of TLS that contradict each other, as psql does."""
    mode = options.get("sslmode", "prefer")
    if options.get("channel_binding") == "require" and mode == "disable":
        raise DatabaseUrlError("channel_binding: require needs TLS, but sslmode is disable")
    if options.get("sslnegotiation") == "direct" and mode in ("disable", "allow", "prefer"):
        raise DatabaseUrlError(f"sslnegotiation: direct needs sslmode=require or a stricter one, and it is {mode}")
    oldest, newest = (options.get(f"ssl_{end}_protocol_version", "") for end in ("min", "max"))
    if oldest and newest and oldest > newest:
        raise DatabaseUrlError(f"ssl_max_protocol_version: {newest} is older than ssl_min_protocol_version={oldest}")


def _of_service(name: str, file: str | None, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the section of that name in the first of libpq's service files that has it."""
    own = file or environment.get("PGSERVICEFILE") or str(Path(environment.get("HOME", "/"), ".pg_service.conf"))
    shared = Path(environment.get("PGSYSCONFDIR", "/etc/postgresql-common"), "pg_service.conf")
    parser = ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",), default_section="")
    try:
        parser.read([str(shared), own], "utf-8")
    except (ServiceFileError, UnicodeDecodeError, OSError) as error:
        raise DatabaseUrlError(f"service={name}: its file cannot be read ({type(error).__name__})") from None
    if name not in parser:
        raise DatabaseUrlError(f"service={name}: there is no such section in {own} or {shared}")
    return dict(parser[name])


def _hosts(options: Mapping[str, str]) -> Iterator[Host]:
    """Yield every host with its port; ``hostaddr``, if given, is the address to connect to."""
    if options.get("hostaddr") and options.get("sslmode") == "verify-full":
        raise DatabaseUrlError("hostaddr: with sslmode=verify-full, name the host in host alone")
    names = (options.get("hostaddr") or options.get("host") or "").split(",")
    ports = (options.get("port") or "").split(",")
    if len(ports) not in (1, len(names)):
        raise DatabaseUrlError(f"port: {counted(len(ports), 'port')} for {counted(len(names), 'host')}")
    if names == [""]:
        _port(ports[0])  # That of this machine's own socket.
        return
    for name, port in zip_longest(names, ports, fillvalue=ports[0]):
        yield Host(_host(name), _port(port))


def _host(name: str) -> str:
    if name.startswith("/"):
        return name
    try:
        name.encode("idna")
    except UnicodeError:
        name = ""
    if not name or re.search(r"[\s@/?<>{}$\[\]]", name):
        raise DatabaseUrlError("host: not the name of a host")
    return name


def _port(text: str) -> int:
    if not text:
        return DEFAULT_PORT
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not 0 < int(text) < 65536:
        raise DatabaseUrlError("port: a number between 1 and 65535; write a / or ? of the password as %2F or %3F")
    return int(text)
