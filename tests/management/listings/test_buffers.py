"""What a page costs does not grow with the tables: buffers are counted, by the plans of every mode."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from smarter_auth_mw.errors import RefusedError
from smarter_auth_mw.management.listings import Listings
from smarter_auth_mw.postgres.connections.sessions import SESSION
from smarter_auth_mw.postgres.embedded.cluster import Cluster
from tests.support.database import Database, copied
from tests.support.many_keys import (
    ACCOUNT,
    AUDIT_LISTS,
    DAY,
    FILL,
    FILL_LABELS,
    FILL_USAGE,
    KEY_LISTS,
    RARE_LISTS,
    RESOURCE_LISTS,
    Plans,
)

KEYS = 50_000
PAGE, INNER = 50, 10
FEW, MANY = 50 * PAGE, 20_000
"""Buffers of a page that is full at once, and of one for which as many candidates are looked at as may be."""


@pytest.fixture(scope="module")
def filled(cluster: Cluster, template: str) -> Iterator[Database]:
    for database in copied(cluster, template):
        asyncio.run(_fill(database.owner))
        yield database


async def _fill(url: str) -> None:
    owner = await asyncpg.connect(url)
    try:
        await owner.execute(FILL.format(keys=KEYS) + FILL_LABELS + FILL_USAGE.format(keys=KEYS))
        await owner.execute("VACUUM ANALYZE")
    finally:
        await owner.close()


@pytest.fixture(params=["force_generic_plan", "force_custom_plan"])
async def plans(filled: Database, request: pytest.FixtureRequest) -> AsyncIterator[Plans]:
    connection = await asyncpg.connect(
        filled.runtime, server_settings=SESSION | {"plan_cache_mode": request.param}, statement_cache_size=0
    )
    yield Plans(connection)
    await connection.close()


async def test_every_list_is_read_by_index_and_no_further_than_its_page(plans: Plans) -> None:
    lists, dear = Listings(plans), {}
    for name, filters in KEY_LISTS.items():
        page = await lists.keys(filters, limit=PAGE, inner=INNER)
        assert page.items, name
        dear[name] = await plans.buffers()
        again = await lists.keys(filters, limit=PAGE, cursor=page.next, inner=INNER) if page.next else page
        dear[f"{name}, second page"] = await plans.buffers() if again is not page else 0
    for resources in RESOURCE_LISTS.values():
        assert (await lists.resources(resources, limit=PAGE, inner=INNER)).items, resources
        dear[str(resources)] = await plans.buffers()
    for name, events in AUDIT_LISTS.items():
        assert (await lists.audit(events, limit=PAGE, order="newest")).items
        dear[f"{name}, newest"] = await plans.buffers()
        assert (await lists.audit(events, limit=PAGE, order="oldest")).items
        dear[f"{name}, oldest"] = await plans.buffers()
    assert {name: buffers for name, buffers in dear.items() if buffers > FEW} == {}


async def test_rare_keys_cost_no_more_than_the_candidates_that_are_looked_at(plans: Plans) -> None:
    lists, dear = Listings(plans), {}
    for name, filters in RARE_LISTS.items():
        await lists.keys(filters, limit=PAGE, inner=INNER)
        dear[name] = await plans.buffers()
    assert {name: buffers for name, buffers in dear.items() if buffers > MANY} == {}


async def test_no_filter_is_tested_by_reading_all_that_could_fit_it(plans: Plans) -> None:
    """A hashed subplan reads every key of a resource to show fifty of them, from few buffers of an index."""
    lists = Listings(plans)
    hashed: list[object] = []
    for filters in (*KEY_LISTS.values(), *RARE_LISTS.values()):
        await lists.keys(filters, limit=PAGE, inner=INNER)
        hashed += [filters for plan in await plans.explained() if "hashed" in json.dumps(plan)]
    for resources in RESOURCE_LISTS.values():
        await lists.resources(resources, limit=PAGE, inner=INNER)
        hashed += [resources for plan in await plans.explained() if "hashed" in json.dumps(plan)]
    assert hashed == []


async def test_counting_for_an_overview_is_bounded(plans: Plans) -> None:
    """Fewer buffers than a full list: no row is read to be shown."""
    for scope in (None, ACCOUNT):
        found = await Listings(plans, scope=scope).attention(expiring_within=400 * DAY, unused_for=90 * DAY)
        assert all(1 <= count <= 101 for count in (found.expiring, found.unused, found.rotating))
        assert (found.expiring == found.unused == 101) == (scope is None)
        assert await plans.buffers() <= FEW
        assert "hashed" not in json.dumps(await plans.explained())


async def test_adding_up_all_usage_reads_a_bounded_number_of_series(
    plans: Plans, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything, own, living = Listings(plans), Listings(plans, scope=ACCOUNT), KEYS // 10
    for lists, count, width in ((everything, 2 * living, DAY), (own, 2 * living // 10, DAY / 24)):
        total, consumers = await lists.traffic()
        assert (total.count, total.width, [one.granted for one in consumers]) == (count, width, [2] * 5)
        assert await plans.buffers() < 10 * living
        assert _compared(await plans.explained()) == 0
    for limit in ("MAX_BY_HOUR", "MAX_BY_DAY"):
        monkeypatch.setattr(f"smarter_auth_mw.management.listings.usage.{limit}", PAGE)
    for lists in (everything, own):
        with pytest.raises(RefusedError, match="added up over 50 series"):
            await lists.traffic()
        assert await plans.buffers() < FEW


def _compared(plans: list[dict[str, Any]]) -> int:
    """Count the pairs of rows that a join looked at in vain: no buffer, but time that grows with the square."""
    return sum(map(int, re.findall(r'"Rows Removed by Join Filter": (\d+)', json.dumps(plans))))
