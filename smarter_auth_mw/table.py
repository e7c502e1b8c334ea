"""Which line of ROUTES decides about a path or host: the most specific one, alone, and its refusal is final."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from smarter_auth_mw.decision import Denial, Reason
from smarter_auth_mw.domain import Alias, AliasForm, Resource, Target
from smarter_auth_mw.patterns import Line, NoResource, Pattern, Words, lowered
from smarter_auth_mw.references import ACCOUNT

ALIAS_FORMS: dict[str, AliasForm] = {"name": "name", "label": "label"}
SHOWN_CHARS = 120


class Hit(NamedTuple):
    """A pattern that decides about a reading, with what stands in the place of its placeholders."""

    pattern: Pattern
    reading: str
    reference: str
    account: str | None
    tail_chars: int
    """How many characters of the reading stand behind the reference."""

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


class _Row(NamedTuple):
    line: Line
    words: Words

    def owns(self, segments: Sequence[str]) -> bool:
        """Whether the line's words match, and for a pattern: whether something stands where its reference belongs."""
        if isinstance(self.line, NoResource):
            same = tuple(segments[: len(self.words)]) == self.words
            return same and (self.line.is_subtree or not any(segments[len(self.words) :]))
        return any(segments[self.line.ref_at :]) and _match(self.head, segments)

    @property
    def head(self) -> Words:
        return self.words[: self.line.ref_at + 1] if isinstance(self.line, Pattern) else self.words

    def collects(self, segments: Sequence[str], place: int) -> bool:
        """Whether ``segments`` are the pattern's collection, of which the one at ``place`` is a literal word."""
        if isinstance(self.line, NoResource) or self.line.ref_at <= place or self.words[place] is None:
            return False
        at = self.line.ref_at
        return not any(segments[at:]) and len(segments) >= at and _match(self.words[:at], segments)


class Table:
    """The lines in the order of their precedence; ``is_folded`` compares without case."""

    def __init__(self, lines: Iterable[Line], *, is_folded: bool = False) -> None:
        cased: Callable[[Words], Words] = lowered if is_folded else tuple
        self._rows = sorted((_Row(line, cased(line.words)) for line in lines), key=_rank)

    def hits(self, reading: str) -> list[Hit]:
        """What decides about ``reading``: usually one pattern; several where only their tails differ and none fits."""
        segments = reading.split("/")[1:]
        rows = [row for row in self._rows if row.owns(segments)]
        if not rows or isinstance(rows[0].line, NoResource):
            return []
        rivals = [row for row in rows if row.head == rows[0].head and isinstance(row.line, Pattern)]
        fitting = [row for row in rivals if _match(row.words, segments)][:1]
        hits = [_hit(row.line, reading, segments) for row in fitting or rivals if isinstance(row.line, Pattern)]
        return [hit for hit in hits if not self._is_collection(hit, segments)]

    def is_none(self, reading: str) -> bool:
        """Whether a ``none`` line decides about ``reading``."""
        segments = reading.split("/")[1:]
        first = next((row for row in self._rows if row.owns(segments)), None)
        return first is not None and isinstance(first.line, NoResource)

    def _is_collection(self, hit: Hit, segments: Sequence[str]) -> bool:
        """Whether a reference that is not canonical is a literal word of another pattern, whose collection this is."""
        if hit.pattern.form.parse(hit.reference) is not None:
            return False
        return any(row.collects(segments, hit.pattern.ref_at) for row in self._rows)


def refusal(detail: str, text: str, reason: Reason = Reason.NOT_CANONICAL) -> Denial:
    return Denial(reason, detail=f"{shown(text)}: {detail}")


def shown(text: str) -> str:
    """What a stranger wrote, for operators: escaped and cut."""
    return ascii(text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "…")


def _hit(pattern: Pattern, reading: str, segments: Sequence[str]) -> Hit:
    head_chars = sum(len(segment) + 1 for segment in segments[: pattern.ref_at + 1])
    account = None if pattern.account_at is None else segments[pattern.account_at]
    return Hit(pattern, reading, segments[pattern.ref_at], account, len(reading) - head_chars)


def _match(words: Words, segments: Sequence[str]) -> bool:
    if len(segments) < len(words):
        return False
    return all(word is None or word == segment for word, segment in zip(words, segments, strict=False))


def _rank(row: _Row) -> tuple[tuple[int, ...], int, str]:
    # At the first segment where two lines differ, a literal goes before a placeholder, and that before what a line
    # only owns; among equal heads the longest tail.
    line = row.line
    tail_words = len(line.tail) if isinstance(line, Pattern) else 0
    return (*(word is None for word in row.head), 2), -tail_words, str(line)
