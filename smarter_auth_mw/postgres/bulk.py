"""Bulk import, export and changes of many resources, keys and bindings in one transaction, in sets of rows."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

import aiosql
import asyncpg

from smarter_auth_mw.domain import Resource
from smarter_auth_mw.errors import RefusedError
from smarter_auth_mw.postgres.lists import Arguments, Lists
from smarter_auth_mw.postgres.queries import QUERIES, SQL
from smarter_auth_mw.postgres.store import Store
from smarter_auth_mw.postgres.streams import copy_in, rows_of
from smarter_auth_mw.postgres.transaction import Transaction
from smarter_auth_mw.tokens import Token

STATEMENTS: Any = aiosql.from_str((SQL / "bulk.sql").read_text("utf-8"), "asyncpg")
"""The statements of ``bulk.sql``, by name."""
MOST_MISTAKES = 100
"""The most mistakes that are reported for one file."""

TABLES = 5
"""The number of tables that a file is written to."""


class StagedLine(NamedTuple):
    """One staged line of a file; its fields are the columns of ``staged_line``.

    ``lookup`` is the resource's, without the kind. ``is_derived``: the file has no ``key_id``, and this one is derived
    from the key's digest or name.
    """

    line: int
    account: str
    kind: str | None = None
    ref: str | None = None
    lookup: str | None = None
    resource_name: str | None = None
    domain: str | None = None
    protection: str | None = None
    on_error: str | None = None
    key_id: UUID | None = None
    key: str | None = None
    description: str | None = None
    labels: str | None = None
    active: bool | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    digest: bytes | None = None
    token_key: str | None = None
    valid_until: datetime | None = None
    minted_at: datetime | None = None
    is_tokenless: bool = False
    is_derived: bool = False


class LineMistake(NamedTuple):
    """A mistake in a line of a file."""

    line: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}"


class Counts(NamedTuple):
    """The numbers of new records in a file, of keys that need a token, and of lines that change nothing."""

    lines: int
    resources: int
    keys: int
    bindings: int
    minted: int
    unchanged: int


class MintedKey(NamedTuple):
    """A key of the file with the token that was minted for it."""

    key_id: UUID
    account: str
    name: str
    token: Token


_TEMPORARY = "The owner of the database runs: GRANT TEMPORARY ON DATABASE … TO …;"
_RESOURCE_COLUMNS = ("ref", "account", "resource_name", "domain", "protection", "on_error")
_KEY_COLUMNS = ("account", "key", "description", "labels", "active", "expires_at", "revoked_at")

_ABSENCES = (("nameless_keys", "the key {key_id} has no name"),)
"""Checks that are skipped if invalid lines were left out, since these may have the missing values."""
_CHECKS = (
    ("doubled_lines", "this is already in line {first_line}"),
    ("shared_tokens", "line {first_line} has the same digest for another key"),
    ("torn_tokens", "line {first_line} describes the token of this digest differently"),
    ("taken_tokens", "the digest belongs to a token of the key {key_id}"),
    ("different_tokens", "the token of this digest is in the database with other values"),
    (
        "added_tokens",
        "the key {name!r} ({key_id}) exists without this digest: import adds no tokens to old keys, key rotate does",
    ),
    ("ambiguous_keys", "account {account} has several keys named {name!r}: give the digest or the key_id"),
    ("contradicted_keys", "the key {name!r} has no token here, and one in another line"),
    (
        "doubled_key_names",
        "account {account} already has the key {name!r} in line {first_line}: use another name, one key_id, or digests",
    ),
    ("taken_key_names", "account {account} has an unrevoked key named {name!r}"),
    (
        "different_keys",
        "the key {name!r} ({key_id}) exists with other values ({differences}): import changes no existing key",
    ),
    ("foreign_resources", "{kind}:{ref} belongs to account {held_account!r}, and not to {account!r}"),
    ("misspelled_resources", "{kind}:{ref} is registered as {kind}:{held_ref}: use that spelling"),
    ("different_resources", "{kind}:{ref} is registered with other values: smarter-auth resource set changes them"),
    (
        "platforms_resources",
        "{kind}:{ref} is of a kind that the attached platform creates: bind its keys one by one",
    ),
    ("open_bound_resources", "{kind}:{ref} is open in this file, but has a key bound to it"),
    ("doubled_domains", "the domain {domain} is already in line {first_line}, for another resource"),
    ("taken_domains", "the domain {domain} belongs to {claimant}"),
)


class Bulk:
    """One transaction that imports a whole file, or exports everything."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def stage(self, lines: AsyncIterable[StagedLine]) -> None:
        """Stage the lines by COPY and collect their records, without checking them."""
        try:
            await STATEMENTS.begin_import(self._connection)
        except asyncpg.InsufficientPrivilegeError:
            raise RefusedError("This role may not create temporary tables.", hint=_TEMPORARY) from None
        await copy_in(self._connection, "staged_line", StagedLine._fields, lines)
        await STATEMENTS.identify(self._connection)
        await STATEMENTS.gather(self._connection)

    async def mistakes(self, *, is_complete: bool = True) -> list[LineMistake]:
        """Return the contradictions within the file or with the database, by line; ``is_complete``: all are staged."""
        found = [
            *_torn(
                await _rows(STATEMENTS.lines_of_torn_resources(self._connection, most=MOST_MISTAKES)), _RESOURCE_COLUMNS
            ),
            *_torn(await _rows(STATEMENTS.lines_of_torn_keys(self._connection, most=MOST_MISTAKES)), _KEY_COLUMNS),
        ]
        for name, message in (*_CHECKS, *(_ABSENCES if is_complete else ())):
            rows = await _rows(getattr(STATEMENTS, name)(self._connection, most=MOST_MISTAKES))
            found += [LineMistake(row["line"], message.format(**row)) for row in rows]
        return sorted(set(found))[: MOST_MISTAKES + 1]

    async def count(self) -> Counts:
        """Return the numbers of records in the staged lines."""
        row = await STATEMENTS.count_staged(self._connection)
        return Counts(**row)

    @property
    def transaction(self) -> Transaction:
        """The statements of single records, in the same transaction."""
        return Transaction(self._connection)

    async def lock_resources(self) -> list[Resource]:
        """Lock the registered resources that the file binds a deactivated key to, until the transaction ends."""
        return [Resource(row["kind"], row["ref"]) async for row in STATEMENTS.lock_held_resources(self._connection)]

    async def mint(self, mint: Callable[[], Token]) -> AsyncGenerator[list[MintedKey]]:
        """Mint a token for each key of the file that has none, some at a time."""
        async for rows in rows_of(self._connection, STATEMENTS.keys_to_be_minted.sql):
            minted = [MintedKey(row["key_id"], row["account"], row["name"], mint()) for row in rows]
            records = [(key.token.digest, key.token.token_key, key.key_id, key.account) for key in minted]
            await copy_in(self._connection, "staged_token", ("digest", "token_key", "key_id", "account"), records)
            yield minted

    async def insert(self, done: Callable[[], object], latest: datetime | None = None) -> None:
        """Write what was staged, table by table; ``done`` is called after each.

        ``latest`` is the expiry of keys that live and have none.
        """
        for insert in (
            STATEMENTS.insert_resources,
            partial(STATEMENTS.insert_keys, latest=latest),
            STATEMENTS.insert_labels,
            STATEMENTS.insert_tokens,
            STATEMENTS.insert_bindings,
        ):
            await insert(self._connection)
            done()

    async def audit(self, actor: str, file: str, counts: Counts) -> None:
        """Write one audit event for the whole import."""
        about = dict.fromkeys(("kind", "ref", "account", "key_id", "before"))
        document = json.dumps({"file": file, **counts._asdict()})
        await QUERIES.write_event(self._connection, actor=actor, action="import", reason="", after=document, **about)

    async def export(self) -> AsyncGenerator[Sequence[Any]]:
        """Yield everything as lines ordered by resource, in chunks: one statement, one snapshot."""
        async with aclosing(rows_of(self._connection, STATEMENTS.export_lines.sql)) as batches:
            async for rows in batches:
                yield rows


