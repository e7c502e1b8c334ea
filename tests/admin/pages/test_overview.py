"""The overview of a database that has nothing else: in a file of its own, since those of a file share one."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from smarter_auth_mw.domain import Resource
from smarter_auth_mw.observers.usage import GRANTED, Batch, Series
from tests.support.pages import Outline, Pages

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_each_line_of_the_overview_leads_to_the_list_that_it_counts(pages: Pages) -> None:
    person = await pages.person()
    assert "Create the first key" in (await person.get("/")).text
    soon = await pages.keys.create("expires soon", expires_at=datetime.now(UTC) + timedelta(days=3))
    rotated = await pages.keys.create("rotated", bind=[Resource("bot", "1")])
    await pages.keys.rotate(rotated.key.key_id)
    await pages.keys.add_resource(Resource("bot", "2"))
    await pages.keys.add_resource(Resource("dog", "1"), protect=True)
    assert "after the rotation" not in (await person.get("/")).text
    series = Series("bot", "1", GRANTED, str(rotated.key.key_id), rotated.token.token_key, rotated.token.digest)
    await pages.store.write_usage(Batch({series: 1}, uuid4(), time.monotonic()))
    page = await person.get("/")
    text = Outline(page.text).text
    assert "1 key expires within 14 days" in text
    assert "1 key is being rotated 1 with an old token that was used after the rotation" in text
    assert "1 registered resource is open to anyone" in text
    assert "dog has protected resources, and no route names this kind" in text
    lists = [link for link in Outline(page.text).links if "?" in link]
    answers = {link: (await person.get(link.removeprefix("."))).text for link in lists}
    assert str(soon.key.key_id) in answers["./keys?expiring_within=14d"]
    assert str(rotated.key.key_id) in answers["./keys?rotating=true"]
    assert "bot:2" in answers["./resources?state=open"]
    assert "dog:1" in answers["./resources?kind=dog&state=protected"]
