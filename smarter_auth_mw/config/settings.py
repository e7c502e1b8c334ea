"""Configuration: every setting, its default and its rule; all mistakes are reported together."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from smarter_auth_mw.config import origins
from smarter_auth_mw.config.database_urls import parse_database_url
from smarter_auth_mw.config.durations import RULE, parse_duration
from smarter_auth_mw.config.masking import shown_value, withheld
from smarter_auth_mw.config.origins import DEFAULT, PREFIX, Origin
from smarter_auth_mw.errors import ConfigurationError, Mistake

EXAMPLES = {
    "database_url": "must be set: postgresql://USER@HOST/DATABASE, or embedded: for the bundled one",
    "routes": "must be set: which paths are resources, for example  bot /bots/{ref:int}  or  preset:smarter",
}
WAYS = ("token", "bearer", "x-api-key")
_ORIGIN = re.compile(
    r"https://(?:[a-z0-9-]+(?:\.[a-z0-9-]+)*|\[[0-9a-f:]+\])(?::[0-9]{1,5})?"
    r"|http://(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?"
)
TABLE = "a table"
"""Shown instead of a TOML table, which may hold anything."""


def _split(separators: str) -> BeforeValidator:
    def split(value: Any) -> Any:
        if isinstance(value, str):
            value = re.split(f"[{separators}]", value)
        if not isinstance(value, list | tuple | set | frozenset) or any(
            isinstance(item, dict | list) for item in value
        ):
            raise ValueError("a string, or a list of strings")
        return tuple(stripped for item in value if (stripped := str(item).strip()))

    return BeforeValidator(split)


_TEXTS = WithJsonSchema({"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]})
Words = Annotated[tuple[str, ...], _split(",;\n"), _TEXTS]
Lines = Annotated[tuple[str, ...], _split("\n"), _TEXTS]
"""Lines; the grammar of routes also splits them at ``;`` outside of comments."""
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class RouteSettings(BaseModel):
    """The settings that determine which resource a request names."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True)

    required: ClassVar[tuple[str, ...]] = ()
    is_complete: ClassVar[bool] = False
    """True if the class has all settings, so that unknown names are mistakes."""

    _origins: dict[str, Origin] = PrivateAttr(default_factory=dict)

    routes: Lines = Field(
        default=(),
        validate_default=True,
        description="routes, one per line: KIND PATTERN [always], none PATH, or preset:NAME",
    )
    mounts: Words = Field(default=(), description="path prefixes at which the app is mounted")
    api_domains: Words = Field(default=(), description="domains whose subdomains name a resource")
    platform_domains: Words = Field(default=(), description="domains of the platform's console")
    default_account: str = Field(default="default", description="the account used when none is given")
    trusted_proxies: Words = Field(
        default=(),
        description="addresses or networks of trusted proxies, whose forwarded headers count; unix: for a UNIX socket",
    )
    live_path: str = Field(default="", description="the path of the liveness probe; empty: none")
    ready_path: str = Field(default="", description="the path of the readiness probe (200 or 503); empty: none")
    metrics_path: str = Field(default="", description="the path of the Prometheus metrics; empty: none")

    @field_validator("database_url", "routes", check_fields=False)
    @classmethod
    def _required(cls, value: Any, info: ValidationInfo) -> Any:
        if info.field_name in cls.required and not (
            value.get_secret_value() if isinstance(value, SecretStr) else value
        ):
            raise ValueError(EXAMPLES[info.field_name])
        return value

    @field_validator("mounts")
    @classmethod
    def _mounts(cls, mounts: tuple[str, ...]) -> tuple[str, ...]:
        for mount in mounts:
            if not mount.startswith("/") or mount == "/":
                raise ValueError("a path prefix begins with / and has at least one segment")
        return tuple(mount.rstrip("/") for mount in mounts)

    @field_validator("trusted_proxies")
    @classmethod
    def _trusted_proxies(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        if not all(map(_is_network, networks)):
            raise ValueError("IPv4 and IPv6 addresses and networks, for example 10.0.0.0/8, or unix:")
        return networks

    @field_validator("realm", "default_account", check_fields=False)
    @classmethod
    def _quotable(cls, text: str) -> str:
        if not re.fullmatch(r"[!#-\[\]-~]([ !#-\[\]-~]*[!#-\[\]-~])?", text):
            raise ValueError("printable ASCII without quotes and backslashes, and not empty")
        return text

    def __init__(self, **values: Any) -> None:
        found, mistakes = origins.read(values)
        if self.is_complete:
            mistakes += [mistake for place in found for mistake in place.unknown(type(self).model_fields)]
        origin = {name: place for place in reversed(found) for name in place.values if name in type(self).model_fields}
        try:
            super().__init__(**{name: place.values[name] for name, place in origin.items()})
        except ValidationError as error:
            errors_found = error.errors(include_url=False, include_context=False)
            mistakes += [_located(self._mistake(details), origin) for details in errors_found]
        if mistakes:
            raise ConfigurationError(mistakes)
        self._origins = origin

    def origin(self, name: str) -> str:
        """Return where a setting comes from: ``arguments``, ``environment``, the path of a file, or ``default``."""
        return self._origins[name].name if name in self._origins else DEFAULT

    @property
    def files(self) -> list[str]:
        """The paths of the files that settings come from."""
        return sorted({origin.name for origin in self._origins.values() if origin.is_file})

    def located(self, mistakes: Iterable[Mistake]) -> list[Mistake]:
        """Return mistakes that were found later, with the file of each setting, and with secrets masked."""
        return [replace(_located(one, self._origins), value=shown_value(one.value)) for one in mistakes]

    @classmethod
    def _mistake(cls, details: Any) -> Mistake:
        rule = details["msg"].removeprefix("Value error, ")
        if not details["loc"]:
            return Mistake("settings", "", rule)
        name, text = str(details["loc"][0]), _text(details["input"])
        if text and text != TABLE and cls.model_fields[name].annotation is SecretStr:
            return Mistake(PREFIX + name.upper(), "", f"{rule}; {withheld(text)}")
        return Mistake(PREFIX + name.upper(), shown_value(text), rule)


class Settings(RouteSettings):
    """The configuration: from keyword arguments, then ``SMARTER_AUTH_*``, then ``.env``, then ``smarter_auth.toml``.

    Names that end in ``_s`` are seconds. Raises ``ConfigurationError`` with every mistake at once, and no
    password in it. The grammar of routes is checked when they are compiled.
    """

    required: ClassVar[tuple[str, ...]] = ("database_url", "routes")
    is_complete: ClassVar[bool] = True

    database_url: SecretStr = Field(
        default=SecretStr(""), validate_default=True, description="postgresql://…, or embedded: / embedded:///DIR"
    )
    listen_url: SecretStr = Field(
        default=SecretStr(""),
        description="postgresql://… of the primary itself if DATABASE_URL is a pooler; empty: DATABASE_URL",
    )
    cache_url: SecretStr = Field(
        default=SecretStr("memory://"),
        description="the shared cache: redis://…, rediss://…, unix://… or memcached://…; memory:// for none",
    )
    credentials: Words = Field(default=WAYS, description="accepted credentials: token, bearer, x-api-key")
    realm: str = Field(default="smarter", description="the realm in WWW-Authenticate")
    require: Literal["bound", "active"] = Field(
        default="bound",
        description="active: deactivating the last key opens a resource; bound: it stays protected",
    )
    open_bad_token: Literal["ignore", "reject"] = Field(
        default="ignore", description="a bad token on an open resource: ignore, or reject with 401"
    )
    preflight: Literal["protect", "pass"] = Field(
        default="protect",
        description="pass: CORS preflights reach the app without a token, without body and method overrides",
    )
    cache_ttl_s: Positive = Field(default=300, description="how long a cache entry is kept, in seconds")
    negative_ttl_s: Positive = Field(default=30, description="how long 'no such resource' is cached, in seconds")
    heartbeat_s: Positive = Field(
        default=1,
        description="how often each worker asks the database for changes, in seconds; less than max_staleness_s",
    )
    max_staleness_s: Positive = Field(
        default=5,
        description="the maximum age of cached data that decides requests, whatever fails, in seconds",
    )
    stale_if_error_s: NotNegative = Field(
        default=0, description="how much longer clients keep their access while the database is down, in seconds"
    )
    max_entries: int = Field(default=100_000, ge=1, description="maximum number of resources cached in the process")
    max_bindings: int = Field(default=1_000_000, ge=1, description="maximum number of bindings cached in the process")
    max_lookups: int = Field(
        default=1000, ge=1, description="maximum number of look-ups at once; further ones wait up to 1 s, then get 503"
    )
    max_lookups_per_peer: int = Field(
        default=250, ge=1, description="maximum number of look-ups at once for one peer network"
    )
    pool_min: int = Field(default=1, ge=0, description="minimum number of database connections")
    pool_max: int = Field(
        default=8, ge=1, description="maximum number of database connections per worker; one more listens"
    )
    query_timeout_s: Positive = Field(default=2, description="timeout of a query, in seconds")
    statement_cache_size: int = Field(
        default=100, ge=0, description="prepared statements kept per connection; 0 behind a transaction pooler"
    )
    failed_attempts: str = Field(
        default="30/minute",
        description="failed attempts per peer network and resource: NUMBER/minute (second, hour, day); empty: no limit",
    )
    hide_credentials: bool = Field(
        default=False, description="remove the credentials from the request before the app sees it"
    )
    error_format: Literal["problem", "smarter"] = Field(
        default="problem", description="the body of a refusal: problem (RFC 9457), or smarter (the platform's journal)"
    )
    verify_router: bool = Field(
        default=False, description="for development: compare the resource with the router's own parameters"
    )
    audit: Literal["none", "denials", "all"] = Field(
        default="denials", description="requests written to the audit: none, denials or all"
    )
    usage_flush_s: Positive = Field(
        default=5, description="how often usage and the audit of requests are written, in seconds"
    )
    max_key_lifetime: str = Field(
        default="",
        description="maximum lifetime of a key at creation, extension or rotation, for example 90d; empty: no limit",
    )

    admin_origin: str = Field(
        default="",
        description="the origin of the admin, for example https://admin.example.com; empty: loopback only",
    )

    def __init__(self, **values: Any) -> None:  # Otherwise type checkers would require SecretStr and tuples.
        super().__init__(**values)

    @model_validator(mode="before")
    @classmethod
    def _pooled(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Turn off prepared statements if the URL says ``pgbouncer=true``."""
        with suppress(ValueError):
            if parse_database_url(_revealed(values.get("database_url", ""))).is_pooled:
                return {"statement_cache_size": 0} | values
        return values

    @field_validator("database_url", "listen_url", "cache_url", mode="before")
    @classmethod
    def _stripped(cls, url: Any) -> Any:
        """Remove the blanks and line breaks around a URL: files with secrets end with a line break."""
        return SecretStr(_revealed(url).strip()) if isinstance(url, str | SecretStr) else url

    @field_validator("database_url", "listen_url")
    @classmethod
    def _database_url(cls, url: SecretStr, info: ValidationInfo) -> SecretStr:
        is_bundled = _scheme(url) == "embedded" and info.field_name == "database_url"
        if url.get_secret_value() and not is_bundled:
            parse_database_url(url.get_secret_value())
        return url

    @field_validator("cache_url")
    @classmethod
    def _cache_url(cls, url: SecretStr) -> SecretStr:
        scheme = _scheme(url)
        if re.search("sentinel|cluster", scheme):
            raise ValueError("redis:// with the address of one server: Sentinel and Cluster are not supported")
        if scheme in {"redis+unix", "redis+socket"}:
            raise ValueError("unix:///SOCKET for a UNIX socket")
        if scheme in {"valkey", "valkeys"}:
            return SecretStr(f"redis{scheme[6:]}{url.get_secret_value()[len(scheme) :]}")
        if scheme not in {"memory", "redis", "rediss", "unix", "memcached"}:
            raise ValueError("a URL that begins with memory://, redis://, rediss://, unix:// or memcached://")
        return url

    @field_validator("credentials")
    @classmethod
    def _credentials(cls, ways: tuple[str, ...]) -> tuple[str, ...]:
        ways = tuple(dict.fromkeys(way.lower() for way in ways))
        if not ways or not set(ways) <= set(WAYS):
            raise ValueError("one or more of token, bearer, x-api-key")
        return ways

    @field_validator("failed_attempts")
    @classmethod
    def _failed_attempts(cls, rate: str) -> str:
        if rate and not re.fullmatch(r"[1-9]\d{0,6}/(second|minute|hour|day)", rate):
            raise ValueError("NUMBER/second, /minute, /hour or /day; empty: off")
        return rate

    @field_validator("admin_origin")
    @classmethod
    def _admin_origin(cls, origin: str) -> str:
        if origin and not _ORIGIN.fullmatch(origin):
            raise ValueError(
                "https://HOST[:PORT] without a path, or http:// with localhost, 127.0.0.1 or [::1]; or empty"
            )
        return origin

    @field_validator("max_key_lifetime")
    @classmethod
    def _max_key_lifetime(cls, text: str) -> str:
        if text and parse_duration(text) is None:
            raise ValueError(f"{RULE}; empty: no limit")
        return text

    @property
    def longest_key_life(self) -> timedelta | None:
        """Return how long a key may be valid from now on; None: no limit."""
        return parse_duration(self.max_key_lifetime)

    @field_validator("max_staleness_s", "pool_max")
    @classmethod
    def _limits(cls, limit: float, info: ValidationInfo) -> float:
        """Compare the setting with the one that it limits, unless that one is a mistake by itself."""
        heartbeat_s, pool_min = info.data.get("heartbeat_s", 0), info.data.get("pool_min", 0)
        if info.field_name == "max_staleness_s" and heartbeat_s >= limit:
            raise ValueError(f"must be more than {PREFIX}HEARTBEAT_S={heartbeat_s:g}")
        if info.field_name == "pool_max" and pool_min > limit:
            raise ValueError(f"must be at least {PREFIX}POOL_MIN={pool_min}")
        return limit


class DatabaseSettings(Settings):
    """The settings of commands that use only the database and need no routes."""

    required: ClassVar[tuple[str, ...]] = ("database_url",)

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)


def _revealed(value: Any) -> str:
    return str(value.get_secret_value() if isinstance(value, SecretStr) else value)


def _scheme(url: SecretStr) -> str:
    """Return the scheme, or nothing if no colon follows it."""
    scheme, colon, _ = url.get_secret_value().partition(":")
    return scheme.lower() if colon else ""


def _is_network(text: str) -> bool:
    if text == "unix:":
        return True
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _located(mistake: Mistake, origin: dict[str, Origin]) -> Mistake:
    place = origin.get(mistake.variable.removeprefix(PREFIX).lower())
    return place.located(mistake) if place else mistake


def _text(value: Any) -> str:
    """Return the value as it was written."""
    items = value if isinstance(value, list | tuple) else [value]
    return TABLE if any(isinstance(item, dict | list) for item in items) else ", ".join(map(_revealed, items))
