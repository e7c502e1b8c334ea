"""Which server is followed, when several answer: the one whose changes are heard, for as long as they are heard."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from smarter_auth_mw.cache.entries import Cache, SharedEntries

OpenTier = Callable[[str], Awaitable[SharedEntries]]


class Failover:
    """Follows the server that the heartbeat meets, and says which answers are its own.

    A primary that was deposed may go on answering, and its clients cannot tell. After ``max_staleness_s`` without a
    heartbeat whichever server answers is accepted, and the next heartbeat starts over.
    """

    def __init__(self, cache: Cache, max_staleness_s: float, open_tier: OpenTier | None = None) -> None:
        self.start_over: Callable[[], None] = lambda: None
        """Makes the listener take whoever answers the next heartbeat for another server."""
        self._cache = cache
        self._max_staleness_s = max_staleness_s
        self._open_tier = open_tier
        self._server = ""

    def is_followed(self, started: str) -> bool:
        """Whether to accept an answer of the server that was started then; any, until one was met."""
        if not self._server or self._server.startswith(f"{started} "):
            return True
        if self._cache.heartbeat_age_s < self._max_staleness_s:
            return False
        self.start_over()
        return True

    async def met(self, server: str) -> None:
        """Follow this server: what workers share of another one, or of this one before a restore, is out of reach."""
        self._server = server
        if self._open_tier is not None:
            self._cache.shared = None
            self._cache.shared = await self._open_tier(server)

    def held(self, sent_at_s: float, is_coherent: bool) -> None:  # noqa: FBT001
        """A heartbeat that was sent at this time is answered; the cache rests on it where every trigger is there."""
        if is_coherent:
            self._cache.vouch(sent_at_s)
