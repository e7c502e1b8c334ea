"""Revokes the keys of leaked tokens, all in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.management.many_keys import Chosen, ManyKeys
from smarter_auth_mw.tokens import Token

_HEADER_WORDS = {b"authorization:", b"x-api-key:", b"token", b"bearer"}
_QUOTES = b"\"'`,;"
_BLANKS = ("\ufeff", "\u00a0", "\u200b")
"""The byte order mark, and spaces that a page or a document may contain."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The keys of leaked tokens, now revoked, and the number of tokens that could not be revoked here.

    ``platform``: tokens of keys that can be changed only in an attached platform.
    """

    key_ids: tuple[UUID, ...]
    platform: int
    unknown: int


def copied_words(text: bytes) -> list[bytes]:
    """Return the words that may be tokens in text as people copy it, without quotes and the words of a header."""
    for blank in _BLANKS:
        text = text.replace(blank.encode(), b" ")
    bare = (word.strip(_QUOTES) for word in text.split())
    return [word for word in bare if word and word.lower() not in _HEADER_WORDS]


def copied_token(line: bytes) -> Token:
    """Return the token in a line, for example of ``Authorization: Token …``; a line of several words is no token."""
    words = copied_words(line)
    return Token(words[0] if len(words) == 1 else line)


async def end_leaked(keys: Management, many: ManyKeys, digests: Sequence[bytes]) -> Ended:
    """Revoke the keys of the tokens with these digests, all or none.

    ``keys`` and ``many`` have the same scope: tokens of keys outside of it count as unknown.
    """
    owners = await keys.owners(digests)
    own = sorted({key.key_id for key in owners.values() if not key.is_platforms})
    revoked = await many.revoke(Chosen(own))
    platform = sum(key.is_platforms for key in owners.values())
    return Ended(tuple(revoked), platform, len(digests) - len(owners))
