"""The audit as a stream without loss: every event committed since a cursor, in whatever order it was written.

Neither ids nor times show what a reader has missed: a transaction that took its id, or its time, early may commit
late. So a cursor holds the PostgreSQL snapshot up to which everything was read, and the next events are those that this
snapshot does not see. A server that was restored or failed over may assign transaction numbers again; then the stream
goes back by ``AGAIN`` in time, and events that are repeated have the same ``id``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any, NamedTuple, Protocol

from smarter_auth_mw.cache.changes import Snapshot
from smarter_auth_mw.management.listings import cursors
from smarter_auth_mw.management.listings.audit import LAST_ID, AuditList, AuditPlace
from smarter_auth_mw.management.listings.cursors import CursorError
from smarter_auth_mw.management.listings.pages import ago
from smarter_auth_mw.postgres.lists import Lists, Moment
from smarter_auth_mw.postgres.reports import AuditEvent

AGAIN = timedelta(hours=1)
"""The time that is read again if the server is not the one that issued the cursor."""
BEGINNING, NOW = "beginning", "now"
"""Words for where a stream begins, instead of a cursor."""
PARTS = 8
_READ = 500


class Readable(Protocol):
    """A store that lists are read from."""

    def lists(self) -> AbstractAsyncContextManager[Lists]: ...


class StreamPlace(NamedTuple):
    """The position of a stream: everything visible in ``done`` was read, or is being read as a list, after ``listed``.

    Of the other rows visible in ``reading``, all up to ``tx`` and ``id`` were read.
    """

    done: Moment
    listed: AuditPlace | None = None
    reading: str = ""
    tx: int = 0
    id: int = 0

    @property
    def parts(self) -> Sequence[Any]:
        at, number = (None, 0) if self.listed is None else self.listed.parts
        done = (self.done.snapshot, self.done.at.isoformat(), self.done.server)
        return (*done, at, number, self.reading, self.tx, self.id)

    @classmethod
    def of_parts(cls, parts: Sequence[Any]) -> StreamPlace:
        """Parse the parts of a cursor; raises CursorError."""
        snapshot, at, server, listed_at, listed_id, reading, tx, number = parts
        try:
            done = Moment(_snapshot(snapshot), cursors.read_time(at), server)
            reading = reading and _snapshot(reading)
        except (TypeError, ValueError, AttributeError):
            raise CursorError() from None
        listed = None if listed_at is None else AuditPlace.of_parts((listed_at, listed_id))
        is_sound = type(tx) is int and type(number) is int and 0 <= tx < 2**63 and 0 <= number < 2**63
        if not is_sound:
            raise CursorError()
        return cls(done, listed, reading, tx, number)


class AuditStream:
    """The events of a list as they are committed, each with the cursor to continue after it."""

    def __init__(self, store: Readable, listing: AuditList, after: str) -> None:
        self._store = store
        self._listing = listing
        self._place: StreamPlace | None = None
        self._begins_now = after == NOW
        if after not in (BEGINNING, NOW):
            self._place = StreamPlace.of_parts(cursors.decode(listing.filters, after, PARTS))

    async def read(self) -> AsyncGenerator[tuple[AuditEvent, str]]:
        """Yield all events that are committed now; call it again to continue."""
        async with self._store.lists() as lists:
            now = await lists.moment()
        self._place = place = self._begin(now)
        while place.listed is not None:
            async for shown in self._list(place, place.listed):
                yield shown
            place = self._place
        for reading in filter(
            None, (place.reading, now.snapshot)
        ):  # Finish the snapshot that the last page was reading.
            async for shown in self._follow(reading, now):
                yield shown

    def _begin(self, now: Moment) -> StreamPlace:
        place = self._place
        if place is None:
            return StreamPlace(now, None if self._begins_now else self._listing.begins())
        if place.done.server != now.server:
            since = AuditPlace(max(ago(AGAIN, place.done.at), self._listing.begins().at), -1)
            return StreamPlace(now, since if place.listed is None else min(place.listed, since))
        return place

    async def _list(self, place: StreamPlace, listed: AuditPlace) -> AsyncGenerator[tuple[AuditEvent, str]]:
        """Read a page of what was committed when the stream began, in order of time."""
        async with self._store.lists() as lists:
            rows, end = await self._listing.rows(lists, listed, _READ)
            later = Snapshot.parse((await lists.moment()).snapshot)
            events = await self._listing.shown(lists, rows)
        sees = Snapshot.parse(place.done.snapshot).sees
        for row, event in zip(rows, events, strict=True):
            tx = None if row["tx"] is None else int(row["tx"])
            # Others come later. A number that this server has not reached comes from the server of a dump.
            if tx is None or sees(tx) or tx >= later.xmax:
                self._place = place._replace(listed=AuditPlace.of_row(row))
                yield event, self._cursor()
        self._place = place._replace(listed=end)

    async def _follow(self, reading: str, now: Moment) -> AsyncGenerator[tuple[AuditEvent, str]]:
        """Read what is visible in one snapshot and not in the one before."""
        while (place := self._place) is not None:
            behind = max((place.tx, place.id), (Snapshot.parse(place.done.snapshot).xmin - 1, LAST_ID))
            asked = {"done": place.done.snapshot, "reading": reading, "after_tx": str(behind[0]), "after_id": behind[1]}
            async with self._store.lists() as lists:
                rows, end = await self._listing.committed(lists, asked, _READ)
                events = await self._listing.shown(lists, rows)
            for row, event in zip(rows, events, strict=True):
                self._place = place._replace(reading=reading, tx=int(row["tx"]), id=row["id"])
                yield event, self._cursor()
            if end is None:
                self._place = StreamPlace(now if reading == now.snapshot else place.done._replace(snapshot=reading))
                return
            self._place = place._replace(reading=reading, tx=int(end["tx"]), id=end["id"])

    def _cursor(self) -> str:
        return cursors.encode(self._listing.filters, self._place.parts if self._place else ())


def _snapshot(text: str) -> str:
    """Validate a snapshot as PostgreSQL does; raises ValueError."""
    snapshot = Snapshot.parse(text)
    if not 0 < snapshot.xmin <= snapshot.xmax < 2**63:
        raise ValueError(text)
    if not all(snapshot.xmin <= tx < snapshot.xmax for tx in snapshot.in_progress):
        raise ValueError(text)
    return str(snapshot)
