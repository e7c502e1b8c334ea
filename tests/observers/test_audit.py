"""The audit of requests: the true reason, bounded in rate, exact about the rest, and there for good."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from smarter_auth_mw.decision import Anonymous, Denial, Reason
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.errors import RefusedError, UnavailableError
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.observers.audit import MAX_EVENTS, MAX_TEXT, Audit, RequestEvent
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from smarter_auth_mw.tokens import Token, mint
from tests.support.asgi import KEYED, bearer, client, guarded, lifespan
from tests.support.database import Database
from tests.support.lists import audited

DENIAL = Denial(Reason.UNKNOWN_TOKEN, KEYED, account="default")


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Written:
    def __init__(self) -> None:
        self.events: list[RequestEvent] = []
        self.is_down = False

    async def write_requests(self, events: Sequence[RequestEvent], batch_id: UUID) -> None:
        if self.is_down:
            raise UnavailableError
        self.events.extend(events)

    @property
    def actions(self) -> list[str]:
        return [event.action for event in self.events]


def audit(audited: Any = "denials", clock: Clock | None = None, **bounds: Any) -> Audit:
    return Audit(audited, lambda _: "192.0.2.1", clock=clock or Clock(), **bounds)


async def events(store: Store) -> list[dict[str, Any]]:
    """Requests in the audit, the oldest first."""
    return [
        {name: getattr(event, name) for name in ("action", "actor", "kind", "ref", "account", "reason")}
        for event in await audited(store, action="request.*")
    ]


# Bounds


async def test_beyond_the_rate_only_the_counts_are_written_and_they_are_exact() -> None:
    clock, written = Clock(), Written()
    noted = audit(clock=clock, per_second=2, burst=5)
    for _ in range(100):
        noted.observe(DENIAL, {})
    for _ in range(7):
        noted.observe(Denial(Reason.EXPIRED, KEYED), {})
    await noted.flush(written)
    assert written.actions == ["request.deny"] * 5 + ["request.dropped"]
    assert written.events[-1].facts == {"events": 102, "outcomes": {"unknown_token": 95, "expired": 7}}
    clock.now_s += 1
    for _ in range(10):
        noted.observe(DENIAL, {})
    await noted.flush(written)
    assert written.actions[6:] == ["request.deny"] * 2 + ["request.dropped"]


async def test_what_waits_for_the_database_is_bounded_and_nothing_is_miscounted() -> None:
    written = Written()
    noted = audit(per_second=1e9, burst=10**9)
    written.is_down = True
    for _ in range(4):
        for _ in range(MAX_EVENTS):
            noted.observe(DENIAL, {})
        with pytest.raises(UnavailableError):
            await noted.flush(written)
    written.is_down = False
    await noted.flush(written)
    assert len(written.events) == MAX_EVENTS + 1
    assert written.events[-1].facts["events"] == 3 * MAX_EVENTS
    await noted.flush(written)
    assert len(written.events) == MAX_EVENTS + 1


async def test_what_a_stranger_chose_is_cut_and_escaped() -> None:
    written, noted = Written(), audit()
    noted.observe(Denial(Reason.NOT_CANONICAL, Resource("bot", "\x1b[2J\n" + "é" * 1000), detail="\x00" * 1000), {})
    await noted.flush(written)
    (event,) = written.events
    for text in (str(event.ref), str(event.facts["detail"])):
        assert len(text) <= MAX_TEXT
        assert text.isascii()
        assert text.isprintable()


# From the front door


@pytest.mark.parametrize(
    ("audited", "actions"),
    [
        ("none", []),
        ("denials", ["request.deny"]),
        ("all", ["request.deny", "request.grant", "request.anonymous"]),
    ],
)
async def test_audit_says_which_requests_are_written(
    database: Database, store: Store, token: Token, audited: str, actions: list[str]
) -> None:
    async with lifespan(guarded(database.runtime, audit=audited)) as app, client(app) as http:
        await http.get("/bots/1")
        await http.get("/bots/1", headers=bearer(token))
        await http.get("/bots/2", headers=bearer(token))
        await http.get("/health")
    assert [event["action"] for event in await events(store)] == actions


async def test_refused_requests_are_written_with_the_true_reason(
    database: Database, store: Store, token: Token, keys: Management
) -> None:
    async with lifespan(guarded(database.runtime)) as app, client(app) as http:
        await http.get("/bots/1")
        await http.get("/bots/1", headers=bearer(mint()))
        await http.get("/bots/1", headers={"Authorization": "Token a b"})
        await http.get("/bots/Oh-no%0a")
    (key,) = await keys.keys()
    await keys.deactivate(key.key_id)
    async with lifespan(guarded(database.runtime)) as app, client(app) as http:
        await http.get("/bots/1", headers=bearer(token))
    found = await events(store)
    assert [event["reason"] for event in found] == [
        "missing_credentials",
        "unknown_token",
        "malformed_credentials",
        "not_canonical",
        "inactive",
    ]
    assert {event["actor"] for event in found} == {"127.0.0.1"}
    assert {(event["kind"], event["ref"], event["account"]) for event in found} == {
        ("bot", "1", "default"),
        (None, None, None),
    }
    last = (await audited(store, key_id=key.key_id))[-1]
    assert last.after == {"status": 401, "token_key": token.token_key}


async def test_throttled_request_is_written_as_what_it_was(database: Database, store: Store, token: Token) -> None:
    async with lifespan(guarded(database.runtime, failed_attempts="1/hour")) as app, client(app) as http:
        statuses = [(await http.get("/bots/1", headers=bearer(mint()))).status_code for _ in range(2)]
    assert statuses == [401, 429]
    assert [event["reason"] for event in await events(store)] == ["unknown_token", "throttled"]


async def test_no_token_is_ever_in_the_database(database: Database, owner: asyncpg.Connection, token: Token) -> None:
    refused = mint()
    async with lifespan(guarded(database.runtime, audit="all")) as app, client(app) as http:
        for secret in (token, refused):
            for url in ("/bots/1", "/bots/2", f"/bots/1?token={secret.reveal()}"):
                for headers in (bearer(secret), {"X-API-Key": secret.reveal()}, {"Authorization": secret.reveal()}):
                    await http.get(url, headers=headers)
    tables = await owner.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'smarter_auth'")
    for (table,) in tables:
        rows = await owner.fetch(f"SELECT told::text FROM smarter_auth.{table} AS told")
        assert not any(secret.reveal()[20:] in row[0] for row in rows for secret in (token, refused)), table


async def test_when_it_was_asked_is_told_however_late_it_is_written(store: Store) -> None:
    clock = Clock()
    clock.now_s = time.monotonic() - 3600
    noted = audit(clock=clock)
    noted.observe(DENIAL, {})
    await noted.flush(store)
    (event,) = await audited(store)
    assert timedelta(minutes=59) < datetime.now(UTC) - event.at < timedelta(minutes=61)


class LostAnswer:
    """A store whose answer gets lost after the COMMIT."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def write_requests(self, events: Sequence[RequestEvent], batch_id: UUID) -> None:
        await self._store.write_requests(events, batch_id)
        raise ConnectionResetError


