"""`smarter-auth key revoke`, `deactivate` and `rotate` without a KEY: acts on all keys that match filters."""

from __future__ import annotations

import csv
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import astuple, dataclass, replace
from datetime import UTC, timedelta
from functools import partial
from typing import Annotated, Any
from uuid import UUID

import typer

from smarter_auth_mw.cli import arguments
from smarter_auth_mw.cli.arguments import TokenOptions
from smarter_auth_mw.cli.new_files import NewFile, new_file
from smarter_auth_mw.cli.output import note
from smarter_auth_mw.cli.progress import Bar, bar
from smarter_auth_mw.cli.session import Session, os_user
from smarter_auth_mw.errors import UsageError, counted
from smarter_auth_mw.management.listings import KeyFilters
from smarter_auth_mw.management.many_keys import Chosen, ManyKeys
from smarter_auth_mw.postgres.bulk import NewToken
from smarter_auth_mw.postgres.opening import open_store

PATIENCE_S = 120.0
"""The timeout of one statement; no request waits for it."""
COLUMNS = ("key_id", "name", "account", "token", "token_key", "previous_valid_until")
_MOST_SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Options that select the keys to change, and those that confirm the change."""

    account: Annotated[
        str | None, typer.Option("--account", metavar="ACCOUNT", help="Select the keys of this account.")
    ] = None
    resource: Annotated[
        str | None, typer.Option("--resource", metavar="KIND:REF", help="Select the keys bound to this resource.")
    ] = None
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label", metavar="NAME=VALUE", help="Select the keys with this label, for example team=sales; repeatable."
        ),
    ] = None
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than", metavar="DURATION", help="Select the keys created longer ago than this, for example 90d."
        ),
    ] = None
    unused_for: Annotated[
        str | None,
        typer.Option(
            "--unused-for",
            metavar="DURATION",
            help="Select the keys neither used nor created for this long, for example 90d.",
        ),
    ] = None
    is_dry: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")] = False
    is_confirmed: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False

    def check_alone(self) -> None:
        """Refuse filters together with the name of a key."""
        if any(astuple(self)):
            raise UsageError("Give a KEY or filters for many keys, not both.", hint="Leave out one of them.")

    async def filters(self, session: Session) -> KeyFilters:
        resource = self.resource and await arguments.resource(session, self.resource, no_route=True)
        filters = KeyFilters(
            account=self.account,
            resource=resource or None,
            labels=arguments.labels(self.label or ()),
            older_than=arguments.span(self.older_than),
            unused_for=arguments.span(self.unused_for),
        )
        if filters == KeyFilters():
            raise UsageError(
                "Name a key, or select keys.",
                hint="Select keys by --account, --resource, --label, --older-than or --unused-for.",
            )
        return filters


@dataclass(frozen=True, kw_only=True, slots=True)
class RotatedSelection(Selection):
    """Options that select the keys to rotate, the file for their tokens, and the wait for a single key's old token."""

    unused_for: Annotated[
        str | None,
        typer.Option(
            "--unused-for",
            metavar="DURATION",
            help="Select the keys unused for this long, for example 90d; for --wait-until-unused, default 10m.",
        ),
    ] = None
    tokens: Annotated[
        str | None,
        typer.Option("--tokens", metavar="FILE", help="Write the new tokens of many keys to this new file (CSV)."),
    ] = None

    def check_alone(self) -> None:
        """Refuse filters together with the name of a key, except for the time to wait."""
        Selection.check_alone(replace(self, unused_for=None))


async def change_many(
    session: Session, selection: Selection, done: str, change: Callable[..., Awaitable[Sequence[UUID]]]
) -> dict[str, Any]:
    """Change all keys that match the filters with a method of ``ManyKeys``; ``done`` is the word for the result."""
    async with _acting(session, selection, done) as (many, chosen, shown):
        key_ids = await change(many, chosen, is_dry=selection.is_dry, progress=shown.advance)
    return _document(session, selection, key_ids, done)


async def rotate_many(
    session: Session, selection: RotatedSelection, *, overlap: timedelta, force: bool, minting: TokenOptions
) -> dict[str, Any]:
    """Rotate all keys that match the filters; the new tokens are in the file before they become valid."""
    await selection.filters(session)
    path = None if selection.is_dry else selection.tokens
    if path is None and not selection.is_dry:
        raise UsageError("The new tokens need a file.", hint="Add --tokens FILE.")
    async with _acting(session, selection, "rotated") as (many, chosen, shown):
        with new_file(path) if path else nullcontext() as file:
            rotation = await many.rotate(
                chosen,
                _writer(file),
                partial(_secure, file),
                overlap=overlap,
                force=force,
                form=minting.form,
                prefix=minting.prefix,
                is_dry=selection.is_dry,
                progress=shown.advance,
            )
    if rotation.overlapping:
        left = counted(
            rotation.overlapping, "key is being rotated already, and was", "keys are being rotated already, and were"
        )
        note(f"{left} left alone. To rotate all: --force.")
    document = _document(session, selection, rotation.key_ids, "rotated")
    return {"count": document["count"], "tokens_file": path}


def _writer(file: NewFile | None) -> Callable[[Sequence[NewToken]], object]:
    if file is None:
        return lambda _: None
    rows = csv.writer(file.text, lineterminator="\n")
    rows.writerow(COLUMNS)
    return lambda made: rows.writerows(map(_row, made))


def _row(made: NewToken) -> tuple[str, ...]:
    until = made.previous_valid_until.astimezone(UTC).isoformat()
    key = made.key
    return str(key.key_id), key.name, key.account, made.token.reveal(), made.token.token_key, until


def _secure(file: NewFile | None) -> None:
    if file is not None:
        file.secure()
        file.keeps = True


@asynccontextmanager
async def _acting(session: Session, selection: Selection, done: str) -> AsyncIterator[tuple[ManyKeys, Chosen, Bar]]:
    """Open ``ManyKeys``, choose the keys, ask for confirmation, and show the progress."""
    filters = await selection.filters(session)
    settings = session.database_settings
    patient = settings.model_copy(update={"query_timeout_s": max(PATIENCE_S, settings.query_timeout_s)})
    async with open_store(patient) as store:
        many = ManyKeys(
            store,
            session.actor or os_user(),
            require=settings.require,
            longest_life=settings.longest_key_life,
        )
        chosen = await many.find(filters)
        total = len(chosen.key_ids)
        _ask(session, selection, total, done)
        with bar() as shown:
            shown.step(done, total)
            yield many, chosen, shown


def _ask(session: Session, selection: Selection, total: int, done: str) -> None:
    if selection.is_dry or selection.is_confirmed:
        return
    if session.as_json or not sys.stdin.isatty():
        raise UsageError(
            f"{counted(total, 'key')} would be {done}.",
            hint="To confirm: --yes. To see what would change: --dry-run.",
        )
    if not typer.confirm(f"{counted(total, 'key')} will be {done}. Continue?", err=True):
        raise UsageError("Nothing was changed.")


def _document(session: Session, selection: Selection, key_ids: Sequence[UUID], done: str) -> dict[str, Any]:
    note(
        f"{counted(len(key_ids), 'key')} would be {done}; nothing was changed."
        if selection.is_dry
        else f"{counted(len(key_ids), 'key')} {done}."
    )
    shown = key_ids if session.as_json else key_ids[:_MOST_SHOWN]
    document: dict[str, Any] = {"count": len(key_ids), "key_ids": [str(key_id) for key_id in shown]}
    if len(shown) < len(key_ids):
        document["more"] = len(key_ids) - len(shown)
    return document
