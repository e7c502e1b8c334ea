"""Configuration by environment: every variable, its default and its rule; all mistakes told together."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from smarter_auth_mw.errors import ConfigurationError, Mistake

PREFIX = "SMARTER_AUTH_"
EXAMPLES = {
    "database_url": "must be set: postgresql://USER@HOST/DATABASE, or embedded: for the bundled one",
    "routes": "must be set: which paths are resources, for example  bot /bots/{ref:int}  or  preset:smarter",
}
WAYS = ("token", "bearer", "x-api-key")

_KUBERNETES = re.compile(r"(_SERVICE_HOST|_SERVICE_PORT(_\w+)?|_PORT(_\w+)?)$")
_PASSWORD = re.compile(r"(?<=://)([^/@]*?:).*(?=@)|(?<=[?&]password=)[^&]*")


def mask_url(url: str) -> str:
    """The URL with its password replaced, as it may be printed."""
    return _PASSWORD.sub(lambda match: f"{match[1] or ''}***", url)


def _split(separators: str) -> BeforeValidator:
    def split(value: Any) -> Any:
        if isinstance(value, str):
            value = re.split(f"[{separators}]", value)
        return tuple(stripped for item in value if (stripped := str(item).strip()))

    return BeforeValidator(split)


Words = Annotated[tuple[str, ...], NoDecode, _split(",;\n")]
Lines = Annotated[tuple[str, ...], NoDecode, _split("\n")]
"""A ``;`` separates too, but not within a comment: whoever knows the grammar splits there."""
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class RouteSettings(BaseSettings):
    """What finding the resource of a request depends on."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True, hide_input_in_errors=True)

    required: ClassVar[tuple[str, ...]] = ()

    routes: Lines = Field(
        default=(), validate_default=True, description="KIND PATTERN [always], none PATH, or preset:NAME, one a line"
    )
    mounts: Words = Field(default=(), description="path prefixes that the app takes off by itself")
    api_domains: Words = Field(default=(), description="domains below which a host names a resource")
    platform_domains: Words = Field(default=(), description="domains of the platform's own console")
    default_account: str = Field(default="default", description="the account of whatever names none")
    trusted_proxies: Words = Field(default=(), description="addresses or networks whose forwarded headers count")
    live_path: str = Field(default="", description="a path that answers while the process does; empty: off")
    ready_path: str = Field(default="", description="a path that tells whether requests can be decided; empty: off")
    metrics_path: str = Field(default="", description="a path with the metrics for Prometheus; empty: off")

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
                raise ValueError(f"a path prefix begins with / and names something: {mount!r}")
        return tuple(mount.rstrip("/") for mount in mounts)

    @field_validator("trusted_proxies")
    @classmethod
    def _trusted_proxies(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            ipaddress.ip_network(network, strict=False)
        return networks

    @field_validator("realm", "default_account", check_fields=False)
    @classmethod
    def _quotable(cls, text: str) -> str:
        if not re.fullmatch(r"[!#-\[\]-~]([ !#-\[\]-~]*[!#-\[\]-~])?", text):
            raise ValueError("printable ASCII without quotes and backslashes, and not empty")
        return text

    @model_validator(mode="before")
    @classmethod
    def _empty_is_not_set(cls, values: dict[str, Any]) -> dict[str, Any]:
        # Compose files write a variable that is not set so. One setting has a meaning for it.
        return {name: value for name, value in values.items() if value != "" or name == "failed_attempts"}


class Settings(RouteSettings):
    """The configuration, from keyword arguments first, then from ``SMARTER_AUTH_*`` in the environment.

    Durations end in ``_s`` and are seconds. Raises ``ConfigurationError`` with every mistake at once, and no
    password in it. What only the grammar of routes can tell is checked where they are compiled.
    """

    model_config = SettingsConfigDict(extra="forbid")

    required: ClassVar[tuple[str, ...]] = ("database_url", "routes")

    database_url: SecretStr = Field(
        default=SecretStr(""), validate_default=True, description="postgresql://…, or embedded: / embedded:///DIR"
    )
    listen_url: SecretStr = Field(
        default=SecretStr(""), description="the primary, directly, when DATABASE_URL is a pooler"
    )
    cache_url: SecretStr = Field(default=SecretStr("memory://"), description="memory://, redis://… or memcached://…")
    credentials: Words = Field(default=WAYS, description="accepted ways: token, bearer, x-api-key")
    realm: str = Field(default="smarter", description="the realm in the challenge")
    require: Literal["bound", "active"] = Field(default="bound", description="active: deactivating the last key opens")
    open_bad_token: Literal["ignore", "reject"] = Field(default="ignore", description="a bad token on an open resource")
    preflight: Literal["protect", "pass"] = Field(
        default="protect", description="pass: real CORS preflights reach the app"
    )
    cache_ttl_s: Positive = Field(default=300, description="how long an entry is kept")
    negative_ttl_s: Positive = Field(default=30, description="how long it is kept that there is nothing")
    heartbeat_s: Positive = Field(default=1, description="how often the database is asked what has changed")
    max_staleness_s: Positive = Field(default=5, description="how old an answer may be, whatever fails")
    stale_if_error_s: NotNegative = Field(
        default=0, description="how much longer a grant serves while the store is down"
    )
    max_entries: int = Field(default=100_000, ge=1, description="resources kept in the process")
    max_bindings: int = Field(default=1_000_000, ge=1, description="bindings kept in the process")
    pool_min: int = Field(default=1, ge=0, description="connections kept open")
    pool_max: int = Field(default=8, ge=1, description="connections at the most")
    query_timeout_s: Positive = Field(default=2, description="how long a query may take")
    statement_cache_size: int = Field(
        default=100, ge=0, description="prepared statements; 0 behind a transaction pooler"
    )
    failed_attempts: str = Field(
        default="30/minute", description="failed attempts per peer network and resource; empty: off"
    )
    hide_credentials: bool = Field(default=False, description="take the credentials out before the app sees them")
    error_format: Literal["problem", "smarter"] = Field(default="problem", description="the body of a rejection")
    verify_router: bool = Field(default=False, description="development: compare with what the router chose")
    audit: Literal["none", "denials", "all"] = Field(default="denials", description="which requests are audited")
    usage_flush_s: Positive = Field(default=5, description="how often usage is written")

    def __init__(self, **values: Any) -> None:
        mistakes = _unknown_variables(type(self))
        try:
            super().__init__(**values)
        except ValidationError as error:
            mistakes += _mistakes(error, type(self))
        if mistakes:
            raise ConfigurationError(mistakes)

    @field_validator("database_url", "listen_url")
    @classmethod
    def _database_url(cls, url: SecretStr) -> SecretStr:
        if url.get_secret_value() and _scheme(url) not in {"postgresql", "postgres", "embedded"}:
            raise ValueError("a URL that begins with postgresql:// or embedded:")
        return url

    @field_validator("cache_url")
    @classmethod
    def _cache_url(cls, url: SecretStr) -> SecretStr:
        if _scheme(url) not in {"memory", "redis", "rediss", "unix", "memcached"}:
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

    @model_validator(mode="after")
    def _together(self) -> Settings:
        if self.pool_min > self.pool_max:
            raise ValueError(f"POOL_MIN={self.pool_min} is more than POOL_MAX={self.pool_max}")
        if self.heartbeat_s >= self.max_staleness_s:
            raise ValueError(
                f"HEARTBEAT_S={self.heartbeat_s:g} must be less than MAX_STALENESS_S={self.max_staleness_s:g}"
            )
        return self


class DatabaseSettings(Settings):
    """The same for commands that look at the database alone, and need no routes."""

    required: ClassVar[tuple[str, ...]] = ("database_url",)

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)


