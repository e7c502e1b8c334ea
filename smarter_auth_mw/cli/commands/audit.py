"""`smarter-auth audit`: who did or asked what, and when."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import typer

from smarter_auth_mw.cli import arguments
from smarter_auth_mw.cli.decorator import command
from smarter_auth_mw.cli.output import Listing, line, note
from smarter_auth_mw.cli.session import Session, os_user
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.errors import UsageError
from smarter_auth_mw.management import naming
from smarter_auth_mw.management.documents import audit_document
from smarter_auth_mw.postgres.opening import open_store
from smarter_auth_mw.postgres.reports import About, AuditEvent, Reports

ResourceOption = Annotated[
    str | None, typer.Option("--resource", metavar="KIND:REF", help="What has to do with this resource.")
]
KeyOption = Annotated[UUID | None, typer.Option("--key", metavar="KEY_ID", help="What has to do with this key.")]

REPORT_TIMEOUT_S = 120.0
"""How long a report may take: nobody's request waits for it."""
MOST = 1_000
LONGEST = timedelta(days=36_500)

group = typer.Typer(help="Who did or asked what, and when.", rich_markup_mode=None)


@command(group, None, takes_actor=False)
async def audit(
    session: Session,
    *,
    resource: ResourceOption = None,
    key: KeyOption = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="DURATION", help="30s, 15m, 24h, 30d.", show_default="ever")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help=f"How many at the most; {MOST}, and with --jsonl all.")
    ] = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print one JSON document a line.")] = False,
) -> Listing | None:
    """Show what was done and which requests were refused, the newest first."""
    if jsonl and session.as_json:
        raise UsageError("--json prints one document, --jsonl one a line: choose.")
    about = About(await named(session, resource), key)
    oldest = None if since is None else ago(since)
    most = limit or (None if jsonl else MOST)
    async with reports(session) as opened:
        found = opened.audit(about, since=oldest, most=most)
        if jsonl:
            async for event in found:
                line(json.dumps(audit_document(event)))
            return None
        events = [event async for event in found]
    if limit is None and len(events) == MOST:
        note(f"These are the newest {MOST}. For more: --limit, --jsonl, or narrow it down.")
    return Listing([_row(event) for event in events], [audit_document(event) for event in events])


@command(group, "prune")
async def prune(
    session: Session,
    *,
    older_than: Annotated[str, typer.Option("--older-than", metavar="DURATION", help="For example 400d.")],
) -> dict[str, Any]:
    """Forget what is older than that; only the owner of the schema may."""
    before = ago(older_than)
    settings = session.database_settings.model_copy(update={"query_timeout_s": REPORT_TIMEOUT_S})
    async with open_store(settings, "owner") as store:
        pruned = await store.prune_audit(before, session.actor or os_user())
    return {"pruned": pruned, "older_than": before.isoformat()}


@asynccontextmanager
async def reports(session: Session) -> AsyncIterator[Reports]:
    """What is to be told, from the settings' database."""
    settings = session.database_settings.model_copy(update={"query_timeout_s": REPORT_TIMEOUT_S})
    async with open_store(settings) as store, store.reports() as opened:
        yield opened


async def named(session: Session, text: str | None) -> Resource | None:
    """The resource of the option; one that is gone has left its traces all the same, and routes are not needed."""
    if text is None:
        return None
    if session.database_settings.routes:
        return await arguments.resource(session, text, no_route=True)
    return naming.unrouted(*naming.split(text))


def ago(text: str) -> datetime:
    """The time that was this duration ago."""
    return datetime.now(UTC) - min(arguments.duration(text), LONGEST)


def _row(event: AuditEvent) -> dict[str, Any]:
    document = audit_document(event)
    return {
        "at": event.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ"),
        **{name: document[name] or None for name in ("actor", "action", "resource", "key_id", "reason")},
        "what": _changed(event.before or {}, event.after or {}),
    }


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """What differs, or all that is told where there is but one side."""
    if before and after:
        changed = [name for name in after if before.get(name) != after[name]]
        return "; ".join(f"{name}: {_told(before.get(name))} -> {_told(after[name])}" for name in changed) or None
    sides = {**before, **after}
    return "; ".join(f"{name}: {_told(told)}" for name, told in sides.items() if told not in (None, "", [])) or None


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
