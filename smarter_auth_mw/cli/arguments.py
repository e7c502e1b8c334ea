"""Parse arguments of the command line: ``KIND:REF``, durations, times, labels and headers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import typer

from smarter_auth_mw.cli.session import Session
from smarter_auth_mw.config.durations import RULE, parse_duration
from smarter_auth_mw.domain import Bindings, Resource, Target
from smarter_auth_mw.errors import NotFoundError, UsageError
from smarter_auth_mw.management import naming
from smarter_auth_mw.postgres.opening import open_store
from smarter_auth_mw.postgres.store import Store
from smarter_auth_mw.tokens import TokenFormat

ResourceName = Annotated[str, typer.Argument(metavar="KIND:REF", help="The resource, for example bot:42.")]
KeyName = Annotated[str, typer.Argument(metavar="KEY", help="The key: its id, or its name if that is unique.")]
AllowAnonymous = Annotated[
    bool, typer.Option("--allow-anonymous", help="Allow changes that open a protected resource to anyone.")
]
NoRoute = Annotated[bool, typer.Option("--no-route", help="Accept a resource that no route reaches.")]
Account = Annotated[str | None, typer.Option("--account", help="The account, for example default.")]
Host = Annotated[str, typer.Option("--host", help="The address to listen on, for example 0.0.0.0 for all interfaces.")]
Port = Annotated[
    int, typer.Option("--port", min=0, max=65535, help="The port to listen on, for example 8000; 0 for any free port.")
]
Fd = Annotated[
    int | None,
    typer.Option(
        "--fd", min=0, help="Listen on this inherited file descriptor (3 from systemd) instead of host and port."
    ),
]
LogFormatName = StrEnum("LogFormatName", ["text", "json"])
LogFormat = Annotated[
    LogFormatName,
    typer.Option("--log-format", help="text, or json for one JSON object in each line of the log (stderr, stdout)."),
]
Workers = Annotated[int, typer.Option("--workers", min=1, help="The number of worker processes, for example 2.")]


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenOptions:
    """The form of the token that a command mints."""

    form: Annotated[
        TokenFormat | None,
        typer.Option(
            "--format",
            help="knox: 64 hexadecimal characters; checked: sm_ and 49 more, with a checksum.",
            show_default="knox",
        ),
    ] = None
    prefix: Annotated[
        str | None,
        typer.Option(
            "--prefix",
            metavar="WORD",
            help="Begin the token with sm_WORD_, for example sm_test_; implies --format checked. At most 8 characters.",
        ),
    ] = None


_WRITTEN_OUT = re.compile(r"\d{4}-")


async def resource(session: Session, text: str, *, no_route: bool, store: Store | None = None) -> Resource:
    """Return the resource that ``KIND:REF`` names, spelled as requests name it; a name becomes its reference.

    Names are looked up in the ``store``, or in one that is opened for it.
    """

    async def read(target: Target) -> Bindings:
        async with nullcontext(store) if store else open_store(session.database_settings) as opened:
            return (await opened.read(target)).bindings

    return await naming.resource(session.routes, text, read, no_route=no_route)


async def key_id(session: Session, text: str) -> UUID:
    """Return the id of the key that is given by its id, or by a name that only one key has."""
    try:
        return UUID(text)
    except ValueError:
        async with session.listings() as listings:
            return (await listings.key(text)).key_id


async def key_option(session: Session, text: str | None) -> UUID | None:
    """Return the id of the key that an option names; an unknown name is a usage error."""
    try:
        return None if text is None else await key_id(session, text)
    except NotFoundError as error:
        raise UsageError(error.message, hint=error.hint) from None


def check_name(session: Session, kind: str, name: str | None, *, no_route: bool) -> None:
    """Refuse a name that no request can reach."""
    if name and not no_route:
        naming.check_name(session.routes, kind, name)


def duration(text: str) -> timedelta:
    """Parse ``30s``, ``15m``, ``24h`` or ``30d``."""
    found = parse_duration(text)
    if found is None:
        raise UsageError(f"{text!r} is not a duration.", hint=f"Write {RULE}.")
    return found


def span(text: str | None) -> timedelta | None:
    """Parse a duration if one is given."""
    return None if text is None else duration(text)


def moment(text: str) -> datetime | timedelta:
    """Parse an RFC 3339 time, or a duration ago."""
    if (ago := parse_duration(text)) is not None:
        return ago
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{text!r} is not a time.", hint="Write how long ago: 30s, 15m, 24h, 30d; or when: 2026-01-31T12:00:00Z."
        ) from None


def labels(texts: Sequence[str]) -> dict[str, str]:
    """Parse ``NAME=VALUE`` texts, each name once."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value) or name in found:
            raise UsageError(f"{text!r} is not a label, or its name is given twice.", hint="Write NAME=VALUE.")
        found[name] = value
    return found


_EXPIRIES = "Write a duration (30s, 15m, 24h, 30d), or a time in the future: 2030-12-31 or 2030-12-31T12:00:00Z."


def expiry(text: str | None) -> datetime | None:
    """Return the time that is this duration from now, or that is given; None: never."""
    if text is None:
        return None
    try:
        return _future(text) if _WRITTEN_OUT.match(text) else datetime.now(UTC) + duration(text)
    except OverflowError:
        raise UsageError(
            f"{text!r} is too long: it would end after the year 9999.",
            hint="Leave it out for a key that never expires.",
        ) from None
    except UsageError as error:
        raise UsageError(error.message, hint=_EXPIRIES) from None


def _future(text: str) -> datetime:
    time = moment(text)
    if not isinstance(time, datetime) or time <= datetime.now(UTC):
        raise UsageError(f"{text!r} is in the past.")
    return time


def latest(longest: timedelta) -> datetime | None:
    """Return the time that far ahead; None if it is after the year 9999."""
    try:
        return datetime.now(UTC) + longest
    except OverflowError:
        return None


def headers(lines: Sequence[str]) -> list[tuple[bytes, bytes]]:
    """Read ``Name: value`` lines as a server does; no error repeats a value, since it may be a token."""
    return [_header(line) for line in lines]


def _header(line: str) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(":")
    if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or re.search(r"[\r\n\0]", value):
        raise UsageError("A header is written 'Name: value'.", hint="For example: --header 'Authorization: Token …'")
    return name.lower().encode("ascii"), value.strip(" \t").encode("utf-8", "surrogateescape")
