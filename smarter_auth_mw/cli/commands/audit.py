"""`smarter-auth audit`: who did or asked what, and when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from smarter_auth_mw.cli import arguments
from smarter_auth_mw.cli.arguments import Account
from smarter_auth_mw.cli.decorator import command
from smarter_auth_mw.cli.output import Stream, Summary, check_reader, line, note
from smarter_auth_mw.cli.session import Session, os_user
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.errors import UnavailableError, UsageError
from smarter_auth_mw.log import printable
from smarter_auth_mw.management import naming
from smarter_auth_mw.management.documents import Document, audit_document
from smarter_auth_mw.management.listings import AuditFilters
from smarter_auth_mw.management.listings.filters import MAX_PAGE
from smarter_auth_mw.management.listings.following import BEGINNING, NOW
from smarter_auth_mw.postgres.opening import open_store

ResourceOption = Annotated[
    str | None, typer.Option("--resource", metavar="KIND:REF", help="Show only this resource, for example bot:1.")
]
KeyOption = Annotated[
    str | None, typer.Option("--key", metavar="KEY", help="Show only this key: its id, or its name if that is unique.")
]
Until = Annotated[
    str | None,
    typer.Option(
        "--until", metavar="TIME", help="End of the period: 30s, 15m, 24h or 30d ago, or a time.", show_default="now"
    ),
]

PRUNE_TIMEOUT_S = 120.0
"""The timeout of pruning; no request waits for it."""
POLL_S = 1.0
"""The interval at which --follow looks for new events."""
LONGEST = timedelta(days=36_500)

group = typer.Typer(
    help="Show and prune the audit: changes, and refused requests.",
    rich_markup_mode=None,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class EventOptions:
    """Options that select events."""

    resource: ResourceOption = None
    key: KeyOption = None
    account: Account = None
    by: Annotated[str | None, typer.Option("--actor", help="Events by this actor; for requests, the peer network.")] = (
        None
    )
    action: Annotated[
        str | None,
        typer.Option(
            "--action", metavar="ACTION", help="An action such as key.revoke, or a pattern: key.*, request.*."
        ),
    ] = None
    reason: Annotated[str | None, typer.Option("--reason", help="A reason, for example unknown_token or expired.")] = (
        None
    )
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="TIME",
            help="Start of the period: 30s, 15m, 24h or 30d ago, or a time.",
            show_default="ever",
        ),
    ] = None
    until: Until = None
    acts: Annotated[bool, typer.Option("--acts", help="Show changes only, without requests.")] = False

    async def filters(self, session: Session) -> AuditFilters:
        """Return the filters with the resource and the key looked up and the times read."""
        return AuditFilters(
            resource=await named(session, self.resource),
            key_id=await arguments.key_option(session, self.key),
            account=self.account,
            actor=self.by,
            action=self.action,
            reason=self.reason,
            since=None if self.since is None else arguments.moment(self.since),
            until=None if self.until is None else arguments.moment(self.until),
            acts=self.acts,
        )


@command(group, None, takes_actor=False)
async def audit(
    session: Session,
    *,
    options: EventOptions,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", min=1, max=MAX_PAGE, help="Print only the newest events, at most this many.", show_default="all"
        ),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(
            "--after",
            metavar="CURSOR",
            help="Events committed after this `cursor` of an event; or beginning, or now.",
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Keep printing events as they are committed.")] = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print one JSON document per line.")] = False,
) -> Summary | Stream | None:
    """Show changes and refused requests, in order of time.

    Example: smarter-auth audit --since 1h --resource bot:1
    """
    if jsonl and session.as_json:
        raise UsageError("Use --json (one document) or --jsonl (one per line), not both.")
    if session.as_json and follow:
        raise UsageError("--follow has no end, so it cannot print one JSON document.", hint="Use --jsonl instead.")
    if limit is not None and (follow or after):
        raise UsageError("--limit shows the newest events, --after and --follow show later ones: use one or the other.")
    filters = await options.filters(session)
    if follow or after:
        begins = after or (NOW if options.since is None else BEGINNING)
        documents = _following(session, filters, begins, goes_on=follow)
    else:
        documents = _events(session, filters, limit)
    if not (jsonl or follow):
        return Stream(documents, _row)
    async for document in documents:
        line(json.dumps(document) if jsonl else _one_line(document))
    return None


async def _following(session: Session, filters: AuditFilters, after: str, *, goes_on: bool) -> AsyncGenerator[Document]:
    """Yield the events committed after that, with their cursors; with ``goes_on``, wait for more, also in outages."""
    is_down = False
    async with session.listings() as listings:
        stream = listings.stream(filters, after=after)
        while True:
            try:
                async for event, cursor in stream.read():
                    yield audit_document(event) | {"cursor": cursor}
                is_down = False
            except UnavailableError as error:
                if not goes_on:
                    raise
                if not is_down:
                    note(f"{error} Waiting for it.")
                is_down = True
            if not goes_on:
                return
            check_reader()
            await asyncio.sleep(POLL_S)


async def _events(session: Session, filters: AuditFilters, limit: int | None) -> AsyncGenerator[Document]:
    async with session.listings() as listings:
        if limit is None:
            async for event in listings.every_event(filters):
                yield audit_document(event)
            return
        newest: list[Document] = []
        async with aclosing(listings.every_event(filters, order="newest")) as events:
            async for event in events:
                newest.append(audit_document(event))
                if len(newest) == limit:
                    break
        for document in reversed(newest):
            yield document


@command(group, "prune")
async def prune(
    session: Session,
    *,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="DURATION", help="Delete events older than this, for example 400d.")
    ],
) -> dict[str, Any]:
    """Delete old events. Needs the owner of the schema.

    Example: smarter-auth audit prune --older-than 400d
    """
    before = ago(older_than)
    settings = session.database_settings.model_copy(update={"query_timeout_s": PRUNE_TIMEOUT_S})
    async with open_store(settings, "owner") as store:
        pruned = await store.prune_audit(before, session.actor or os_user())
    return {"pruned": pruned, "older_than": before.isoformat()}


async def named(session: Session, text: str | None) -> Resource | None:
    """Return the resource of the option. It may have been removed, and needs no route: its events remain."""
    if text is None:
        return None
    if session.database_settings.routes:
        return await arguments.resource(session, text, no_route=True)
    return naming.unrouted(*naming.split(text))


def ago(text: str) -> datetime:
    """Return the time that was this duration ago."""
    return datetime.now(UTC) - min(arguments.duration(text), LONGEST)


def _one_line(document: Document) -> str:
    return printable("  ".join(str(value) for value in _row(document).values() if value is not None))


def _row(document: Document) -> dict[str, Any]:
    return {
        "at": f"{datetime.fromisoformat(document['at']):%Y-%m-%d %H:%M:%SZ}",
        **{name: document[name] or None for name in ("actor", "action", "resource", "key_id", "reason")},
        "what": _changed(document["before"] or {}, document["after"] or {}),
    }


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """Describe what differs, or everything if there is only one side."""
    if before and after:
        changed = [name for name in after if before.get(name) != after[name]]
        return "; ".join(f"{name}: {_shown(before.get(name))} -> {_shown(after[name])}" for name in changed) or None
    sides = {**before, **after}
    return "; ".join(f"{name}: {_shown(side)}" for name, side in sides.items() if side not in (None, "", [])) or None


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
