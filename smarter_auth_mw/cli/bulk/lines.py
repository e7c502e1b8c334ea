"""Reads lines of a CSV file for staging, and checks each by itself; mistakes name their line."""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from secrets import token_bytes
from typing import Any
from uuid import UUID

from smarter_auth_mw.cli.bulk.spreadsheets import CsvTable, bare, column_name
from smarter_auth_mw.cli.output import count_of
from smarter_auth_mw.domain import Protection, Resource
from smarter_auth_mw.errors import SmarterAuthError, UsageError, counted
from smarter_auth_mw.management.keys import MAX_DESCRIPTION
from smarter_auth_mw.postgres.bulk import MOST_MISTAKES, LineMistake, StagedLine
from smarter_auth_mw.postgres.storable import checked, checked_labels
from smarter_auth_mw.tokens import TOKEN_KEY_LENGTH, digest_of

RESOURCE_COLUMNS = ("resource_name", "domain", "protection", "on_error")
TOKEN_COLUMNS = ("digest", "token_key", "valid_until", "minted_at")
KEY_COLUMNS = ("key", "key_id", "description", "labels", "active", "expires_at", "revoked_at", *TOKEN_COLUMNS)
COLUMNS = ("resource", "account", *RESOURCE_COLUMNS, *KEY_COLUMNS)
"""The columns in the order of an export; an imported file needs only some, in any order."""
NO_TOKEN = "none"
"""Written instead of a digest for a key that has no token and should get none."""

_NO_UTF_8 = re.compile("[\udc80-\udcff]")
"""The characters as which Python reads bytes that are not UTF-8."""
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{128}")
_TOKEN_KEY = re.compile(rf"[\x21-\x7e]{{1,{TOKEN_KEY_LENGTH}}}")
_BOOLEANS = {"true": True, "yes": True, "false": False, "no": False}
_COMMON = (
    *("", " ", "\n", "0", "1", "x", "-", "null", "none", "nil", "nan", "undefined", "true", "false", "[object Object]"),
    *("token", "bearer", "key", "apikey", "api_key", "api-key", "secret", "password", "passwd", "changeme", "admin"),
    *("root", "test", "testing", "demo", "example", "sample", "dummy", "default", "foo", "bar", "foobar", "hello"),
    *("123", "1234", "12345", "123456", "12345678", "123456789", "1234567890", "qwerty", "abc", "abc123", "letmein"),
    *("your-token", "your_token", "your-api-key", "your_api_key", "YOUR_API_KEY", "<token>", "${TOKEN}", "$TOKEN"),
    *("0" * 64, "f" * 64, "a" * 64, "x" * 64, "deadbeef" * 8),
)
"""Digests of placeholder texts that stand for a token: anyone could guess such a token."""
_REFUSED = frozenset(
    digest_of(text.encode()) for common in _COMMON for text in (common, common.upper(), common.capitalize())
)
_FEWEST_BYTES = 24
"""A real SHA-512 has at least this many different bytes among its 64; one with fewer was made up."""

Named = Callable[[str, str | None], Awaitable[Resource]]
"""Resolves ``KIND:REF`` by the rules of routes; it may refuse the resource's name too."""


