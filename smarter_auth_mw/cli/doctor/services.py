"""Checks of a worker's environment: database, notifications, shared cache, clocks and proxies."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

from smarter_auth_mw.cache.availability import LONGEST_DEADLINE_S, cause_of
from smarter_auth_mw.cli.doctor.routes import Finding
from smarter_auth_mw.config.masking import mask_url
from smarter_auth_mw.config.settings import Settings
from smarter_auth_mw.errors import SchemaError, SmarterAuthError, counted
from smarter_auth_mw.http.peers import UNIX
from smarter_auth_mw.postgres import rehearsal
from smarter_auth_mw.postgres.faults import WrongServerError
from smarter_auth_mw.postgres.notifications import is_heard, open_wire
from smarter_auth_mw.postgres.opening import database_url, listens, open_store
from smarter_auth_mw.postgres.store import Store, Vitals

if TYPE_CHECKING:
    from aiocache.base import BaseCache

MAX_SKEW_S = 1.0
PATIENCE_S = 5.0
"""The deadline of a notification and of the shared cache, after which they count as lost."""

T = TypeVar("T")

_AS_RUNTIME = "Run the app with a role of its own: smarter-auth db migrate --runtime-role ROLE"
_PAST_THE_POOLER = "Set SMARTER_AUTH_LISTEN_URL to the primary itself, past the pooler"


@dataclass(frozen=True, slots=True)
class Database:
    """A database that answers, and its own description."""

    settings: Settings
    store: Store
    vitals: Vitals
    listen_url: str


async def check_database(settings: Settings) -> AsyncIterator[Finding]:
    """Yield findings about the database and the connection to it."""
    roomy = settings.model_copy(update={"pool_max": max(2, settings.pool_max)})
    try:
        async with database_url(roomy) as url, open_store(roomy) as store:
            listen_url = settings.listen_url.get_secret_value() or url
            database = Database(settings, store, await store.vitals(), listen_url)
            for check in DATABASE_CHECKS:
                async for finding in check(database):
                    yield finding
                if database.vitals.platform_gone:
                    return  # No table of the platform can be read.
    except SmarterAuthError as error:
        name = "schema" if isinstance(error, SchemaError) else "database"
        yield Finding("problem", name, error.message, error.hint, error.exit_code)


async def _grants(database: Database) -> AsyncIterator[Finding]:
    found = await database.store.standing()
    if found.lacking:
        yield Finding(
            "problem",
            "grants",
            f"The role {found.role} lacks what a {found.grade} role needs: {'; '.join(found.lacking)}.",
            f"Run, as the owner of the schema: smarter-auth db migrate --{found.grade}-role {found.role}",
        )
    if found.is_inherited:
        yield Finding(
            "warning",
            "grade",
            f"The role {found.role} can write keys, bindings and resources, as every role could in earlier releases.",
            f"If it only serves, run as the owner of the schema: smarter-auth db migrate --runtime-role {found.role}."
            f" If it also writes keys: --manager-role {found.role}",
        )
    if await database.store.may_change_audit():
        yield Finding(
            "warning",
            "audit",
            "The role that serves requests can change and delete events of the audit.",
            _AS_RUNTIME,
        )


async def _statements(database: Database) -> AsyncIterator[Finding]:
    """Yield a finding for each serving statement that fails, except for missing privileges, reported separately."""
    if (await database.store.standing()).lacking:
        return
    async for name, error in rehearsal.failing(database.store):
        if isinstance(error, WrongServerError):
            raise error  # All further statements and checks would say the same.
        yield Finding(
            "problem",
            "statements",
            f"The statement {name}, which serving needs, fails: {error.message}",
            error.hint or "Please report it, with this message and the version of PostgreSQL.",
            error.exit_code,
        )


async def _triggers(database: Database) -> AsyncIterator[Finding]:
    missing = database.vitals.missing_triggers
    if missing:
        parts = [name.partition(".") for name in missing]
        enable = "; ".join(f"ALTER TABLE smarter_auth.{table} ENABLE ALWAYS TRIGGER {name}" for table, _, name in parts)
        yield Finding(
            "problem",
            "triggers",
            f"{_are('The trigger', missing)} missing or disabled: changes are not reported, and nothing is"
            " cached for longer than MAX_STALENESS_S.",
            f"Run: {enable}. Or, as the owner of the schema: smarter-auth db migrate. A dropped trigger needs its "
            "CREATE TRIGGER first; it is in smarter_auth_mw/postgres/sql/migrations.",
        )
    if not database.vitals.loses_its_name:
        yield Finding(
            "problem",
            "incarnation",
            "The table smarter_auth.incarnation is no longer UNLOGGED: workers would not notice a crash of PostgreSQL,"
            " and cache nothing for longer than MAX_STALENESS_S.",
            "Run: ALTER TABLE smarter_auth.incarnation SET UNLOGGED",
        )


def _are(what: str, names: Sequence[str]) -> str:
    """Return the names as the subject of a sentence: `The trigger a is`, or `The triggers a, b are`."""
    return f"{what}{'s' if names[1:] else ''} {', '.join(names)} {'are' if names[1:] else 'is'}"


async def _platform(database: Database) -> AsyncIterator[Finding]:
    """Yield findings about the tables of an attached platform."""
    for name in database.vitals.platform_gone:
        yield Finding(
            "problem",
            "platform",
            f"The platform's column {name} is gone: every resource answers 503.",
            "Run: smarter-auth db migrate. If it fails, upgrade smarter_auth_mw, or run: smarter-auth db detach",
        )
    for name in database.vitals.platform_missing:
        table, _, trigger = name.partition(".")
        yield Finding(
            "problem",
            "platform",
            f"The trigger {name} on the platform's table is missing or disabled: changes are not reported, and"
            " nothing is cached for longer than MAX_STALENESS_S.",
            "Run: smarter-auth db migrate. If it was disabled:"
            f" ALTER TABLE {table} ENABLE TRIGGER {trigger}, in the platform's schema.",
        )


async def _listening(database: Database) -> AsyncIterator[Finding]:
    settings = database.settings
    if not listens(settings):
        yield Finding(
            "warning",
            "listen",
            f"Notifications do not arrive: a revocation takes up to HEARTBEAT_S ({settings.heartbeat_s:g} s).",
            f"{_PAST_THE_POOLER}.",
        )
        return
    where = mask_url(database.listen_url)
    heard = await _reached("listen", is_heard(database.listen_url, database.store.notify, timeout_s=PATIENCE_S))
    if isinstance(heard, Finding):
        yield heard
    elif not heard:
        yield Finding(
            "problem",
            "listen",
            f"A notification did not arrive at {where}: is that a transaction pooler?",
            f"{_PAST_THE_POOLER}, and SMARTER_AUTH_STATEMENT_CACHE_SIZE=0 if DATABASE_URL leads through it.",
        )


async def _heartbeat(database: Database) -> AsyncIterator[Finding]:
    settings = database.settings

    async def beat() -> tuple[str, float]:
        async with open_wire(
            database.listen_url,
            lambda _: None,
            listens=False,
            timeout_s=settings.query_timeout_s,
            statement_cache_size=settings.statement_cache_size,
        ) as wire:
            await wire.beat(None)  # The first one prepares the statement.
            sent_s = time.monotonic()
            return (await wire.beat(None)).server, time.monotonic() - sent_s

    answered = await _reached("heartbeat", beat())
    if isinstance(answered, Finding):
        yield answered
        return
    server, took_s = answered
    if (
        server != (await database.store.vitals()).server
    ):  # Read after the heartbeat, which renews the incarnation after a crash.
        yield Finding(
            "problem",
            "heartbeat",
            "SMARTER_AUTH_DATABASE_URL and SMARTER_AUTH_LISTEN_URL lead to different databases: changes are missed.",
            "Point both at the same database of the same primary.",
        )
    if took_s >= settings.heartbeat_s:
        yield Finding(
            "warning",
            "heartbeat",
            f"A heartbeat takes {took_s * 1000:.1f} ms, and HEARTBEAT_S is {settings.heartbeat_s * 1000:g} ms.",
            "Raise SMARTER_AUTH_HEARTBEAT_S, and SMARTER_AUTH_MAX_STALENESS_S with it, or move closer to the database.",
        )


async def _clock(database: Database) -> AsyncIterator[Finding]:
    before_s = time.time()
    there_s = await database.store.now_s()
    after_s = time.time()
    skew_s = there_s - (before_s + after_s) / 2
    if abs(skew_s) > MAX_SKEW_S + (after_s - before_s) / 2:
        what = "ahead of" if skew_s > 0 else "behind"
        yield Finding(
            "warning",
            "clock",
            f"The database's clock is {abs(skew_s):.1f} s {what} this machine's. Keys expire by the machine's clock.",
            "Synchronise both clocks with NTP (chrony, systemd-timesyncd).",
        )


async def _connections(database: Database) -> AsyncIterator[Finding]:
    needed, left = database.settings.pool_max + 1, database.vitals.connections_left
    if left < needed:
        yield Finding(
            "warning",
            "connections",
            f"The database has {counted(left, 'connection')} left, and a worker may take {needed}: POOL_MAX and one to"
            " listen.",
            "Lower SMARTER_AUTH_POOL_MAX, raise the server's max_connections, or put a pooler in between.",
        )


DATABASE_CHECKS: Sequence[Callable[[Database], AsyncIterator[Finding]]] = (
    _platform,
    _grants,
    _statements,
    _triggers,
    _listening,
    _heartbeat,
    _clock,
    _connections,
)


async def check_cache(settings: Settings) -> AsyncIterator[Finding]:
    """Yield findings about the shared cache: whether it stores values, fast enough, and counts failed attempts."""
    from smarter_auth_mw.cache.backends import backend_of  # Late: no other command needs a cache.

    url = settings.cache_url.get_secret_value()
    try:
        backend = backend_of(url)
    except SmarterAuthError as error:
        yield Finding("problem", "cache", error.message, error.hint)
        return
    if backend is None:
        return
    try:
        async with asyncio.timeout(PATIENCE_S):
            took_s = await _kept_for(backend)
    except Exception as error:
        yield Finding(
            "problem",
            "cache",
            f"The shared cache {mask_url(url)} does not answer correctly ({cause_of(error)}).",
            "Check that it runs there, that SMARTER_AUTH_CACHE_URL is right, and that this user may read and write.",
            3,
        )
        return
    finally:
        await backend.close()
    if took_s >= LONGEST_DEADLINE_S:
        yield Finding(
            "problem",
            "cache",
            f"The shared cache takes {took_s * 1000:.0f} ms to answer. Workers do not use it: they wait for "
            f"{LONGEST_DEADLINE_S * 1000:g} ms at most.",
            "Use one nearer to the workers, or none: SMARTER_AUTH_CACHE_URL=memory://",
        )
    if settings.failed_attempts:
        async for finding in _counting(url):
            yield finding


async def _kept_for(backend: BaseCache) -> float:
    """Return the seconds that a write and a read take; raises the backend's error."""
    key, value = f"smarter_auth:doctor:{uuid4().hex}", b"doctor"
    await backend.set(key, value, ttl=1, timeout=0)
    sent_s = time.monotonic()
    if await backend.get(key, timeout=0) != value:
        raise ValueError("It has something else.")
    return time.monotonic() - sent_s


