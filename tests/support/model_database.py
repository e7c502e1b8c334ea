"""A PostgreSQL in memory, as far as a cache in front of it can tell the difference.

A transaction gets its number with its first write and ends in any order; a snapshot says which ones it sees; the
changes that triggers write belong to the transaction, and are notified when it commits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from smarter_auth_mw.cache.changes import EVERYTHING, Snapshot
from smarter_auth_mw.cache.listener import Beat
from smarter_auth_mw.domain import Binding, Bindings, Protection, Resource, Target
from smarter_auth_mw.tokens import Token

KIND, ACCOUNT = "bot", "default"
new_id = itertools.count(1).__next__


class ResourceRow(NamedTuple):
    """A resource; a new row is another resource, whatever it is called."""

    id: int
    name: str | None = None
    protection: Protection = Protection.OPEN


class KeyRow(NamedTuple):
    """A key; when it was last used decides nothing."""

    is_active: bool = True
    is_revoked: bool = False
    expires_at_s: float = math.inf
    last_used_s: float = 0

    @property
    def deciding(self) -> tuple[bool, bool, float]:
        return self.is_active, self.is_revoked, self.expires_at_s


class TokenRow(NamedTuple):
    key: str
    valid_until_s: float = math.inf


class BindingRow(NamedTuple):
    resource_id: int
    key: str


Row = ResourceRow | KeyRow | TokenRow | BindingRow
Place = tuple[type[Row], str]
"""Table and primary key."""


class RefusedError(Exception):
    """A rule of the database forbids it, or another transaction holds the row."""


@dataclass(frozen=True)
class Facts:
    """All rows at one moment."""

    rows: Mapping[Place, Row] = field(default_factory=dict)

    def changed(self, writes: Mapping[Place, Row | None]) -> Facts:
        rows = {**self.rows, **writes}
        return Facts({place: row for place, row in rows.items() if row is not None})

    def resource(self, ref: str) -> ResourceRow | None:
        row = self.rows.get((ResourceRow, ref))
        return row if isinstance(row, ResourceRow) else None

    def key(self, key: str) -> KeyRow:
        row = self.rows[KeyRow, key]
        assert isinstance(row, KeyRow)
        return row

    def tokens(self, key: str) -> Iterator[tuple[str, TokenRow]]:
        for (_, name), row in self.rows.items():
            if isinstance(row, TokenRow) and row.key == key:
                yield name, row

    def bound_keys(self, resource_id: int) -> list[str]:
        rows = self.rows.values()
        return [row.key for row in rows if isinstance(row, BindingRow) and row.resource_id == resource_id]

    def claimants(self, name: str) -> list[str]:
        return [ref for (_, ref), row in self.rows.items() if isinstance(row, ResourceRow) and row.name == name]

    def refs(self, target: Target) -> list[str]:
        """What the target names: a reference itself, an alias whatever has it for its name."""
        return [target.names.ref] if isinstance(target.names, Resource) else self.claimants(target.names.value)

    def truth(self, target: Target, token: str | None, now_s: float) -> str:
        """What to answer, by the rules of the product in the fewest words."""
        refs = self.refs(target)
        if len(refs) != 1:
            return "ambiguous" if refs else "not found"
        resource = self.resource(refs[0])
        keys = self.bound_keys(resource.id) if resource else []
        if not keys and (resource is None or resource.protection is Protection.OPEN):
            return "anonymous"
        valid = {name for key in keys for name, row in self.tokens(key) if self._is_valid(row, now_s)}
        return "grant" if token in valid else "deny"

    def _is_valid(self, token: TokenRow, now_s: float) -> bool:
        key = self.key(token.key)
        return key.is_active and not key.is_revoked and now_s <= min(key.expires_at_s, token.valid_until_s)

    def bindings(self, resource: ResourceRow) -> tuple[Binding, ...]:
        return tuple(
            self._binding(key, name, token) for key in self.bound_keys(resource.id) for name, token in self.tokens(key)
        )

    def _binding(self, key: str, name: str, token: TokenRow) -> Binding:
        row = self.key(key)
        return Binding(
            key,
            key,
            ACCOUNT,
            Token(name.encode()).digest,
            name,
            row.is_active,
            row.is_revoked,
            expires_at_s=min(row.expires_at_s, token.valid_until_s),
        )


@dataclass(frozen=True)
class Read:
    """What the one statement of a request answers."""

    bindings: Bindings
    snapshot: str
    sources: tuple[str, ...]


class Server:
    """One primary: its rows, its running transactions, and the changes that its triggers wrote."""

    def __init__(self, number: int, facts: Facts, next_tx: int, changes: Iterable[tuple[str, int]] = ()) -> None:
        self.number = number
        self.name = f"server {number}"
        self.facts = facts
        self.next_tx = next_tx
        self.changes = list(changes)
        self.running: dict[int, Transaction] = {}
        self.purged_below = 0
        self.has_triggers = True
        self.guard = 0

    def recovered(self, number: int, facts: Facts, next_tx: int, changes: Iterable[tuple[str, int]]) -> Server:
        """The same server after a crash: whoever was connected is gone, and the name is another one."""
        server = type(self)(number, facts, next_tx, changes)
        server.purged_below, server.has_triggers, server.guard = self.purged_below, self.has_triggers, self.guard
        return server

    def snapshot(self) -> Snapshot:
        return Snapshot(min(self.running, default=self.next_tx), self.next_tx, frozenset(self.running))

    def read(self, target: Target) -> Read:
        refs = self.facts.refs(target)
        directory = () if isinstance(target.names, Resource) else (f"directory:{KIND}",)
        if len(refs) == 1:
            return self._read(Resource(KIND, refs[0]), directory)
        nothing, several = Bindings(Resource(KIND, "")), Bindings(Resource(KIND, ""), ACCOUNT, Protection.DECLARED)
        return Read(several if refs else nothing, str(self.snapshot()), directory)

    def _read(self, asked: Resource, directory: tuple[str, ...]) -> Read:
        row, snapshot, itself = self.facts.resource(asked.ref), str(self.snapshot()), f"resource:{asked.lookup}"
        if row is None:
            return Read(Bindings(asked), snapshot, (*directory, itself, f"kind:{KIND}"))
        keys = (f"key:{key}" for key in self.facts.bound_keys(row.id))
        sources = (*directory, itself, f"bindings:{row.id}", f"account:{ACCOUNT}", *keys)
        bindings = Bindings(asked, ACCOUNT, row.protection, bindings=self.facts.bindings(row))
        return Read(bindings, snapshot, sources)

    def beat(self, previous: str | None) -> Beat:
        seen = None if previous is None else Snapshot.parse(previous)
        changes = [] if seen is None else [change for change in self.changes if not seen.sees(change[1])]
        is_complete = seen is None or seen.xmin >= self.purged_below
        return Beat(str(self.snapshot()), self.name, changes, is_complete, self.has_triggers, str(self.guard))

    def purge(self) -> None:
        self.purged_below = self.snapshot().xmin
        self.changes = [change for change in self.changes if change[1] >= self.purged_below]

    def turn_triggers(self, *, on: bool) -> None:
        """Waits for whoever writes, as ALTER TABLE does."""
        if self.running:
            raise RefusedError("the tables are being written to")
        self.has_triggers = on
        self.guard += 1
        self.next_tx += 1

    def sources(self, place: Place, old: Row | None, new: Row | None, seen: Facts) -> Iterator[str]:
        """What a trigger writes for one row, knowing no more than the row itself; ``seen`` is the writer's view."""
        match new or old:
            case ResourceRow():
                yield f"resource:{KIND}:{place[1]}"
                if getattr(old, "name", None) != getattr(new, "name", None):
                    yield f"directory:{KIND}"
            case BindingRow(resource_id=resource_id):
                yield f"bindings:{resource_id}"
            case KeyRow():  # A new one is bound to nothing yet.
                if isinstance(old, KeyRow) and not (isinstance(new, KeyRow) and old.deciding == new.deciding):
                    yield f"key:{place[1]}"
            case TokenRow(key=key):
                yield f"key:{key}"


