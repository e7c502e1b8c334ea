"""`smarter-auth key revoke`, `deactivate` and `rotate` without a KEY: acts on all keys that filters find."""

from __future__ import annotations

import csv
import inspect
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from datetime import UTC, timedelta
from functools import partial, wraps
from typing import Annotated, Any, NamedTuple
from uuid import UUID

import typer

from smarter_auth_mw.cli import arguments
from smarter_auth_mw.cli.new_files import NewFile, new_file
from smarter_auth_mw.cli.output import note
from smarter_auth_mw.cli.progress import Bar, bar
from smarter_auth_mw.cli.session import Session, os_user
from smarter_auth_mw.errors import UsageError
from smarter_auth_mw.management.listings import KeyFilters
from smarter_auth_mw.management.many_keys import Chosen, ManyKeys
from smarter_auth_mw.postgres.bulk import NewToken
from smarter_auth_mw.postgres.opening import open_store
from smarter_auth_mw.tokens import TokenFormat

PATIENCE_S = 120.0
"""How long one statement may take: nobody's request waits for it."""
COLUMNS = ("key_id", "name", "account", "token", "token_key", "previous_valid_until")
_TOLD = 5

ByAccount = Annotated[str | None, typer.Option("--account", metavar="ACCOUNT", help="All keys of this account.")]
ByResource = Annotated[
    str | None, typer.Option("--resource", metavar="KIND:REF", help="All keys that are bound to this resource.")
]
ByLabel = Annotated[
    list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="All keys with this label; any number.")
]
ByAge = Annotated[
    str | None, typer.Option("--older-than", metavar="DURATION", help="All keys that were made longer ago.")
]
ByUse = Annotated[
    str | None,
    typer.Option("--unused-for", metavar="DURATION", help="All keys that were not used, and not made, for this long."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would happen, and change nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask whether it is meant.")]


class Asked(NamedTuple):
    """The filters and the consent of one command, as they were written."""

    account: str | None
    resource: str | None
    label: list[str] | None
    older_than: str | None
    unused_for: str | None
    is_dry: bool
    is_meant: bool

    def check_alone(self) -> None:
        """Refuse filters together with the name of a key."""
        if any(self):
            raise UsageError("A KEY is named, and filters for many keys are given.", hint="Leave out either.")

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
                "Name a key, or say which keys.",
                hint="By --account, --resource, --label, --older-than or --unused-for.",
            )
        return filters


_OPTIONS: Mapping[str, tuple[Any, Any]] = {
    "account": (ByAccount, None),
    "resource": (ByResource, None),
    "label": (ByLabel, None),
    "older_than": (ByAge, None),
    "unused_for": (ByUse, None),
    "is_dry": (DryRun, False),
    "is_meant": (Yes, False),
}


def by_filters(function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Give a command the options that its parameter ``asked`` is made of."""

    @wraps(function)
    async def run(session: Session, **given: Any) -> Any:
        asked = Asked(**{name: given.pop(name) for name in Asked._fields})
        return await function(session, asked=asked, **given)

    own = inspect.signature(function, eval_str=True).parameters
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for name, (annotation, default) in _OPTIONS.items()
    ]
    kept = [parameter for name, parameter in own.items() if name != "asked"]
    run.__signature__ = inspect.Signature([*kept, *options])  # type: ignore[attr-defined]
    return run


async def change_many(
    session: Session, asked: Asked, done: str, change: Callable[..., Awaitable[Sequence[UUID]]]
) -> dict[str, Any]:
    """Change all keys that the filters find, by a method of ``ManyKeys``; ``done`` is what they are then."""
    async with _acting(session, asked, done) as (many, chosen, shown):
        key_ids = await change(many, chosen, is_dry=asked.is_dry, progress=shown.advance)
    return _document(session, asked, key_ids, done)


async def rotate_many(
    session: Session,
    asked: Asked,
    path: str | None,
    *,
    overlap: timedelta,
    force: bool,
    form: TokenFormat | None,
    prefix: str | None,
) -> dict[str, Any]:
    """Rotate all keys that the filters find; the new tokens are in the file before they count."""
    await asked.filters(session)
    if path is None and not asked.is_dry:
        raise UsageError("The new tokens need a file.", hint="Say --tokens FILE.")
    async with _acting(session, asked, "rotated") as (many, chosen, shown):
        with new_file(path) if path and not asked.is_dry else nullcontext() as file:
            rotation = await many.rotate(
                chosen,
                _writer(file),
                partial(_secure, file),
                overlap=overlap,
                force=force,
                form=form,
                prefix=prefix,
                is_dry=asked.is_dry,
                progress=shown.advance,
            )
    if rotation.overlapping:
        note(f"{rotation.overlapping} keys are being rotated already, and were left alone: --force rotates them too.")
    document = _document(session, asked, rotation.key_ids, "rotated")
    return {"count": document["count"], "tokens_file": None if asked.is_dry else path}


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
async def _acting(session: Session, asked: Asked, done: str) -> AsyncIterator[tuple[ManyKeys, Chosen, Bar]]:
    """Open what acts on many, choose the keys, ask whether it is meant, and show how far it is."""
    filters = await asked.filters(session)
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
        _ask(session, asked, total, done)
        with bar() as shown:
            shown.step(done, total)
            yield many, chosen, shown


def _ask(session: Session, asked: Asked, total: int, done: str) -> None:
    if asked.is_dry or asked.is_meant:
        return
    if session.as_json or not sys.stdin.isatty():
        raise UsageError(
            f"{_keys(total)} would be {done}.", hint="If that is meant: --yes. To see what would happen: --dry-run."
        )
    if not typer.confirm(f"{_keys(total)} will be {done}. Go on?", err=True):
        raise UsageError("Nothing was changed.")


def _document(session: Session, asked: Asked, key_ids: Sequence[UUID], done: str) -> dict[str, Any]:
    note(
        f"{_keys(len(key_ids))} would be {done}; nothing was changed."
        if asked.is_dry
        else f"{_keys(len(key_ids))} {done}."
    )
    shown = key_ids if session.as_json else key_ids[:_TOLD]
    document: dict[str, Any] = {"count": len(key_ids), "key_ids": [str(key_id) for key_id in shown]}
    if len(shown) < len(key_ids):
        document["more"] = len(key_ids) - len(shown)
    return document


def _keys(count: int) -> str:
    return "1 key" if count == 1 else f"{count:,} keys"
