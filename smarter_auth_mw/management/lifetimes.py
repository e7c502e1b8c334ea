"""Expiry of keys: the time that a command sets, and the limit MAX_KEY_LIFETIME."""

from __future__ import annotations

from datetime import datetime, timedelta

from smarter_auth_mw.errors import RefusedError, UsageError
from smarter_auth_mw.management.rotations import until_text

_SOONER = "Choose an earlier expiry: --expires-in"


class LifetimeError(RefusedError):
    """The key would be valid for longer than is allowed, or its expiry is past."""


def latest(longest: timedelta | None, now: datetime) -> datetime | None:
    """Return the latest allowed expiry of a key; None: no limit before the year 9999."""
    try:
        return None if longest is None else now + longest
    except OverflowError:
        return None


def is_beyond(expires_at: datetime | None, longest: timedelta | None, now: datetime) -> bool:
    """Return whether a key is valid for longer than allowed."""
    end = latest(longest, now)
    return end is not None and (expires_at is None or expires_at > end)


def within(expires_at: datetime | None, longest: timedelta | None, now: datetime) -> datetime | None:
    """Return the expiry, or the latest allowed one if there is none; raises LifetimeError for a later one."""
    if expires_at is None:
        return latest(longest, now)
    check_policy(expires_at, longest, now)
    return expires_at


def check_policy(expires_at: datetime | None, longest: timedelta | None, now: datetime) -> None:
    """Raise LifetimeError for a key that would be valid for longer than allowed."""
    if longest is not None and is_beyond(expires_at, longest, now):
        raise LifetimeError(
            f"This key would be valid {until_text(expires_at)}: MAX_KEY_LIFETIME allows {_days(longest)}.", hint=_SOONER
        )


def check_expiry(expires_at: datetime | None, max_lifetime: timedelta | None, now: datetime) -> None:
    """Refuse an expiry in the past, and a key that would be valid for longer than ``max_lifetime``."""
    check_time_zone(expires_at)
    if expires_at is not None and expires_at <= now:
        raise LifetimeError(f"The expiry {expires_at.isoformat()} is in the past.")
    if max_lifetime is not None and (expires_at is None or expires_at - now > max_lifetime):
        raise LifetimeError(
            f"This key would be valid {until_text(expires_at)}: longer than {_days(max_lifetime)}.", hint=_SOONER
        )


def check_time_zone(time: datetime | None) -> None:
    """Refuse a time that has no time zone."""
    if time is not None and time.tzinfo is None:
        raise UsageError(f"The expiry {time.isoformat()} has no time zone.")


def _days(span: timedelta) -> str:
    return str(span).removesuffix(", 0:00:00")
