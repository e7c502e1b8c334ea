"""`smarter-auth usage`: who used what, how often, and when."""

from __future__ import annotations

import csv
import io
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from smarter_auth_mw.cli import arguments
from smarter_auth_mw.cli.commands.audit import LONGEST, KeyOption, ResourceOption, named, reports
from smarter_auth_mw.cli.output import Listing, line
from smarter_auth_mw.cli.session import Session
from smarter_auth_mw.errors import UsageError
from smarter_auth_mw.observers.usage import ANONYMOUS, GRANTED, OTHER, UNKNOWN
from smarter_auth_mw.postgres.reports import About, Used

_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII = " .:-=+*%@"
_PLACES = {UNKNOWN: "(unknown)", OTHER: "(other)"}
_COLUMNS = ("resource", "key_id", "key_name", "granted", "anonymous", "denied")


@dataclass
class Total:
    """All that was asked of one resource with one key, or without one."""

    resource: str
    key_id: str | None
    key_name: str | None
    begins: datetime
    width: timedelta
    points: list[int]
    outcomes: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)

    def add(self, used: Used) -> None:
        """Count this too."""
        self.points = [one + other for one, other in zip(self.points, used.points, strict=True)]
        self.outcomes[used.outcome] += used.count
        if used.outcome == GRANTED and used.token_key:
            self.tokens[used.token_key] += used.count

    @property
    def document(self) -> dict[str, Any]:
        denied = {outcome: count for outcome, count in self.outcomes.items() if outcome not in (GRANTED, ANONYMOUS)}
        return {
            "resource": self.resource,
            "key_id": self.key_id,
            "key_name": self.key_name,
            "granted": self.outcomes[GRANTED],
            "anonymous": self.outcomes[ANONYMOUS],
            "denied": sum(denied.values()),
            "reasons": denied,
            "tokens": [{"token_key": token_key, "granted": count} for token_key, count in self.tokens.items()],
            "from": self.begins.astimezone(UTC).isoformat(),
            "step_s": int(self.width.total_seconds()),
            "points": self.points,
        }


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
    documents = [total.document for total in totals(found)]
    if as_csv:
        line(_csv(documents))
        return None
    return Listing([_row(document) for document in documents], documents)


def totals(found: Iterable[Used]) -> list[Total]:
    """By resource and key, in the order in which they come."""
    by_subject: dict[tuple[str, str | None], Total] = {}
    for used in found:
        key_id = None if used.key_id is None else str(used.key_id)
        resource = f"{used.kind}:{_PLACES.get(used.ref, used.ref)}" if used.kind else "(none)"
        empty = Total(resource, key_id, used.key_name, used.begins, used.width, [0] * len(used.points))
        by_subject.setdefault((resource, key_id), empty).add(used)
    return list(by_subject.values())


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
