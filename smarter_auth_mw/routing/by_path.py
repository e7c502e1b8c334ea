"""Resolves paths: judges every reading of every spelling that a router may see, and also a lenient one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from smarter_auth_mw.routing.folding import (
    MAX_SEGMENTS,
    Folding,
    Reading,
    UnreadableError,
    fold,
    is_plain,
    is_unreserved,
    unquoted,
)
from smarter_auth_mw.routing.further_back import Behind, FurtherBack
from smarter_auth_mw.routing.grammar import Line, Pattern
from smarter_auth_mw.routing.mentions import Mentions
from smarter_auth_mw.routing.mounts import Mounts, less_roots, roots_of, words_of
from smarter_auth_mw.routing.precedence import Hit, Table
from smarter_auth_mw.routing.resolution import NOTHING, Judgement, agree, refused

_ENCODED_SLASHES = (b"%2f", b"%2F", b"%5c", b"%5C")
MAX_RAW_BYTES = 8192
"""The most bytes of an encoded path, the usual limit of web servers for a request line."""


class Request(NamedTuple):
    """The parts of an ASGI scope that path routing reads."""

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

    def spellings(self) -> Iterator[tuple[str, Sequence[int]]]:
        """Yield the spellings that routers use: the path, and the raw path decoded once if it differs.

        With each, how many of its segments are one for a router that splits the raw path before decoding.
        """
        raw = self.raw
        if b"%" in raw and len(raw) > MAX_RAW_BYTES:
            raise UnreadableError(f"it is encoded, and has more than {MAX_RAW_BYTES} bytes")
        decoded = unquoted(raw).decode("utf-8", "replace")
        if decoded != self.path:
            yield self.path, ()
        if decoded:
            yield decoded, _joined(raw.replace(b"%2F", b"%2f"))

    def variants(self, spelling: str) -> Iterator[str]:
        """Yield ``spelling``, and with an encoded slash also what a router sees that splits before decoding."""
        yield spelling
        if not self.has_encoded_slash():
            return
        raw = self.raw
        for escape in _ENCODED_SLASHES:
            raw = raw.replace(escape, b"|")
        yield unquoted(raw).decode("utf-8", "replace")

    def has_encoded_slash(self) -> bool:
        return any(escape in self.raw for escape in _ENCODED_SLASHES)

    def confirms(self, prefix: str) -> bool:
        """Return whether the raw path has its slashes where ``prefix`` has them."""
        if not self.has_encoded_slash():
            return True
        within = prefix.removeprefix(self.root_path.rstrip("/"))  # some servers leave root_path out of raw_path
        return self.raw.startswith((f"{prefix}/".encode(), f"{within}/".encode()))


def _joined(raw: bytes) -> Sequence[int]:
    if b"%2f" not in raw or raw.count(b"/") > MAX_SEGMENTS:  # such long paths are refused, or mention nothing
        return ()
    return [segment.count(b"%2f") + 1 for segment in raw.split(b"/")]


Beginnings = tuple[tuple[list[str], int], ...]
"""Segments, and the index where one reading of them begins."""


class View(NamedTuple):
    """One spelling of a path that mentions a pattern, with all of its readings."""

    spelling: str
    exact: Beginnings
    """Unchanged, and without each prefix that the app removes."""
    folding: Folding
    lenient: tuple[Reading, ...]
    """Folded, with and without ``root_path``."""
    mentioned: frozenset[Pattern]


class PathRouting:
    """The patterns for paths, compiled."""

    def __init__(self, lines: Sequence[Line], mounts: Sequence[str], default_account: str) -> None:
        self._exact = Table(lines)
        self._folded = Table(lines, is_folded=True)
        self._mounts = Mounts(mounts)
        self._folded_mounts = Mounts(mounts, is_folded=True)
        self._default_account = default_account
        patterns = [line for line in lines if isinstance(line, Pattern)]
        self._mentions = Mentions((_literals(pattern), pattern) for pattern in patterns)
        # These placeholders may match any number of segments where slashes can be moved.
        prefixes = [tuple(filter(None, words_of(mount, is_folded=True))) for mount in mounts if "{" in mount]
        gapped = [(_literals(pattern), pattern) for pattern in patterns if pattern.account_at is not None]
        gapped += [((*prefix, *_literals(pattern)), pattern) for prefix in prefixes for pattern in patterns]
        self._gapped = Mentions(gapped)
        self._behind = Behind(lines)

    def judge(self, request: Request) -> Judgement:
        """Return what the path names."""
        if not (request.path or "/").startswith("/") or not (request.raw_path or b"/").startswith(b"/"):
            return refused("a path begins with a slash", request.path)
        try:
            views = self._views(request)
            return self._judge(request, views) if views else NOTHING
        except UnreadableError as error:
            return refused(str(error), request.path)

    def further_back(self, path: str) -> FurtherBack | None:
        """Return what an unmatched path names after a later slash, if it is refused for that."""
        try:
            request = Request(path, None, "")
            for view in self._views(request):
                is_other = view.folding.has_dots or self._hits(view) or any(self._lenient_hits(request, view))
                return None if is_other else self._further_back(request, view)
        except UnreadableError:
            return None
        return None

    def _views(self, request: Request) -> list[View]:
        roots = roots_of(request.root_path)
        views = (self._view(spelling, joined, roots) for spelling, joined in request.spellings())
        return [view for view in views if view is not None]

    def _view(self, spelling: str, joined: Sequence[int], roots: Sequence[str]) -> View | None:
        """Return the readings of the spelling; None if it mentions no pattern."""
        if spelling.count("/") > MAX_SEGMENTS + 1 and is_plain(spelling):
            self._check_long(spelling, roots)
            return None
        folding = fold(spelling, joined)
        found = (folding.reading, folding.ended, folding.unsplit)
        lenient = [reading for reading in found if reading is not None]
        texts = [spelling]
        if roots:
            folded_roots = _folded_roots(roots)
            others = [reading.less_host(at) for reading in lenient for at in reading.hosts]
            lenient += [less for one in (*lenient, *others) for root in folded_roots if (less := one.less(root))]
            texts += less_roots(spelling, roots)
        words = [reading.words for reading in lenient] + [text.lower().split("/") for text in texts[1:]]
        if max(map(len, words)) > MAX_SEGMENTS:
            if any(map(self._mentions.may_find, words)):
                raise UnreadableError(f"it has more than {MAX_SEGMENTS} segments, and the words of a pattern")
            return None
        mentioned = frozenset(pattern for one in words for pattern in self._mentions.find(one))
        if not mentioned:
            return None
        return View(spelling, self._beginnings(texts), folding, tuple(lenient), mentioned)

    def _check_long(self, spelling: str, roots: Sequence[str]) -> None:
        """See that a plain path of too many segments mentions no pattern; raises UnreadableError."""
        texts = (spelling, *less_roots(spelling, roots), *less_roots(spelling.lower(), _folded_roots(roots)))
        if any(self._mentions.may_find(text.lower().split("/")) for text in texts):
            raise UnreadableError(f"it has more than {MAX_SEGMENTS} segments, and the words of a pattern")

    def _beginnings(self, texts: Iterable[str]) -> Beginnings:
        split = [text.split("/")[1:] for text in texts]
        return tuple((segments, start) for segments in split for start in self._mounts.starts(segments))

    def _judge(self, request: Request, views: Sequence[View]) -> Judgement:
        hits = {view.spelling: self._hits(view) for view in views}
        named = [hit for found in hits.values() for hit in found]
        objections = (self._objection(request, view, hits[view.spelling], named) for view in views)
        if objection := next(filter(None, objections), None):
            return refused(objection, request.path)
        return self._one(named) if named else NOTHING

    def _hits(self, view: View) -> list[Hit]:
        return [hit for segments, start in view.exact for hit in self._exact.hits(segments, start)]

    def _objection(self, request: Request, view: View, found: Sequence[Hit], named: Sequence[Hit]) -> str | None:
        """Return why the path is ambiguous, if it is: ``found`` in this spelling, ``named`` in any spelling."""
        folding, known, patterns = view.folding, {hit.lowered() for hit in named}, {hit.pattern for hit in named}
        if folding.has_dots:
            return "it has a dot segment, and mentions a pattern"
        for hit in found:
            prefix = view.spelling[: len(view.spelling) - hit.rest_chars]
            reserved = str.maketrans("", "", hit.pattern.form.reserved)
            if not is_unreserved(prefix.translate(reserved)) or not request.confirms(prefix):
                return f"{hit.pattern} is reached by more than one spelling"
            # Flask's path converter accepts no leading slash: its router calls the handler of the other pattern.
            if view.spelling.startswith("//", len(prefix)) and self._exact.is_contested(hit.reading.split("/")[1:], 0):
                return f"behind an empty segment it may belong to another pattern than {hit.pattern}"
        for hit in self._lenient_hits(request, view):
            if hit.lowered() not in known:
                return f"a lenient router would read it as {hit.pattern}"
        if not patterns.issuperset(self._mentioned_otherwise(view)):
            return "its slashes can be read in more than one way, and it mentions a pattern"
        behind = None if found else self._further_back(request, view)
        return behind and f"after a prefix it matches {behind.pattern}, but no line of ROUTES matches the whole path"

    def _lenient_hits(self, request: Request, view: View) -> Iterator[Hit]:
        """Yield the patterns that a lenient router may match."""
        # The word of a `none` line for one reader may be part of a reference for a simpler one.
        minds_none = view.folding.is_plain or self._is_none_below(request, view)
        for reading in view.lenient:
            for start in self._folded_mounts.starts(reading.words, reading.hosts):
                yield from self._folded.hits(reading.words, start, minds_none=minds_none)
            for words, start in self._less_hosts(reading):
                yield from self._folded.hits(words, start, minds_none=minds_none)

    def _less_hosts(self, reading: Reading) -> Iterator[tuple[list[str], int]]:
        """Yield the reading without one of its hosts, if this brings other words together."""
        for host in reading.hosts:
            if self._folded_mounts or host < self._folded.depth:
                words = reading.less_host(host).words
                starts = self._folded_mounts.starts(words)
                yield from ((words, start) for start in starts if start < host < start + self._folded.depth)

    def _mentioned_otherwise(self, view: View) -> Iterator[Pattern]:
        """Yield the patterns whose words are adjacent for a reader that sees other slashes."""
        folding = view.folding
        for reading in view.lenient:
            if folding.hides_slashes and folding.dropped_at is not None:
                behind = set(reading.words[folding.dropped_at :])
                yield from (one for one in view.mentioned if behind.issuperset(_literals(one)[-1:]))
            if folding.hides_slashes or folding.has_gaps:
                yield from self._gapped.find(reading.words)

    def _further_back(self, request: Request, view: View) -> FurtherBack | None:
        """Return what the path would name if an unknown prefix were removed."""
        if all(self._exact.none_line(text.split("/")[1:]) for text in request.variants(view.spelling)):
            return None
        readings = [*view.lenient]
        if not view.folding.is_plain:
            segments = view.spelling.split("/")[1:]
            readings.append(Reading([segment.lower() for segment in segments], segments))
        return next(filter(None, map(self._behind.find, readings)), None)

    def _is_none_below(self, request: Request, view: View) -> bool:
        """Return whether a `none` line decides the path, with or without leading prefixes."""
        roots = roots_of(request.root_path)
        return all(self._is_none(text, roots) for text in request.variants(view.spelling))

    def _is_none(self, text: str, roots: Sequence[str]) -> bool:
        is_below = any(text.startswith(f"{root.rstrip('/')}/") for root in roots)
        beginnings = self._beginnings([text, *less_roots(text, roots)] if is_below else [text])
        return any(self._exact.none_line(segments, start) for segments, start in beginnings)

    def _one(self, hits: Sequence[Hit]) -> Judgement:
        """Return the one target of all hits, or a refusal if they differ."""
        judgements = [Judgement(hit.target(self._default_account), str(hit.pattern), hit.reading) for hit in hits]
        agreed = judgements[0]
        for judgement in judgements:
            agreed = agree(agreed, judgement)
        return agreed


def _folded_roots(roots: Iterable[str]) -> list[str]:
    return ["/".join(["", *fold(f"/{root}").reading.words]) for root in roots]


def _literals(pattern: Pattern) -> tuple[str, ...]:
    return tuple(word.lower() for word in pattern.literals)