@asynccontextmanager
async def open_bulk(store: Store) -> AsyncIterator[Bulk]:
    """Run the block in one transaction, completely or not at all. The store needs a long ``query_timeout_s``."""
    async with store.bare_transaction() as connection:
        yield Bulk(connection)


async def _rows(found: Any) -> list[Any]:
    return [row async for row in found]


def _torn(lines: Sequence[Any], columns: Sequence[str]) -> Iterator[LineMistake]:
    """Yield the first line of each record that contradicts an earlier line, with the column."""
    first: dict[tuple[str, str], Any] = {}
    seen: set[str] = set()
    for row in lines:
        for column in columns:
            if row[column] is None:
                continue
            before = first.setdefault((row["thing"], column), row)
            if before[column] != row[column] and row["thing"] not in seen:
                seen.add(row["thing"])
                what = "resource" if column == "ref" else column
                yield LineMistake(
                    row["line"], f"{what} differs from that of line {before['line']}, which describes the same record"
                )


class HeldKey(NamedTuple):
    """A key locked by an act on many keys; ``token_key`` is the public head of its newest token."""

    key_id: UUID
    account: str
    name: str
    is_active: bool
    expires_at: datetime | None
    token_key: str | None
    valid_tokens: int


class NewToken(NamedTuple):
    """A key's new token, the end of its previous tokens' validity, and its new expiry."""

    key: HeldKey
    token: Token
    previous_valid_until: datetime
    expires_at: datetime | None


