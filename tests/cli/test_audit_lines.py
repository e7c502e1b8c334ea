"""What `audit --jsonl` prints for a SIEM: every kind of event fits the schema that the documentation publishes."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from smarter_auth_mw.admin.answers import Event
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.management.operators import Doorkeeper, Operators, Role
from smarter_auth_mw.observers.audit import RequestEvent
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from tests.support.cli import Commands
from tests.support.database import Database
from tests.support.documents import ROOT

FILE = ROOT / "docs" / "audit.schema.json"
PAGE = ROOT / "docs" / "how-to" / "auditing.md"
BOT = Resource("bot", "1")


def _schema() -> dict[str, Any]:
    """Events as the management API has them, and the cursor that `--after` and `--follow` add."""
    schema = Event.model_json_schema()
    cursor = {"type": "string", "description": "for --after: what was committed behind this event"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of smarter-auth audit --jsonl",
        "type": "object",
        "properties": {**schema["properties"], "cursor": {"title": "Cursor", **cursor}},
        "required": schema["required"],
        "additionalProperties": False,
    }


def test_schema_in_the_repository_is_current() -> None:
    """UPDATE_GOLDEN=1 writes it. Members are added, never removed or renamed."""
    if os.environ.get("UPDATE_GOLDEN"):
        FILE.write_text(json.dumps(_schema(), indent=2) + "\n")
    assert json.loads(FILE.read_text()) == _schema()
    Draft202012Validator.check_schema(_schema())


async def _do_everything(store: Store, owners: Store) -> None:
    """Have an event of every kind written, but those of an import."""
    keys = Management(store, "ada")
    await keys.add_resource(BOT)
    await keys.set_resource(BOT, name="sales")
    await keys.protect(BOT)
    minted = await keys.create("one", bind=[BOT], labels={"team": "sales"}, expires_at=datetime(2099, 1, 1, tzinfo=UTC))
    key_id = minted.key.key_id
    await keys.touch_binding(key_id, BOT)
    await keys.set_key(key_id, description="changed")
    await keys.deactivate(key_id)
    await keys.activate(key_id)
    await keys.rotate(key_id)
    await keys.revoke(key_id, unbind=True)
    await keys.unprotect(BOT)
    await keys.remove_resource(BOT)
    operators, door = Operators(owners, "ada"), Doorkeeper(store)
    await operators.create("bob", Role.VIEWER)
    await operators.set("bob", role=Role.MANAGER)
    rotated = await operators.rotate("bob")
    await door.sign_in(rotated.token)
    await door.end_tokens([rotated.token.digest], None, "ada")
    await operators.revoke("bob")
    await owners.prune_audit(datetime(2000, 1, 1, tzinfo=UTC), "ada")
    peer, about = "192.0.2.0/24", ("bot", "1", "default", str(key_id))
    await store.write_requests(
        [
            RequestEvent("request.grant", 0.0, peer, *about),
            RequestEvent("request.anonymous", 0.0, peer, *about[:3]),
            RequestEvent("request.deny", 0.0, peer, *about, "unknown_token", {"status": 401, "token_key": "0" * 15}),
            RequestEvent("request.dropped", 0.0, facts={"events": 2, "outcomes": {"unknown_token": 2}}),
        ]
    )


@pytest.fixture
async def events(run: Commands, database: Database, store: Store, tmp_path: Path) -> list[Mapping[str, Any]]:
    async with open_pool(database.owner) as pool:
        await _do_everything(store, Store(pool))
    path = tmp_path / "in.csv"
    path.write_text("key,digest\nimported,none\n")
    assert not (await asyncio.to_thread(run, "import", str(path))).exit_code
    told = await asyncio.to_thread(run, "audit", "--jsonl", "--after", "beginning")
    return [json.loads(line) for line in told.out.splitlines()]


async def test_every_kind_of_event_fits_the_schema_and_is_on_the_page(events: list[Mapping[str, Any]]) -> None:
    validator = Draft202012Validator(json.loads(FILE.read_text()))
    for event in events:
        validator.validate(event)
    documented = set(re.findall(r"`((?:[a-z]+\.[a-z_]+)|import)`", PAGE.read_text("utf-8").partition("| action")[2]))
    assert {event["action"] for event in events} == documented


async def test_database_role_is_the_one_that_was_logged_in(events: list[Mapping[str, Any]], database: Database) -> None:
    roles = {event["action"]: event["database_role"] for event in events}
    assert roles["key.create"] == roles["import"] == database.manager_role
    assert roles["operator.create"] == roles["audit.prune"] != database.manager_role


async def test_acts_leave_requests_out_and_nothing_else(events: list[Mapping[str, Any]], run: Commands) -> None:
    acts = await asyncio.to_thread(run.json, "audit", "--acts")
    assert {event["id"] for event in acts} == {
        event["id"] for event in events if not event["action"].startswith("request.")
    }
    assert len(acts) < len(events)
