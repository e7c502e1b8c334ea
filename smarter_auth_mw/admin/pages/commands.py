"""The command that does the same as a page, to learn from and to use in scripts."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

PROGRAM = "smarter-auth"
MOST_TOGETHER = 5


def command(*words: object) -> str:
    """Return a command for a POSIX shell; words that are None are left out."""
    return " ".join([PROGRAM, *(_quoted(str(word)) for word in words if word is not None)])


def together(commands: Iterable[str]) -> str | None:
    """Join commands so that each runs only if those before it succeeded; None if there are too many to read."""
    found = list(commands)
    return " && ".join(found) if len(found) <= MOST_TOGETHER else None


def option(name: str, value: object) -> tuple[str | None, str | None]:
    """Return the words of an option, or None twice if it has no value."""
    return (name, str(value)) if value not in (None, "", False) else (None, None)


def _quoted(word: str) -> str:
    """Quote a word; one with control characters as ``$'…'``, which bash, zsh and POSIX 2024 read."""
    if word.isprintable():
        return shlex.quote(word)
    escaped = "".join(_escaped(char) for char in word)
    return f"$'{escaped}'"


def _escaped(char: str) -> str:
    if char in "\\'":
        return f"\\{char}"
    return char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii")