class KeyBatches:
    """Statements on many keys, some thousand at a time, in one transaction, for one account or all."""

    def __init__(self, connection: Any, scope: str | None) -> None:
        self._connection = connection
        self._scope = scope

    async def lock(self, key_ids: Sequence[UUID]) -> list[UUID]:
        """Lock those of the keys that are not revoked until the transaction ends."""
        return [
            row["key_id"]
            async for row in STATEMENTS.lock_keys(self._connection, key_ids=list(key_ids), scope=self._scope)
        ]

    async def read(self, key_ids: Sequence[UUID]) -> list[HeldKey]:
        """Read locked keys, grouped by account."""
        return [HeldKey(*row) async for row in STATEMENTS.read_keys(self._connection, key_ids=list(key_ids))]

    async def listed(self, arguments: Iterable[Arguments]) -> list[UUID]:
        """Return the keys that ``list_keys`` finds with each of these arguments."""
        looked = self._connection.transaction()
        await looked.start()
        try:
            lists = Lists(self._connection)
            await lists.plan_by_index()
            return [row["key_id"] for one in arguments for row in (await lists.keys(one)).rows]
        finally:
            await looked.rollback()  # This also ends the planner's settings.

    async def revoke(self, keys: Sequence[HeldKey]) -> None:
        await STATEMENTS.revoke_keys(self._connection, key_ids=[key.key_id for key in keys])

    async def deactivate(self, keys: Sequence[HeldKey]) -> None:
        await STATEMENTS.deactivate_keys(self._connection, key_ids=[key.key_id for key in keys])

    async def rotate(self, made: Sequence[NewToken]) -> None:
        """Give the keys their new tokens, and end the previous ones."""
        key_ids = [one.key.key_id for one in made]
        await STATEMENTS.end_tokens(self._connection, key_ids=key_ids, ends=[one.previous_valid_until for one in made])
        await STATEMENTS.add_tokens(
            self._connection,
            key_ids=key_ids,
            accounts=[one.key.account for one in made],
            digests=[one.token.digest for one in made],
            token_keys=[one.token.token_key for one in made],
        )
        await STATEMENTS.set_expiries(self._connection, key_ids=key_ids, expiries=[one.expires_at for one in made])

    async def audit(self, actor: str, action: str, events: Sequence[tuple[HeldKey, str, Any, Any]]) -> None:
        """Write an audit event for each key: the reason, and the values before and after."""
        keys = [key for key, *_ in events]
        await STATEMENTS.write_events(
            self._connection,
            actor=actor,
            action=action,
            key_ids=[key.key_id for key in keys],
            accounts=[key.account for key in keys],
            reasons=[reason for _, reason, _, _ in events],
            befores=[json.dumps(before, default=datetime.isoformat) for _, _, before, _ in events],
            afters=[json.dumps(after, default=datetime.isoformat) for _, _, _, after in events],
        )