async def test_requests_whose_confirmation_was_lost_are_written_once(store: Store) -> None:
    noted = audit()
    for _ in range(50):
        noted.observe(DENIAL, {})
    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            await noted.flush(LostAnswer(store))
    await noted.flush(store)
    assert len(await audited(store)) == 50
    assert noted.waiting == 0


# Pruning


async def test_owner_prunes_and_that_is_written_down(database: Database, owner: asyncpg.Connection) -> None:
    await owner.execute("INSERT INTO smarter_auth.audit_event (actor, action, at)"
                        " SELECT 'somebody', 'something', now() - n * interval '1 day'"
                        " FROM generate_series(0, 9) AS n")  # fmt: skip
    async with open_pool(database.owner) as pool:
        pruned = await Store(pool).prune_audit(datetime.now(UTC) - timedelta(days=4, hours=12), "tester")
    assert pruned == 5
    left = await owner.fetch("SELECT actor, action, before FROM smarter_auth.audit_event ORDER BY id")
    assert [row["action"] for row in left] == ["something"] * 5 + ["audit.prune"]
    assert json.loads(left[-1]["before"])["events"] == 5


async def test_running_role_prunes_nothing_and_is_told_what_to_do(store: Store, keys: Management) -> None:
    await keys.create("one")
    with pytest.raises(RefusedError, match="append-only") as refused:
        await store.prune_audit(datetime.now(UTC) + timedelta(days=1), "tester")
    assert "owner" in refused.value.hint
    assert [event.action for event in await audited(store)] == ["key.create"]


def test_anonymous_request_is_no_denial() -> None:
    assert Anonymous not in audit("denials").decisions
