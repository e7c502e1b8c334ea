"""The command that does the same as a page, to learn from and to use in scripts."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping

from smarter_auth_mw.domain import Resource
from smarter_auth_mw.errors import UnknownKindError, UsageError
from smarter_auth_mw.management import naming
from smarter_auth_mw.routing.routes import Routes

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


def changes_of_key(kept: Mapping[str, str], typed: Mapping[str, str]) -> list[str]:
    """Return the options that change a key from what its form held to what was typed."""
    words = [
        word
        for name, flag in (("name", "--name"), ("description", "--description"), ("expires", "--expires-in"))
        if typed[name] != kept[name]
        for word in (flag, typed[name] or ("never" if name == "expires" else ""))
    ]
    before, after = lines(kept["labels"]), lines(typed["labels"])
    names = {line.partition("=")[0] for line in after}
    words += [word for line in after if line not in before for word in ("--label", line)]
    removed = [name for line in before if (name := line.partition("=")[0]) not in names]
    return words + [word for name in removed for word in ("--unlabel", name)]


def lines(text: str) -> list[str]:
    """Return the lines that a person wrote, without empty ones."""
    return [line.strip() for line in text.split("\n") if line.strip()]


def no_route(routes: Routes, resource: Resource) -> str | None:
    """Return the option for a resource that no route reaches, which the command line refuses without it."""
    try:
        naming.routed(routes, *resource)
    except (UnknownKindError, naming.HiddenResourceError):
        return "--no-route"
    except UsageError:
        pass
    return None


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
