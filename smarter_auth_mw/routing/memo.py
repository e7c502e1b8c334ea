"""A bounded cache of results, with one look-up per read and no search for evictions."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

UNKNOWN: Any = object()
"""Marks a missing entry, since None is a valid result."""


class Memo(Generic[K]):
    """Results in two generations, so that a flood of new keys causes no search for entries to evict.

    A full young generation becomes the old one, and the previous old one is dropped; an entry that is read once per
    generation stays. For speed, callers may read the dict ``young`` first.
    """

    def __init__(self, entries: int = 8192) -> None:
        self._entries = entries // 2
        self.young: dict[K, Any] = {}
        self._old: dict[K, Any] = {}

    def __len__(self) -> int:
        return len(self.young) + len(self._old)

    def recall(self, key: K) -> Any:
        """Return the result from either generation, or ``UNKNOWN``."""
        found = self.young.get(key, UNKNOWN)
        if found is UNKNOWN and (found := self._old.get(key, UNKNOWN)) is not UNKNOWN:
            self.remember(key, found)
        return found

    def remember(self, key: K, answer: Any) -> None:
        if len(self.young) >= self._entries:
            self._old, self.young = self.young, {}
        self.young[key] = answer
