"""What a path names: judged in every reading of every spelling that a router may see, and again in every folding."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from smarter_auth_mw.routing.folding import UnreadableError, fold, is_unreserved, mentions
from smarter_auth_mw.routing.further_back import FurtherBack
from smarter_auth_mw.routing.grammar import Line, Pattern
from smarter_auth_mw.routing.mounts import Mounts, literals, roots_of
from smarter_auth_mw.routing.precedence import Hit, Table
from smarter_auth_mw.routing.resolution import NOTHING, Judgement, agree, refused

MIN_WORDS_FURTHER_BACK = 2
"""One word of a pattern is too common to mean anything in the middle of a path, unless an id stands behind it."""

_ENCODED_SEPARATOR = re.compile(rb"%2f|%5c", re.IGNORECASE)


class Request(NamedTuple):
    """The parts of an ASGI scope that a path is judged by."""

    path: str
    raw_path: bytes | None
    root_path: str

    @classmethod
    def of(cls, scope: Mapping[str, Any]) -> Request:
        return cls(scope["path"], scope.get("raw_path"), scope.get("root_path", ""))

    @property
    def raw(self) -> bytes:
        """The raw path; some servers leave the query in it."""
        return (self.raw_path or b"").partition(b"?")[0]

    def sources(self) -> list[str]:
        """The spellings that routers go by: the path, and the raw path decoded once where that is another one."""
        decoded = unquote_to_bytes(self.raw).decode("utf-8", "replace")
        return [source for source in dict.fromkeys((self.path, decoded)) if source]

    def confirms(self, prefix: str) -> bool:
        """Whether the raw path has its slashes where ``prefix`` has them."""
        raw = self.raw
        if not _ENCODED_SEPARATOR.search(raw):
            return True
        within = prefix.removeprefix(self.root_path.rstrip("/"))  # some servers leave root_path out of raw_path
        starts = (text.encode("ascii") for text in (prefix, within))
        return any(raw.startswith(start) and raw[len(start) : len(start) + 1] in b"/" for start in starts)


class View(NamedTuple):
    """One spelling of a path, and all that it can be read as: as it stands, and folded."""

    source: str
    exact: tuple[str, ...]
    folded: tuple[str, ...]
    has_dots: bool
    moves_slashes: bool

    def words(self) -> set[str]:
        readings = (*self.folded, *(reading.lower() for reading in self.exact))
        return {word for reading in readings for word in reading.split("/")}

    def mentions(self, patterns: Iterable[Sequence[str]]) -> bool:
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
        is_short = [not isinstance(line, Pattern) or len(line.literals) == 1 for line in lines]
        self._short = Table(compress(lines, is_short), is_folded=True)
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
        present = {word for view in views for word in view.words()}
        if not any(present.issuperset(words) for words in self._words):
            return NOTHING
        hits = {view: self._hits(self._exact, view.exact) for view in views}
        named = [hit for found in hits.values() for hit in found]
        objections = (self._objection(request, view, found, named) for view, found in hits.items())
        if objection := next(filter(None, objections), None):
            return refused(objection, request.path)
        return self._one(named) if named else NOTHING

    @staticmethod
    def _hits(table: Table, readings: Iterable[str]) -> list[Hit]:
        return [hit for reading in readings for hit in table.hits(reading)]

    def _views(self, request: Request) -> list[View]:
        roots = roots_of(request.root_path)
        folded_roots = [text for root in roots for text in fold(root).texts]
        return [self._view(source, roots, folded_roots) for source in request.sources()]

    def _view(self, source: str, roots: Sequence[str], folded_roots: Sequence[str]) -> View:
        texts, has_dots, moves_slashes = fold(source)
        folded = (reading for text in texts for reading in self._folded_mounts.readings(text, folded_roots))
        return View(source, tuple(self._mounts.readings(source, roots)), tuple(folded), has_dots, moves_slashes)

    def _objection(self, request: Request, view: View, found: Sequence[Hit], named: Sequence[Hit]) -> str | None:
        """Why the path can be read in more than one way, if it can: ``found`` in this spelling, ``named`` in any."""
        if view.has_dots and (found or view.mentions(self._words)):
            return "it has a dot segment, and mentions a pattern"
        for hit in found:
            prefix = view.source[: len(view.source) - hit.rest_chars]
            if not is_unreserved(prefix) or not request.confirms(prefix):
                return f"{hit.pattern} is reached by more than one spelling"
            # Flask's path converter takes no leading slash: its router turns to the handler of the other pattern.
            if view.source.startswith("//", len(prefix)) and self._exact.is_contested(hit.reading):
                return f"behind an empty segment it may be that of another pattern than {hit.pattern}"
        known = {hit.lowered() for hit in named}
        for hit in self._hits(self._folded, view.folded):
            if hit.lowered() not in known:
                return f"a lenient router would read it as {hit.pattern}"
        # Where slashes can be moved, what stands in the place of a placeholder may be any number of segments.
        patterns = {hit.pattern for hit in named}
        if view.moves_slashes and view.mentions(words for words, pattern in self._gapped if pattern not in patterns):
            return "its slashes can be read in more than one way, and it mentions a pattern"
        behind = None if found else self._further_back(view)
        return behind and f"further back it is {behind.pattern}, and no line names it"

    def further_back(self, path: str) -> FurtherBack | None:
        """What a path that no line names would be behind one of its slashes, if that is why it is refused."""
        try:
            (view,) = self._views(Request(path, None, ""))
        except UnreadableError:
            return None
        is_other = view.has_dots or self._hits(self._exact, view.exact) or self._hits(self._folded, view.folded)
        hit = None if is_other else self._further_back(view)
        if hit is None:
            return None
        reading = next(reading for reading in (*view.folded, view.source.lower()) if reading.endswith(hit.reading))
        return FurtherBack(hit.pattern, reading.removesuffix(hit.reading))

    def _further_back(self, view: View) -> Hit | None:
        """What the path would name behind a mount that we were not told of."""
        if self._exact.is_none(view.source):
            return None
        readings = dict.fromkeys((*view.folded, *(reading.lower() for reading in view.exact)))
        rests = list(dict.fromkeys(rest for reading in readings for rest in _rests(reading)))
        long = next((hit for rest in rests for hit in self._long.hits(rest)), None)
        cased = (rest for reading in view.exact for rest in _rests(reading))
        return long or next(
            (
                hit
                for rest in (*rests, *cased)
                for hit in self._short.hits(rest)
                if hit.pattern.form.reads_as_id(hit.reference)
            ),
            None,
        )

    def _one(self, hits: Sequence[Hit]) -> Judgement:
        """The one target that all hits agree upon."""
        judgements = [Judgement(hit.target(self._default_account), str(hit.pattern), hit.reading) for hit in hits]
        agreed = judgements[0]
        for judgement in judgements:
            agreed = agree(agreed, judgement)
        return agreed


def _literals(pattern: Pattern) -> tuple[str, ...]:
    return tuple(word.lower() for word in pattern.literals)


def _rests(reading: str) -> Iterator[str]:
    """What stands behind each slash of ``reading`` but the first."""
    at = reading.find("/", 1)
    while at > 0:
        yield reading[at:]
        at = reading.find("/", at + 1)
