"""Which patterns a path mentions: all their literal words as segments, in their order, with anything between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Mentions(Generic[T]):
    """Things by sequences of words, found in one pass over the segments however many there are."""

    def __init__(self, sequences: Iterable[tuple[Sequence[str], T]]) -> None:
        self._root: _Node[T] = _Node()
        self._words: set[str] = set()
        for words, thing in sequences:
            node = self._root
            for word in words:
                node = node.children.setdefault(word, _Node())
            node.things.append(thing)
            self._words.update(words)

    def find(self, segments: Sequence[str]) -> list[T]:
        """All things whose words stand among the segments in their order."""
        found, begun = list(self._root.things), self._root.children
        if self._words.isdisjoint(segments):
            return found
        awaited: dict[str, list[_Node[T]]] = {}
        met: set[str] = set()
        for segment in segments:
            nodes = awaited.pop(segment, [])
            if segment in begun and segment not in met:
                met.add(segment)
                nodes.append(begun[segment])
            for node in nodes:
                found += node.things
                for word, child in node.children.items():
                    awaited.setdefault(word, []).append(child)
        return found


class _Node(Generic[T]):
    __slots__ = ("children", "things")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.things: list[T] = []
