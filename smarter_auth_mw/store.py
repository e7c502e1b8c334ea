"""PostgreSQL: the pool, the one statement that answers a request, and the transactions of the write side."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from sys import intern
from typing import Any, NamedTuple

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from smarter_auth_mw import privileges
from smarter_auth_mw.audit import RequestEvent
from smarter_auth_mw.database import CONNECT_TIMEOUT_S, QUERIES, READ_COMMITTED, SCHEMA, close, connecting, reported
from smarter_auth_mw.domain import Alias, Binding, Bindings, Protection, Resource, Target
from smarter_auth_mw.errors import InvalidReferenceError, RefusedError, SchemaError, UnavailableError
from smarter_auth_mw.inputs import is_storable
from smarter_auth_mw.records import Records
from smarter_auth_mw.reports import Reports
from smarter_auth_mw.settings import mask_url
from smarter_auth_mw.usage import Batch

_TWO_SERVERS = "Let SMARTER_AUTH_DATABASE_URL and SMARTER_AUTH_LISTEN_URL lead to the same primary."

# Our statements find their rows by index: compiling them, or planning them anew, costs more than it saves.
_SESSION = {"jit": "off", "plan_cache_mode": "force_generic_plan"} | READ_COMMITTED

_AS_OWNER = "Run it as the owner of the schema: SMARTER_AUTH_DATABASE_URL=postgresql://OWNER@HOST/DATABASE"

# Bound methods of aiosql look for a pool in every connection they are given, which costs as much as the query.
_READ_BINDINGS = QUERIES.read_bindings.sql
_READ_ALIAS = QUERIES.read_alias.sql
_READ_TOKEN = QUERIES.read_token.sql


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


class Pool:
    """Connections to one database, and how it is called in messages.

    ``kept_max`` of them stay in our hands when nobody waits: to take one from asyncpg and to give it back costs half as
    much as the query.
    """

    def __init__(
        self, connections: asyncpg.Pool[asyncpg.Record], where: str, query_timeout_s: float, kept_max: int = 0
    ) -> None:
        self.where = where
        self._connections = connections
        self._query_timeout_s = query_timeout_s
        self._kept_max = kept_max
        self._kept: list[Any] = []
        self._waiting = 0

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Any]:
        """A connection, for as long as the block lasts; its errors are ours."""
        with reported(self.where):
            connection = await self._take()
            try:
                yield connection
            except BaseException as error:
                if isinstance(error, TimeoutError):
                    connection.terminate()  # Or we would wait as long again for a server that is frozen.
                await self._connections.release(connection)
                raise
            if self._waiting or len(self._kept) >= self._kept_max:
                await self._connections.release(connection)
            else:
                self._kept.append(connection)

    async def _take(self) -> Any:
        while self._kept:
            connection = self._kept.pop()
            if not connection.is_closed():
                return connection
            await self._connections.release(connection)
        self._waiting += 1
        try:
            return await self._connections.acquire(timeout=self._query_timeout_s)
        finally:
            self._waiting -= 1

    async def expire(self) -> None:
        """Use none of these connections any more: the next ones find the primary."""
        await self._connections.expire_connections()
        await self._release_kept()

    async def close(self) -> None:
        """Close them all, whatever state they are in, in bounded time."""
        with reported(self.where):
            await self._release_kept()
        await close(self._connections)

    @property
    def sizes(self) -> PoolSizes:
        idle = self._connections.get_idle_size() + len(self._kept)
        return PoolSizes(self._connections.get_size() - idle, idle)

    async def _release_kept(self) -> None:
        while self._kept:
            await self._connections.release(self._kept.pop())


class PoolSizes(NamedTuple):
    """How many connections are open, and what they do."""

    busy: int
    idle: int


@asynccontextmanager
async def open_pool(
    url: str,
    *,
    pool_min: int = 1,
    pool_max: int = 8,
    query_timeout_s: float = 2,
    statement_cache_size: int = 100,
) -> AsyncIterator[Pool]:
    """A pool of connections to the primary, each checked to be of a schema that this release works on.

    ``statement_cache_size`` 0 stands for a transaction pooler, which knows neither prepared statements nor our session
    settings. Raises ``UnavailableError`` or ``SchemaError``.
    """
    where = mask_url(url)
    with connecting(where):
        connections = await asyncpg.create_pool(
            url,
            min_size=pool_min,
            max_size=pool_max,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=query_timeout_s,
            statement_cache_size=statement_cache_size,
            target_session_attrs=SessionAttribute.read_write,
            server_settings={"application_name": "smarter_auth"} | (_SESSION if statement_cache_size else {}),
            init=_check_schema,
            reset=_keep_session,
        )
    pool = Pool(connections, where, query_timeout_s, pool_min)
    try:
        yield pool
    finally:
        await pool.close()


async def _check_schema(connection: Any) -> None:
    """Refuse a schema that this release does not know; one step ahead may say that it still serves us."""
    found = await QUERIES.read_schema(connection)
    if found is None or found["version"] is None:
        raise SchemaError()
    if found["version"] < SCHEMA:
        raise SchemaError(f"The database has schema {found['version']:04}; this release works on {SCHEMA:04}.")
    if found["serves_from"] > SCHEMA:
        raise SchemaError(
            f"The database has schema {found['version']:04}, too new for this release, which knows {SCHEMA:04}.",
            hint="Upgrade smarter_auth_mw: pip install -U smarter_auth_mw",
        )


async def _keep_session(_: Any) -> None:
    """Nothing of ours changes a session, so that asyncpg's reset would be a round trip for nothing."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the database says of itself: who answers, as whom we work there, and what may be wrong with it.

    ``platform_missing`` and ``platform_gone`` are triggers and columns of an attached platform's tables.
    """

    server: str
    role: str
    missing_triggers: Sequence[str]
    platform_missing: Sequence[str]
    platform_gone: Sequence[str]
    connections_left: int


class Store:
    """The database as the rest of the house sees it."""

    def __init__(self, pool: Pool) -> None:
        self.is_followed: Callable[[str], bool] = lambda _: True
        """Whether the server that was started then is the one to read from: its name begins with that."""
        self._pool = pool

    async def read(self, target: Target) -> Read:
        """All that a decision about the target needs: one statement, one round trip.

        ``bindings.resource`` is the registered spelling, which may differ from the target's in ``-`` and ``_``: whoever
        asks decides what that means. Raises ``UnavailableError``, ``SchemaError``, and ``InvalidReferenceError`` for
        text that no database can hold.
        """
        if isinstance(target.names, Alias):
            return await self._read_alias(target.names)
        lookup = target.names.lookup.removeprefix(f"{target.names.kind}:")
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

    async def lacking_privileges(self) -> list[str]:
        """What the running role has to be allowed by the schema, and is not."""
        async with self._pool.acquire() as connection:
            return await privileges.lacking(connection)

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
        """Notify whoever listens."""
        async with self._pool.acquire() as connection:
            await QUERIES.notify(connection, channel=channel, payload=payload)

    async def read_token(self, digest: bytes) -> Read:
        """The same for a token by itself: to ``token:DIGEST``, a resource of its own, its key is bound."""
        return _read_token(Resource("token", digest.hex()), await self._fetch(_READ_TOKEN, digest))

    async def _fetch(self, query: str, *arguments: Any) -> Sequence[Any]:
        async with self._pool.acquire() as connection:
            rows: Sequence[Any] = await connection.fetch(query, *arguments)
        if rows[0]["is_standby"]:
            await self._pool.expire()
            raise UnavailableError(f"{self._pool.where} is read-only: a standby, or a role that may only read.")
        if not self.is_followed(rows[0]["started"]):
            await self._pool.expire()
            raise UnavailableError(f"{self._pool.where} is not the server whose changes are heard.", hint=_TWO_SERVERS)
        return rows

    async def secret(self) -> bytes:
        """What signs the entries that several processes share; another one after each new epoch."""
        async with self._pool.acquire() as connection:
            secret: bytes = await QUERIES.read_secret(connection)
        return secret

    async def purge_changes(self, keep: timedelta) -> int:
        """Forget changes older than that, and tell how many; a heartbeat that missed one says so.

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
                age=timedelta(seconds=batch.age_s),
                kinds=[one.kind for one in series],
                refs=[one.ref for one in series],
                key_ids=[one.key_id for one in series],
                token_keys=[one.token_key for one in series],
                outcomes=[one.outcome for one in series],
                counts=list(batch.counts.values()),
                digests=[one.digest or None for one in series],
            )

    async def write_requests(self, events: Sequence[RequestEvent]) -> None:
        """Append requests to the audit."""
        async with self._pool.acquire() as connection:
            await QUERIES.write_requests(
                connection,
                ages_s=[event.age_s for event in events],
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

    async def prune_audit(self, before: datetime, actor: str) -> int:
        """Forget audit events that are older, write that down, and tell how many; for the owner of the schema."""
        async with self.transaction() as records:
            try:
                return await records.prune_audit(before, actor)
            except asyncpg.InsufficientPrivilegeError:
                raise RefusedError("The audit is append-only for this role.", hint=_AS_OWNER) from None

    @asynccontextmanager
    async def reports(self) -> AsyncIterator[Reports]:
        """What operators ask about the audit and usage."""
        async with self._pool.acquire() as connection, connection.transaction(isolation="read_committed"):
            yield Reports(connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Records]:
        """One transaction of the write side: all of what is done in the block, or nothing."""
        async with self.bare_transaction() as connection:
            yield Records(connection)

    @asynccontextmanager
    async def bare_transaction(self) -> AsyncIterator[Any]:
        """The same with the connection itself, for statements that are not those of single records."""
        # Not at the server's default isolation: release() must see what was committed a moment ago.
        async with self._pool.acquire() as connection, connection.transaction(isolation="read_committed"):
            yield connection


def statements() -> tuple[str, str, str]:
    """The statements that ``Store`` reads by: of a reference, of an alias, and of a token's digest."""
    return _READ_BINDINGS, _READ_ALIAS, _READ_TOKEN


def _check_storable(text: str) -> None:
    if not is_storable(text):
        raise InvalidReferenceError("The reference holds a character that no reference can have.")


def _read_claimants(kind: str, rows: Sequence[Any]) -> Read:
    """What an alias stands for: nothing and several are resources without a reference, unknown and closed."""
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
    bound = [row for row in rows if row["key_id"] is not None]
    facts = Bindings(
        Resource(asked.kind, head["ref"]),
        intern(head["account"]),
        Protection(head["protection"]),
        head["on_error"],
        tuple(map(_binding, bound)),
    )
    sources = [by_itself, intern(f"account:{head['account']}"), *(head["sources"] or ())]
    if head["id"] is not None:
        sources.append(f"bindings:{head['id']}")
    for row in bound:
        sources += _key_sources(row)
    return Read(facts, head["snapshot"], tuple(filter(None, dict.fromkeys(sources))))


def _key_sources(row: Any) -> Sequence[str]:
    """What a key depends on: the platform's tell it themselves."""
    return row["key_sources"] or (f"key:{row['key_id']}", intern(f"account:{row['key_account']}"))


def _read_token(own: Resource, rows: Sequence[Any]) -> Read:
    row = rows[0]
    if row["key_id"] is None:
        return Read(Bindings(own), row["snapshot"], ())
    facts = Bindings(own, row["key_account"], Protection.BOUND, bindings=(_binding(row),))
    return Read(facts, row["snapshot"], tuple(_key_sources(row)))


def _binding(row: Any) -> Binding:
    return Binding(
        key_id=row["key_id"],
        key_name=row["key_name"],
        account=intern(row["key_account"]),
        digest=row["digest"],
        token_key=row["token_key"],
        is_active=row["is_active"],
        is_revoked=row["is_revoked"],
        owner_is_active=row["owner_is_active"],
        expires_at_s=math.inf if row["expires_at_s"] == math.inf else row["expires_at_s"],
    )
