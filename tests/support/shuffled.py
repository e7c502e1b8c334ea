"""A pytest plugin that runs files, and the tests of each, in an order that SHUFFLE_SEED decides."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    chosen = random.Random(os.environ["SHUFFLE_SEED"])
    files: dict[Path, float] = {}
    items.sort(key=lambda item: (files.setdefault(item.path, chosen.random()), chosen.random()))
