"""Finds unmatched paths that would name a resource after a later slash, and what to write for them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from smarter_auth_mw.routing.folding import Reading, UnreadableError
from smarter_auth_mw.routing.grammar import ANY_SEGMENT, Line, Pattern
from smarter_auth_mw.routing.precedence import Table

MAX_PLACES = 6
"""The most places in an unmatched path where the first word of a pattern may occur."""

_LITERAL = re.compile(r"[A-Za-z0-9._~-]+")
_PLACEHOLDER = re.compile(r"\{[^/{}]*\}")


class Remedies(NamedTuple):
    """The lines that resolve such a path, one for each meaning that it may have."""

    same: str | None
    """A line of ROUTES for the same resource at this prefix; None if no line can express the prefix."""
    mount: str
    """The prefix as a line of MOUNTS, if the app removes it by itself."""
    none: str
    """The narrowest ``none`` line, if the path is not a resource."""
    kind: str

    def __str__(self) -> str:
        same = f"If it is the same {self.kind}: add `{self.same}`. " if self.same else ""
        return f"{same}If the app removes the prefix: MOUNTS={self.mount}. If it is something else: add `{self.none}`."


class FurtherBack(NamedTuple):
    """The pattern that such a path matches after ``prefix`` is removed; ``prefix`` ends before a slash."""

    pattern: Pattern
    prefix: str

    def remedies(self, template: str = "") -> Remedies:
        """Return what to write; ``template`` is the path of the app's route, as ``/{organization}/incidents/{id}``."""
        count = self.prefix.count("/")
        known = template.split("/")[1 : count + 1]
        segments = known if len(known) == count else self.prefix.split("/")[1:]
        is_literal = all(map(_LITERAL.fullmatch, segments))
        same = f"{self.pattern.kind} /{'/'.join(segments)}{self.pattern.text}" if is_literal else None
        mount = "".join("/" + _mount_segment(segment) for segment in segments)
        words = [ANY_SEGMENT if not _LITERAL.fullmatch(segment) else segment for segment in segments]
        words += [word or ANY_SEGMENT for word in self.pattern.head[:-1]]
        return Remedies(same, mount, f"none /{'/'.join(words)}/**", self.pattern.kind)


def _mount_segment(segment: str) -> str:
    return segment if _LITERAL.fullmatch(segment) or _PLACEHOLDER.fullmatch(segment) else ANY_SEGMENT


class Behind:
    """The lines, as they may match after an unknown prefix.

    Patterns without a literal word are left out: they match everywhere, so also at the beginning.
    """

    def __init__(self, lines: Sequence[Line]) -> None:
        kept = [line for line in lines if not isinstance(line, Pattern) or line.literals]
        self._table = Table(kept, is_folded=True)
        self._offsets: dict[str, set[int]] = {}
        for line in kept:
            if isinstance(line, Pattern):
                first = line.literals[0]
                self._offsets.setdefault(first.lower(), set()).add(line.head.index(first))

    def find(self, reading: Reading) -> FurtherBack | None:
        """Return what the path names after a later slash; raises UnreadableError if there are too many matches."""
        known = [place for place, word in enumerate(reading.words) if word in self._offsets]
        if len(known) > MAX_PLACES:
            raise UnreadableError(f"the first word of a pattern occurs in more than {MAX_PLACES} places")
        spanned = (self._spanning(reading, known, host) for host in reading.hosts)
        return self._first(reading, known) or next(filter(None, spanned), None)

    def _spanning(self, reading: Reading, known: Sequence[int], host: int) -> FurtherBack | None:
        """Return the first hit without the word at ``host``, if this brings other words together."""
        near = [place for place in known if abs(place - host) <= self._table.depth]
        moved = [place - (place > host) for place in near if place != host]
        return self._first(reading.less_host(host), moved) if moved else None

    def _first(self, reading: Reading, known: Sequence[int]) -> FurtherBack | None:
        words = reading.words
        for place in dict.fromkeys(at - offset for at in known for offset in self._offsets[words[at]]):
            hit = self._table.further_back(words, reading.cased, place) if place > 0 else None
            if hit is not None:
                return FurtherBack(hit.pattern, "/".join(["", *reading.cased[:place]]))
        return None