async def _counting(url: str) -> AsyncIterator[Finding]:
    from smarter_auth_mw.authentication.throttle import try_counting

    try:
        async with asyncio.timeout(PATIENCE_S):
            await try_counting(url)
    except Exception as error:
        yield Finding(
            "warning",
            "throttle",
            f"The shared cache cannot count failed attempts ({cause_of(error)}): each worker counts by itself.",
            "Allow its user to run scripts: EVALSHA and SCRIPT LOAD, INCRBY and EXPIRE, on keys below smarter_auth:",
        )


def check_metrics(settings: Settings) -> Iterator[Finding]:
    """Yield a finding if a scrape may show the metrics of only one of several workers."""
    from smarter_auth_mw.metrics import multiprocess  # Late: it knows all that is counted.

    is_one_of_several = os.environ.get("WEB_CONCURRENCY", "1") not in ("", "1")
    if settings.metrics_path and is_one_of_several and multiprocess.directory() is None:
        yield Finding(
            "warning",
            "metrics",
            f"SMARTER_AUTH_METRICS_PATH={settings.metrics_path} shows the counters of one worker.",
            f"With several workers behind a port, set {multiprocess.VARIABLE} to an empty directory,"
            " or start them with: smarter-auth serve --workers N",
        )


def check_proxies(settings: Settings) -> Iterator[Finding]:
    """Yield findings about settings that let any client claim an address."""
    for network in settings.trusted_proxies:
        if network != UNIX and ipaddress.ip_network(network, strict=False).prefixlen == 0:
            yield Finding(
                "problem",
                "proxies",
                f"SMARTER_AUTH_TRUSTED_PROXIES={network} trusts every peer: any client can claim any address.",
                "List only the addresses of your proxies.",
            )
    if os.environ.get("FORWARDED_ALLOW_IPS", "").strip() == "*":
        yield Finding(
            "warning",
            "proxies",
            "FORWARDED_ALLOW_IPS=* makes uvicorn and gunicorn trust forwarded headers from any peer.",
            "Remove it, and start uvicorn with --no-proxy-headers, as smarter-auth serve does.",
        )


async def _reached(check: str, asked: Awaitable[T]) -> T | Finding:
    try:
        return await asked
    except SmarterAuthError as error:
        return Finding("problem", check, error.message, error.hint, error.exit_code)
