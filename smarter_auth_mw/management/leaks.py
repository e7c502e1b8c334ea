"""End what leaked tokens belong to: keys, in one transaction however many tokens there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from smarter_auth_mw.domain import Key
from smarter_auth_mw.management.keys import Keys


@dataclass(frozen=True, slots=True)
class Ended:
    """The keys that leaked tokens belonged to and that are revoked now, and how many tokens are not ours to end.

    ``platform``: tokens of keys that are changed in an attached platform alone.
    """

    keys: tuple[Key, ...]
    platform: int
    unknown: int


async def end_leaked(keys: Keys, digests: Sequence[bytes]) -> Ended:
    """Revoke the keys that tokens of these digests belong to, all or none, locked in one order.

    Tokens of keys that the scope of ``keys`` excludes count as unknown.
    """
    async with keys.together() as joined:
        owners = await joined.owners(digests)
        living = {key.key_id for key in owners.values() if not key.is_platforms and key.revoked_at is None}
        revoked = [await joined.revoke(key_id) for key_id in sorted(living)]
    platform = sum(key.is_platforms for key in owners.values())
    return Ended(tuple(revoked), platform, len(digests) - len(owners))
