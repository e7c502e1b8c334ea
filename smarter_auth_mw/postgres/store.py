"""The PostgreSQL store: the one statement that answers a request, and the transactions of the write side."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from sys import intern
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from smarter_auth_mw.domain import Alias, Binding, Bindings, Protection, Resource, Target
from smarter_auth_mw.errors import InvalidReferenceError, RefusedError
from smarter_auth_mw.observers.audit import RequestEvent
from smarter_auth_mw.observers.usage import Batch
from smarter_auth_mw.postgres import privileges
from smarter_auth_mw.postgres.faults import WrongServerError, read_only
from smarter_auth_mw.postgres.lists import Lists
from smarter_auth_mw.postgres.operators import OperatorSessions
from smarter_auth_mw.postgres.pool import Pool, PoolSizes
from smarter_auth_mw.postgres.queries import QUERIES
from smarter_auth_mw.postgres.reports import KeyCounts
from smarter_auth_mw.postgres.storable import is_storable
from smarter_auth_mw.postgres.transaction import Transaction

_OTHER_SERVER = "{where} is not the server that answers the heartbeats, or another one was promoted since."
_TWO_SERVERS = (
    "Point SMARTER_AUTH_DATABASE_URL and SMARTER_AUTH_LISTEN_URL at the same primary. Remove one that was replaced."
)

MEETING_S, MEET_EVERY_S = 0.5, 0.05
"""The time that a look-up waits for a heartbeat from the server that answers it, and the pause between attempts."""

_AS_OWNER = "Run it as the owner of the schema: SMARTER_AUTH_DATABASE_URL=postgresql://OWNER@HOST/DATABASE"

_MAX_AGE_S = 7 * 86_400.0
"""The database accepts nothing older, so older batches count as this old."""

# aiosql's bound methods check each connection for a pool, which costs as much as the query.
_READ_BINDINGS = QUERIES.read_bindings.sql
_READ_ALIAS = QUERIES.read_alias.sql
_READ_TOKEN = QUERIES.read_token.sql
_HEAD, _KEY = slice(9), slice(-10, None)
"""The resource's columns and the key's, by place, since access by name takes five times as long."""
_PROTECTIONS = {protection.value: protection for protection in Protection}


@dataclass(frozen=True, slots=True)
class Read:
    """The facts for a decision, the snapshot they were read in (``pg_snapshot`` as text), and their sources.

    ``resource:KIND:LOOKUP`` changes with the resource's own row, ``bindings:ID`` with its bindings, ``key:UUID`` with a
    key or its tokens, ``account:NAME`` where a statement changed many of these at once. An unknown resource
    depends on ``resource:KIND:LOOKUP`` and ``kind:KIND``, which changes when many resources of the kind are added.
    """

    bindings: Bindings
    snapshot: str
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Vitals:
    """The state of the database: the server's name, the current role, and possible problems.

    ``platform_missing`` and ``platform_gone`` are triggers and columns of an attached platform's tables. A crash
    changes the server's name, so that caches notice it, unless ``loses_its_name`` is False.
    """

    server: str
    role: str
    missing_triggers: Sequence[str]
    platform_missing: Sequence[str]
    platform_gone: Sequence[str]
    loses_its_name: bool
    connections_left: int


class Store:
    """The database, as the rest of the package uses it."""

    def __init__(self, pool: Pool) -> None:
        self.is_followed: Callable[[str], bool] = lambda _: True
        """Returns whether to read from the server with this incarnation, the first part of its name."""
        self._pool = pool

    async def read(self, target: Target) -> Read:
        """Read everything that a decision about the target needs, in one statement and one round trip.

        ``bindings.resource`` is the registered spelling, which may differ from the target's in ``-`` and ``_``; the
        caller handles that. Raises ``UnavailableError``, ``SchemaError``, and ``InvalidReferenceError`` for
        text that no database can hold.
        """
        if isinstance(target.names, Alias):
            return await self._read_alias(target.names)
        lookup = target.names.lookup_ref
        check_storable(lookup)
        return _read(target.names, await self._fetch(_READ_BINDINGS, target.names.kind, lookup))

    async def _read_alias(self, alias: Alias) -> Read:
        account = "" if alias.form == "domain" else alias.account or ""
        value = alias.value if alias.form == "domain" else alias.value.replace("_", "-")
        check_storable(account + value)
        return _read_claimants(alias.kind, await self._fetch(_READ_ALIAS, alias.kind, alias.form, account, value))

    @property
    def pool_sizes(self) -> PoolSizes:
        return self._pool.sizes

    async def check(self) -> None:
        """Run a look-up as for a request, of nothing; raises the errors of a look-up."""
        await self._fetch(_READ_BINDINGS, "", "")

    async def domains(self) -> list[tuple[str, str]]:
        """Return every custom domain, with the kind of the resource that it belongs to."""
        async with self._pool.acquire() as connection:
            return [(row["domain"], row["kind"]) async for row in QUERIES.list_domains(connection)]

    async def protected_kinds(self) -> frozenset[str]:
        """Return the kinds that have a protected resource."""
        async with self._pool.acquire() as connection:
            return frozenset([row["kind"] async for row in QUERIES.list_protected_kinds(connection)])

    async def may_change_audit(self) -> bool:
        """Return whether the current role could rewrite the audit."""
        async with self._pool.acquire() as connection:
            return bool(await QUERIES.may_change_audit(connection))

    async def standing(self) -> privileges.Standing:
        """Return the grade of the current role, and the privileges that it lacks."""
        async with self._pool.acquire() as connection:
            return await privileges.standing(connection)

    async def vitals(self) -> Vitals:
        """Return the state of the database."""
        async with self._pool.acquire() as connection:
            found = await QUERIES.read_vitals(connection)
        return Vitals(**found)

    async def now_s(self) -> float:
        """Return the database's clock, as Unix time."""
        async with self._pool.acquire() as connection:
            return float(await QUERIES.read_clock(connection))

    async def notify(self, channel: str, payload: str) -> None:
        """Notify all listeners."""
        async with self._pool.acquire() as connection:
            await QUERIES.notify(connection, channel=channel, payload=payload)

    async def read_token(self, digest: bytes) -> Read:
        """Read the key of a token as the one binding of a resource of its own, ``token:DIGEST``."""
        return _read_token(Resource("token", digest.hex()), await self._fetch(_READ_TOKEN, digest))

    async def _fetch(self, query: str, *arguments: Any) -> Sequence[Any]:
        """Read from the server that is followed; after a restart, wait until the next heartbeat has met it."""
        meets_until_s = math.inf
        while True:
            try:
                rows = await self._pool.fetch(query, *arguments)
                if rows[0]["is_standby"]:
                    raise read_only(self._pool.where)
                if self.is_followed(rows[0]["incarnation"]):
                    return rows
                if time.monotonic() >= meets_until_s:
                    raise WrongServerError(_OTHER_SERVER.format(where=self._pool.where), hint=_TWO_SERVERS)
            except WrongServerError:
                self._pool.expire()
                raise
            if meets_until_s == math.inf:
                meets_until_s = time.monotonic() + MEETING_S
                self._pool.expire()
            await asyncio.sleep(MEET_EVERY_S)

    async def secret(self) -> bytes:
        """Return the secret that signs shared cache entries; it changes with each epoch."""
        async with self._pool.acquire() as connection:
            secret: bytes = await QUERIES.read_secret(connection)
        return secret

    async def purge_changes(self, keep: timedelta) -> int:
        """Delete changes older than ``keep`` and return how many; a heartbeat that missed one reports it.

        Any number of workers may call this at any time. Workers that are disconnected for longer than ``keep`` must
        flush their cache.
        """
        async with self._pool.acquire() as connection:
            await QUERIES.settle_platform(connection)
            purged: int = await QUERIES.purge_changes(connection, keep=keep)
        return purged

    async def write_usage(self, batch: Batch) -> None:
        """Add counts, and record the last use of tokens; writing a batch twice changes nothing."""
        series = list(batch.counts)
        async with self._pool.acquire() as connection:
            await QUERIES.write_usage(
                connection,
                batch=batch.batch_id,
                age=timedelta(seconds=min(batch.age_s, _MAX_AGE_S)),
                kinds=[one.kind for one in series],
                refs=[one.ref for one in series],
                key_ids=[one.key_id for one in series],
                token_keys=[one.token_key for one in series],
                outcomes=[one.outcome for one in series],
                counts=list(batch.counts.values()),
                digests=[one.digest or None for one in series],
            )

    async def write_requests(self, events: Sequence[RequestEvent], batch_id: UUID | None = None) -> None:
        """Append requests to the audit; writing a batch twice changes nothing."""
        async with self._pool.acquire() as connection:
            await QUERIES.write_requests(
                connection,
                batch=batch_id or uuid4(),
                ages_s=[min(event.age_s, _MAX_AGE_S) for event in events],
                peers=[event.peer for event in events],
                actions=[event.action for event in events],
                kinds=[event.kind for event in events],
                refs=[event.ref for event in events],
                accounts=[event.account for event in events],
                key_ids=[event.key_id for event in events],
                reasons=[event.reason for event in events],
                facts=[event.facts_json for event in events],
            )

    async def drop_old_usage(self) -> int:
        """Drop outdated roll-ups, and return the number of partitions. Any worker may do this."""
        async with self._pool.acquire() as connection:
            dropped: int = await QUERIES.drop_old_usage(connection)
        return dropped

    async def count_keys(self, most: int) -> KeyCounts:
        """Count the keys that expire soon, are being rotated or have not been used for long, up to ``most`` of each."""
        async with self._pool.acquire() as connection:
            return KeyCounts(**await QUERIES.count_keys(connection, most=most))

    async def prune_audit(self, before: datetime, actor: str) -> int:
        """Delete older audit events, record the deletion, and return how many. Needs the owner of the schema."""
        async with self.transaction() as transaction:
            try:
                return await transaction.prune_audit(before, actor)
            except asyncpg.InsufficientPrivilegeError:
                raise RefusedError("The audit is append-only for this role.", hint=_AS_OWNER) from None

    @asynccontextmanager
    async def lists(self) -> AsyncIterator[Lists]:
        """Open the statements of lists, in a read-only transaction."""
        async with (
            self._pool.acquire() as connection,
            connection.transaction(isolation="read_committed", readonly=True),
        ):
            lists = Lists(connection)
            await lists.plan_by_index()
            yield lists

    @asynccontextmanager
    async def operator_sessions(self) -> AsyncIterator[OperatorSessions]:
        """Open the statements about operators for a manager role, each call in its own transaction."""
        async with self._pool.acquire() as connection:
            yield OperatorSessions(connection)

    @asynccontextmanager
    async def transaction(self, scope: str | None = None) -> AsyncIterator[Transaction]:
        """Run the block in one transaction of the write side, for one account or all: completely or not at all."""
        async with self.bare_transaction() as connection:
            yield Transaction(connection, scope)

    @asynccontextmanager
    async def bare_transaction(self) -> AsyncIterator[Any]:
        """Yield a connection in a transaction, for statements about many records."""
        async with self._pool.acquire() as connection:
            try:
                # Not the server's default isolation: release() must see recent commits.
                async with connection.transaction(isolation="read_committed"):
                    yield connection
            except asyncpg.InsufficientPrivilegeError:
                raise await privileges.refusal(connection) from None


