"""A bounded memory of answers that costs one look-up and never a search."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

UNKNOWN: Any = object()
"""What is not remembered: None is an answer too."""


class Memo(Generic[K]):
    """Answers in two generations: a flood of new keys costs no search for what to forget.

    When the young generation is full it becomes the old one, and what was the old one is forgotten; whatever is asked
    for once in a generation lives on. Who is in a hurry reads ``young`` first, which is a dict.
    """

    def __init__(self, entries: int = 8192) -> None:
        self._entries = entries // 2
        self.young: dict[K, Any] = {}
        self._old: dict[K, Any] = {}

    def __len__(self) -> int:
        return len(self.young) + len(self._old)

    def recall(self, key: K) -> Any:
        """Return what either generation remembers, or ``UNKNOWN``."""
        found = self.young.get(key, UNKNOWN)
        if found is UNKNOWN and (found := self._old.get(key, UNKNOWN)) is not UNKNOWN:
            self.remember(key, found)
        return found

    def remember(self, key: K, answer: Any) -> None:
        if len(self.young) >= self._entries:
            self._old, self.young = self.young, {}
        self.young[key] = answer
