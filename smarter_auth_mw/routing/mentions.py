"""Finds the patterns that a path mentions: all literal words as segments in order, with anything in between."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Mentions(Generic[T]):
    """Items by sequences of words, found in one pass over the segments, however many items there are."""

    def __init__(self, sequences: Iterable[tuple[Sequence[str], T]]) -> None:
        self._root: _Node[T] = _Node()
        self._words: set[str] = set()
        self._sets: set[frozenset[str]] = set()
        for words, thing in sequences:
            node = self._root
            for word in words:
                node = node.children.setdefault(word, _Node())
            node.things.append(thing)
            self._words.update(words)
            self._sets.add(frozenset(words))

    def may_find(self, segments: Sequence[str]) -> bool:
        """Return whether the segments include all words of one pattern, in any order."""
        present = self._words.intersection(segments)
        return any(words <= present for words in self._sets) if present else bool(self._root.things)

    def find(self, segments: Sequence[str]) -> list[T]:
        """Return all items whose words occur among the segments in order."""
        found, present = list(self._root.things), self._words.intersection(segments)
        if not present:
            return found
        awaited = {word: [self._root.children[word]] for word in present & self._root.children.keys()}
        for segment in segments:
            if segment in present:
                for node in awaited.pop(segment, ()):
                    found += node.things
                    for word in present & node.children.keys():
                        awaited.setdefault(word, []).append(node.children[word])
        return found


class _Node(Generic[T]):
    __slots__ = ("children", "things")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.things: list[T] = []
