"""How a path can be read: as it stands, and in every folding that some router is known to apply.

A folding never repairs anything. It tells what a more lenient reader may have seen, so that a request which two readers
would take for different things can be refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple
from urllib.parse import unquote

MAX_ROUNDS = 4
"""How often a path may be decoded until nothing changes any more."""
MAX_CHARS = 4096
"""Folding costs time; nothing that names a resource is as long as this."""

MAX_GAPS = 8
"""How many empty segments may stand in a path."""

MAX_SIMPLE = 20_000
"""How many characters are remembered."""

_ORDINARY = re.compile(r"/|(?:/(?!\.\.?(?:/|$))[a-z0-9._~-]+)+/?")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~/-]*")
_END = re.compile(r"[?#\0]")  # where a second URL parser, or a C string, comes to its end
_INVISIBLE = frozenset("\u115f\u1160\u3164\uffa0\ufffd")  # fillers, and what a decoder left in place of bad bytes
_CONTROLS = dict.fromkeys([*range(0x20), 0x7F])
_DOTS = frozenset({".", ".."})


class Foldings(NamedTuple):
    """What lenient readers see, and what they do not agree about."""

    texts: tuple[str, ...]
    """Each a path without empty and dot segments."""
    has_dots: bool = False
    """Whether there is a dot segment in any of them."""
    moves_slashes: bool = False
    """Whether they have not all as many segments."""


class _Simple(dict[int, str]):
    """Each character as what it stands for (NFKD), in lower case, without marks and what cannot be seen."""

    def __missing__(self, code: int) -> str:
        if len(self) >= MAX_SIMPLE:
            self.clear()
        kept = (char for char in unicodedata.normalize("NFKD", chr(code)) if char.isascii() or _is_visible(char))
        # re.IGNORECASE takes a dotless i for an i.
        return self.setdefault(code, "".join(kept).casefold().replace("\u0131", "i"))


class UnreadableError(Exception):
    """A path is too long, or there are too many ways to read it."""


def fold(path: str) -> Foldings:
    """Every folding of a path, one for each round of decoding, and again less what some readers cut off.

    Each drops controls and ignorables, takes ``\\`` for ``/``, compatibility forms (NFKD) for what they stand for,
    every letter for its lower case, and cuts ``;parameters`` and blanks off the segments. Raises UnreadableError for
    what is too long or never comes to an end.
    """
    if len(path) <= MAX_CHARS and _ORDINARY.fullmatch(path):
        return Foldings((path,))
    rounds = _decodings(path)
    whole = [_segments(text) for text in rounds]
    ended = [_segments(_END.split(text, maxsplit=1)[0]) for text in rounds if _END.search(text)]
    texts = (_joined(one) for segments in (*whole, *ended) for one in (segments, *_less_hosts(segments)))
    return Foldings(
        tuple(dict.fromkeys(texts)),
        has_dots=any(not _DOTS.isdisjoint(segments) for segments in whole),
        moves_slashes=any(len(one) != path.count("/") + 1 or "" in one[1:-1] for one in whole),
    )


def is_unreserved(text: str) -> bool:
    """Whether there is only one way to write and read these characters, apart from their case (RFC 3986 §2.3)."""
    return _UNRESERVED.fullmatch(text) is not None


def mentions(words: Iterable[str], segments: Sequence[str]) -> bool:
    """Whether all words stand among the segments in their order, whatever stands between them."""
    rest = iter(segments)
    return all(word in rest for word in words)


def _decodings(path: str) -> list[str]:
    """The path in compatible characters and lower case, after each round of decoding, also with ``\\`` for ``/``."""
    found: list[str] = []
    for _ in range(MAX_ROUNDS + 1):
        text = _capped(_compatible(_capped(path)))  # one character may stand for eighteen
        found += dict.fromkeys((text, text.replace("\\", "/")))
        path = unquote(_visible(text))
        if path == _visible(text):
            return found
    raise UnreadableError(f"it is encoded more than {MAX_ROUNDS} times over")


def _capped(text: str) -> str:
    if len(text) > MAX_CHARS:
        raise UnreadableError(f"it has more than {MAX_CHARS} characters")
    return text


def _less_hosts(segments: list[str]) -> Iterator[list[str]]:
    """``segments`` as a URL parser has them that takes what follows ``//`` for a host, here or behind a mount."""
    gaps = [at for at in range(1, len(segments) - 1) if not segments[at] and segments[at + 1]]
    if len(gaps) > MAX_GAPS:
        raise UnreadableError(f"it has more than {MAX_GAPS} empty segments")
    for at in gaps:
        yield segments[:at] + segments[at + 2 :]


def _segments(text: str) -> list[str]:
    return [segment.partition(";")[0].strip() for segment in _visible(text).split("/")]


def _joined(segments: Iterable[str]) -> str:
    return "/" + "/".join(segment for segment in segments if segment and segment not in _DOTS)


def _compatible(text: str) -> str:
    return text.lower() if text.isascii() else text.translate(_SIMPLE)


def _is_visible(char: str) -> bool:
    return unicodedata.category(char)[0] not in "CM" and char not in _INVISIBLE


def _visible(text: str) -> str:
    return text.translate(_CONTROLS)


_SIMPLE = _Simple()