class Lines:
    """The lines of a file, in order, ready to be staged; ``mistakes`` grows while they are read."""

    def __init__(self, table: CsvTable, named: Named, default_account: str, latest: datetime | None = None) -> None:
        self._latest = latest
        self.mistakes: list[LineMistake] = []
        self._reader = csv.reader(table.text, delimiter=table.separator, strict=True)
        self._skipped = table.skipped
        self._named = named
        self._default_account = default_account
        self._secret = token_bytes(32)

    async def __aiter__(self) -> AsyncIterator[StagedLine]:
        for number, cells in self._rows():
            try:
                yield await self._staged(number, cells)
            except SmarterAuthError as error:
                self.mistakes.append(LineMistake(number, error.message))
                if len(self.mistakes) > MOST_MISTAKES:
                    return

    def _rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Yield the non-empty cells by column, with the line where they begin."""
        try:
            header = _header(next(filter(_has_text, self._reader), []), self._line)
            begins = self._line + 1
            for row in self._reader:
                cells = [bare(cell) for cell in row]
                if why := _refusal(cells, header):
                    self.mistakes.append(LineMistake(begins, why))
                elif any(cells):
                    yield begins, {name: cell for name, cell in zip(header, cells, strict=False) if cell}
                begins = self._line + 1
        except OSError as error:
            raise UsageError(f"The file cannot be read: {error.strerror}.") from None
        except UnicodeError:
            self.mistakes.append(
                LineMistake(
                    self._line + 1, "this is not UTF-16, although the file begins with the byte order mark of UTF-16"
                )
            )
        except csv.Error as error:
            self.mistakes.append(LineMistake(self._line, f"this is not CSV: {error}"))

    @property
    def _line(self) -> int:
        """The number of the line that was read last."""
        return self._reader.line_num + self._skipped

    async def _staged(self, number: int, cells: Mapping[str, str]) -> StagedLine:
        if not cells.keys() & {"resource", "key", "key_id"}:
            raise UsageError("it names neither a resource nor a key")
        account = checked(cells.get("account", self._default_account), "account")
        resource = await self._resource(cells)
        key = self._key(cells, account)
        return StagedLine(number, account, **resource, **key)

    async def _resource(self, cells: Mapping[str, str]) -> dict[str, Any]:
        if "resource" not in cells:
            _check_empty(cells, RESOURCE_COLUMNS, "names no resource")
            return {}
        name = _text(cells, "resource_name")
        named = await self._named(cells["resource"], name)
        return {
            "kind": named.kind,
            "ref": named.ref,
            "lookup": named.lookup_ref,
            "resource_name": name,
            "domain": _text(cells, "domain"),
            "protection": _one_of(cells, "protection", tuple(Protection)),
            "on_error": _one_of(cells, "on_error", ("stale", "deny")),
        }

    def _key(self, cells: Mapping[str, str], account: str) -> dict[str, Any]:
        if not cells.keys() & {"key", "key_id"}:
            _check_empty(cells, KEY_COLUMNS, "names no key")
            return {}
        if "digest" not in cells or cells["digest"] == NO_TOKEN:
            _check_empty(cells, TOKEN_COLUMNS[1:], "has no digest")
        name = _text(cells, "key")
        return {
            "key_id": self._key_id(cells, account),
            "key": name,
            "description": _text(cells, "description", MAX_DESCRIPTION),
            "labels": _labels(cells),
            "active": _boolean(cells, "active"),
            "expires_at": self._expiry(cells),
            "revoked_at": _time(cells, "revoked_at"),
            "digest": _digest(cells),
            "token_key": _token_key(cells),
            "valid_until": _time(cells, "valid_until"),
            "minted_at": _time(cells, "minted_at"),
            "is_tokenless": cells.get("digest") == NO_TOKEN,
            "is_derived": "key_id" not in cells,
        }

    def _expiry(self, cells: Mapping[str, str]) -> datetime | None:
        """Return the latest allowed expiry for an unrevoked key without one; report a later one as a mistake."""
        expires_at = _time(cells, "expires_at")
        if self._latest is None or "revoked_at" in cells:
            return expires_at
        if expires_at is not None and expires_at > self._latest:
            raise UsageError(f"expires_at is {expires_at.isoformat()}: later than MAX_KEY_LIFETIME allows")
        return expires_at

    def _key_id(self, cells: Mapping[str, str], account: str) -> UUID:
        """Return the key_id, or derive an unpredictable one, the same for each line with this digest, or this name."""
        if "key_id" not in cells:
            digest = cells.get("digest", NO_TOKEN)
            named = blake2b(f"{account}\0{cells['key']}\0{digest}".encode(), key=self._secret, digest_size=16)
            return UUID(bytes=named.digest(), version=4)
        try:
            return UUID(cells["key_id"])
        except ValueError:
            raise UsageError(f"{cells['key_id']!r} is not a key_id, which is a UUID") from None


def _refusal(cells: list[str], header: list[str]) -> str:
    """Return why the cells do not fit the columns; empty if they do."""
    if any(_NO_UTF_8.search(cell) for cell in cells):
        return "this is not UTF-8: save the file as CSV UTF-8"
    if any(cells[len(header) :]):
        return f"there are {count_of(len(cells), 'cell')}, and {count_of(len(header), 'column')}"
    return ""


def _has_text(cells: list[str]) -> bool:
    return any(map(str.strip, cells))


def _header(cells: list[str], line: int) -> list[str]:
    if not cells:
        raise UsageError("The file is empty.")
    if any(map(_NO_UTF_8.search, cells)):
        raise UsageError(f"line {line}: this is not UTF-8: save the file as CSV UTF-8.")
    names = [column_name(cell) for cell in cells]
    while names and not names[-1]:
        names.pop()  # Spreadsheets also write columns that are empty now.
    wrong = [f"column {place} has no name" for place, name in enumerate(names, 1) if not name]
    wrong += [f"there is no column {name!r}{_nearest(name)}" for name in names if name and name not in COLUMNS]
    wrong += [f"the column {name} appears twice" for name in COLUMNS if names.count(name) > 1]
    if not {"resource", "key", "key_id"} & set(names):
        wrong.append("there is neither a column resource nor a column key")
    if wrong:
        hint = f"The first line names the columns: {', '.join(COLUMNS)}, separated by commas, semicolons or tabs."
        raise UsageError(f"line {max(line, 1)}: {'; '.join(wrong)}.", hint=hint)
    return names


def _nearest(name: str) -> str:
    found = difflib.get_close_matches(name, COLUMNS, n=1)
    return f", but {found[0]}" if found else ""


def _check_empty(cells: Mapping[str, str], columns: tuple[str, ...], why: str) -> None:
    for column in columns:
        if column in cells:
            raise UsageError(f"it {why}, but has {column}")


def _text(cells: Mapping[str, str], column: str, longest: int = 255) -> str | None:
    return checked(cells[column], column, longest=longest) if column in cells else None


def _labels(cells: Mapping[str, str]) -> str | None:
    """Parse labels, as ``team=sales env=live``, and return them ordered by name."""
    if "labels" not in cells:
        return None
    labels: dict[str, str] = {}
    for label in sorted(cells["labels"].split()):
        name, _, value = label.partition("=")
        if name in labels:
            raise UsageError(f"labels has {name} twice")
        labels[name] = value
    return " ".join(f"{name}={value}" for name, value in checked_labels(labels).items())


def _one_of(cells: Mapping[str, str], column: str, known: tuple[str, ...]) -> str | None:
    value = cells.get(column)
    if value is None or value in known:
        return value
    raise UsageError(f"{value!r} is not a {column}: write {', '.join(known[:-1])} or {known[-1]}")


def _boolean(cells: Mapping[str, str], column: str) -> bool | None:
    value = cells.get(column)
    if value is None:
        return None
    if value.lower() in _BOOLEANS:
        return _BOOLEANS[value.lower()]
    raise UsageError(f"{column} is {value!r}: write true or false")


def _time(cells: Mapping[str, str], column: str) -> datetime | None:
    value = cells.get(column)
    if value is None:
        return None
    try:
        time = datetime.fromisoformat(value)
        if _DATE.fullmatch(value):
            return time.replace(tzinfo=UTC)
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise UsageError(
        f"{column} is {value!r}: write a date (2030-12-31), or a time with its zone (2030-12-31T23:59:59Z)"
    )


def _digest(cells: Mapping[str, str]) -> bytes | None:
    """Parse a token_key of knox's form; messages never repeat the value, since it may be a token."""
    value = cells.get("digest")
    if value is None or value == NO_TOKEN:
        return None
    if not _DIGEST.fullmatch(value):
        raise UsageError(
            f"the digest has {counted(len(value), 'character')} or others than 0-9 a-f: it is the SHA-512 of a token"
            " in 128 lower-case hexadecimal characters, as django-rest-knox 5 stores it"
        )
    digest = bytes.fromhex(value)
    if digest in _REFUSED or len(set(digest)) < _FEWEST_BYTES:
        raise UsageError("the digest is of an empty or a common string, or is made up: anyone could guess the token")
    return digest


def _token_key(cells: Mapping[str, str]) -> str | None:
    value = cells.get("token_key")
    if value is None or _TOKEN_KEY.fullmatch(value):
        return value
    raise UsageError(f"the token_key is at most {TOKEN_KEY_LENGTH} visible characters: the token's first ones")
