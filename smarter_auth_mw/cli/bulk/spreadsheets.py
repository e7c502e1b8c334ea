"""CSV as spreadsheets write it: detect encoding and separator, and keep cells from being read as formulas."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection
from io import BufferedReader, RawIOBase, TextIOWrapper
from typing import Any, BinaryIO, NamedTuple, TextIO

from smarter_auth_mw.errors import UsageError

SEPARATORS = (",", ";", "\t")
MAX_HEADER_BYTES = 65_536

_UTF_32 = (b"\xff\xfe\0\0", b"\0\0\xfe\xff")
_BOMS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
_NO_TEXT = {
    b"PK\x03\x04": "a spreadsheet or an archive (.xlsx, .ods, .zip), despite its name",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet (.xls), despite its name",
    b"\x1f\x8b": "compressed",
    b"BZh": "compressed",
    b"\xfd7zXZ": "compressed",
    b"\x28\xb5\x2f\xfd": "compressed",
    b"%PDF": "a PDF",
    b"\x89PNG": "a picture",
    b"{": "JSON",
    b"[": "JSON",
    b"<": "HTML or XML",
}
_SAVE_AS = "Save it as CSV UTF-8, with cells separated by commas, semicolons or tabs."
_LINE_END = re.compile("\r\n|\r|\n")
_SEPARATOR_LINE = re.compile(r'\ufeff?"?sep=(.?)"?\s*', re.IGNORECASE)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""The first characters of cells that a spreadsheet may read as a formula."""


class CsvTable(NamedTuple):
    """A file as text, the separator of its cells, and the number of lines before the table."""

    text: TextIO
    separator: str
    skipped: int


def open_table(source: BinaryIO, columns: Collection[str]) -> CsvTable:
    """Detect how the file is written; raises UsageError for a file that is not CSV.

    Its byte order mark decides the encoding; ``sep=`` or the names of the columns decide the separator. Nothing else is
    guessed.
    """
    begins = _beginning(source)
    encoding = _encoding(begins)
    first = next(filter(str.strip, _LINE_END.split(begins.decode(encoding, "replace"))), "")
    text = TextIOWrapper(BufferedReader(_Rejoined(begins, source)), encoding, errors="surrogateescape", newline="")
    if (named := _SEPARATOR_LINE.fullmatch(first)) is None:
        return CsvTable(text, _separator(first, columns), 0)
    if named[1] not in SEPARATORS:
        raise UsageError(f"line 1: cells cannot be separated by {named[1]!r}.", hint=_SAVE_AS)
    skipped = 1
    while not text.readline().strip():
        skipped += 1
    return CsvTable(text, named[1], skipped)


def guarded(cell: str) -> str:
    """Return the cell, with an apostrophe in front if a spreadsheet might compute it or ``bare`` would change it."""
    return f"'{cell}" if _needs_guard(cell) else cell


def bare(cell: str) -> str:
    """Undo ``guarded``; also strip blanks around a cell that was not guarded."""
    return cell[1:] if cell.startswith("'") and _needs_guard(cell[1:]) else cell.strip()


def column_name(cell: str) -> str:
    """Return the name of a column as people may write it: ``Expires At`` is ``expires_at``."""
    return bare(cell).lower().replace(" ", "_")


def _needs_guard(cell: str) -> bool:
    return cell.startswith(_FORMULA) or cell != cell.strip() or (cell.startswith("'") and _needs_guard(cell[1:]))


def _beginning(source: BinaryIO) -> bytes:
    """Return the beginning through the first line that is not blank, or as much of it as a header can have."""
    begins = b""
    while b"\n" not in begins.lstrip() and len(begins) < MAX_HEADER_BYTES and (more := source.read(4096)):
        begins += more
    return begins


def _encoding(begins: bytes) -> str:
    for magic, what in _NO_TEXT.items():
        if begins.startswith(magic):
            raise UsageError(f"The file is {what}, not CSV.", hint=_SAVE_AS)
    if begins.startswith(_UTF_32):
        raise UsageError("The file is UTF-32.", hint=_SAVE_AS)
    if not begins:
        raise UsageError("The file is empty.")
    for mark, encoding in _BOMS.items():
        if begins.startswith(mark):
            return encoding
    if b"\0" in begins:
        raise UsageError("The file has NUL bytes, as UTF-16 without a byte order mark has.", hint=_SAVE_AS)
    return "utf-8"


def _separator(header: str, columns: Collection[str]) -> str:
    for separator in (*SEPARATORS, "|", ":", "^", "~", " "):
        cells = _cells(header, separator)
        if len(cells) < 2 or not {*columns}.issuperset(cells):
            continue
        if separator not in SEPARATORS:
            raise UsageError(f"line 1: cells cannot be separated by {separator!r}.", hint=_SAVE_AS)
        return separator
    return next((separator for separator in SEPARATORS if separator in header), ",")


def _cells(header: str, separator: str) -> list[str]:
    """Return the names in a header, without those at its end that are empty."""
    try:
        cells = [column_name(cell) for cell in next(csv.reader([header], delimiter=separator), [])]
    except csv.Error:
        return []
    while cells and not cells[-1]:
        cells.pop()
    return cells


class _Rejoined(RawIOBase):
    """The beginning of a file that was already read, followed by the rest: a pipe cannot be read twice."""

    def __init__(self, begins: bytes, rest: BinaryIO) -> None:
        self._begins = begins
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self._begins[: len(buffer)] or self._rest.read(len(buffer))
        self._begins = self._begins[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)
