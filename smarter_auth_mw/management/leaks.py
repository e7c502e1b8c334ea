"""Revokes the keys of leaked tokens, all in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.management.many_keys import Chosen, ManyKeys


@dataclass(frozen=True, slots=True)
class Ended:
    """The keys of leaked tokens, now revoked, and the number of tokens that could not be revoked here.

    ``platform``: tokens of keys that can be changed only in an attached platform.
    """

    key_ids: tuple[UUID, ...]
    platform: int
    unknown: int


async def end_leaked(keys: Management, many: ManyKeys, digests: Sequence[bytes]) -> Ended:
    """Revoke the keys of the tokens with these digests, all or none.

    ``keys`` and ``many`` have the same scope: tokens of keys outside of it count as unknown.
    """
    owners = await keys.owners(digests)
    own = sorted({key.key_id for key in owners.values() if not key.is_platforms})
    revoked = await many.revoke(Chosen(own))
    platform = sum(key.is_platforms for key in owners.values())
    return Ended(tuple(revoked), platform, len(digests) - len(owners))
