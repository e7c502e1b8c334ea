"""How a path can be read: as it stands, and in every folding that some router is known to apply.

A folding never repairs anything. It tells what a more lenient reader may have seen, so that a request which two readers
would take for different things can be refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import unquote

MAX_ROUNDS = 4
"""How often a path may be decoded until nothing changes any more."""
MAX_CHARS = 4096
"""Folding costs time; nothing that names a resource is as long as this."""

_ORDINARY = re.compile(r"/|(?:/(?!\.\.?(?:/|$))[a-z0-9._~-]+)+/?")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~/-]*")
_CONTROLS = dict.fromkeys([*range(0x20), 0x7F])
_FOLDS = str.maketrans({**_CONTROLS, "\\": "/", "\u0131": "i"})  # re.IGNORECASE takes a dotless i for an i
_INVISIBLE = frozenset("\u115f\u1160\u3164\uffa0\ufffd")  # fillers, and what a decoder left in place of bad bytes
_DOTS = frozenset({".", ".."})


class Foldings(NamedTuple):
    """What lenient readers see: ``texts`` without empty and dot segments; whether there was a dot segment in any."""

    texts: tuple[str, ...]
    has_dots: bool


class UnreadableError(Exception):
    """A path is too long, or there are too many ways to read it."""


def fold(path: str) -> Foldings:
    """Every folding of a path, one for each round of decoding.

    Each drops controls and ignorables, takes ``\\`` for ``/``, compatibility forms (NFKD) for what they stand for,
    every letter for its lower case, and cuts ``;parameters`` and blanks off the segments. Raises UnreadableError for
    what is too long or never comes to an end.
    """
    if len(path) > MAX_CHARS:
        raise UnreadableError(f"it has more than {MAX_CHARS} characters")
    if _ORDINARY.fullmatch(path):
        return Foldings((path,), has_dots=False)
    texts: list[str] = []
    has_dots = False
    for _ in range(MAX_ROUNDS + 1):
        path = _clean(path)
        segments = [segment.partition(";")[0].strip() for segment in path.split("/")]
        has_dots = has_dots or not _DOTS.isdisjoint(segments)
        visible = [segment for segment in segments if segment and segment not in _DOTS]
        texts.append(_joined(visible))
        if path.startswith("//"):  # a URL parser takes the first segment for a host
            texts.append(_joined(visible[1:]))
        path, before = unquote(path), path
        if path == before:
            return Foldings(tuple(dict.fromkeys(texts)), has_dots)
    raise UnreadableError(f"it is encoded more than {MAX_ROUNDS} times over")


def is_unreserved(text: str) -> bool:
    """Whether there is only one way to write and read these characters, apart from their case (RFC 3986 §2.3)."""
    return _UNRESERVED.fullmatch(text) is not None


def mentions(words: Iterable[str], segments: Sequence[str]) -> bool:
    """Whether all words stand among the segments in their order, whatever stands between them."""
    rest = iter(segments)
    return all(word in rest for word in words)


def _joined(segments: Iterable[str]) -> str:
    return "/" + "/".join(segments)


def _clean(text: str) -> str:
    if not text.isascii():
        text = "".join(filter(_is_visible, unicodedata.normalize("NFKD", text))).casefold()
    return text.translate(_FOLDS).lower()


def _is_visible(char: str) -> bool:
    return unicodedata.category(char)[0] not in "CM" and char not in _INVISIBLE