def _scheme(url: SecretStr) -> str:
    return urlsplit(url.get_secret_value()).scheme


def _unknown_variables(cls: type[Settings]) -> list[Mistake]:
    known = [PREFIX + name.upper() for name in cls.model_fields]
    return [
        Mistake(name, "", _nearest(name, known))
        for name in sorted(os.environ)
        if name.startswith(PREFIX) and name not in known and not _KUBERNETES.search(name)
    ]


def _nearest(name: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    return "there is no such setting" + (f"; the nearest is {nearest[0]}" if nearest else "")


def _mistakes(error: ValidationError, cls: type[Settings]) -> list[Mistake]:
    return [_mistake(details, cls) for details in error.errors(include_url=False, include_context=False)]


def _mistake(details: Any, cls: type[Settings]) -> Mistake:
    if not details["loc"]:
        return Mistake("settings", "", details["msg"].removeprefix("Value error, "))
    name = str(details["loc"][0])
    variable = PREFIX + name.upper()
    if details["type"] == "extra_forbidden":
        return Mistake(name, "", _nearest(name, list(cls.model_fields)))
    rule = details["msg"].removeprefix("Value error, ")
    return Mistake(variable, _shown(details["input"]), rule)


def _shown(value: Any) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    text = ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    return mask_url(text)[:200]
