"""The rules of rotation: which keys can be rotated, and how long their previous token stays valid."""

from __future__ import annotations

from datetime import datetime, timedelta

from smarter_auth_mw.domain import Key, KeyState
from smarter_auth_mw.errors import ConflictError, RefusedError, UsageError

OVERLAP = timedelta(hours=24)
"""The default time for which the previous token stays valid after a rotation."""


class RotationOverlapsError(ConflictError):
    """The key is being rotated: its previous token is still valid."""

    code = "rotation_overlaps"


def check_rotation(key: Key, now: datetime, *, force: bool, replaces: str | None = None) -> None:
    """Raise RefusedError for an expired key, RotationOverlapsError, or ConflictError.

    ``replaces`` is the public head of the token to replace. ``force`` ends a running overlap early, but never replaces
    a token that is not the newest one: the response with a newer token may have been lost.
    """
    if key.state(now) is KeyState.EXPIRED:
        raise RefusedError(
            f"The key {key.key_id} has expired: a new token would not work.",
            hint="Create another: smarter-auth key create",
        )
    newest = key.token_keys[-1] if key.tokens else None
    previous = key.previous_tokens(now)
    if previous and not (force and replaces in (None, newest)):
        raise RotationOverlapsError(
            f"The key {key.key_id} is being rotated: its previous token, {previous[-1].token_key}…,"
            f" is valid {until_text(previous[-1].valid_until)}.",
            hint="Wait until then, or rotate again anyway: --force, with --overlap 0s if it leaked.",
            token_key=newest,
        )
    if replaces not in (None, newest):
        raise ConflictError(
            f"The newest token of the key {key.key_id} is not {replaces}…: it has already been rotated.",
            hint="Read the key again, and use its newest token.",
            token_key=newest,
        )


def end_of_overlap(overlap: timedelta, key: Key, now: datetime) -> datetime:
    """Return the end of the previous token's validity, at most that of the key; raises UsageError."""
    if overlap < timedelta(0):
        raise UsageError("An overlap cannot be negative.")
    try:
        until = now + overlap
    except OverflowError:
        raise UsageError(f"An overlap of {overlap} is too long: it would end after the year 9999.") from None
    return until if key.expires_at is None else min(until, key.expires_at)


def until_text(time: datetime | None) -> str:
    """Return the text for the end of a validity."""
    return "without end" if time is None else f"until {time.isoformat()}"
