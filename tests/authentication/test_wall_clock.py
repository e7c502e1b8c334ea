"""The clock by which keys expire: whatever people do to it, and when it goes back."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from smarter_auth_mw.authentication import wall_clock
from smarter_auth_mw.authentication.wall_clock import WallClock
from smarter_auth_mw.management.keys import Management
from tests.support.asgi import KEYED
from tests.support.database import Database
from tests.support.worker import beaten, until, worker

HOUR_S = 3600.0


class Machine:
    """A machine's clocks, and the true time."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.passed_s = self.ahead_s = 0.0

    def time(self) -> float:
        return float(self._real.time()) + self.passed_s + self.ahead_s

    def monotonic(self) -> float:
        return float(self._real.monotonic()) + self.passed_s

    @property
    def true_s(self) -> float:
        return float(self._real.time()) + self.passed_s


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(time)
    monkeypatch.setattr(wall_clock, "time", made)
    return made


def about(seconds: float) -> Any:
    return pytest.approx(seconds, abs=30)


def test_time_passes_and_does_not_step_back(machine: Machine) -> None:
    clock = WallClock()
    machine.passed_s += HOUR_S
    assert clock.now_s() == about(machine.true_s)
    machine.ahead_s = -HOUR_S
    assert clock.now_s() == about(machine.true_s)
    machine.ahead_s = HOUR_S
    assert clock.now_s() == about(machine.true_s + HOUR_S)


def test_a_clock_that_was_ahead_and_set_right_goes_back_once_the_database_agrees(machine: Machine) -> None:
    machine.ahead_s = 2 * HOUR_S
    clock = WallClock()
    clock.compare(machine.true_s, 0)
    assert clock.skew_s == about(2 * HOUR_S)
    assert clock.now_s() == about(machine.true_s + 2 * HOUR_S)
    machine.ahead_s = 0
    assert clock.now_s() == about(machine.true_s + 2 * HOUR_S)
    clock.compare(machine.true_s, 0)
    assert clock.skew_s == 0
    assert clock.now_s() == about(machine.true_s)


def test_a_clock_that_is_set_back_wrongly_does_not_bring_the_time_back(machine: Machine) -> None:
    clock = WallClock()
    machine.ahead_s = -HOUR_S
    clock.compare(machine.true_s, 0)
    assert clock.skew_s == about(-HOUR_S)
    assert clock.now_s() == about(machine.true_s)


def test_a_little_apart_is_agreed_and_no_reason_to_go_back(machine: Machine) -> None:
    clock = WallClock()
    before_s = clock.now_s()
    machine.ahead_s = -0.9
    clock.compare(machine.true_s, 0)
    assert clock.skew_s == 0
    assert clock.now_s() >= before_s
    clock.compare(machine.time() - 2.1, 1.2)  # The answer may have been under way for all of that time.
    assert clock.skew_s == 0


async def test_a_key_counts_again_once_a_worker_with_a_wrong_start_is_set_right(
    machine: Machine, database: Database, keys: Management
) -> None:
    minted = await keys.create("hour", bind=[KEYED], expires_at=datetime.now(UTC) + timedelta(hours=1))
    machine.ahead_s = 2 * HOUR_S
    async with worker(database.runtime, heartbeat_s=0.05, failed_attempts="", ready_path="/readyz") as started:
        assert await started.comes_to(401, KEYED, minted.token) <= {503}
        await beaten(started)
        assert "clock_skewed" in (await started._http.get("/readyz")).json()["reasons"]
        machine.ahead_s = 0
        assert await started.comes_to(200, KEYED, minted.token) <= {401}
        await until(lambda: started.cache.heartbeat_age_s < 1)
        assert (await started._http.get("/readyz")).json() == {"status": "ready"}
