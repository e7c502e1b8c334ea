"""Folds paths: computes what a lenient reader may see after every step that some router applies.

A folding never repairs anything. It shows what a more lenient reader may see, so that a request that two readers would
read differently can be refused.

One folding is enough, however many steps a reader takes. A segment that is a word after some of the steps is the same
word after all of them, with the same left neighbour: later steps only split or change what is not a word yet. What a
later step hides from a reader that takes fewer steps is reported along with the words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

MAX_ROUNDS = 4
"""The most rounds of decoding until a path no longer changes."""
MAX_CHARS = 2048
"""The most characters of a path that is not plain. Object names have up to 1,024, file names 255."""
MAX_OTHER_BYTES = 1024
"""The most bytes that encode non-ASCII characters, enough for 340 Chinese ones."""
MAX_SEGMENTS = 64
"""The most segments of a path that is not plain, or that mentions a pattern."""
MAX_GAPS = 4
"""The most empty segments that a path may have."""
MAX_LONE_PERCENTS = 16
"""The most percent signs that encode nothing that a path may have."""
MAX_MARKS = 64
"""The longest run of characters that are neither letters, digits nor ASCII."""

_INERT = bytes(code for code in range(0x21, 0x7F) if chr(code) not in "%\\;#?")
"""The characters that readers leave unchanged, except for their case; and the slash."""
_UNRESERVED = re.compile(r"[A-Za-z0-9._~/-]*")
_DOT_SEGMENT = re.compile(r"/\.\.?(?:/|$)")
_DOTS = frozenset({".", ".."})
_PARAMETERS = re.compile(";[^/]*")
_NO_WORD = "/"
"""Marks a segment that is empty after all steps, but not for a reader that takes fewer steps."""
_NUL = "\x1f"
"""Replaces a NUL until everything is decoded."""
_ENDS = re.compile(f"[?#{_NUL}][^/]*")  # where a second URL parser, or a C string, ends
_DROPPED = re.compile(f"[;?#{_NUL}]")
_ASCII = bytes(range(0x80))
_CONTROLS = bytes(code for code in (*range(0x20), 0x7F) if chr(code) != _NUL)
_MARKS = re.compile(r"[^\w\0-\x7f]+")
_SHORT_RUNS = re.compile(rf"(?:[^\w\0-\x7f]{{0,{MAX_MARKS}}}+[\w\0-\x7f]++)*+[^\w\0-\x7f]{{0,{MAX_MARKS}}}+")
_ESCAPE = re.compile(rb"%[0-9A-Fa-f]{2}")
_LONE_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_LONG_FORMS = ("\ufdfa", "\ufdfb")  # up to eighteen letters each, none of them ASCII
_INVISIBLE_LETTERS = ("\u115f", "\u1160")


class UnreadableError(Exception):
    """A path is too long, or there are too many ways to read it."""


class Reading(NamedTuple):
    """A path without empty and dot segments, as a lenient reader sees it."""

    words: list[str]
    """The path's segments, in lower case."""
    cased: list[str]
    """The words in their original case."""
    hosts: tuple[int, ...] = ()
    """The indexes of words after an empty segment: a URL parser may read such a word as a host, also after a mount."""

    def less(self, root: str) -> Reading | None:
        """Return what follows ``root``, wherever it occurs; None if it does not."""
        _, found, rest = "/".join(["", *self.words]).partition(root)
        if not found:
            return None
        words = [word for word in rest.split("/") if word]
        before = len(self.words) - len(words)
        hosts = tuple(place - before for place in self.hosts if place >= before)
        return Reading(words, self.cased[before:], hosts)

    def longer(self) -> Reading:
        """Return the reading with one more segment, which is not a word."""
        return Reading([*self.words, _NO_WORD], [*self.cased, _NO_WORD], self.hosts)

    def less_host(self, at: int) -> Reading:
        """Return the reading without the word at this place."""
        return Reading(self.words[:at] + self.words[at + 1 :], self.cased[:at] + self.cased[at + 1 :])


