"""`smarter-auth usage`: who used what, how often, and when."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from smarter_auth_mw.cli import arguments
from smarter_auth_mw.cli.commands.audit import LONGEST, KeyOption, ResourceOption, named, reports
from smarter_auth_mw.cli.output import Listing, line
from smarter_auth_mw.cli.session import Session
from smarter_auth_mw.errors import UsageError
from smarter_auth_mw.management.documents import usage_document
from smarter_auth_mw.management.usage import totals
from smarter_auth_mw.postgres.reports import About

_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII = " .:-=+*%@"
_COLUMNS = ("resource", "key_id", "key_name", "granted", "anonymous", "denied")


async def usage(
    session: Session,
    *,
    resource: ResourceOption = None,
    key: KeyOption = None,
    since: Annotated[str, typer.Option("--since", metavar="DURATION", help="30s, 15m, 24h, 30d.")] = "1d",
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the totals as comma-separated values.")] = False,
) -> Listing | None:
    """Show who used what, how often, and when; the servers write it every few seconds."""
    if as_csv and session.as_json:
        raise UsageError("--json and --csv exclude each other: choose.")
    about = About(await named(session, resource), key)
    async with reports(session) as opened:
        found = await opened.usage(about, min(arguments.duration(since), LONGEST))
    documents = [usage_document(total) for total in totals(found)]
    if as_csv:
        line(_csv(documents))
        return None
    return Listing([_row(document) for document in documents], documents)


def sparkline(points: Sequence[int], levels: str) -> str:
    """The points as one character each; whatever is more than nothing is to be seen."""
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


def _csv(documents: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(documents)
    return text.getvalue().rstrip("\n")
