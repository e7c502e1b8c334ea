"""Durations as people write them: ``30s``, ``15m``, ``24h``, ``30d``."""

from __future__ import annotations

import re
from datetime import timedelta

RULE = "a number and its unit: 30s, 15m, 24h, 30d"
_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_duration(text: str) -> timedelta | None:
    """Return the duration, or None if the text is not one."""
    found = _DURATION.fullmatch(text)
    return None if found is None else timedelta(**{_UNITS[found[2]]: int(found[1])})