class Transaction:
    """What one writer does, seen by nobody else until it commits."""

    def __init__(self, server: Server, *, is_usage: bool = False) -> None:
        self.server = server
        self.is_usage = is_usage
        self.tx: int | None = None
        self.writes: dict[Place, Row | None] = {}
        self.sources: dict[str, None] = {}
        self.is_untold = False

    @property
    def facts(self) -> Facts:
        """What its next statement sees (READ COMMITTED)."""
        return self.server.facts.changed(self.writes)

    def write(self, rows: Mapping[Place, Row | None]) -> None:
        """One statement, with its triggers."""
        seen = self.facts
        for place in rows:
            if any(place in other.writes for other in self._others):
                raise RefusedError(f"{place} is held by another transaction")
        if self.tx is None:
            self.tx = self.server.next_tx
            self.server.next_tx += 1
            self.server.running[self.tx] = self
        self.is_untold |= not self.server.has_triggers
        if self.server.has_triggers:
            found = [self.server.sources(place, seen.rows.get(place), row, seen) for place, row in rows.items()]
            self.sources |= dict.fromkeys(_in_bulk([source for sources in found for source in sources]))
        self.writes |= rows

    def add(self, ref: str, name: str | None) -> None:
        if self.facts.resource(ref):
            raise RefusedError(f"{ref} exists")
        self.write({(ResourceRow, ref): ResourceRow(new_id(), name)})

    def remove(self, ref: str) -> None:
        row = self._resource(ref)
        if row.protection is not Protection.OPEN or self.facts.bound_keys(row.id):
            raise RefusedError(f"{ref} is protected")
        self.write({(ResourceRow, ref): None})

    def rename(self, **names: str | None) -> None:
        self.write({(ResourceRow, ref[1:]): self._resource(ref[1:])._replace(name=name) for ref, name in names.items()})

    def swap(self, one: str, other: str) -> None:
        self.rename(**{f"_{one}": self._resource(other).name, f"_{other}": self._resource(one).name})

    def protect(self, ref: str, protection: Protection) -> None:
        row = self._resource(ref)
        if protection is Protection.OPEN and self.facts.bound_keys(row.id):
            raise RefusedError(f"{ref} still has bindings")
        self.write({(ResourceRow, ref): row._replace(protection=protection)})

    def bind(self, key: str, ref: str) -> None:
        """Holds the resource, as the write side does, and the key as far as a foreign key does."""
        row = self._resource(ref)
        self._refer_to(key)
        latch = Protection.BOUND if row.protection is Protection.OPEN else row.protection
        self.write({(BindingRow, f"{row.id}:{key}"): BindingRow(row.id, key)})
        self.write({(ResourceRow, ref): row._replace(protection=latch)})

    def unbind(self, key: str, ref: str, *, allow_anonymous: bool) -> None:
        row = self._resource(ref)
        if key not in self.facts.bound_keys(row.id):
            raise RefusedError(f"{key} is not bound to {ref}")
        self.write({(BindingRow, f"{row.id}:{key}"): None})
        if allow_anonymous and not self.facts.bound_keys(row.id):
            self.protect(ref, Protection.OPEN)

    def rotate(self, key: str, token: str, valid_until_s: float) -> None:
        if (TokenRow, token) in self.facts.rows:
            raise RefusedError(f"{token} exists")
        self._refer_to(key)
        olds: dict[Any, Any] = {
            (TokenRow, name): row._replace(valid_until_s=valid_until_s) for name, row in self.facts.tokens(key)
        }
        self.write({**olds, (TokenRow, token): TokenRow(key)})

    def create(self, key: str, token: str) -> None:
        """A key with its first token, or one that was deleted, as it was at first."""
        if (KeyRow, key) in self.facts.rows:
            raise RefusedError(f"{key} exists")
        self.write({(KeyRow, key): KeyRow()})
        self.write({(TokenRow, token): TokenRow(key)})

    def delete(self, key: str) -> None:
        """The key and all that refers to it, one table after the other."""
        self._key(key)
        if any(getattr(row, "key", None) == key for other in self._others for row in other.writes.values()):
            raise RefusedError(f"another transaction refers to {key}")
        for table in (BindingRow, TokenRow):
            rows = self.facts.rows.items()
            self.write({place: None for place, row in rows if isinstance(row, table) and row.key == key})
        self.write({(KeyRow, key): None})

    def set_active(self, *keys: str, is_active: bool) -> None:
        there = [key for key in keys if (KeyRow, key) in self.facts.rows]
        self.write({(KeyRow, key): self.facts.key(key)._replace(is_active=is_active) for key in there})

    def revoke(self, key: str) -> None:
        self.write({(KeyRow, key): self._key(key)._replace(is_revoked=True)})

    def expire(self, key: str, expires_at_s: float) -> None:
        self.write({(KeyRow, key): self._key(key)._replace(expires_at_s=expires_at_s)})

    def truncate_bindings(self) -> None:
        """Locks out all other writers; the latches stay closed."""
        if self._others:
            raise RefusedError("bindings is being written to")
        self.write({place: None for place in self.facts.rows if place[0] is BindingRow})
        if self.server.has_triggers:
            self.sources[EVERYTHING] = None

    @property
    def _others(self) -> list[Transaction]:
        return [other for other in self.server.running.values() if other is not self]

    def _resource(self, ref: str) -> ResourceRow:
        row = self.facts.resource(ref)
        if row is None:
            raise RefusedError(f"there is no {ref}")
        return row

    def _key(self, key: str) -> KeyRow:
        if (KeyRow, key) not in self.facts.rows:
            raise RefusedError(f"there is no {key}")
        return self.facts.key(key)

    def _refer_to(self, key: str) -> None:
        """Hold the key, as a foreign key does: not against its changes, but against its end."""
        self._key(key)
        if any(other.writes.get((KeyRow, key), self) is None for other in self._others):
            raise RefusedError(f"{key} is being deleted")


