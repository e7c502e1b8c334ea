"""The protocol's model holds within small bounds, and finds the mistakes that the state machine finds in the code."""

from __future__ import annotations

import shutil

import pytest

from model.__main__ import CRASHES, MISTAKES, NEEDED, SMALL, check
from tests.cache import test_coherence_mistakes

needs_spin = pytest.mark.skipif(not all(map(shutil.which, NEEDED)), reason="spin and gcc are not installed")
JOINS = "a trigger that joins bindings to name resources"
"""Tried by a history of its own, TestBindAgainstDeactivate."""


def test_same_mistakes_are_planted_in_the_model_and_in_the_code() -> None:
    assert set(MISTAKES) == {*test_coherence_mistakes.MISTAKES, JOINS}


@needs_spin
def test_no_state_grants_what_a_heartbeat_or_time_rules_out() -> None:
    found = check(*CRASHES)
    assert found.errors == 0
    assert found.unreached == 0  # Every step of the model is taken somewhere.


@needs_spin
def test_revoked_key_is_refused_in_the_end() -> None:
    assert check(*SMALL, liveness=True).errors == 0


@needs_spin
def test_without_the_catch_up_it_is_not() -> None:
    assert check("NO_CATCH_UP", *SMALL, liveness=True).errors == 1


@needs_spin
@pytest.mark.parametrize("mistake", [name for name, defined in MISTAKES.items() if "TXS=1" in defined])
def test_mistake_has_a_counterexample(mistake: str) -> None:
    assert check(*MISTAKES[mistake]).errors == 1
