"""Parses the lines of ROUTES, and reports every mistake with what to write instead."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, takewhile

from smarter_auth_mw.errors import Mistake
from smarter_auth_mw.routing.hosts import problem
from smarter_auth_mw.routing.references import FORMS, Form

VARIABLE = "SMARTER_AUTH_ROUTES"
EXAMPLES = "for example: bot /bots/{ref:int}   or: preset:smarter"

_KIND = re.compile(r"[a-z][a-z0-9_]*")
_LITERAL = re.compile(r"[A-Za-z0-9._~-]+")
_SWALLOWED_LINE = re.compile(r";\s*(?:preset:|[a-z][a-z0-9_]*\s+(?:/|host:))")
_ADVICE = {
    "int": "{ref:int}",
    "uuid": "{ref:uuid}",
    "path": "{ref}, because a pattern owns everything below its reference",
    "str": "{ref}, or {ref:exact} where the app compares references exactly",
    "slug": "{ref}",
}

ANY_SEGMENT = "{}"
"""Matches any one segment in a ``none`` line."""

_FORMS = ", ".join(f"{{{name}}}" for name in FORMS)

Words = tuple[str | None, ...]
"""The words of a pattern by segment, None for a placeholder; a host's labels from right to left."""


@dataclass(frozen=True, slots=True, eq=False)
class Pattern:
    """A line that names resources; its ``head`` ends with the reference, the rest is its ``tail``."""

    kind: str
    text: str
    words: Words
    ref_at: int
    form: Form
    account_at: int | None = None
    always: bool = False
    is_host: bool = False

    @property
    def head(self) -> Words:
        return self.words[: self.ref_at + 1]

    @property
    def tail(self) -> Words:
        return self.words[self.ref_at + 1 :]

    @property
    def literals(self) -> tuple[str, ...]:
        """The literal words before the reference."""
        return tuple(word for word in self.head if word is not None)

    @property
    def has_several_words(self) -> bool:
        """Return whether there is more than one literal word."""
        return self.ref_at > (self.account_at is not None) + 1

    @property
    def domain(self) -> str:
        """The domain that a host pattern owns: its labels right of any placeholder."""
        labels = [word for word in takewhile(bool, self.words) if word]
        return ".".join(reversed(labels))

    def fits(self, labels: Sequence[str]) -> bool:
        """Return whether the labels of a host, from right to left, match all words."""
        return len(labels) == len(self.words) and all(
            word is None or word == label for word, label in zip(self.words, labels, strict=True)
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.text}{' always' if self.always else ''}"


@dataclass(frozen=True, slots=True)
class NoResource:
    """A ``none`` line: this path, or this whole subtree, is not a resource; ``{}`` is any one segment."""

    text: str
    words: Words
    is_subtree: bool = False

    @property
    def head(self) -> Words:
        return self.words

    @property
    def blanks(self) -> tuple[int, ...]:
        """The indexes of its ``{}``."""
        return tuple(place for place, word in enumerate(self.words) if word is None)

    def covers(self, segments: Sequence[str]) -> bool:
        """Return whether the line is for exactly these segments, or for a subtree that contains them."""
        within = segments[: len(self.words)]
        if len(within) < len(self.words) or (any(segments[len(self.words) :]) and not self.is_subtree):
            return False
        return all(
            word == segment or (word is None and segment) for word, segment in zip(self.words, within, strict=True)
        )

    def __str__(self) -> str:
        return f"none {self.text}"


Line = Pattern | NoResource


class _WrongLineError(Exception):
    """One line is wrong; the message says why, and what to write."""


def split(lines: Iterable[str]) -> Iterator[str]:
    """Yield the statements in ``lines``, separated by newline or ``;``, without comments and blank lines."""
    for line in "\n".join(lines).splitlines():
        for statement in line.partition("#")[0].split(";"):
            if statement.strip():
                yield " ".join(statement.split())


def parse(lines: Sequence[str], presets: Callable[[str], Sequence[str] | None]) -> tuple[list[Line], list[Mistake]]:
    """Return the patterns of ``lines``, each ``preset:NAME`` replaced by its lines, and all mistakes there are."""
    found: list[Line] = []
    mistakes = [Mistake(VARIABLE, line, rule) for line, rule in _swallowed(lines)]
    for statement in split(lines):
        try:
            found += _statement(statement, presets)
        except _WrongLineError as wrong:
            mistakes.append(Mistake(VARIABLE, statement, str(wrong)))
    patterns = [line for line in found if isinstance(line, Pattern)]
    if not patterns and not mistakes:
        mistakes.append(
            Mistake(VARIABLE, "", f"no line names a resource, so that everything would be open; {EXAMPLES}")
        )
    return found, mistakes + ties(found)


def ties(lines: Iterable[Line]) -> list[Mistake]:
    """Return a mistake for each two lines that match the same path or host and are equally specific."""
    return [
        Mistake(VARIABLE, f"{one}; {other}", "both match the same URLs and neither is more specific; leave one out")
        for one, other in combinations(lines, 2)
        if _tie(one, other)
    ]


def _tie(one: Line, other: Line) -> bool:
    if isinstance(one, Pattern) and isinstance(other, Pattern):
        return one.is_host is other.is_host and _patterns_tie(one, other)
    if isinstance(one, NoResource) and isinstance(other, Pattern):
        return _none_ties(one, other)
    return isinstance(one, Pattern) and isinstance(other, NoResource) and _none_ties(other, one)


def _none_ties(none: NoResource, pattern: Pattern) -> bool:
    """Return whether the ``none`` line opens the pattern's resources: with ``{}`` as reference or right after it."""
    head, words = lowered(pattern.head), lowered(none.words)
    return not pattern.is_host and words[: len(head)] == head and not any(words[len(head) :])


