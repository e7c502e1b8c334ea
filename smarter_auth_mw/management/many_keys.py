"""Acts on many keys that filters select, in one transaction, with an audit row for each key."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from smarter_auth_mw.decision import Require
from smarter_auth_mw.errors import OutOfScopeError, UsageError
from smarter_auth_mw.management.lifetimes import is_beyond, latest
from smarter_auth_mw.management.listings import KeyFilters
from smarter_auth_mw.management.listings.filters import CANDIDATES
from smarter_auth_mw.management.listings.keys import KeyList, KeyPlace, arguments
from smarter_auth_mw.management.listings.pages import cut
from smarter_auth_mw.management.opening import judged
from smarter_auth_mw.management.rotations import OVERLAP
from smarter_auth_mw.management.token_formats import minter
from smarter_auth_mw.postgres.bulk import HeldKey, KeyBatches, NewToken
from smarter_auth_mw.postgres.lists import Arguments, Lists
from smarter_auth_mw.postgres.storable import checked
from smarter_auth_mw.postgres.transaction import Transaction
from smarter_auth_mw.tokens import TokenFormat

AT_ONCE = 2_000
"""The most keys that one statement changes."""
ACCOUNTS_AT_ONCE = 100
"""The most accounts that one statement concerns: with more, caches would be flushed."""
_FOUND_AT_ONCE = 900
Progress = Callable[[int], object]
BatchChange = Callable[[KeyBatches, Sequence[HeldKey]], Awaitable[object]]


class KeyStore(Protocol):
    """A store, in which keys are found and changed."""

    def lists(self) -> AbstractAsyncContextManager[Lists]: ...
    def bare_transaction(self) -> AbstractAsyncContextManager[Any]: ...


class Chosen(NamedTuple):
    """The keys that filters selected at a time; without filters, the given keys."""

    key_ids: Sequence[UUID]
    filters: KeyFilters | None = None
    at: datetime | None = None


class Rotation(NamedTuple):
    """The number of rotated keys, and of those skipped because an earlier rotation still overlaps."""

    key_ids: tuple[UUID, ...]
    overlapping: int


class ManyKeys:
    """Acts on chosen keys, in the name of ``actor``, in one transaction: on all of them, or on none.

    ``find`` selects the keys. Each act first locks the keys and checks them again: it skips those that were revoked
    meanwhile, and those that no longer match the filters.

    ``scope``, ``require``, ``longest_life`` and the errors are as in ``Management``. ``is_dry``: everything is done and
    rolled back. ``progress`` is called with the number of keys just done. Keys of an attached platform are skipped.
    """

    def __init__(
        self,
        store: KeyStore,
        actor: str,
        *,
        scope: str | None = None,
        require: Require = "bound",
        longest_life: timedelta | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._actor = checked(actor, "actor")
        self._scope = scope
        self._require: Require = require
        self._longest_life = longest_life
        self._clock = clock

    async def find(self, filters: KeyFilters) -> Chosen:
        """Select keys; raises UsageError for empty filters, and OutOfScopeError for another account."""
        if filters == KeyFilters():
            raise UsageError(
                "Select the keys.", hint="Select keys by --account, --resource, --label, --older-than or --unused-for."
            )
        if self._scope is not None and filters.account not in (None, self._scope):
            raise OutOfScopeError(f"This operator can change only keys of account {self._scope!r}.")
        now = self._clock()
        account = self._scope or filters.account
        place: KeyPlace | None = KeyList(filters, account, now).begins()
        found: list[UUID] = []
        async with self._store.lists() as lists:
            while place is not None:
                asked = arguments(filters, account, place, now, _FOUND_AT_ONCE + 1)
                rows, place = cut(await lists.keys(asked), _FOUND_AT_ONCE, KeyPlace.of_row)
                found += [row["key_id"] for row in rows]
        return Chosen(found, filters, now)

    async def revoke(self, chosen: Chosen, *, is_dry: bool = False, progress: Progress = lambda _: None) -> list[UUID]:
        """Revoke the keys for good; their resources stay protected. Returns the keys' ids."""

        async def revoke(batches: KeyBatches, keys: Sequence[HeldKey]) -> None:
            await batches.revoke(keys)
            now = self._clock()
            changes = [(key, "", {"revoked_at": None}, {"revoked_at": now}) for key in keys]
            await batches.audit(self._actor, "key.revoke", changes)

        async with self._held(chosen, is_dry=is_dry) as (_, batches, keys):
            await _in_parts(batches, keys, revoke, progress)
            return [key.key_id for key in keys]

    async def deactivate(
        self,
        chosen: Chosen,
        *,
        allow_anonymous: bool = False,
        is_dry: bool = False,
        progress: Progress = lambda _: None,
    ) -> list[UUID]:
        """Deactivate the keys; raises WouldOpenError if that opens a resource."""

        async def deactivate(batches: KeyBatches, keys: Sequence[HeldKey]) -> None:
            await batches.deactivate(keys)
            changes = [(key, "", {"is_active": True}, {"is_active": False}) for key in keys]
            await batches.audit(self._actor, "key.deactivate", changes)

        async with self._held(chosen, is_dry=is_dry) as (transaction, batches, held):
            keys = [key for key in held if key.is_active]
            is_asked = self._require == "active"
            bound = await transaction.lock_resources_of([key.key_id for key in keys]) if is_asked else ()
            async with judged(transaction, bound, self._require, allow_anonymous=allow_anonymous):
                await _in_parts(batches, keys, deactivate, progress)
            return [key.key_id for key in keys]

    async def rotate(
        self,
        chosen: Chosen,
        write: Callable[[Sequence[NewToken]], object],
        secure: Callable[[], object],
        *,
        overlap: timedelta = OVERLAP,
        force: bool = False,
        form: TokenFormat | None = None,
        prefix: str | None = None,
        is_dry: bool = False,
        progress: Progress = lambda _: None,
    ) -> Rotation:
        """Give the keys new tokens and pass them to ``write``; ``secure`` must store them before the commit.

        Expired keys are skipped, and without ``force`` also those that are being rotated.
        """
        if overlap < timedelta(0):
            raise UsageError("An overlap cannot be negative.")
        now = self._clock()

        async def rotate(batches: KeyBatches, keys: Sequence[HeldKey]) -> None:
            made = [self._new_token(key, now, overlap, form, prefix) for key in keys]
            await batches.rotate(made)
            await batches.audit(self._actor, "key.rotate", list(map(_rotated, made)))
            if not is_dry:
                write(made)

        async with self._held(chosen, is_dry=is_dry) as (_, batches, held):
            living = [key for key in held if key.expires_at is None or key.expires_at >= now]
            keys = [key for key in living if force or key.valid_tokens <= 1]
            await _in_parts(batches, keys, rotate, progress)
            if not is_dry:
                secure()
            return Rotation(tuple(key.key_id for key in keys), len(living) - len(keys))

    def _new_token(
        self, key: HeldKey, now: datetime, overlap: timedelta, form: TokenFormat | None, prefix: str | None
    ) -> NewToken:
        expires_at = key.expires_at
        if is_beyond(expires_at, self._longest_life, now):
            expires_at = latest(self._longest_life, now)
        try:
            until = now + overlap
        except OverflowError:
            raise UsageError(f"An overlap of {overlap} is too long: it would end after the year 9999.") from None
        until = until if expires_at is None else min(until, expires_at)
        return NewToken(key, minter(form, prefix, key.token_key or "")(), until, expires_at)

    @asynccontextmanager
    async def _held(
        self, chosen: Chosen, *, is_dry: bool
    ) -> AsyncIterator[tuple[Transaction, KeyBatches, list[HeldKey]]]:
        """Lock the keys in one transaction, which is rolled back for a dry run."""
        with suppress(_UndoneError):
            async with self._store.bare_transaction() as connection:
                batches = KeyBatches(connection, self._scope)
                key_ids = await batches.lock(chosen.key_ids)
                if chosen.filters is not None:
                    key_ids = await batches.listed(self._asked_again(chosen.filters, chosen.at, key_ids))
                yield Transaction(connection, self._scope), batches, await batches.read(key_ids)
                if is_dry:
                    raise _UndoneError

    def _asked_again(self, filters: KeyFilters, at: datetime | None, key_ids: Sequence[UUID]) -> Iterator[Arguments]:
        account, at = self._scope or filters.account, at or self._clock()
        for begin in range(0, len(key_ids), CANDIDATES):
            part = key_ids[begin : begin + CANDIDATES]
            yield arguments(filters, account, KeyPlace(), at, len(part) + 1, part)


class _UndoneError(Exception):
    """Rolls back a dry run."""


async def _in_parts(batches: KeyBatches, keys: Sequence[HeldKey], change: BatchChange, progress: Progress) -> None:
    for part in parts(keys):
        await change(batches, part)
        progress(len(part))


def parts(keys: Sequence[HeldKey]) -> Iterator[list[HeldKey]]:
    """Yield the keys, which are ordered by account, in batches for one statement."""
    part: list[HeldKey] = []
    accounts: set[str] = set()
    for key in keys:
        if len(part) >= AT_ONCE or (len(accounts) >= ACCOUNTS_AT_ONCE and key.account not in accounts):
            yield part
            part, accounts = [], set()
        part.append(key)
        accounts.add(key.account)
    if part:
        yield part


def _rotated(made: NewToken) -> tuple[HeldKey, str, Any, Any]:
    until = made.previous_valid_until.isoformat()
    reason = f"the previous token is valid until {until}, the new one begins with {made.token.token_key}"
    return made.key, reason, {"expires_at": made.key.expires_at}, {"expires_at": made.expires_at}
