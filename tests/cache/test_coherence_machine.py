"""Any history of writers, wires, workers and clocks leaves every answer true."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.support.coherence_machine import Coherence

EXAMPLES = int(os.environ.get("COHERENCE_EXAMPLES", "300"))
"""More for a long run."""
STEPS = 40


def test_no_history_lets_a_revoked_token_in_or_keeps_a_valid_one_out() -> None:
    run_state_machine_as_test(
        Coherence,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
