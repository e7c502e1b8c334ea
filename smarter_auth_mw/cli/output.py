"""What is printed: documents on stdout, as JSON or for people, everything else on stderr.

What people have named is printed as it is, with markup off, and with control characters escaped: a key's name may not
move the cursor.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from io import TextIOWrapper
from textwrap import indent
from types import MappingProxyType
from typing import Any

from smarter_auth_mw.errors import SmarterAuthError, UsageError
from smarter_auth_mw.log import printable

Document = Mapping[str, Any] | Sequence[Mapping[str, Any]]

_BATCH = 500
"""How many elements of a list are printed at once."""
_NOT_TRUNCATED = 10_000
"""Columns of an output that is no terminal: a pipe wants lines whole."""


@dataclass(frozen=True, slots=True)
class Script:
    """Text that people get as it stands, and programs within a document."""

    text: str
    document: Document


@dataclass(frozen=True, slots=True)
class Summary:
    """Rows for people, who get less than programs do."""

    rows: Sequence[Mapping[str, Any]]
    document: Document


@dataclass(frozen=True, slots=True)
class Stream:
    """A list that is printed while it is read; people get the rows that ``row`` makes of its documents."""

    documents: AsyncGenerator[Mapping[str, Any]]
    row: Callable[[Any], Mapping[str, Any]] = dict


@dataclass(frozen=True, slots=True)
class Output:
    """What a command has to say, and the exit code that says it too."""

    document: Document | Script | Summary | None
    exit_code: int = 0
    as_json: bool = False


class OutputError(SmarterAuthError):
    """The result could not be printed."""

    code = "output"
    default_hint = "What the command was to do is done."


class ClosedPipeError(Exception):
    """Nobody reads our output any more. No OSError: what talks to the database would take it for a lost connection."""


@contextmanager
def arriving() -> Iterator[None]:
    """See that what the block prints arrives; raises OutputError, and ClosedPipeError where nobody reads on."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise ClosedPipeError from None
    except OSError as error:
        raise OutputError(f"The result could not be printed: {error.strerror}.") from None


def show(answer: Output) -> None:
    """Print the answer, and see that it arrives; raises OutputError and ClosedPipeError."""
    with arriving():
        _print(answer)


async def show_stream(stream: Stream, *, as_json: bool) -> int:
    """Print a list as it arrives; return the exit code, since an error in the middle is reported on stderr."""
    printer = _JsonArray() if as_json else _Rows(stream.row)
    batch: list[Mapping[str, Any]] = []
    try:
        async with aclosing(stream.documents) as documents:
            async for document in documents:
                batch.append(document)
                if len(batch) == _BATCH:
                    _write(printer.add, batch)
                    batch = []
    except SmarterAuthError as error:
        if not printer.has_begun:
            raise
        _write(printer.add, batch)
        note(f"error: {error} {error.hint}".rstrip() + " The list ends here, and is not whole.")
        return error.exit_code
    _write(printer.add, batch)
    _write(printer.end)
    return 0


def _write(write: Callable[..., None], *batch: Any) -> None:
    with arriving():
        write(*batch)


class _JsonArray:
    """One JSON array, an element at a time, as ``to_json`` writes all of it."""

    def __init__(self) -> None:
        self.has_begun = False

    def add(self, documents: Sequence[Mapping[str, Any]]) -> None:
        for document in documents:
            sys.stdout.write(f"{',' if self.has_begun else '['}\n{indent(to_json(document), '  ')}")
            self.has_begun = True

    def end(self) -> None:
        line("\n]" if self.has_begun else "[]")


class _Rows:
    """One table, some rows at a time: the first ones fix the widths, except on a terminal, which has its own."""

    def __init__(self, row: Callable[[Any], Mapping[str, Any]]) -> None:
        self.has_begun = False
        self._row = row
        self._widths: Mapping[str, int] = {}

    def add(self, documents: Sequence[Mapping[str, Any]]) -> None:
        if documents:
            rows = [self._row(document) for document in documents]
            if not sys.stdout.isatty():
                self._widths = self._widths or _widths(rows)
            _show_many(rows, self._widths, has_head=not (self.has_begun and self._widths))
            self.has_begun = True

    def end(self) -> None:
        if not self.has_begun:
            note("No results.")


def _widths(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {name: max(len(name), *(len(_text(row[name])) for row in rows)) for name in rows[0]}


def forget_stdout() -> None:
    """Keep Python from flushing stdout again at exit and from reporting an error twice."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def require_stdout() -> None:
    """Raise UsageError if stdout is closed: a token that is printed nowhere is lost."""
    if sys.stdout is None:
        raise UsageError("stdout is closed.", hint="Let it lead somewhere: > /dev/null, if nobody is to read it.")


def _print(answer: Output) -> None:
    document = answer.document
    if document is None:
        return
    if isinstance(document, Summary):
        document = document.document if answer.as_json else document.rows
    if isinstance(document, Script):
        line(to_json(document.document) if answer.as_json else document.text)
    elif answer.as_json:
        line(to_json(document))
    elif isinstance(document, Mapping):
        _show_one(document)
    elif document:
        _show_many(document)
    else:
        note("No results.")


def to_json(document: Document) -> str:
    """One JSON document in plain ASCII, so that it passes through every terminal and locale."""
    return json.dumps(document, indent=2).replace("\x7f", "\\u007f")


def line(text: str) -> None:
    """Print a line of a result; raises OutputError and ClosedPipeError."""
    with arriving():
        sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """Tell something that is no result: progress, a consequence, a warning."""
    with suppress(OSError):  # Nobody could see that message.
        sys.stderr.write(f"{printable(text)}\n")
        sys.stderr.flush()


def count_of(number: int, noun: str) -> str:
    """The number with its noun, ``1 cell`` or ``2 cells``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def accept_any_text() -> None:
    """Have what a terminal's encoding cannot show escaped rather than refused."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _show_one(document: Mapping[str, Any]) -> None:
    width = max(map(len, document))
    for name, value in document.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            sys.stdout.write(f"{name}\n")
            _show_many(value)
        else:
            sys.stdout.write(f"{name:<{width}}  {_text(value)}".rstrip() + "\n")


def _show_many(
    documents: Sequence[Mapping[str, Any]], widths: Mapping[str, int] = MappingProxyType({}), *, has_head: bool = True
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_header=has_head)
    for name in documents[0]:
        table.add_column(name, overflow="fold", min_width=widths.get(name))
    for document in documents:
        table.add_row(*(Text(_text(value)) for value in document.values()))
    console = Console(markup=False, highlight=False, emoji=False, width=None if sys.stdout.isatty() else _NOT_TRUNCATED)
    console.print(table)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return _text(value.get("name", value.get("token_key")))
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "-"
    return printable(str(value))
