"""The pytest plugin: the fixture ``smarter_auth``, an ``AuthKit`` for one test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from smarter_auth_mw.testing import AuthKit


@pytest.fixture
def smarter_auth_routes() -> Sequence[str]:
    """Return the routes of middlewares without settings; override it, or else the environment's routes apply."""
    return ()


@pytest.fixture
def smarter_auth(smarter_auth_routes: Sequence[str]) -> Iterator[AuthKit]:
    """Yield an ``AuthKit``: in this test every middleware uses its store in memory and its clock."""
    from smarter_auth_mw.testing import AuthKit  # Imported late, so that other tests do not load it.

    with AuthKit(smarter_auth_routes) as kit:
        yield kit
