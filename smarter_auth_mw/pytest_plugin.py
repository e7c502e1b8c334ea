"""The pytest plugin: the fixture ``smarter_auth``, an ``AuthKit`` in place for one test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from smarter_auth_mw.testing import AuthKit


@pytest.fixture
def smarter_auth_routes() -> Sequence[str]:
    """The routes of a middleware that is given no settings, to be overridden: else those of the environment."""
    return ()


@pytest.fixture
def smarter_auth(smarter_auth_routes: Sequence[str]) -> Iterator[AuthKit]:
    """An ``AuthKit``: in this test every middleware works on a store in memory, and on its clock."""
    from smarter_auth_mw.testing import AuthKit  # Late: who does not use it does not load it.

    with AuthKit(smarter_auth_routes) as kit:
        yield kit
