"""PostgreSQL: the one statement that answers a request, and the transactions of the write side."""

from __future__ import annotations

import math
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

_OTHER_SERVER = "{where} is not the server that LISTEN_URL leads to."
_TWO_SERVERS = "Let SMARTER_AUTH_DATABASE_URL and SMARTER_AUTH_LISTEN_URL lead to the same primary."

_AS_OWNER = "Run it as the owner of the schema: SMARTER_AUTH_DATABASE_URL=postgresql://OWNER@HOST/DATABASE"

_MAX_AGE_S = 7 * 86_400.0
"""The database takes nothing older: what had to wait for longer counts as so old."""

# Bound methods of aiosql look for a pool in every connection they are given, which costs as much as the query.
_READ_BINDINGS = QUERIES.read_bindings.sql
_READ_ALIAS = QUERIES.read_alias.sql
_READ_TOKEN = QUERIES.read_token.sql
_KEY = slice(-10, None)
"""The columns of these that are a key's: by place, since a look-up by name costs a row five times as much."""


@dataclass(frozen=True, slots=True)
class Read:
    """The facts of a decision, the snapshot they were read in (``pg_snapshot`` as text), and what they depend on.

    ``resource:KIND:LOOKUP`` changes with the resource's own row, ``bindings:ID`` with its bindings, ``key:UUID`` with a
    key or its tokens, ``account:NAME`` where a statement changed many of these at once. What is not known depends on
    ``resource:KIND:LOOKUP`` and on ``kind:KIND``, which changes where many resources of the kind were added at once.
    """

    bindings: Bindings
    snapshot: str
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the database says of itself: who answers, as whom we work there, and what may be wrong with it.

    ``platform_missing`` and ``platform_gone`` are triggers and columns of an attached platform's tables. A crash takes
    away the server's name, which tells caches of the crash, unless ``loses_its_name`` is False.
    """

    server: str
    role: str
    missing_triggers: Sequence[str]
    platform_missing: Sequence[str]
    platform_gone: Sequence[str]
    loses_its_name: bool
    connections_left: int


class Store:
    """The database as the rest of the house sees it."""

    def __init__(self, pool: Pool) -> None:
        self.is_followed: Callable[[str], bool] = lambda _: True
        """Whether the server of this incarnation is the one to read from: its name begins with that."""
        self._pool = pool

    async def read(self, target: Target) -> Read:
        """All that a decision about the target needs: one statement, one round trip.

        ``bindings.resource`` is the registered spelling, which may differ from the target's in ``-`` and ``_``: the
        caller decides what that means. Raises ``UnavailableError``, ``SchemaError``, and ``InvalidReferenceError`` for
        text that no database can hold.
        """
        if isinstance(target.names, Alias):
            return await self._read_alias(target.names)
        lookup = target.names.lookup_ref
        _check_storable(lookup)
        return _read(target.names, await self._fetch(_READ_BINDINGS, target.names.kind, lookup))

    async def _read_alias(self, alias: Alias) -> Read:
        account = "" if alias.form == "domain" else alias.account or ""
        value = alias.value if alias.form == "domain" else alias.value.replace("_", "-")
        _check_storable(account + value)
        return _read_claimants(alias.kind, await self._fetch(_READ_ALIAS, alias.kind, alias.form, account, value))

    @property
    def pool_sizes(self) -> PoolSizes:
        return self._pool.sizes

    async def check(self) -> None:
        """Read as for a request, of nothing; raises what such a look-up would."""
        await self._fetch(_READ_BINDINGS, "", "")

    async def domains(self) -> list[tuple[str, str]]:
        """Every custom domain, with the kind of the resource that it belongs to."""
        async with self._pool.acquire() as connection:
            return [(row["domain"], row["kind"]) async for row in QUERIES.list_domains(connection)]

    async def protected_kinds(self) -> frozenset[str]:
        """The kinds that have a protected resource."""
        async with self._pool.acquire() as connection:
            return frozenset([row["kind"] async for row in QUERIES.list_protected_kinds(connection)])

    async def may_change_audit(self) -> bool:
        """Whether the role that this works as could rewrite the audit."""
        async with self._pool.acquire() as connection:
            return bool(await QUERIES.may_change_audit(connection))

    async def standing(self) -> privileges.Standing:
        """The grade of the role that this works as, and what it lacks for that."""
        async with self._pool.acquire() as connection:
            return await privileges.standing(connection)

    async def vitals(self) -> Vitals:
        """What the database says of itself."""
        async with self._pool.acquire() as connection:
            found = await QUERIES.read_vitals(connection)
        return Vitals(**found)

    async def now_s(self) -> float:
        """The database's clock, as Unix time."""
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
        try:
            rows = await self._pool.fetch(query, *arguments)
            if rows[0]["is_standby"]:
                raise read_only(self._pool.where)
            if not self.is_followed(rows[0]["incarnation"]):
                raise WrongServerError(_OTHER_SERVER.format(where=self._pool.where), hint=_TWO_SERVERS)
        except WrongServerError:
            self._pool.expire()
            raise
        return rows

    async def secret(self) -> bytes:
        """What signs the entries that several processes share; another one after each new epoch."""
        async with self._pool.acquire() as connection:
            secret: bytes = await QUERIES.read_secret(connection)
        return secret

    async def purge_changes(self, keep: timedelta) -> int:
        """Delete changes older than ``keep`` and return how many; a heartbeat that missed one reports it.

        Harmless at any time, by any number of workers; ``keep`` is longer than a worker may be cut off without having
        to flush its cache.
        """
        async with self._pool.acquire() as connection:
            await QUERIES.settle_platform(connection)
            purged: int = await QUERIES.purge_changes(connection, keep=keep)
        return purged

    async def write_usage(self, batch: Batch) -> None:
        """Add counts, and note when tokens were used last; a batch that was written already changes nothing."""
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
        """Append requests to the audit; a batch that was written already changes nothing."""
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
        """Drop the roll-ups that are past their time, and tell how many partitions that were; any worker may."""
        async with self._pool.acquire() as connection:
            dropped: int = await QUERIES.drop_old_usage(connection)
        return dropped

    async def count_keys(self, most: int) -> KeyCounts:
        """Count the keys that expire soon, are being rotated or have not been used for long, up to ``most`` of each."""
        async with self._pool.acquire() as connection:
            return KeyCounts(**await QUERIES.count_keys(connection, most=most))

    async def prune_audit(self, before: datetime, actor: str) -> int:
        """Forget audit events that are older, write that down, and tell how many; for the owner of the schema."""
        async with self.transaction() as transaction:
            try:
                return await transaction.prune_audit(before, actor)
            except asyncpg.InsufficientPrivilegeError:
                raise RefusedError("The audit is append-only for this role.", hint=_AS_OWNER) from None

    @asynccontextmanager
    async def lists(self) -> AsyncIterator[Lists]:
        """Pages of keys, resources and the audit, in one transaction that only reads."""
        async with (
            self._pool.acquire() as connection,
            connection.transaction(isolation="read_committed", readonly=True),
        ):
            lists = Lists(connection)
            await lists.plan_by_index()
            yield lists

    @asynccontextmanager
    async def operator_sessions(self) -> AsyncIterator[OperatorSessions]:
        """What a manager role may do with operators, each call a transaction of its own."""
        async with self._pool.acquire() as connection:
            yield OperatorSessions(connection)

    @asynccontextmanager
    async def transaction(self, scope: str | None = None) -> AsyncIterator[Transaction]:
        """One transaction of the write side, of one account or of all: all of what is done in the block, or nothing."""
        async with self.bare_transaction() as connection:
            yield Transaction(connection, scope)

    @asynccontextmanager
    async def bare_transaction(self) -> AsyncIterator[Any]:
        """Return the connection itself in a transaction, for statements about many records."""
        async with self._pool.acquire() as connection:
            try:
                # Not at the server's default isolation: release() must see what was committed a moment ago.
                async with connection.transaction(isolation="read_committed"):
                    yield connection
            except asyncpg.InsufficientPrivilegeError:
                raise await privileges.refusal(connection) from None


