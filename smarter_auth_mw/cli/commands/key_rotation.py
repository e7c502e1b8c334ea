"""`smarter-auth key rotate` and `key wait`: a new token, and who still uses the old one."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import typer

from smarter_auth_mw.cli import arguments
from smarter_auth_mw.cli.arguments import KeyName, TokenOptions
from smarter_auth_mw.cli.commands.key_many import RotatedSelection, rotate_many
from smarter_auth_mw.cli.output import Output, note, show
from smarter_auth_mw.cli.session import Session
from smarter_auth_mw.domain import Key, KeyState
from smarter_auth_mw.errors import SmarterAuthError
from smarter_auth_mw.management.documents import key_document
from smarter_auth_mw.management.keys import Management

POLL_S = 5.0
"""The interval of checks, which is that of writing usage by default (SMARTER_AUTH_USAGE_FLUSH_S)."""

UnusedFor = Annotated[
    str,
    typer.Option(
        "--unused-for", metavar="DURATION", help="How long the previous token must be unused, for example 10m."
    ),
]


async def rotate(
    session: Session,
    key: Annotated[
        str | None, typer.Argument(metavar="KEY", help="The key: its id, or its name if that is unique.")
    ] = None,
    *,
    overlap: Annotated[
        str,
        typer.Option(
            "--overlap",
            metavar="DURATION",
            help="How long the previous token stays valid, for example 24h; 0s to end it at once.",
        ),
    ] = "24h",
    force: Annotated[
        bool, typer.Option("--force", help="Rotate even while an earlier rotation still overlaps.")
    ] = False,
    minting: TokenOptions,
    wait_until_unused: Annotated[
        bool, typer.Option("--wait-until-unused", help="Print the token, then wait until nobody uses the previous one.")
    ] = False,
    selection: RotatedSelection,
) -> dict[str, Any] | None:
    """Give a key, or all keys that match the filters, a new token; the previous one stays valid for --overlap.

    Example: smarter-auth key rotate laptop --overlap 24h
    """
    for_ = timedelta(0) if overlap in ("0", "0s") else arguments.duration(overlap)
    if key is None:
        return await rotate_many(session, selection, overlap=for_, force=force, minting=minting)
    selection.check_alone()
    span = arguments.duration(selection.unused_for or "10m")
    key_id = await arguments.key_id(session, key)
    async with session.keys() as keys:
        rotated = await keys.rotate(key_id, for_, force=force, form=minting.form, prefix=minting.prefix)
        note("The token is shown only now, and stored nowhere.")
        document = {
            "key_id": str(key_id),
            "token": rotated.token.reveal(),
            "token_key": rotated.token.token_key,
            "previous_valid_until": rotated.previous_valid_until.astimezone(UTC).isoformat(),
        }
        if not wait_until_unused:
            return document
        show(Output(document, as_json=session.as_json))
        await _wait_or_tell(session, keys, key_id, span)
    return None


async def wait(session: Session, key: KeyName, *, unused_for: UnusedFor = "10m") -> dict[str, Any]:
    """Wait until nobody uses the previous token of a rotated key.

    Example: smarter-auth key wait laptop --unused-for 10m
    """
    span = arguments.duration(unused_for)
    key_id = await arguments.key_id(session, key)
    async with session.keys() as keys:
        return key_document(await _wait_until_unused(keys, key_id, span))


async def _wait_or_tell(session: Session, keys: Management, key_id: UUID, span: timedelta) -> None:
    """Wait; report errors on stderr, since the result is printed already."""
    try:
        await _wait_until_unused(keys, key_id, span)
    except SmarterAuthError as error:
        note(f"error: {error} The rotation itself is done. To continue waiting: smarter-auth key wait {key_id}")
        session.exit_code = error.exit_code
    except asyncio.CancelledError:  # Ctrl-C
        note(f"Interrupted; nothing else changes. To continue waiting: smarter-auth key wait {key_id}")
        session.exit_code = 130


async def _wait_until_unused(keys: Management, key_id: UUID, span: timedelta) -> Key:
    shown = ""
    while True:
        key, now = await keys.key(key_id), datetime.now(UTC)
        pause_s = (_unused_at(key, span, now) - now).total_seconds()
        if (progress := _progress(key, span, now)) != shown:
            note(progress)
            shown = progress
        if pause_s <= 0:
            return key
        await asyncio.sleep(min(pause_s, POLL_S))


def _unused_at(key: Key, span: timedelta, now: datetime) -> datetime:
    """Return when all previous tokens will have been unused for that long, or invalid, if no one uses them again."""
    if key.state(now) in (KeyState.REVOKED, KeyState.EXPIRED):
        return now
    unused = (
        (token.valid_until, (token.last_used_at or token.created_at) + span) for token in key.previous_tokens(now)
    )
    return max((min(valid_until or end, end) for valid_until, end in unused), default=now)


def _progress(key: Key, span: timedelta, now: datetime) -> str:
    previous = key.previous_tokens(now)
    if not previous:
        return "No previous token is valid any more."
    used_at = max((token.last_used_at for token in previous if token.last_used_at), default=None)
    used = f"was last used at {used_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if used_at else "was never used"
    return f"The previous token, {previous[-1].token_key}…, {used}; waiting until it is unused for {span}."
