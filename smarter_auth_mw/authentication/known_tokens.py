"""Look up tokens without a resource, for open resources that refuse bad tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from smarter_auth_mw.cache.changes import Changes
from smarter_auth_mw.cache.entries import BindingsRead, Cache, Limits
from smarter_auth_mw.domain import Bindings, Resource, Target
from smarter_auth_mw.tokens import Token

KIND = "token"


class TokenReader(Protocol):
    """Looks up the key of a token."""

    async def read_token(self, digest: bytes) -> BindingsRead: ...


class KnownTokens:
    """Tokens with their keys, in a separate cache, which treats a token as a resource that its key is bound to."""

    def __init__(self, reader: TokenReader, limits: Limits, changes: Changes) -> None:
        # Unknown tokens are not cached: no change is reported when one becomes known.
        self._cache = Cache(_Digests(reader), replace(limits, negative_ttl_s=0), changes)

    async def bindings_of(self, token: Token, peer: str) -> Bindings:
        """Return the token's binding to itself, or no bindings if it is unknown; raises ``UnavailableError``."""
        target = Target(Resource(KIND, token.digest.hex()))
        return (self._cache.peek(target) or await self._cache.get(target, peer)).bindings


class _Digests:
    def __init__(self, reader: TokenReader) -> None:
        self._reader = reader

    async def read(self, target: Target) -> BindingsRead:
        return await self._reader.read_token(bytes.fromhex(target.lookup.removeprefix(f"{KIND}:")))
