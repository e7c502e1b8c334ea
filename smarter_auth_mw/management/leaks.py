"""End what leaked tokens belong to: keys, in one transaction however many tokens there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.management.many_keys import Chosen, ManyKeys


@dataclass(frozen=True, slots=True)
class Ended:
    """The keys that leaked tokens belonged to and that are revoked now, and how many tokens are not ours to end.

    ``platform``: tokens of keys that are changed in an attached platform alone.
    """

    key_ids: tuple[UUID, ...]
    platform: int
    unknown: int


async def end_leaked(keys: Management, many: ManyKeys, digests: Sequence[bytes]) -> Ended:
    """Revoke the keys that tokens of these digests belong to, all or none.

    ``keys`` and ``many`` have one scope: tokens of keys that it excludes count as unknown.
    """
    owners = await keys.owners(digests)
    own = sorted({key.key_id for key in owners.values() if not key.is_platforms})
    revoked = await many.revoke(Chosen(own))
    platform = sum(key.is_platforms for key in owners.values())
    return Ended(tuple(revoked), platform, len(digests) - len(owners))
