"""The first page: what needs attention, counted up to 101, each line with the list that shows it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from smarter_auth_mw.admin.charts import chart
from smarter_auth_mw.admin.pages.commands import command
from smarter_auth_mw.admin.pages.visit import Html, Reply, Visit, path_of
from smarter_auth_mw.errors import RefusedError

MOST, SHOWN = 101, 5
DAY = timedelta(days=1)


async def overview(visit: Visit) -> Reply:
    listings = visit.call().listings
    found = await listings.attention(expiring_within=14 * DAY, unused_for=90 * DAY, most=MOST)
    context: dict[str, Any] = {
        "lines": [
            _line(found.expiring, "expires within 14 days", "expire within 14 days", expiring_within="14d"),
            _line(found.unused, "was not used for 90 days", "were not used for 90 days", unused_for="90d"),
            _line(
                *(found.rotating, "is being rotated", "are being rotated", _old_token(found.used_old_tokens)),
                rotating="true",
            ),
        ],
        "open": _number(found.open_resources),
        "kinds": await _unrouted(visit),
        "has_keys": found.has_keys,
        **await _traffic(visit),
        "acts": (await visit.document("list_audit", query={"acts": "true", "limit": SHOWN}))["items"],
        "health": await visit.document("show_health"),
        "command": command("doctor"),
        "label": "Check the configuration and the keys on the command line",
    }
    return Html("overview.html", context)


def _line(count: int, one: str, many: str, more: str = "", **query: str) -> Mapping[str, Any]:
    words = f"key {one}" if count == 1 else f"keys {many}"
    return {"count": _number(count), "words": words, "more": more, "path": path_of("keys", **query)}


def _number(count: int) -> str:
    return f"more than {MOST - 1}" if count >= MOST else str(count)


def _old_token(count: int) -> str:
    return f"{count} with an old token that was used after the rotation" if count else ""


async def _traffic(visit: Visit) -> Mapping[str, Any]:
    """Return the chart of all requests of the last day, or the reason why there is none, and the most used keys."""
    span = "in the last 24 hours"
    try:
        total, consumers = await visit.call().listings.traffic(most=SHOWN)
    except RefusedError:
        words = "Too many resources and tokens to add up here: see their own pages."
        return {"span": span, "chart": words, "consumers": ()}
    if total.width == DAY:
        span = "since yesterday, UTC"
    drawn = chart(total, "all resources") or f"No requests {span}."
    return {"span": span, "chart": drawn, "consumers": consumers}


async def _unrouted(visit: Visit) -> list[str]:
    """Return the kinds of protected resources that no route names; only operators of all accounts see them."""
    if visit.operator.account is not None:
        return []
    return sorted(await visit.services.store.protected_kinds() - set(visit.services.routes.kinds))