def _in_bulk(sources: list[str]) -> list[str]:
    """Several keys changed by one statement are one change of their account."""
    keys = {source for source in sources if source.startswith("key:")}
    if len(keys) < 2:
        return sources
    return [*(source for source in sources if source not in keys), f"account:{ACCOUNT}"]


class Moment(NamedTuple):
    """From when on which facts were the committed ones; ``meant`` is what people did, and nothing on the side."""

    since_s: float
    meant: Facts


class Replayed(NamedTuple):
    """What a standby knows after one more commit, and what is on disk."""

    facts: Facts
    meant: Facts
    next_tx: int
    changes: tuple[tuple[str, int], ...]
    above_tx: int
    """What is above every number that was committed until then."""


class Database:
    """The primary, what becomes of it, and all that was ever committed."""

    def __init__(self, facts: Facts, clock: Callable[[], float], serve: type[Server] = Server) -> None:
        self._clock = clock
        self._serve = serve
        self.primary = serve(0, facts, next_tx=10)
        self.deposed: Server | None = None
        self.history: list[Moment] = []
        self.log: list[Replayed] = []
        self._above_tx = self.primary.next_tx
        self._remember(facts)

    @property
    def now(self) -> int:
        """The number of the present moment of history."""
        return len(self.history) - 1

    def commit(self, transaction: Transaction) -> list[tuple[str, int]]:
        """The changes to notify."""
        if transaction.tx is None:
            return []
        server, tx = self.primary, transaction.tx
        del server.running[tx]
        told = [(source, tx) for source in transaction.sources]
        self._above_tx = max(self._above_tx, tx + 1)
        server.changes += told
        server.facts = server.facts.changed(transaction.writes)
        meant = self.history[-1].meant
        self._remember(meant if transaction.is_usage else meant.changed(transaction.writes))
        return told

    def roll_back(self, transaction: Transaction) -> None:
        if transaction.tx is not None:
            del self.primary.running[transaction.tx]

    def crash(self, lost: int, reused: int) -> None:
        """A backend is killed, and the server recovers.

        ``lost`` commits were not on disk, with ``synchronous_commit`` off; of the numbers that no commit on disk has,
        up to ``reused`` are given out again.
        """
        known, old = self._known_without(lost), self.primary
        next_tx = max(known.above_tx, old.next_tx - reused)
        self.primary = old.recovered(old.number + 1, known.facts, next_tx, known.changes)
        self.deposed = None
        self._begin_with(known)

    def fail_over(self, lost: int, next_tx: int | None = None) -> None:
        """Another server takes over and lacks the last commits; ``next_tx``: it numbers transactions in its own way."""
        known = self._known_without(lost)
        self.deposed = self.primary
        number, next_tx = self.primary.number + 1, next_tx or known.next_tx
        self.primary = self._serve(number, known.facts, next_tx, known.changes)
        self._begin_with(known)

    def _known_without(self, lost: int) -> Replayed:
        return self.log[max(0, len(self.log) - 1 - lost)]

    def _begin_with(self, known: Replayed) -> None:
        self.log.clear()
        self._above_tx = known.above_tx
        self._remember(known.meant)

    def was_true(self, said: str, target: Target, token: str | None, *, since: int, within_s: float) -> bool:
        """Whether it was so at some moment from number ``since`` on, and less than ``within_s`` ago."""
        now_s, end_s = self._clock(), math.inf
        for moment in reversed(self.history[since:]):
            if end_s <= now_s - within_s:
                return False
            if moment.meant.truth(target, token, now_s) == said:
                return True
            end_s = moment.since_s
        return False

    def _remember(self, meant: Facts) -> None:
        server = self.primary
        self.history.append(Moment(self._clock(), meant))
        self.log.append(Replayed(server.facts, meant, server.next_tx, tuple(server.changes), self._above_tx))
