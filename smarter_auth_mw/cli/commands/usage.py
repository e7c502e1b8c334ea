"""`smarter-auth usage`: who used what, how often, and when."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Annotated, Any

import typer

from smarter_auth_mw.cli import arguments
from smarter_auth_mw.cli.commands.audit import KeyOption, ResourceOption, Until, named
from smarter_auth_mw.cli.output import Stream, line
from smarter_auth_mw.cli.session import Session
from smarter_auth_mw.errors import UsageError
from smarter_auth_mw.management.documents import Document, usage_document
from smarter_auth_mw.management.listings import UsageFilters

_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII = " .:-=+*%@"
_COLUMNS = ("resource", "key_id", "key_name", "granted", "anonymous", "denied")


async def usage(
    session: Session,
    *,
    resource: ResourceOption = None,
    key: KeyOption = None,
    since: Annotated[
        str,
        typer.Option(
            "--since",
            metavar="TIME",
            help="Start of the period: 30s, 15m, 24h or 30d ago, or a time such as 2026-01-31T12:00Z.",
        ),
    ] = "1d",
    until: Until = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print totals as CSV.")] = False,
) -> Stream | None:
    """Show how often each key used each resource. Workers write usage every few seconds.

    Example: smarter-auth usage --resource bot:1 --since 7d
    """
    if as_csv and session.as_json:
        raise UsageError("Use --json or --csv, not both.")
    filters = UsageFilters(
        resource=await named(session, resource),
        key_id=await arguments.key_option(session, key),
        since=arguments.moment(since),
        until=None if until is None else arguments.moment(until),
    )
    totals = _totals(session, filters)
    if not as_csv:
        return Stream(totals, _row)
    line(_csv({name: name for name in _COLUMNS}))
    async for document in totals:
        line(_csv(document))
    return None


async def _totals(session: Session, filters: UsageFilters) -> AsyncGenerator[Document]:
    async with session.listings() as listings:
        async for total in listings.every_total(filters):
            yield usage_document(total)


def sparkline(points: Sequence[int], levels: str) -> str:
    """Return the points as one character each; any count above zero is visible."""
    highest = max(points, default=0)
    return "".join(levels[-(-point * (len(levels) - 1) // highest)] if highest else levels[0] for point in points)


def _row(document: dict[str, Any]) -> dict[str, Any]:
    reasons = ", ".join(f"{reason} {count}" for reason, count in document["reasons"].items())
    levels = _BLOCKS if sys.stdout.isatty() else _ASCII
    return {
        "resource": document["resource"],
        "key": document["key_name"] or document["key_id"],
        **{name: document[name] for name in ("granted", "anonymous", "denied")},
        "reasons": reasons or None,
        "when": f"|{sparkline(document['points'], levels)}|",
    }


def _csv(document: Mapping[str, Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([document[name] for name in _COLUMNS])
    return text.getvalue()
