"""What is known of a token by itself, whatever it is bound to: for open resources that refuse bad ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from smarter_auth_mw.cache.changes import Changes
from smarter_auth_mw.cache.entries import BindingsRead, Cache, Limits
from smarter_auth_mw.domain import Bindings, Resource, Target
from smarter_auth_mw.tokens import Token

KIND = "token"


class TokenSource(Protocol):
    """Where it is known whose token it is."""

    async def read_token(self, digest: bytes) -> BindingsRead: ...


class KnownTokens:
    """Tokens with their keys, in a cache of their own: to it a token is a resource, and its key is bound to that."""

    def __init__(self, source: TokenSource, limits: Limits, changes: Changes) -> None:
        # No source changes when an unknown token becomes a known one: that it is unknown is not kept.
        self._cache = Cache(_Digests(source), replace(limits, negative_ttl_s=0), changes)

    async def bindings_of(self, token: Token, peer: str) -> Bindings:
        """The one binding of the token to itself, or none where it is unknown; raises ``UnavailableError``."""
        target = Target(Resource(KIND, token.digest.hex()))
        return (self._cache.peek(target) or await self._cache.get(target, peer)).bindings


class _Digests:
    def __init__(self, source: TokenSource) -> None:
        self._source = source

    async def read(self, target: Target) -> BindingsRead:
        return await self._source.read_token(bytes.fromhex(target.lookup.removeprefix(f"{KIND}:")))
