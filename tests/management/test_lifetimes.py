"""MAX_KEY_LIFETIME: no key is made, extended, rotated or imported past it, whoever asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import smarter_auth_mw
from smarter_auth_mw.config.settings import DatabaseSettings
from smarter_auth_mw.errors import ConfigurationError, RefusedError, UsageError
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.management.lifetimes import (
    LifetimeError,
    check_expiry,
    check_policy,
    check_time_zone,
    is_beyond,
    latest,
    within,
)
from smarter_auth_mw.models import SmarterAuthToken
from smarter_auth_mw.postgres.store import Store
from tests.support.cli import Commands
from tests.support.database import Database
from tests.support.store import pytest_generate_tests, store, store_url

__all__ = ["pytest_generate_tests", "store", "store_url"]

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
LONGEST = 90 * DAY


@pytest.fixture
def limited(store: Store) -> Management:
    return Management(store, "tester", longest_life=LONGEST, clock=lambda: NOW)


@pytest.mark.parametrize(("asked", "given"), [(None, 90), (10, 10), (90, 90)])
async def test_key_without_an_expiry_gets_the_latest_that_is_allowed(
    limited: Management, asked: int | None, given: int
) -> None:
    minted = await limited.create("one", expires_at=None if asked is None else NOW + asked * DAY)
    assert minted.key.expires_at == NOW + given * DAY


@pytest.mark.parametrize(
    "act",
    [
        lambda limited, key_id: limited.create("two", expires_at=NOW + LONGEST + timedelta(seconds=1)),
        lambda limited, key_id: limited.set_key(key_id, expires_at=NOW + LONGEST + timedelta(seconds=1)),
        lambda limited, key_id: limited.set_key(key_id, expires_at=None),
    ],
)
async def test_what_would_be_valid_for_longer_is_refused(
    limited: Management, act: Callable[..., Awaitable[object]]
) -> None:
    before = (await limited.create("one")).key
    with pytest.raises(RefusedError, match="MAX_KEY_LIFETIME allows 90 days"):
        await act(limited, before.key_id)
    assert await limited.keys() == [before]


async def test_rotation_brings_an_old_key_within_the_policy(
    store: Store, keys: Management, limited: Management
) -> None:
    for expires_at, then in ((None, NOW + LONGEST), (NOW + 2 * LONGEST, NOW + LONGEST), (NOW + DAY, NOW + DAY)):
        made = await Management(store, "before", clock=lambda: NOW).create(f"until {expires_at}", expires_at=expires_at)
        assert (await limited.rotate(made.key.key_id)).key.expires_at == then


async def test_what_else_is_changed_of_an_old_key_is_no_matter_of_the_policy(
    keys: Management, limited: Management
) -> None:
    old = (await keys.create("old")).key
    assert (await limited.set_key(old.key_id, name="renamed")).expires_at is None
    assert (await limited.deactivate(old.key_id)).expires_at is None


async def test_models_keep_to_it(database: Database) -> None:
    settings = DatabaseSettings(database_url=database.manager, max_key_lifetime="90d")
    async with smarter_auth_mw.connect(settings):
        key = (await SmarterAuthToken.objects.create(name="one")).key
        assert key.expiry is not None
        assert key.expiry - datetime.now(UTC) <= LONGEST
        key.expiry = None
        with pytest.raises(RefusedError):
            await key.save()


def test_command_line_and_import_keep_to_it_and_doctor_names_what_does_not(run: Commands, tmp_path: Path) -> None:
    old = run.json("key", "create", "--name", "old")["key_id"]
    far = run.json("key", "create", "--name", "far", "--expires-in", "400d")["key_id"]
    run.set(max_key_lifetime="90d")
    assert run.json("key", "create", "--name", "new")["expires_at"] is not None
    assert run("key", "create", "--name", "later", "--expires-in", "91d").exit_code == 1
    assert run("key", "set", "new", "--expires-in", "never").exit_code == 1
    file = tmp_path / "in.csv"
    file.write_text("key,expires_at\nimported,\n")
    run.json("import", str(file))
    assert run.json("key", "show", "imported")["expires_at"] is not None
    file.write_text("key,expires_at\nlate,2999-01-01T00:00:00Z\n")
    assert "MAX_KEY_LIFETIME" in run("import", str(file), "--json").json["error"]["message"]
    found = [one["message"] for one in run("doctor", "--json").json["findings"] if one["check"] == "lifetime"]
    assert sorted(message.split("(")[1].split(")")[0] for message in found) == sorted([old, far])


@pytest.mark.parametrize("text", ["90", "d", "1.5d", "-1d", "forever"])
def test_what_is_no_duration_is_a_mistake_of_the_configuration(text: str) -> None:
    with pytest.raises(ConfigurationError, match="MAX_KEY_LIFETIME"):
        DatabaseSettings(database_url="postgresql://u@h/d", max_key_lifetime=text)


MOMENT = timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("expires_at", "longest", "end", "beyond"),
    [
        (None, None, None, False),
        (NOW + LONGEST, None, None, False),
        (None, LONGEST, NOW + LONGEST, True),
        (NOW + LONGEST, LONGEST, NOW + LONGEST, False),
        (NOW + LONGEST + MOMENT, LONGEST, NOW + LONGEST, True),
        (None, timedelta.max, None, False),
    ],
)
def test_what_is_beyond_the_limit(
    expires_at: datetime | None, longest: timedelta | None, end: datetime | None, beyond: bool
) -> None:
    assert latest(longest, NOW) == end
    assert is_beyond(expires_at, longest, NOW) is beyond
    if expires_at is None:
        assert within(expires_at, longest, NOW) == end
    elif beyond:
        with pytest.raises(LifetimeError):
            within(expires_at, longest, NOW)
    else:
        assert within(expires_at, longest, NOW) == expires_at


@pytest.mark.parametrize(
    ("expires_at", "says"),
    [(None, "without end: "), (NOW + LONGEST + MOMENT, "until 2026-08-30T00:00:00.000001")],
)
def test_what_is_too_long_says_what_to_do(expires_at: datetime | None, says: str) -> None:
    for check, limit in ((check_policy, "MAX_KEY_LIFETIME allows 90 days"), (check_expiry, "longer than 90 days")):
        with pytest.raises(LifetimeError, match=f"This key would be valid {says}.*{limit}") as refused:
            check(expires_at, LONGEST, NOW)
        assert "--expires-in" in refused.value.hint


def test_expiry_is_ahead_within_the_limit_and_has_a_time_zone() -> None:
    for expires_at, longest in ((None, None), (NOW + MOMENT, None), (NOW + LONGEST, LONGEST)):
        check_expiry(expires_at, longest, NOW)
        check_time_zone(expires_at)
    with pytest.raises(LifetimeError, match=r"2026-06-01T00:00:00.* is in the past"):
        check_expiry(NOW, None, NOW)
    for check in (lambda time: check_expiry(time, None, NOW), check_time_zone):
        with pytest.raises(UsageError, match="2999-01-01T00:00:00 has no time zone"):
            check(datetime(2999, 1, 1))