def statements() -> tuple[str, str, str]:
    """The statements that ``Store`` reads by: of a reference, of an alias, and of a token's digest."""
    return _READ_BINDINGS, _READ_ALIAS, _READ_TOKEN


def _check_storable(text: str) -> None:
    if not is_storable(text):
        raise InvalidReferenceError("The reference holds a character that no reference can have.")


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
    head = rows[0]
    by_itself = f"resource:{asked.lookup}"
    if head["ref"] is None:
        return Read(Bindings(asked), head["snapshot"], (by_itself, f"kind:{asked.kind}"))
    bindings, of_keys = _bindings(rows)
    facts = Bindings(
        Resource(asked.kind, head["ref"]),
        intern(head["account"]),
        Protection(head["protection"]),
        head["on_error"],
        bindings,
    )
    sources = [by_itself, intern(f"account:{head['account']}"), *(head["sources"] or ())]
    if head["id"] is not None:
        sources.append(f"bindings:{head['id']}")
    sources += of_keys
    return Read(facts, head["snapshot"], tuple(filter(None, dict.fromkeys(sources))))


def _read_token(own: Resource, rows: Sequence[Any]) -> Read:
    bindings, sources = _bindings(rows)
    if not bindings:
        return Read(Bindings(own), rows[0]["snapshot"], ())
    facts = Bindings(own, bindings[0].account, Protection.BOUND, bindings=bindings)
    return Read(facts, rows[0]["snapshot"], tuple(sources))


def _bindings(rows: Sequence[Any]) -> tuple[tuple[Binding, ...], list[str]]:
    """The bindings of these rows, and what their keys depend on: the platform's tell it themselves."""
    bindings: list[Binding] = []
    sources: list[str] = []
    for row in rows:
        (
            key_id,
            name,
            account,
            is_active,
            is_revoked,
            owner_is_active,
            digest,
            token_key,
            expires_at_s,
            account_sources,
        ) = row[_KEY]
        if key_id is not None:
            expires_at_s = math.inf if expires_at_s == math.inf else expires_at_s  # One object for all.
            bindings.append(
                Binding(
                    key_id,
                    name,
                    intern(account),
                    digest,
                    token_key,
                    is_active,
                    is_revoked,
                    owner_is_active,
                    expires_at_s,
                )
            )
            sources += account_sources or (f"key:{key_id}", intern(f"account:{account}"))
    return tuple(bindings), sources
