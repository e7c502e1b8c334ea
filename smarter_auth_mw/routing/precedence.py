"""Which line of ROUTES decides about a path or host: the most specific one, alone, and its refusal is final."""

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
    """A pattern that decides about a reading, with what stands in the place of its placeholders."""

    pattern: Pattern
    reading: str
    reference: str
    account: str | None
    rest_chars: int
    """How many characters of the reading stand behind all that decided."""

    def lowered(self) -> tuple[Pattern, str, str | None]:
        """What a reader takes it for who makes no difference between upper and lower case."""
        return self.pattern, self.reference.lower(), self.account and self.account.lower()

    def target(self, default_account: str) -> Target | Denial:
        """What it names, or the refusal of a spelling that is not the canonical one."""
        pattern = self.pattern
        value = pattern.form.parse(self.reference)
        if value is None:
            return refusal(f"{pattern} wants {pattern.form.rule}, not {shown(self.reference)}", self.reading)
        account = None if self.account is None else ACCOUNT.parse(self.account)
        if self.account is not None and account is None:
            return refusal(f"{pattern} wants {ACCOUNT.rule}, not {shown(self.account)}", self.reading)
        form = ALIAS_FORMS.get(pattern.form.placeholder)
        names = Alias(pattern.kind, form, value, account or default_account) if form else Resource(pattern.kind, value)
        return Target(names, account, pattern.always, exact=pattern.form.placeholder == "ref:exact")


class _PatternRow(NamedTuple):
    line: Pattern
    words: Words
    head: Words

    def owns(self, segments: Sequence[str]) -> bool:
        """Whether the words match and something stands where the reference belongs."""
        return any(segments[self.line.ref_at :]) and _match(self.head, segments)

    def has_tail(self, segments: Sequence[str]) -> bool:
        """Whether the words behind the reference match too."""
        return _match(self.words[len(self.head) :], segments[len(self.head) :])

    def collects(self, segments: Sequence[str], place: int) -> bool:
        """Whether ``segments`` are the pattern's collection, of which the one at ``place`` is a literal word."""
        at = self.line.ref_at
        if at <= place or self.words[place] is None or any(segments[at:]):
            return False
        return _match(self.words[:at], segments)


class _NoneRow(NamedTuple):
    line: NoResource
    words: Words
    head: Words

    def owns(self, segments: Sequence[str]) -> bool:
        """Whether this is the path, or in the subtree, that is no resource."""
        return _match(self.words, segments) and (self.line.is_subtree or not any(segments[len(self.words) :]))


class Table:
    """The lines in the order of their precedence; ``is_folded`` reads without case, and without ``.json`` in tails."""

    def __init__(self, lines: Iterable[Line], *, is_folded: bool = False) -> None:
        self._is_folded = is_folded
        cased: Callable[[Words], Words] = lowered if is_folded else tuple
        rows = [_row(line, cased(line.words)) for line in lines]
        self._rows = sorted(rows, key=_rank)

    def hits(self, reading: str) -> list[Hit]:
        """What decides about ``reading``: usually one pattern; several where only their tails differ and none fits."""
        segments = reading.split("/")[1:]
        first = self._first(segments)
        if not isinstance(first, _PatternRow):
            return []
        rivals = [row for row in self._rows if isinstance(row, _PatternRow) and row.head == first.head]
        fitting = self._fitting(rivals, segments) if len(rivals) > 1 else rivals
        hits = [_hit(row.line, reading, segments, is_alone=len(rivals) == 1) for row in fitting or rivals]
        return [hit for hit in hits if not self._is_collection(hit, segments)]

    def _fitting(self, rivals: list[_PatternRow], segments: list[str]) -> list[_PatternRow]:
        """Of the patterns that differ only behind the reference: the one with the longest tail that matches."""
        spellings = [segments]
        if self._is_folded:
            spellings.append([segment.partition(".")[0] or segment for segment in segments])
        fitting = (next((row for row in rivals if row.has_tail(one)), None) for one in spellings)
        return [row for row in dict.fromkeys(fitting) if row]

    def is_contested(self, reading: str) -> bool:
        """Whether more than one pattern matches ``reading``, of which the most specific one decides."""
        segments = reading.split("/")[1:]
        patterns = (row for row in self._rows if isinstance(row, _PatternRow))
        return sum(row.owns(segments) and row.has_tail(segments) for row in patterns) > 1

    def is_none(self, reading: str) -> bool:
        """Whether a ``none`` line decides about ``reading``."""
        return isinstance(self._first(reading.split("/")[1:]), _NoneRow)

    def _first(self, segments: Sequence[str]) -> _PatternRow | _NoneRow | None:
        return next((row for row in self._rows if row.owns(segments)), None)

    def _is_collection(self, hit: Hit, segments: Sequence[str]) -> bool:
        """Whether a reference that is not canonical is a literal word of another pattern, whose collection this is."""
        if hit.pattern.form.parse(hit.reference) is not None:
            return False
        rows = (row for row in self._rows if isinstance(row, _PatternRow))
        return any(row.collects(segments, hit.pattern.ref_at) for row in rows)


def _row(line: Line, words: Words) -> _PatternRow | _NoneRow:
    if isinstance(line, Pattern):
        return _PatternRow(line, words, head=words[: line.ref_at + 1])
    return _NoneRow(line, words, head=words)


def _hit(pattern: Pattern, reading: str, segments: Sequence[str], *, is_alone: bool) -> Hit:
    decisive = pattern.head if is_alone else pattern.words
    rest_chars = len(reading) - sum(len(segment) + 1 for segment in segments[: len(decisive)])
    account = None if pattern.account_at is None else segments[pattern.account_at]
    return Hit(pattern, reading, segments[pattern.ref_at], account, rest_chars)


def _match(words: Words, segments: Sequence[str]) -> bool:
    if len(segments) < len(words):
        return False
    return all(word is None or word == segment for word, segment in zip(words, segments, strict=False))


def _rank(row: _PatternRow | _NoneRow) -> tuple[tuple[int, ...], int, str]:
    # At the first segment where two lines differ, a literal goes before a placeholder, and that before what a line
    # only owns; among equal heads the longest tail.
    line = row.line
    tail_words = len(line.tail) if isinstance(line, Pattern) else 0
    return (*(word is None for word in row.head), 2), -tail_words, str(line)
