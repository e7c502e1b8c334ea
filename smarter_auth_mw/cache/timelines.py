"""Keeps the timeline that workers have followed in the shared cache, for workers that start later."""

from __future__ import annotations

from smarter_auth_mw.cache.codec import Codec, SharedEntry
from smarter_auth_mw.cache.shared import MAX_TTL_S, SharedBackend
from smarter_auth_mw.domain import Bindings, Resource

_NAME = "timeline"


async def newest_timeline(backend: SharedBackend, secret: bytes, system: str, timeline: int) -> int:
    """Return the newest timeline of this system that any worker has followed, this one included.

    It is sealed like entries: without the database's secret nobody can make workers refuse a primary.
    """
    codec = Codec(secret, f"{_NAME} {system}")
    key = codec.key(_NAME)
    known = _read(codec, await backend.get(key))
    if timeline > known and backend.allows_set():
        noted = SharedEntry(Bindings(Resource(_NAME, str(timeline))), "1:1:", ())
        await backend.set(key, codec.seal(_NAME, noted), MAX_TTL_S)
    return max(known, timeline)


def _read(codec: Codec, sealed: bytes | None) -> int:
    try:
        return 0 if sealed is None else int(codec.unseal(_NAME, sealed).bindings.resource.ref)
    except ValueError:
        return 0