def statements() -> tuple[str, str, str]:
    """Return the statements of ``Store.read``: by reference, by alias, and by a token's digest."""
    return _READ_BINDINGS, _READ_ALIAS, _READ_TOKEN


def check_storable(text: str) -> None:
    """Raise InvalidReferenceError for text that no database can hold."""
    if not is_storable(text):
        raise InvalidReferenceError("The reference contains a character that is not allowed.")


def _read_claimants(kind: str, rows: Sequence[Any]) -> Read:
    """Return the resource of an alias; for none or several, a resource without a reference, unknown and closed."""
    directory, head = f"directory:{kind}", rows[0]
    if head["ref"] is None:
        return Read(Bindings(Resource(kind, "")), head["snapshot"], (directory,))
    if len({row["ref"] for row in rows}) > 1:
        closed = Bindings(Resource(kind, ""), head["account"], Protection.DECLARED)
        return Read(closed, head["snapshot"], (directory,))
    read = _read(Resource(kind, head["ref"]), rows)
    return Read(read.bindings, read.snapshot, (directory, *read.sources))


def _read(asked: Resource, rows: Sequence[Any]) -> Read:
    snapshot, _, _, number, ref, account, protection, on_error, more_sources = rows[0][_HEAD]
    by_itself = f"resource:{asked.lookup}"
    if ref is None:
        return Read(Bindings(asked), snapshot, (by_itself, f"kind:{asked.kind}"))
    bindings, key_sources = _bindings(rows)
    resource = asked if ref == asked.ref else Resource(asked.kind, ref)
    facts = Bindings(resource, intern(account), _PROTECTIONS[protection], on_error, bindings)
    sources = [by_itself, intern(f"account:{account}"), *(more_sources or ())]
    if number is not None:
        sources.append(f"bindings:{number}")
    sources += key_sources
    return Read(facts, snapshot, tuple(filter(None, dict.fromkeys(sources))))


def _read_token(own: Resource, rows: Sequence[Any]) -> Read:
    bindings, sources = _bindings(rows)
    if not bindings:
        return Read(Bindings(own), rows[0]["snapshot"], ())
    facts = Bindings(own, bindings[0].account, Protection.BOUND, bindings=bindings)
    return Read(facts, rows[0]["snapshot"], tuple(sources))


def _bindings(rows: Sequence[Any]) -> tuple[tuple[Binding, ...], list[str]]:
    """Return the bindings of these rows, and the sources of their keys."""
    bindings: list[Binding] = []
    sources: list[str] = []
    account = by_account = ""
    for row in rows:
        key_id, name, owner, is_active, is_revoked, owner_is_active, digest, token_key, expires_at_s, own = row[_KEY]
        if key_id is None:
            continue
        if owner != account:  # Keys of one resource usually share it: one string for all of them.
            account, by_account = intern(owner), intern(f"account:{owner}")
        if expires_at_s == math.inf:
            expires_at_s = math.inf  # One object for all.
        bindings.append(
            Binding(key_id, name, account, digest, token_key, is_active, is_revoked, owner_is_active, expires_at_s)
        )
        sources += own or (f"key:{key_id}", by_account)
    return tuple(bindings), sources