class Folding(NamedTuple):
    """A folded path: the words that lenient parsers read, and the points at which parsers may differ."""

    reading: Reading
    ended: Reading | None = None
    """The words for a reader that ends a segment at ``?``, ``#`` or NUL; None if the path has none of these."""
    unsplit: Reading | None = None
    """The words for a router that splits the path before it decodes; None if no slash is encoded."""
    is_plain: bool = True
    """True if all parsers read the path alike, except for case."""
    has_dots: bool = False
    """True if the path has a dot segment."""
    hides_slashes: bool = False
    """True if a parser that decodes less sees fewer slashes, and so longer segments."""
    has_gaps: bool = False
    """True if the path has an empty segment."""
    dropped_at: int | None = None
    """The number of words up to the first one that a reader may drop as a host, or truncate."""


def fold(path: str, joined: Sequence[int] = ()) -> Folding:
    """Fold a path: decode it completely, drop invisible characters, and fold compatibility forms and case.

    ``\\`` counts as ``/``; ``;parameters`` and blanks are removed from segments. A router that splits before decoding
    sees several segments as one: ``joined`` has their numbers. Raises UnreadableError for a path that is too long or
    encoded too often; a plain path may have any length.
    """
    if is_plain(path):
        folding = Folding(_plain_reading(path))
        return folding._replace(unsplit=_unsplit(path.split("/"), joined), is_plain=False) if joined else folding
    if len(path) > MAX_CHARS:
        raise UnreadableError(f"it has more than {MAX_CHARS} characters, and is not plain")
    marked = _decoded(path)
    text = marked.replace(_NUL, "")
    if _is_encoded(text):
        raise UnreadableError("it has a NUL within an escape")
    segments = _segments(text)
    cut = _segments(_ENDS.sub("", marked)) if _ENDS.search(marked) else None
    reading = _reading(segments)
    if _hides_end(path, segments):
        reading = reading.longer()
    dropped_at = _dropped_at(marked, segments, reading.hosts)
    hides_slashes = len(segments) != path.count("/") + 1 or bool(joined and _DROPPED.search(marked))
    return Folding(
        reading,
        _reading(cut) if cut else None,
        _unsplit(segments, joined) if joined and not hides_slashes else None,
        is_plain=False,
        has_dots=not _DOTS.isdisjoint(segments) or not _DOTS.isdisjoint(cut or ()),
        hides_slashes=hides_slashes,
        has_gaps="" in segments[1:-1],
        dropped_at=dropped_at,
    )


def _unsplit(segments: Sequence[str], joined: Sequence[int]) -> Reading:
    rest = iter(segments)
    return _reading(["|".join(islice(rest, count)) for count in joined])


def _hides_end(path: str, segments: Sequence[str]) -> bool:
    """Return whether the last segment of ``path``, or one hidden in it, may vanish for a reader."""
    last = path.rstrip("/").count("/")
    return last > 0 and not segments[last if len(segments) == path.count("/") + 1 else -1]


def _dropped_at(text: str, segments: Sequence[str], hosts: Sequence[int]) -> int | None:
    places = [host + 1 for host in hosts]
    if end := _DROPPED.search(text):
        before = len(re.split(r"[/\\]", text[: end.start()]))
        places.append(sum(bool(segment) and segment not in _DOTS for segment in segments[1:before]))
    return min(places, default=None)


def is_unreserved(text: str) -> bool:
    """Return whether all characters are unreserved: except for case, written in only one way (RFC 3986 §2.3)."""
    return _UNRESERVED.fullmatch(text) is not None


def unquoted(raw: bytes) -> bytes:
    """Return ``raw`` decoded once, like ``urllib.parse.unquote_to_bytes``, which is 20 times slower with escapes.

    Raises UnreadableError if too many percent signs encode nothing.
    """
    if b"%" not in raw:
        return raw
    if not _ESCAPE.search(raw):
        escaped, lone = raw, raw.count(b"%")
    else:
        try:
            return _unescaped(raw)
        except UnicodeDecodeError:
            escaped, lone = _LONE_PERCENT.subn(b"%25", raw, MAX_LONE_PERCENTS + 1)
    if lone > MAX_LONE_PERCENTS:
        raise UnreadableError(f"it has more than {MAX_LONE_PERCENTS} percent signs that encode nothing")
    return _unescaped(escaped) if escaped is not raw else raw


