"""Notifications and heartbeats over a real connection: each change is told, to whoever did not see it, and once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from smarter_auth_mw.cache.changes import Snapshot
from smarter_auth_mw.cache.listener import Beat
from smarter_auth_mw.domain import Resource, Target
from smarter_auth_mw.errors import SchemaError, UnavailableError
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.postgres.notifications import PostgresWire, open_wire
from smarter_auth_mw.postgres.store import Store
from tests.support.change import KEY, KEY_ID
from tests.support.database import Database
from tests.support.postgres import Postgres, Proxy

Connection = asyncpg.Connection

BOT = Resource("bot", "42")


@pytest.fixture
async def heard() -> asyncio.Queue[str]:
    return asyncio.Queue()


@pytest.fixture
async def wire(database: Database, heard: asyncio.Queue[str]) -> AsyncIterator[PostgresWire]:
    async with open_wire(database.runtime, heard.put_nowait) as opened:
        yield opened


async def test_commit_notifies_source_and_transaction(
    wire: PostgresWire, heard: asyncio.Queue[str], sql: Connection
) -> None:
    while not heard.empty():
        heard.get_nowait()
    async with sql.transaction():
        await sql.execute("UPDATE smarter_auth.key SET is_active = false")
        await sql.execute("UPDATE smarter_auth.key SET is_active = true")
        await sql.execute("UPDATE smarter_auth.key SET is_active = false")
        tx = await sql.fetchval("SELECT pg_current_xact_id()")
    await sql.execute("SELECT pg_notify('smarter_auth', 'the end')")
    payloads = []
    while (payload := await heard.get()) != "the end":
        payloads.append(payload)
    assert [payload for payload in payloads if payload.startswith("key")][-1:] == [f"{KEY}:{tx}"]
    assert payloads.count(f"{KEY}:{tx}") == 1


async def test_heartbeat_takes_one_round_trip_from_the_first_one_on(
    own_server: Postgres, own_database: Database
) -> None:
    async with Proxy(own_server.socket) as line, open_wire(line.url(own_database.runtime), print) as wire:
        snapshot = None
        for _ in range(5):
            asked = line.asked
            snapshot = (await wire.beat(snapshot)).snapshot
            assert line.asked == asked + 1


async def test_rolled_back_change_is_told_by_nobody(wire: PostgresWire, sql: Connection) -> None:
    beat = await wire.beat(None)
    await sql.execute("BEGIN; UPDATE smarter_auth.key SET is_active = false; ROLLBACK")
    assert (await wire.beat(beat.snapshot)).changes == ()


async def test_first_heartbeat_tells_no_changes(wire: PostgresWire, sql: Connection) -> None:
    await sql.execute("UPDATE smarter_auth.key SET is_active = false")
    beat = await wire.beat(None)
    assert (beat.changes, beat.is_complete, beat.is_coherent) == ((), True, True)


async def test_heartbeat_tells_each_change_that_the_previous_one_did_not_see_once(
    wire: PostgresWire, sql: Connection, manager: Connection
) -> None:
    """Also those of a transaction that began long before, and of one whose number is lower than others seen."""
    late = manager.transaction()
    await late.start()
    await manager.execute("UPDATE smarter_auth.key SET is_active = false")
    late_tx = await manager.fetchval("SELECT pg_current_xact_id()")
    first = await wire.beat(None)
    await sql.execute("UPDATE smarter_auth.resource SET on_error = 'deny'")
    second = await wire.beat(first.snapshot)
    assert [source for source, _ in second.changes] == ["resource:bot:my-bot"]
    await late.commit()
    third = await wire.beat(second.snapshot)
    assert third.changes == ((KEY, late_tx),)
    assert not Snapshot.parse(second.snapshot).sees(late_tx)
    assert (await wire.beat(third.snapshot)).changes == ()


async def test_change_in_a_savepoint_bears_the_number_of_the_whole_transaction(
    wire: PostgresWire, sql: Connection
) -> None:
    first = await wire.beat(None)
    async with sql.transaction():
        tx = await sql.fetchval("SELECT pg_current_xact_id()")
        async with sql.transaction():
            await sql.execute("UPDATE smarter_auth.key SET is_active = false")
    assert (await wire.beat(first.snapshot)).changes == ((KEY, tx),)


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_binding_of_a_resource_that_the_writer_cannot_see_yet_is_told(
    wire: PostgresWire, sql: Connection, manager: Connection, isolation: str
) -> None:
    """The trigger asks no other table: that one's rows may be newer than the writer's snapshot."""
    writer = manager.transaction(isolation=isolation)  # type: ignore[arg-type]
    await writer.start()
    await manager.fetchval("SELECT count(*) FROM smarter_auth.resource")
    await sql.execute("INSERT INTO smarter_auth.resource (id, kind, ref, protection) VALUES (2, 'bot', '43', 'bound')")
    first = await wire.beat(None)
    try:
        await manager.execute(
            "INSERT INTO smarter_auth.binding (resource_id, key_id, account) VALUES (2, $1, 'default')", KEY_ID
        )
        await writer.commit()
    except asyncpg.ForeignKeyViolationError:
        await writer.rollback()  # The foreign key does not see it either: nothing changed.
        return
    assert ("bindings:2",) in {(source,) for source, _ in (await wire.beat(first.snapshot)).changes}


async def test_more_changes_than_can_be_told_make_the_heartbeat_incomplete(wire: PostgresWire, sql: Connection) -> None:
    first = await wire.beat(None)
    await sql.execute("INSERT INTO smarter_auth.change (source) SELECT 'key:' || n FROM generate_series(1, 10001) AS n")
    beat = await wire.beat(first.snapshot)
    assert (beat.changes, beat.is_complete) == ((), False)
    assert (await wire.beat(beat.snapshot)).is_complete


async def test_changes_that_came_with_a_dump_are_not_told(wire: PostgresWire, sql: Connection) -> None:
    first = await wire.beat(None)
    await sql.execute("INSERT INTO smarter_auth.change (source, tx) VALUES ('key:1', '999999999999')")
    assert (await wire.beat(first.snapshot)).changes == ()


async def test_purged_change_that_was_not_told_makes_the_heartbeat_incomplete(
    wire: PostgresWire, sql: Connection, store: Store
) -> None:
    first = await wire.beat(None)
    await sql.execute("UPDATE smarter_auth.key SET is_active = false")
    told = await wire.beat(first.snapshot)
    assert await store.purge_changes(timedelta(hours=1)) == 0
    assert await store.purge_changes(timedelta(0)) > 0
    assert await sql.fetchval("SELECT count(*) FROM smarter_auth.change") == 0
    assert not (await wire.beat(first.snapshot)).is_complete
    assert (await wire.beat(told.snapshot)).is_complete


async def test_purging_leaves_what_a_snapshot_of_now_may_not_see(
    wire: PostgresWire, sql: Connection, manager: Connection, store: Store
) -> None:
    first = await wire.beat(None)
    running = manager.transaction()
    await running.start()
    await manager.execute("INSERT INTO smarter_auth.key (name) VALUES ('two')")
    await sql.execute("UPDATE smarter_auth.key SET is_active = false WHERE name = 'one'")
    await store.purge_changes(timedelta(0))
    beat = await wire.beat(first.snapshot)
    assert (KEY in dict(beat.changes), beat.is_complete) == (True, True)
    await running.rollback()


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE smarter_auth.key DISABLE TRIGGER note_update",
        "ALTER TABLE smarter_auth.key ENABLE TRIGGER note_update",
        "DROP TRIGGER note_delete ON smarter_auth.binding",
        "ALTER TABLE smarter_auth.binding DISABLE TRIGGER ALL",
    ],
)
async def test_heartbeat_tells_when_a_trigger_does_not_fire(
    wire: PostgresWire, sql: Connection, statement: str
) -> None:
    assert (await wire.beat(None)).is_coherent
    await sql.execute(statement)
    assert not (await wire.beat(None)).is_coherent


@pytest.mark.parametrize(
    "meddling",
    [
        "ALTER TABLE smarter_auth.key DISABLE TRIGGER note_update;"
        " UPDATE smarter_auth.key SET is_active = false;"
        " ALTER TABLE smarter_auth.key ENABLE ALWAYS TRIGGER note_update",
        "CREATE OR REPLACE FUNCTION smarter_auth.note_changes() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN END'",
    ],
)
async def test_heartbeat_tells_that_somebody_meddled_with_the_triggers_since(
    wire: PostgresWire, sql: Connection, meddling: str
) -> None:
    first = await wire.beat(None)
    await sql.execute("UPDATE smarter_auth.key SET is_active = false")
    await sql.execute("VACUUM FREEZE pg_trigger")
    second = await wire.beat(first.snapshot)
    assert second.guard == first.guard
    await sql.execute(meddling)
    beat = await wire.beat(second.snapshot)
    assert beat.is_coherent
    assert beat.guard != second.guard


async def test_renamed_table_changes_the_guard_in_the_snapshot_that_sees_it_though_it_is_missed_before(
    wire: PostgresWire, sql: Connection
) -> None:
    """PostgreSQL looks names up in the present, and tables in the snapshot, which may be older."""
    await wire._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    first = await wire.beat(None)
    await sql.execute("ALTER TABLE smarter_auth.token RENAME TO gone")
    early = await wire.beat(first.snapshot)
    await wire._connection.execute("COMMIT")
    assert (first.is_coherent, early.is_coherent) == (True, False)
    assert (early.snapshot, early.guard) == (first.snapshot, first.guard)
    assert (await wire.beat(early.snapshot)).guard != early.guard


async def test_server_is_told_by_its_epoch(wire: PostgresWire, sql: Connection, store: Store) -> None:
    first, secret = await wire.beat(None), await store.secret()
    assert (await wire.beat(first.snapshot)).server == first.server
    await sql.execute("SELECT smarter_auth.renew_epoch()")
    beat = await wire.beat(first.snapshot)
    assert (beat.server != first.server, beat.is_complete) == (True, False)
    assert len(secret) == 64
    assert await store.secret() != secret


async def test_copy_of_a_database_is_another_server(wire: PostgresWire, other_database: Database) -> None:
    async with open_wire(other_database.runtime, print) as other:
        assert (await other.beat(None)).server != (await wire.beat(None)).server


async def test_wire_to_a_database_that_is_not_migrated_says_so(empty_database: Database) -> None:
    with pytest.raises(SchemaError):
        async with open_wire(empty_database.owner, print):
            pass


async def test_wire_that_does_not_listen_still_beats(database: Database, sql: Connection) -> None:
    heard: list[str] = []
    async with open_wire(database.runtime, heard.append, listens=False, statement_cache_size=0) as wire:
        first = await wire.beat(None)
        await sql.execute("UPDATE smarter_auth.key SET is_active = false")
        beat = await wire.beat(first.snapshot)
    assert [source for source, _ in beat.changes] == [KEY]
    assert heard == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://somebody:secret@/nothing?host=/nowhere", "cannot be reached"),
        ("postgresql://somebody:se/cret@localhost/nothing", "not the address of a database"),
    ],
)
async def test_wire_that_cannot_be_opened_says_why_and_not_its_password(url: str, said: str) -> None:
    with pytest.raises(UnavailableError, match=said) as refused:
        async with open_wire(url, print):
            pass
    assert "cret" not in f"{refused.value}{refused.value.hint}"


async def test_lost_wire_says_so(wire: PostgresWire, owner: Connection) -> None:
    await owner.fetch(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'smarter_auth listener'"
    )
    with pytest.raises(UnavailableError):
        await wire.beat(None)


async def test_everything_that_the_write_side_does_is_told_of_what_was_read(
    keys: Management, store: Store, wire: PostgresWire
) -> None:
    """Each act that changes what a read answers tells one of the sources of the read before it."""
    target = Target(BOT)
    key_id = (await keys.create("one")).key.key_id
    other_id = (await keys.create("two")).key.key_id
    for act in (
        lambda: keys.add_resource(BOT),
        lambda: keys.bind(key_id, BOT),
        lambda: keys.bind(other_id, BOT),
        lambda: keys.deactivate(key_id),
        lambda: keys.activate(key_id),
        lambda: keys.set_resource(BOT, on_error="deny"),
        lambda: keys.revoke(key_id),
        lambda: keys.unbind(key_id, BOT),
        lambda: keys.unbind(other_id, BOT, allow_anonymous=True),
        lambda: keys.protect(BOT),
        lambda: keys.unprotect(BOT),
        lambda: keys.remove_resource(BOT),
    ):
        before = await store.read(target)
        beat: Beat = await wire.beat(None)
        await act()
        told = {source for source, _ in (await wire.beat(beat.snapshot)).changes}
        assert told & set(before.sources)
        assert (await store.read(target)).bindings != before.bindings


async def test_triggers_that_are_missing_are_named_in_the_log_with_what_to_run(
    wire: PostgresWire, sql: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    await sql.execute(
        "ALTER TABLE smarter_auth.key DISABLE TRIGGER ALL; ALTER TABLE smarter_auth.key ENABLE TRIGGER ALL"
    )
    for _ in range(3):
        assert not (await wire.beat(None)).is_coherent
    (line,) = caplog.messages
    assert line.startswith(
        "triggers.missing: key.note_update, key.note_delete, key.note_truncate, key.hold_revocation_on_update: "
    )
    assert "Run: smarter-auth db migrate." in line
    for name in ("note_update", "note_delete", "note_truncate", "hold_revocation_on_update"):
        await sql.execute(f"ALTER TABLE smarter_auth.key ENABLE ALWAYS TRIGGER {name}")
    assert (await wire.beat(None)).is_coherent
    assert caplog.messages[1:] == ["triggers.restored: every trigger is in place"]


async def test_a_read_only_default_is_called_that_and_says_what_to_run(wire: PostgresWire) -> None:
    await wire._connection.execute("SET default_transaction_read_only = on")
    with pytest.raises(UnavailableError, match="is read-only: a standby, or default_transaction_read_only") as caught:
        await wire.beat(None)
    assert "SET default_transaction_read_only = off" in caught.value.hint


async def test_wire_that_is_to_stop_listening_is_closed_at_once_and_the_rest_is_discarded(
    database: Database, sql: Connection
) -> None:
    taken: list[str] = []

    def take_three(payload: str) -> bool:
        taken.append(payload)
        return len(taken) < 3

    async with open_wire(database.runtime, take_three) as wire:
        await sql.execute("SELECT pg_notify('smarter_auth', n::text) FROM generate_series(1, 100000) AS n")
        async with asyncio.timeout(30):
            while not wire._connection.is_closed():
                await asyncio.sleep(0.01)
        with pytest.raises(UnavailableError):
            await wire.beat(None)
    assert taken[:3] == ["1", "2", "3"]


async def test_wire_without_a_callable_does_not_listen(database: Database, sql: Connection) -> None:
    async with open_wire(database.runtime, None) as wire:
        assert await wire._connection.fetch("SELECT pg_listening_channels()") == []
        assert (await wire.beat(None)).is_coherent


@pytest.fixture
async def named(wire: PostgresWire) -> str:
    return (await wire.beat(None)).server


async def test_server_whose_name_a_crash_took_is_named_by_the_next_heartbeat_and_once(
    named: str, wire: PostgresWire, owner: Connection
) -> None:
    await owner.execute("DELETE FROM smarter_auth.incarnation")
    beats = await asyncio.gather(wire.beat(None), _beat_of_another(owner, wire))
    assert {beat.server for beat in beats} == {(await wire.beat(None)).server}
    assert all(beat.is_coherent for beat in beats)
    assert beats[0].server != named


async def _beat_of_another(owner: Connection, wire: PostgresWire) -> Beat:
    """Of a worker that named the server at the same moment."""
    await owner.execute("SELECT smarter_auth.name_incarnation()")
    return await PostgresWire(owner, wire._where).beat(None)


async def test_statistics_that_are_reset_make_another_server(named: str, wire: PostgresWire, owner: Connection) -> None:
    await owner.execute("SELECT pg_stat_reset_shared('bgwriter')")
    assert (await wire.beat(None)).server != named


async def test_name_is_the_same_for_sessions_that_write_times_in_their_own_way(
    named: str, store: Store, owner: Connection
) -> None:
    names = "SELECT * FROM smarter_auth.incarnation_now()"
    ours = await owner.fetchval(names)
    await owner.execute("SET timezone = 'Asia/Tokyo'; SET datestyle = 'German'; SET bytea_output = 'escape'")
    await owner.execute("SET extra_float_digits = -5; SET intervalstyle = 'iso_8601'")
    assert await owner.fetchval(names) == ours
    assert named.startswith(f"{ours} ")


async def test_nothing_is_vouched_for_where_a_crash_would_leave_the_name(wire: PostgresWire, owner: Connection) -> None:
    await owner.execute("ALTER TABLE smarter_auth.incarnation SET LOGGED")
    assert not (await wire.beat(None)).is_coherent
    await owner.execute("ALTER TABLE smarter_auth.incarnation SET UNLOGGED")
    assert (await wire.beat(None)).is_coherent


async def test_nothing_is_vouched_for_where_nobody_can_give_a_name(wire: PostgresWire, owner: Connection) -> None:
    await owner.execute(
        "DELETE FROM smarter_auth.incarnation; CREATE OR REPLACE FUNCTION smarter_auth.name_incarnation() RETURNS void"
        " LANGUAGE sql AS ''"
    )
    assert not (await wire.beat(None)).is_coherent


async def test_reader_is_refused_by_a_server_that_has_been_named_anew(
    database: Database, store: Store, owner: Connection
) -> None:
    before = await owner.fetchval("SELECT * FROM smarter_auth.incarnation_now()")
    store.is_followed = before.__eq__
    await store.read(Target(BOT))
    await owner.execute("DELETE FROM smarter_auth.incarnation; SELECT smarter_auth.name_incarnation()")
    for read in (store.read(Target(BOT)), store.read_token(b"")):
        with pytest.raises(UnavailableError, match="not the server that answers the heartbeats"):
            await read


async def test_reader_waits_until_a_heartbeat_has_met_the_server_that_has_restarted(store: Store) -> None:
    is_met = iter([False, False, True])
    store.is_followed = lambda _: next(is_met)
    assert await store.read(Target(BOT))
    assert next(is_met, None) is None
