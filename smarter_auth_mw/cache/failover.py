"""Decides which server to follow if several answer: the one that sends changes, and never a demoted one."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from smarter_auth_mw.cache.entries import Cache, SharedEntries
from smarter_auth_mw.errors import UnavailableError
from smarter_auth_mw.log import log

OpenTier = Callable[[str], Awaitable[SharedEntries]]
NewestTimeline = Callable[[str, int], Awaitable[int]]

_LINE = re.compile(r" (\d+) ([0-9A-F]{8}) \d+$")


class DeposedError(UnavailableError):
    """A server answers as the primary that another server has replaced."""

    default_hint = (
        "Remove it from SMARTER_AUTH_DATABASE_URL, or turn it into a standby (pg_rewind)."
        " If an older state was restored on purpose, restart the workers."
    )


class Line(NamedTuple):
    """A database's history: its system, and its timeline, which counts up with each promotion."""

    system: str
    timeline: int

    @classmethod
    def of(cls, server: str) -> Line:
        """Return the line in a server's name, or one older than any if the name has none."""
        found = _LINE.search(server)
        return cls(found[1], int(found[2], 16)) if found else cls("", 0)

    def __str__(self) -> str:
        return f"system {self.system or 'unknown'}, timeline {self.timeline}"


def _changed(now: Line, before: Line) -> str:
    if now == before:
        return f"the server has restarted, crashed or been restored: {now}"
    return f"another server answers: {now}; before: {before}"


class Failover:
    """Follows the server that answers heartbeats, and decides which answers to accept.

    A demoted primary may keep answering. Its older timeline gives it away if this worker, or another one that shares
    the cache, has followed a newer one. Otherwise its clients cannot tell: after ``max_staleness_s`` without a
    heartbeat, whichever server answers is accepted, and the next heartbeat starts over.
    """

    def __init__(
        self,
        cache: Cache,
        max_staleness_s: float,
        open_tier: OpenTier | None = None,
        newest_timeline: NewestTimeline | None = None,
    ) -> None:
        self.start_over: Callable[[], None] = lambda: None
        """Makes the listener treat the server that answers the next heartbeat as a new one."""
        self.hurry: Callable[[], None] = lambda: None
        """Makes the listener send its next heartbeat soon."""
        self._cache = cache
        self._max_staleness_s = max_staleness_s
        self._open_tier = open_tier
        self._newest_timeline = newest_timeline
        self._server = ""
        self._deposed = ""

    def is_followed(self, incarnation: str) -> bool:
        """Return whether to accept an answer of this server incarnation; any, until a heartbeat was answered."""
        if self._deposed.startswith(f"{incarnation} "):
            return False
        if not self._server or self._server.startswith(f"{incarnation} "):
            return True
        if self._cache.heartbeat_age_s < self._max_staleness_s:
            self.hurry()
            return False
        self.start_over()
        return True

    async def met(self, server: str) -> None:
        """Follow this server; raises DeposedError if another server has replaced it.

        Entries shared about another server, or this one before a restore, are no longer reachable.
        """
        self._cache.shared = None
        await self._check_line(server)
        if self._server and self._server != server:
            now, before = Line.of(server), Line.of(self._server)
            log("server.changed", "%s, and the cache is flushed", _changed(now, before))
        self._server, self._deposed = server, ""
        if self._open_tier is not None:
            self._cache.shared = await self._open_tier(server)

    def held(self, sent_at_s: float, is_coherent: bool) -> None:  # noqa: FBT001
        """Record an answered heartbeat that was sent at this time; the cache relies on it if all triggers exist."""
        if is_coherent:
            self._cache.vouch(sent_at_s)

    async def _check_line(self, server: str) -> None:
        line, followed = Line.of(server), Line.of(self._server)
        newest = followed.timeline if followed.system == line.system else 0
        if self._newest_timeline is not None and line.system:
            newest = max(newest, await self._newest_timeline(*line))
        if line.timeline >= newest:
            return
        if self._deposed != server:
            log(
                "server.deposed",
                "%s is on an older timeline than %d, which this worker has used: its answers are not used",
                line,
                newest,
            )
        self._deposed = server
        raise DeposedError(f"A demoted primary answers: its timeline is {line.timeline}, but {newest} has been used.")