def _unescaped(raw: bytes) -> bytes:
    return raw.replace(b"\\", rb"\x5c").replace(b"%", rb"\x").decode("unicode_escape").encode("latin-1")


def is_plain(path: str) -> bool:
    """Return whether all parsers read the path alike, except for case."""
    if not path.isascii() or path.encode("ascii").translate(None, _INERT) or "//" in path:
        return False
    return "/." not in path or not _DOT_SEGMENT.search(path)


def _plain_reading(path: str) -> Reading:
    cased = path.strip("/").split("/") if path.strip("/") else []
    return Reading(cased if path == path.lower() else _folded(cased), cased)


def _decoded(path: str) -> str:
    """Return the path completely decoded, then with compatibility forms folded, and ``_NUL`` for each NUL.

    If folding produces new escapes, both steps are repeated.
    """
    rounds, text = 0, path
    for _ in range(2):
        raw = _visible(text.encode("utf-8", "ignore"))
        while (decoded := unquoted(raw)) != raw and (decoded := _visible(decoded)) != raw:
            rounds, raw = rounds + 1, decoded
            if rounds > MAX_ROUNDS:
                raise UnreadableError(f"it is encoded more than {MAX_ROUNDS} times over")
        if len(raw.translate(None, _ASCII)) > MAX_OTHER_BYTES:
            raise UnreadableError(f"it has more than {MAX_OTHER_BYTES} bytes that are not ASCII")
        text = _compatible(raw.decode("utf-8"))
        if not _is_encoded(text):
            return text
    raise UnreadableError(f"it is encoded more than {MAX_ROUNDS} times over, or in too many ways")


def _is_encoded(text: str) -> bool:
    raw = text.encode()
    return unquoted(raw) != raw


def _visible(raw: bytes) -> bytes:
    """Return ``raw`` without controls and invalid UTF-8; each NUL is marked, since some readers stop there."""
    raw = raw.replace(b"\0", _NUL.encode()).translate(None, _CONTROLS)
    return raw if raw.isascii() else raw.decode("utf-8", "ignore").encode()


def _compatible(text: str) -> str:
    """Return ``text`` in compatibility form (NFKD), without marks, symbols and invisible characters."""
    if text.isascii():
        return text
    if not _SHORT_RUNS.fullmatch(text):  # NFKD sorts marks, in quadratic time
        raise UnreadableError(f"it has more than {MAX_MARKS} marks or symbols in a row")
    for form in _LONG_FORMS:
        text = text.replace(form, "\u0635")
    text = unicodedata.normalize("NFKD", text)
    for letter in _INVISIBLE_LETTERS:
        text = text.replace(letter, "")
    text = _MARKS.sub("", text)
    return text.replace("\u0131", "i")  # re.IGNORECASE matches a dotless i with i


def _segments(text: str) -> list[str]:
    text = text.replace("\\", "/")
    if text.count("/") > MAX_SEGMENTS:
        raise UnreadableError(f"it has more than {MAX_SEGMENTS} segments, and is not plain")
    segments = (_PARAMETERS.sub("", text) if ";" in text else text).split("/")
    return [segment.strip(" ") for segment in segments] if " " in text else segments


def _reading(segments: Sequence[str]) -> Reading:
    cased: list[str] = []
    hosts: list[int] = []
    is_behind_gap = False
    for segment in segments[1:]:
        if not segment:
            is_behind_gap = True
        elif segment not in _DOTS:
            if is_behind_gap:
                hosts.append(len(cased))
            cased.append(segment)
            is_behind_gap = False
    if len(hosts) > MAX_GAPS:
        raise UnreadableError(f"it has more than {MAX_GAPS} empty segments")
    return Reading(_folded(cased), cased, tuple(hosts))


def _folded(cased: list[str]) -> list[str]:
    return "/".join(cased).casefold().split("/") if cased else []
