"""What a path names: judged in every reading of every spelling that a router may see, and again in every folding."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from smarter_auth_mw.judgement import NOTHING, Judgement, agree, refused
from smarter_auth_mw.mounts import Mounts, literals, roots_of
from smarter_auth_mw.paths import UnreadableError, fold, is_unreserved, mentions
from smarter_auth_mw.patterns import Line, Pattern
from smarter_auth_mw.table import Hit, Table

MIN_WORDS_FURTHER_BACK = 2
"""One word of a pattern is too common to mean anything in the middle of a path."""

_ENCODED_SEPARATOR = re.compile(rb"%2f|%5c", re.IGNORECASE)


class Request(NamedTuple):
    """The parts of an ASGI scope that a path is judged by."""

    path: str
    raw_path: bytes | None
    root_path: str

    def sources(self) -> list[str]:
        """The spellings that routers go by: the path, and the raw path decoded once where that is another one."""
        decoded = unquote_to_bytes((self.raw_path or b"").partition(b"?")[0]).decode("utf-8", "replace")
        return [source for source in dict.fromkeys((self.path, decoded)) if source]

    def confirms(self, prefix: str) -> bool:
        """Whether the raw path has its slashes where ``prefix`` has them."""
        if not self.raw_path or not _ENCODED_SEPARATOR.search(self.raw_path):
            return True
        within = prefix.removeprefix(self.root_path.rstrip("/"))  # some servers leave root_path out of raw_path
        starts = (text.encode("ascii") for text in (prefix, within))
        return any(self.raw_path.startswith(start) and self.raw_path[len(start) :][:1] in b"/" for start in starts)


class Views(NamedTuple):
    """All that a path can be read as: exact readings by the spelling they come from, and folded ones."""

    exact: list[tuple[str, str]]
    folded: list[str]
    has_dots: bool
    moves_slashes: bool

    def words(self) -> set[str]:
        readings = [*self.folded, *(reading.lower() for _, reading in self.exact)]
        return {word for reading in readings for word in reading.split("/")}

    def mention(self, patterns: Iterable[Sequence[str]]) -> bool:
        """Whether all words of one of the patterns stand in a folding, in their order."""
        segments = [reading.split("/") for reading in self.folded]
        return any(mentions(words, one) for words in patterns for one in segments)


class PathRouting:
    """The patterns for paths, compiled."""

    def __init__(self, lines: Sequence[Line], mounts: Sequence[str], default_account: str) -> None:
        self._exact = Table(lines)
        self._folded = Table(lines, is_folded=True)
        self._mounts = Mounts(mounts)
        self._folded_mounts = Mounts(mounts, is_folded=True)
        self._default_account = default_account
        is_long = [not isinstance(line, Pattern) or len(line.literals) >= MIN_WORDS_FURTHER_BACK for line in lines]
        self._long = Table(compress(lines, is_long), is_folded=True)
        patterns = [line for line in lines if isinstance(line, Pattern)]
        self._words = {_literals(pattern) for pattern in patterns}
        self._gapped = [(_literals(pattern), pattern) for pattern in patterns if pattern.account_at is not None]
        self._gapped += [
            ((*literals(mount), *_literals(pattern)), pattern)
            for mount in mounts
            for pattern in patterns
            if "{" in mount
        ]

    def judge(self, request: Request) -> Judgement:
        """What the path names."""
        if not (request.path or "/").startswith("/") or not (request.raw_path or b"/").startswith(b"/"):
            return refused("a path begins with a slash", request.path)
        try:
            views = self._views(request)
        except UnreadableError as error:
            return refused(str(error), request.path)
        present = views.words()
        if not any(present.issuperset(words) for words in self._words):
            return NOTHING
        return self._judge(request, views)

    def _views(self, request: Request) -> Views:
        roots = roots_of(request.root_path)
        folded_roots = [text for root in roots for text in fold(root).texts]
        sources = request.sources()
        foldings = [fold(source) for source in sources]
        texts = dict.fromkeys(text for folding in foldings for text in folding.texts)
        return Views(
            [(source, reading) for source in sources for reading in self._mounts.readings(source, roots)],
            [reading for text in texts for reading in self._folded_mounts.readings(text, folded_roots)],
            any(folding.has_dots for folding in foldings),
            any(folding.moves_slashes for folding in foldings),
        )

    def _judge(self, request: Request, views: Views) -> Judgement:
        hits = [(source, hit) for source, reading in views.exact for hit in self._exact.hits(reading)]
        objection = self._objection(request, views, hits)
        if objection:
            return refused(objection, request.path)
        return self._one(hit for _, hit in hits) if hits else self._further_back(request, views)

    def _objection(self, request: Request, views: Views, hits: Sequence[tuple[str, Hit]]) -> str | None:
        """Why the path can be read in more than one way, if it can."""
        if views.has_dots and (hits or views.mention(self._words)):
            return "it has a dot segment, and mentions a pattern"
        for source, hit in hits:
            prefix = source[: len(source) - hit.rest_chars]
            if not is_unreserved(prefix) or not request.confirms(prefix):
                return f"{hit.pattern} is reached by more than one spelling"
        known = {hit.lowered() for _, hit in hits}
        for hit in (hit for reading in views.folded for hit in self._folded.hits(reading)):
            if hit.lowered() not in known:
                return f"a lenient router would read it as {hit.pattern}"
        # Where slashes can be moved, what stands in the place of a placeholder may be any number of segments.
        patterns = {hit.pattern for _, hit in hits}
        if views.moves_slashes and views.mention(words for words, pattern in self._gapped if pattern not in patterns):
            return "its slashes can be read in more than one way, and it mentions a pattern"
        return None

    def _one(self, hits: Iterable[Hit]) -> Judgement:
        """The one target that all hits agree upon."""
        judgements = [Judgement(hit.target(self._default_account), str(hit.pattern), hit.reading) for hit in hits]
        agreed = judgements[0]
        for judgement in judgements:
            agreed = agree(agreed, judgement)
        return agreed

    def _further_back(self, request: Request, views: Views) -> Judgement:
        """Refuse a path that a mount we were not told of would turn into a resource's."""
        if self._exact.is_none(request.path):
            return NOTHING
        readings = dict.fromkeys([*views.folded, *(reading.lower() for _, reading in views.exact)])
        for rest in dict.fromkeys(rest for reading in readings for rest in _rests(reading)):
            for hit in self._long.hits(rest):
                return refused(f"behind a mount it would be {hit.pattern}; MOUNTS may lack one", request.path)
        return NOTHING


def _literals(pattern: Pattern) -> tuple[str, ...]:
    return tuple(word.lower() for word in pattern.literals)


def _rests(reading: str) -> Iterator[str]:
    """What stands behind each slash of ``reading`` but the first."""
    at = reading.find("/", 1)
    while at > 0:
        yield reading[at:]
        at = reading.find("/", at + 1)