def _patterns_tie(one: Pattern, other: Pattern) -> bool:
    for mine, yours in zip(lowered(one.head), lowered(other.head), strict=False):
        if mine != yours:
            return False  # different literals never match together; a literal has precedence over a placeholder
    longer, shorter = sorted((one.head, other.head), key=len, reverse=True)
    if one.is_host and len(one.words) != len(other.words):
        return False  # no host has both lengths
    if len(longer) > len(shorter):
        return longer[len(shorter)] is None  # a placeholder inside the subtree of the other pattern
    return lowered(one.tail) == lowered(other.tail)


def lowered(words: Words) -> Words:
    """Return the words in lower case, for readers that ignore case."""
    return tuple(word and word.lower() for word in words)


def _swallowed(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    for line in "\n".join(lines).splitlines():
        statement, _, comment = line.partition("#")
        if statement.strip() and _SWALLOWED_LINE.search(comment):
            yield line.strip(), "a comment runs to the end of its line: what follows here belongs on a line of its own"


def _statement(statement: str, presets: Callable[[str], Sequence[str] | None]) -> list[Line]:
    if statement.startswith("preset:"):
        name = statement.removeprefix("preset:").strip()
        lines = presets(name)
        if lines is None:
            raise _WrongLineError("there is no such preset; write preset:smarter or preset:smarter-chatbot")
        return [_line(line.split()) for line in lines]
    return [_line(statement.split())]


def _line(words: list[str]) -> Line:
    if len(words) < 2:
        raise _WrongLineError(f"a line is KIND PATTERN, none PATH or preset:NAME; {EXAMPLES}")
    kind, text, *flags = words
    if kind == "none":
        return _no_resource(text, flags)
    if not _KIND.fullmatch(kind):
        raise _WrongLineError(f"a kind is made of a-z, 0-9 and _, and begins with a letter, unlike {kind!r}")
    if flags not in ([], ["always"]):
        raise _WrongLineError(f"after the pattern, only the word always is allowed, not {' '.join(flags)!r}")
    return _pattern(kind, text, always=bool(flags))


def _no_resource(text: str, flags: list[str]) -> NoResource:
    if flags:
        raise _WrongLineError("nothing may follow none PATH")
    path = text.removesuffix("/**")
    segments = _segments(path) if path not in ("", "/") else []
    words = tuple(None if segment == ANY_SEGMENT else _none_word(segment) for segment in segments)
    return NoResource(text, words, is_subtree=text.endswith("/**"))


def _none_word(segment: str) -> str:
    if re.search("[{}<>]", segment) or segment.startswith(":"):
        raise _WrongLineError(
            f"a none line can have only the placeholder {{}}, for one segment: write it instead of {segment!r}, "
            "or PATH/** for everything below a path"
        )
    return _literal(segment)


def _pattern(kind: str, text: str, *, always: bool) -> Pattern:
    is_host = text.startswith("host:")
    segments = _labels(text.removeprefix("host:")) if is_host else _segments(text)
    references = [(place, form) for place, word in enumerate(segments) if (form := _reference(word))]
    accounts = [place for place, word in enumerate(segments) if word == "{account}"]
    words = tuple(_word(word) for word in segments)
    if len(references) != 1:
        raise _WrongLineError(f"a pattern has exactly one reference: {_FORMS}")
    ref_at, form = references[0]
    if len(accounts) > 1 or any(place > ref_at for place in accounts):
        raise _WrongLineError("{account} may appear once, " + ("right of" if is_host else "before") + " the reference")
    if is_host and form.placeholder in ("ref:hashed", "ref:exact"):
        raise _WrongLineError(f"hosts have no case, so write {{ref}} or {{label}}, not {{{form.placeholder}}}")
    return Pattern(kind, text, words, ref_at, form, accounts[0] if accounts else None, always, is_host)


def _segments(text: str) -> list[str]:
    if not text.startswith("/"):
        raise _WrongLineError("a path begins with /, a host pattern with host:")
    return text.removeprefix("/").removesuffix("/").split("/")


def _labels(text: str) -> list[str]:
    if "/" in text:
        raise _WrongLineError("a host pattern ends with the host: it owns every path there, so write no path after it")
    labels = text.lower().removesuffix(".").split(".")[::-1]
    domain = ".".join(reversed(list(takewhile(lambda label: not label.startswith("{"), labels))))
    if not domain:
        raise _WrongLineError("a host pattern ends in a domain of yours: host:{label}.api.example.com")
    if rule := problem(domain):
        raise _WrongLineError(f"{domain}: {rule}")
    return labels


def _word(segment: str) -> str | None:
    """Return the literal word, or None for a placeholder."""
    if segment == "{account}" or _reference(segment):
        return None
    if "{" in segment or "}" in segment or segment[:1] in ("<", ":"):
        raise _WrongLineError(_placeholder_advice(segment))
    return _literal(segment)


def _literal(segment: str) -> str:
    if segment in (".", "..") or not _LITERAL.fullmatch(segment):
        raise _WrongLineError(
            f"{segment!r} cannot be part of a pattern: a word consists of letters, digits and . _ ~ -"
        )
    return segment


def _reference(segment: str) -> Form | None:
    return FORMS.get(segment[1:-1]) if segment.startswith("{") and segment.endswith("}") else None


def _placeholder_advice(segment: str) -> str:
    if segment[0] + segment[-1] not in ("{}", "<>") and segment[0] != ":":
        return f"a placeholder must be a whole segment, unlike {segment!r}"
    advice = next((_ADVICE[word] for word in re.findall("[a-z]+", segment.lower()) if word in _ADVICE), None)
    advice = advice or f"{{ref}} for what names the resource (there are {_FORMS} and {{account}})"
    return f"{segment} is not a placeholder; write {advice}"
