"""Output: documents go to stdout, as JSON or for people, and everything else to stderr.

Names given by users are printed without markup and with control characters escaped: a key's name must not move the
cursor.
"""

from __future__ import annotations

import json
import os
import select
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
"""The number of list elements that are printed at once."""
_NOT_TRUNCATED = 10_000
"""The width of output that is not a terminal, so that lines in a pipe stay whole."""


@dataclass(frozen=True, slots=True)
class Script:
    """Text that people get unchanged, and programs inside a document."""

    text: str
    document: Document


@dataclass(frozen=True, slots=True)
class Summary:
    """Rows for people, with fewer fields than programs get."""

    rows: Sequence[Mapping[str, Any]]
    document: Document


@dataclass(frozen=True, slots=True)
class Stream:
    """A list that is printed while it is read; ``row`` turns its documents into rows for people."""

    documents: AsyncGenerator[Mapping[str, Any]]
    row: Callable[[Any], Mapping[str, Any]] = dict


@dataclass(frozen=True, slots=True)
class Output:
    """The result of a command, and its exit code."""

    document: Document | Script | Summary | None
    exit_code: int = 0
    as_json: bool = False


class OutputError(SmarterAuthError):
    """The result could not be printed."""

    code = "output"
    default_hint = "The command itself succeeded."


class ClosedPipeError(Exception):
    """The reader closed the pipe. Not an OSError, which database code would take for a lost connection."""


@contextmanager
def arriving() -> Iterator[None]:
    """Check that the block's output arrives; raises OutputError, or ClosedPipeError if the reader is gone."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise ClosedPipeError from None
    except OSError as error:
        raise OutputError(f"The result could not be printed: {error.strerror}.") from None


def check_reader() -> None:
    """Raise ClosedPipeError if stdout is no longer read, which a command that waits would notice only by writing."""
    with suppress(OSError, ValueError):  # Stdout may be no file.
        poller = select.poll()
        poller.register(sys.stdout, 0)
        if poller.poll(0):
            raise ClosedPipeError


def show(answer: Output) -> None:
    """Print the answer and check that it arrives; raises OutputError and ClosedPipeError."""
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
        note(f"error: {error} {error.hint}".rstrip() + " The list ends here and is incomplete.")
        return error.exit_code
    _write(printer.add, batch)
    _write(printer.end)
    return 0


def _write(write: Callable[..., None], *batch: Any) -> None:
    with arriving():
        write(*batch)


class _JsonArray:
    """Prints a JSON array one element at a time, in the format of ``to_json``."""

    def __init__(self) -> None:
        self.has_begun = False

    def add(self, documents: Sequence[Mapping[str, Any]]) -> None:
        for document in documents:
            sys.stdout.write(f"{',' if self.has_begun else '['}\n{indent(to_json(document), '  ')}")
            self.has_begun = True

    def end(self) -> None:
        line("\n]" if self.has_begun else "[]")


class _Rows:
    """Prints a table some rows at a time; the first rows set the column widths, except on a terminal."""

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
    """Raise UsageError if stdout is closed, since a token that is not printed is lost."""
    if sys.stdout is None:
        raise UsageError("stdout is closed.", hint="Redirect it, for example: > /dev/null")


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
    """Return one JSON document in plain ASCII, so that it passes through every terminal and locale."""
    return json.dumps(document, indent=2).replace("\x7f", "\\u007f")


def line(text: str) -> None:
    """Print a line of a result; raises OutputError and ClosedPipeError."""
    with arriving():
        sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """Print a message to stderr: progress, a consequence, a warning."""
    with suppress(OSError):  # The message could not be seen anyway.
        sys.stderr.write(f"{printable(text)}\n")
        sys.stderr.flush()


def count_of(number: int, noun: str) -> str:
    """Return the number with its noun, ``1 cell`` or ``2 cells``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def accept_any_text() -> None:
    """Escape what the terminal's encoding cannot show, instead of failing."""
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
