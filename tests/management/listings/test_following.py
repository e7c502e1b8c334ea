"""Following the audit: nothing is lost and nothing comes twice, however late it is committed."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import AsyncIterator

import asyncpg
import pytest

from smarter_auth_mw.errors import UsageError
from smarter_auth_mw.management.listings import AuditFilters, Listings
from smarter_auth_mw.management.listings.following import AuditStream
from smarter_auth_mw.postgres.store import Store
from tests.support.database import Database

WRITE = (
    "INSERT INTO smarter_auth.audit_event (actor, action, at) VALUES ($1, 'key.set', now() - $2::int * interval '1 s')"
)


@pytest.fixture
def lists(store: Store) -> Listings:
    return Listings(store)


@pytest.fixture
async def other(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """A second connection: another worker that writes."""
    connection = await asyncpg.connect(database.owner)
    try:
        yield connection
    finally:
        await connection.close()


async def drained(stream: AuditStream) -> list[str]:
    """Who did what has come since the last time."""
    return [event.actor async for event, _ in stream.read()]


async def test_stream_brings_what_there_is_and_then_what_comes(lists: Listings, owner: asyncpg.Connection) -> None:
    await owner.execute(WRITE, "first", 0)
    stream = lists.stream()
    assert await drained(stream) == ["first"]
    assert await drained(stream) == []
    await owner.execute(WRITE, "second", 0)
    assert await drained(stream) == ["second"]
    assert await drained(lists.stream(after="now")) == []


async def test_batch_that_is_committed_late_is_not_lost(
    lists: Listings, owner: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    """Two workers write; one of them took its id, its time and its transaction first, and commits last."""
    late = other.transaction()
    await late.start()
    await other.execute(WRITE, "late", 3600)
    await owner.execute(WRITE, "early", 0)
    stream = lists.stream()
    assert await drained(stream) == ["early"]
    await owner.execute(WRITE, "later", 0)
    assert await drained(stream) == ["later"]
    await late.commit()
    assert await drained(stream) == ["late"]
    assert await drained(stream) == []


async def test_long_transaction_of_somebody_holds_nothing_up(
    lists: Listings, owner: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    stream = lists.stream(after="now")
    await drained(stream)
    async with other.transaction():
        await other.execute("SELECT pg_current_xact_id()")
        await owner.execute(WRITE, "meanwhile", 0)
        assert await drained(stream) == ["meanwhile"]


async def test_every_cursor_goes_on_where_its_event_was(
    lists: Listings, owner: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    for number in range(5):
        await owner.execute(WRITE, f"old {number}", 100 - number)
    stream = lists.stream()
    shown = [(event.actor, cursor) async for event, cursor in stream.read()]
    late = other.transaction()
    await late.start()
    await other.execute(WRITE, "late", 0)
    for number in range(3):
        await owner.execute(WRITE, f"new {number}", 0)
    shown += [(event.actor, cursor) async for event, cursor in stream.read()]
    await late.commit()
    await owner.execute(WRITE, "last", 0)
    everything = [actor for actor, _ in shown]
    for number, (_, cursor) in enumerate(shown):
        rest = await drained(lists.stream(after=cursor))
        assert sorted(rest) == sorted([*everything[number + 1 :], "late", "last"]), number


async def test_many_writers_at_once_are_followed_without_loss(lists: Listings, database: Database) -> None:
    """Transactions of random length by several workers, while the stream is cut off and taken up by its cursor."""
    chance, done = random.Random(7), asyncio.Event()

    async def work(worker: int) -> None:
        connection = await asyncpg.connect(database.owner)
        try:
            for number in range(60):
                async with connection.transaction():
                    await connection.execute(WRITE, f"{worker}/{number}", chance.randrange(100))
                    await asyncio.sleep(chance.random() * 0.02)
        finally:
            await connection.close()

    async def follow() -> list[str]:
        found: list[str] = []
        cursor, is_last = "beginning", False
        while not is_last:
            is_last = done.is_set()
            async for event, place in lists.stream(after=cursor).read():
                found.append(event.actor)
                cursor = place
                if not is_last and chance.random() < 0.05:
                    break
        return found

    following = asyncio.create_task(follow())
    await asyncio.gather(*(work(worker) for worker in range(4)))
    done.set()
    assert sorted(await following) == sorted(f"{worker}/{number}" for worker in range(4) for number in range(60))


async def test_events_before_the_upgrade_are_in_the_stream(lists: Listings, owner: asyncpg.Connection) -> None:
    await owner.execute("ALTER TABLE smarter_auth.audit_event ALTER tx DROP DEFAULT")
    await owner.execute(WRITE, "old", 100)
    await owner.execute("ALTER TABLE smarter_auth.audit_event ALTER tx SET DEFAULT pg_current_xact_id()")
    await owner.execute(WRITE, "new", 0)
    assert await drained(lists.stream()) == ["old", "new"]


async def test_events_of_a_dump_are_in_the_stream(lists: Listings, owner: asyncpg.Connection) -> None:
    """Their transactions are numbered by another server."""
    await owner.execute(
        "INSERT INTO smarter_auth.audit_event (actor, action, tx) VALUES ('dumped', 'key.set', '999999999')"
    )
    stream = lists.stream()
    assert await drained(stream) == ["dumped"]
    assert await drained(stream) == []


async def test_another_server_repeats_an_hour_and_loses_nothing(lists: Listings, owner: asyncpg.Connection) -> None:
    await owner.execute(WRITE, "long ago", 7200)
    await owner.execute(WRITE, "a moment ago", 0)
    *_, (_, cursor) = [one async for one in lists.stream().read()]
    await owner.execute("SELECT smarter_auth.renew_epoch()")  # As after a dump was restored.
    await owner.execute(WRITE, "new", 0)
    assert await drained(lists.stream(after=cursor)) == ["a moment ago", "new"]


async def test_filters_and_scope_hold_for_what_is_followed(
    store: Store, lists: Listings, owner: asyncpg.Connection
) -> None:
    streams = {
        "all": lists.stream(after="now"),
        "keys": lists.stream(AuditFilters(action="key.*"), after="now"),
        "mine": Listings(store, scope="mine").stream(after="now"),
        "foreign": Listings(store, scope="mine").stream(AuditFilters(account="theirs"), after="now"),
    }
    for stream in streams.values():
        await drained(stream)
    for actor, action, account in (("a", "key.set", "mine"), ("b", "request.deny", "mine"), ("c", "key.set", "theirs")):
        await owner.execute(
            "INSERT INTO smarter_auth.audit_event (actor, action, account) VALUES ($1, $2, $3)", actor, action, account
        )
    found = {name: "".join(await drained(stream)) for name, stream in streams.items()}
    assert found == {"all": "abc", "keys": "ac", "mine": "ab", "foreign": ""}


async def test_cursor_of_another_server_in_the_first_hour_of_the_calendar_begins_there(
    lists: Listings, owner: asyncpg.Connection
) -> None:
    await owner.execute(WRITE, "one", 0)
    ((_, cursor),) = [one async for one in lists.stream().read()]
    parts = json.loads(base64.urlsafe_b64decode(cursor + "=="))
    early = [parts[0], parts[1], "0001-01-01T00:30:00+00:00", "another", *parts[4:]]
    changed = base64.urlsafe_b64encode(json.dumps(early).encode()).decode()
    assert len([one async for one in lists.stream(after=changed).read()]) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda parts: [*parts[:1], "9:1:", *parts[2:]],
        lambda parts: [*parts[:1], "1:9:12", *parts[2:]],
        lambda parts: [*parts[:1], "x", *parts[2:]],
        lambda parts: [*parts[:2], "now", *parts[3:]],
        lambda parts: [*parts[:2], "9999-12-31T23:59:59-14:00", *parts[3:]],
        lambda parts: [*parts[:7], -1, *parts[8:]],
        lambda parts: [*parts[:7], "1", *parts[8:]],
        lambda parts: parts[:-1],
        lambda parts: ["0" * 18, *parts[1:]],
    ],
)
async def test_cursor_that_somebody_changed_is_refused(
    lists: Listings, owner: asyncpg.Connection, change: object
) -> None:
    await owner.execute(WRITE, "one", 0)
    ((_, cursor),) = [one async for one in lists.stream().read()]
    parts = json.loads(base64.urlsafe_b64decode(cursor + "=="))
    changed = base64.urlsafe_b64encode(json.dumps(change(parts)).encode()).decode()  # type: ignore[operator]
    with pytest.raises(UsageError) as refused:
        lists.stream(after=changed)
    assert refused.value.code == "cursor"
