"""Decides which line of ROUTES applies to a path or host: the most specific one alone, and its refusal is final."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from smarter_auth_mw.decision import Denial
from smarter_auth_mw.domain import Alias, AliasForm, Resource, Target
from smarter_auth_mw.routing.grammar import Line, NoResource, Pattern, Words, lowered
from smarter_auth_mw.routing.references import ACCOUNT
from smarter_auth_mw.routing.resolution import refusal, shown

ALIAS_FORMS: dict[str, AliasForm] = {"name": "name", "label": "label"}


class Hit(NamedTuple):
    """A pattern that decides a reading, with the values of its placeholders."""

    pattern: Pattern
    reading: str
    reference: str
    account: str | None
    rest_chars: int
    """The number of characters of the reading after the part that matched."""

    def lowered(self) -> tuple[Pattern, str, str | None]:
        """Return the pattern and its values in lower case, for readers that ignore case."""
        return self.pattern, self.reference.lower(), self.account and self.account.lower()

    def target(self, default_account: str) -> Target | Denial:
        """Return the target, or a denial of a spelling that is not canonical."""
        pattern = self.pattern
        value = pattern.form.parse(self.reference)
        if value is None:
            return refusal(f"{pattern} expects {pattern.form.rule}, not {shown(self.reference)}", self.reading)
        account = None if self.account is None else ACCOUNT.parse(self.account)
        if self.account is not None and account is None:
            return refusal(f"{pattern} expects {ACCOUNT.rule}, not {shown(self.account)}", self.reading)
        form = ALIAS_FORMS.get(pattern.form.placeholder)
        names = Alias(pattern.kind, form, value, account or default_account) if form else Resource(pattern.kind, value)
        return Target(names, account, pattern.always, exact=pattern.form.placeholder == "ref:exact")


class _Node:
    """A node of the tree of lines: the lines that end here, and the branches to longer ones."""

    __slots__ = ("anything", "literals", "nones", "patterns")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.anything: _Node | None = None
        self.patterns: list[Pattern] = []
        """Patterns whose head ends here, the one with the longest tail first."""
        self.nones: list[NoResource] = []

    def child(self, word: str | None) -> _Node:
        if word is not None:
            return self.literals.setdefault(word, _Node())
        self.anything = self.anything or _Node()
        return self.anything

    @property
    def is_collection(self) -> bool:
        """Return whether a reference may come next."""
        return self.anything is not None and bool(self.anything.patterns)


Owner = list[Pattern] | NoResource
"""A match: patterns with the same head, or a ``none`` line."""


class Table:
    """The lines in the order of precedence; ``is_folded`` ignores case, and ``.json`` in tails.

    A look-up of a reading, which is the segments from ``at`` on, takes time for the matching lines only, whatever the
    number of other lines and of segments.
    """

    def __init__(self, lines: Iterable[Line], *, is_folded: bool = False) -> None:
        self._is_folded = is_folded
        self._cased: Callable[[Words], Words] = lowered if is_folded else tuple
        self._root = _Node()
        self.depth = 0
        """The most segments that are read."""
        for line in sorted(lines, key=_tail_first):
            self._add(line)

    def _add(self, line: Line) -> None:
        node = self._root
        for word in self._cased(line.head):
            node = node.child(word)
        if isinstance(line, Pattern):
            node.patterns.append(line)
        else:
            node.nones.append(line)
        self.depth = max(self.depth, len(line.words) + 1)

    def hits(self, segments: Sequence[str], at: int, *, minds_none: bool = True) -> list[Hit]:
        """Return the deciding pattern, or several if they differ only in their tails and no tail matches.

        Without ``minds_none`` the first pattern decides, as if there were no ``none`` lines.
        """
        for owner in self._owners(segments, at):
            if isinstance(owner, list):
                return self._hits(owner, segments, at)
            if minds_none:
                break
        return []

    def is_contested(self, segments: Sequence[str], at: int) -> bool:
        """Return whether more than one pattern matches."""
        groups = (owner for owner in self._owners(segments, at) if isinstance(owner, list))
        return sum(self._has_tail(one, segments, at) for group in groups for one in group) > 1

    def none_line(self, segments: Sequence[str], at: int = 0) -> NoResource | None:
        """Return the ``none`` line that decides, or None."""
        owners = self._owners(segments, at)
        return owners[0] if owners and isinstance(owners[0], NoResource) else None

    def further_back(self, segments: Sequence[str], cased: Sequence[str], at: int) -> Hit | None:
        """Return the pattern that decides if an unknown prefix is removed here.

        A pattern of several literal words decides for any reference; a pattern of a single word decides only if the
        reference is an id. ``cased`` are the segments in their original case.
        """
        for owner in self._owners(segments, at):
            if isinstance(owner, NoResource):
                return None
            place = at + owner[0].ref_at
            if owner[0].has_several_words or any(one.form.reads_as_id(cased[place]) for one in owner):
                return next(iter(self._hits(owner, segments, at)), None)
        return None

    def _hits(self, group: list[Pattern], segments: Sequence[str], at: int) -> list[Hit]:
        fitting = self._fitting(group, segments, at) or group
        hits = [_hit(one, segments, at, is_alone=len(group) == 1) for one in fitting]
        return [hit for hit in hits if not self._is_collection(hit, segments, at)]

    def _fitting(self, group: list[Pattern], segments: Sequence[str], at: int) -> list[Pattern]:
        """Return the pattern with the longest matching tail, and if folded, also those that match with a suffix."""
        exact = [one for one in group if self._has_tail(one, segments, at)]
        bare = [one for one in group if self._has_tail(one, segments, at, is_bare=True)] if self._is_folded else []
        return [*dict.fromkeys([*exact[:1], *(one for one in bare if len(one.tail) == len(bare[0].tail))])]

    def _has_tail(self, pattern: Pattern, segments: Sequence[str], at: int, *, is_bare: bool = False) -> bool:
        """Return whether the words after the reference match too, with ``is_bare`` also with a suffix as ``.json``."""
        begin, tail = at + len(pattern.head), self._cased(pattern.tail)
        behind = segments[begin : begin + len(tail)]
        if is_bare and len(behind) == len(tail):
            return all(f"{segment}.".startswith(f"{word}.") for segment, word in zip(behind, tail, strict=True))
        return tuple(behind) == tail

    def _owners(self, segments: Sequence[str], at: int) -> list[Owner]:
        """Return all matches, the most specific first."""
        end = len(segments)
        while end > at and not segments[end - 1]:
            end -= 1
        found: list[Owner] = []
        _collect(self._root, segments, at, at, end, found)
        return found

    def _is_collection(self, hit: Hit, segments: Sequence[str], at: int) -> bool:
        """Return whether a reference that is not canonical is a word of another pattern, so this is its collection."""
        if hit.pattern.form.parse(hit.reference) is not None:
            return False
        place, nodes = at + hit.pattern.ref_at, [self._root]
        for now in range(at, min(len(segments), at + self.depth)):
            nodes = [way for node in nodes for way in _ways(node, segments[now], may_be_anything=now != place)]
            if any(node.is_collection for node in nodes) and not any(segments[now + 1 :]):
                return True
        return False


def _collect(node: _Node, segments: Sequence[str], start: int, at: int, end: int, found: list[Owner]) -> None:
    """Add all matches from ``start`` on among the lines below ``node``.

    At the first segment where two lines differ, a literal has precedence over a placeholder, and that over the end of
    a line, which owns the rest. After ``end`` all segments are empty.
    """
    if at < len(segments):
        if (literal := node.literals.get(segments[at])) is not None:
            _collect(literal, segments, start, at + 1, end, found)
        if node.anything is not None:
            _collect(node.anything, segments, start, at + 1, end, found)
    if node.patterns and at <= end:  # there is a segment at the reference's place, or after it
        found.append(node.patterns)
    if node.nones:
        nones = (line for line in node.nones if line.is_subtree or at >= end)
        found.extend(line for line in nones if all(segments[start + place] for place in line.blanks))


def _ways(node: _Node, segment: str, *, may_be_anything: bool) -> list[_Node]:
    """Return the nodes that a segment leads to, in the order of precedence."""
    literal = node.literals.get(segment)
    ways = [] if literal is None else [literal]
    if node.anything is not None and may_be_anything:
        ways.append(node.anything)
    return ways


def _hit(pattern: Pattern, segments: Sequence[str], at: int, *, is_alone: bool) -> Hit:
    decisive = pattern.head if is_alone else pattern.words
    rest = segments[at + len(decisive) :]
    account = None if pattern.account_at is None else segments[at + pattern.account_at]
    reading = "/".join(["", *segments[at:]])
    return Hit(pattern, reading, segments[at + pattern.ref_at], account, sum(map(len, rest)) + len(rest))


def _tail_first(line: Line) -> tuple[int, str]:
    return -len(line.tail) if isinstance(line, Pattern) else 0, str(line)
