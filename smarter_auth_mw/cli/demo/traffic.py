"""Keys and a week of traffic for the demo's pages, which would be empty otherwise."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from smarter_auth_mw.decision import Reason
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.errors import ConflictError
from smarter_auth_mw.management.keys import Management, Minted
from smarter_auth_mw.observers.usage import ANONYMOUS, GRANTED, Batch, Series
from smarter_auth_mw.postgres.store import Store

HOUR_S = 3600
AGES_H = (*range(150, 24, -6), *range(23, -1, -1))
"""The ages of the batches of requests: every six hours for a week, and every hour today."""


async def add_traffic(store: Store, keys: Management) -> None:
    """Create some keys and their usage, once per database."""
    one, three = Resource("bot", "1"), Resource("bot", "3")
    soon = datetime.now(UTC) + timedelta(days=9)
    try:
        website = await keys.create("website", description="The chat window.", labels={"team": "web"}, bind=[one])
    except ConflictError:
        return
    app = await keys.create("mobile app", labels={"team": "apps"}, bind=[three, one])
    report = await keys.create("nightly report", labels={"team": "data"}, expires_at=soon, bind=[three])
    laptop = await keys.create("old laptop", bind=[three])
    for batch in _batches([website, app, report]):
        await store.write_usage(batch)
    await keys.rotate(app.key.key_id, overlap=timedelta(days=3))
    await keys.revoke(laptop.key.key_id)


def _batches(minted: list[Minted]) -> Iterator[Batch]:
    """Yield requests that vary with the hour, the same ones each time."""
    now_s = time.monotonic()
    granted = list(map(_granted, minted))
    for age_h in AGES_H:
        busy = 1 + (12 - abs(12 - (age_h + 6) % 24)) * (6 if age_h >= 24 else 1)
        counts = {series: _between(busy, 4 * busy, age_h, place) for place, series in enumerate(granted)}
        counts[Series("bot", "1", Reason.UNKNOWN_TOKEN.value)] = _between(0, busy, age_h, "unknown")
        counts[Series("bot", "2", ANONYMOUS)] = _between(busy, 3 * busy, age_h, "anonymous")
        counts[Series("bot", "3", Reason.MISSING_CREDENTIALS.value)] = _between(0, 2, age_h, "missing")
        yield Batch({series: count for series, count in counts.items() if count}, uuid4(), now_s - age_h * HOUR_S)


def _between(least: int, most: int, *what: object) -> int:
    """Return a pseudo-random number, without using the app's random generator."""
    return least + zlib.crc32(repr(what).encode("ascii")) % (most - least + 1)


def _granted(minted: Minted) -> Series:
    key, token = minted.key, minted.token
    return Series("bot", key.bindings[0].ref, GRANTED, str(key.key_id), token.token_key, token.digest)
