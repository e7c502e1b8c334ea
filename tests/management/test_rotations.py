"""Which keys can be rotated, and until when their previous token is valid: decisions that need no store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from smarter_auth_mw.domain import Key, KeyToken
from smarter_auth_mw.errors import ConflictError, RefusedError, UsageError
from smarter_auth_mw.management.rotations import (
    OVERLAP,
    RotationOverlapsError,
    check_rotation,
    end_of_overlap,
    until_text,
)

NOW = datetime(2026, 6, 1, tzinfo=UTC)
HOUR, MOMENT = timedelta(hours=1), timedelta(microseconds=1)
KEY_ID = UUID("6f1f5a8e-3f0c-4f39-9d0a-2b8f6f1c0001")
OLDEST = KeyToken("oldest", NOW, NOW - HOUR)
PREVIOUS = KeyToken("previous", NOW, NOW + HOUR)
ENDLESS = KeyToken("endless", NOW)
NEWEST = KeyToken("newest", NOW)


def key(*tokens: KeyToken, expires_at: datetime | None = None) -> Key:
    return Key(KEY_ID, "acme", "one", "", True, expires_at, None, NOW, NOW, tokens=tokens)


@pytest.mark.parametrize(
    ("rotated", "force", "replaces"),
    [
        (key(NEWEST), False, None),
        (key(NEWEST), False, "newest"),
        (key(OLDEST, NEWEST), False, None),
        (key(OLDEST, PREVIOUS, NEWEST), True, None),
        (key(OLDEST, PREVIOUS, NEWEST), True, "newest"),
        (key(), False, None),
        (key(NEWEST, expires_at=NOW), False, None),
    ],
)
def test_key_is_rotated_that_is_not_being_rotated_or_by_force(rotated: Key, force: bool, replaces: str | None) -> None:
    check_rotation(rotated, NOW, force=force, replaces=replaces)


@pytest.mark.parametrize(
    ("rotated", "force", "replaces"),
    [
        (key(PREVIOUS, NEWEST), False, None),
        (key(PREVIOUS, NEWEST), False, "newest"),
        (key(PREVIOUS, NEWEST), False, "previous"),
        (key(PREVIOUS, NEWEST), True, "previous"),
        (key(ENDLESS, PREVIOUS, NEWEST), False, None),
    ],
)
def test_running_rotation_is_ended_early_only_by_force(rotated: Key, force: bool, replaces: str | None) -> None:
    with pytest.raises(RotationOverlapsError) as refused:
        check_rotation(rotated, NOW, force=force, replaces=replaces)
    assert str(refused.value) == (
        f"The key {KEY_ID} is being rotated: its previous token, previous…, is valid until 2026-06-01T01:00:00+00:00."
    )
    assert "--force" in refused.value.hint
    assert (vars(refused.value)["token_key"], refused.value.code) == ("newest", "rotation_overlaps")


@pytest.mark.parametrize(("rotated", "newest"), [(key(OLDEST, NEWEST), "newest"), (key(), None)])
@pytest.mark.parametrize("force", [False, True])
def test_token_that_is_not_the_newest_is_not_replaced(rotated: Key, newest: str | None, force: bool) -> None:
    with pytest.raises(ConflictError, match=f"The newest token of the key {KEY_ID} is not oldest…") as refused:
        check_rotation(rotated, NOW, force=force, replaces="oldest")
    assert type(refused.value) is ConflictError
    assert "Read the key again" in refused.value.hint
    assert vars(refused.value)["token_key"] == newest


@pytest.mark.parametrize("force", [False, True])
def test_expired_key_is_not_rotated(force: bool) -> None:
    with pytest.raises(RefusedError, match=f"The key {KEY_ID} has expired") as refused:
        check_rotation(key(PREVIOUS, NEWEST, expires_at=NOW - MOMENT), NOW, force=force)
    assert "smarter-auth key create" in refused.value.hint


@pytest.mark.parametrize(
    ("overlap", "expires_at", "end"),
    [
        (OVERLAP, None, NOW + timedelta(days=1)),
        (timedelta(0), None, NOW),
        (HOUR, NOW + 2 * HOUR, NOW + HOUR),
        (2 * HOUR, NOW + HOUR, NOW + HOUR),
    ],
)
def test_previous_token_ends_with_the_overlap_or_the_key(
    overlap: timedelta, expires_at: datetime | None, end: datetime
) -> None:
    assert end_of_overlap(overlap, key(expires_at=expires_at), NOW) == end


@pytest.mark.parametrize(("overlap", "says"), [(-MOMENT, "cannot be negative"), (timedelta.max, "is too long")])
def test_impossible_overlap_is_refused(overlap: timedelta, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        end_of_overlap(overlap, key(), NOW)


def test_end_of_a_validity_is_written_out() -> None:
    assert [until_text(time) for time in (None, NOW)] == ["without end", "until 2026-06-01T00:00:00+00:00"]
