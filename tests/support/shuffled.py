"""A pytest plugin that runs files, and the tests of each, in an order that SHUFFLE_SEED decides."""

from __future__ import annotations

import os
import random
from collections.abc import Generator
from pathlib import Path

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    chosen = random.Random(os.environ["SHUFFLE_SEED"])
    chosen.shuffle(items)
    yield  # pytest brings the tests together that share a server of several, in any order.
    files: dict[Path, float] = {}
    items.sort(key=lambda item: files.setdefault(item.path, chosen.random()))
