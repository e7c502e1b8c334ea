"""`smarter-auth import` and `export`: all resources, keys and bindings in one CSV file."""

from __future__ import annotations

import csv
import json
import os
import stat
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TextIO

import typer

from smarter_auth_mw.cli import arguments
from smarter_auth_mw.cli.arguments import AllowAnonymous, NoRoute, TokenOptions
from smarter_auth_mw.cli.bulk.lines import COLUMNS, Lines, Named
from smarter_auth_mw.cli.bulk.spreadsheets import guarded, open_table
from smarter_auth_mw.cli.new_files import NewFile, new_file
from smarter_auth_mw.cli.output import Output, arriving, note, show
from smarter_auth_mw.cli.progress import Bar, bar
from smarter_auth_mw.cli.session import Session, os_user
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.errors import SmarterAuthError, UsageError
from smarter_auth_mw.log import printable
from smarter_auth_mw.management import naming
from smarter_auth_mw.management.opening import judged
from smarter_auth_mw.management.token_formats import minter
from smarter_auth_mw.postgres.bulk import MOST_MISTAKES, TABLES, Bulk, MintedKey, StagedLine, open_bulk
from smarter_auth_mw.postgres.opening import open_store
from smarter_auth_mw.postgres.storable import checked_resource
from smarter_auth_mw.postgres.store import Store
from smarter_auth_mw.routing.memo import UNKNOWN, Memo
from smarter_auth_mw.tokens import Token

BULK_TIMEOUT_S = 3600.0
"""The timeout of one statement; no request waits for it."""
MOST_PRINTED = 1_000
"""The most new tokens that are printed; more must go to a file."""

REPORT_EVERY = 1_000
_REMEMBERED = 100_000
_TOKEN_COLUMNS = ("key_id", "account", "name", "token_key", "token")


class FileMistakesError(SmarterAuthError):
    """The file has mistakes, and nothing was imported."""

    code = "mistakes"
    exit_code = 2


class _UndoneError(Exception):
    """Rolls back a dry run."""


async def import_(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="FILE.csv", help="The CSV file, for example all.csv; - for stdin.")],
    *,
    tokens: Annotated[
        str | None,
        typer.Option(
            "--tokens", metavar="FILE", help="Write new tokens to this new file (CSV).", show_default="printed"
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the file and report, without importing anything.")
    ] = False,
    allow_anonymous: AllowAnonymous = False,
    no_route: NoRoute = False,
    minting: TokenOptions,
) -> dict[str, Any] | None:
    """Import resources, keys and bindings from a CSV file: all of it, or nothing.

    A key without a digest gets a new token, which is shown only once.

    Example: smarter-auth import all.csv --tokens tokens.csv
    """
    mint = minter(minting.form, minting.prefix)
    wants_file = tokens is not None and not dry_run
    with (
        _opened(file) as source,
        new_file(tokens) if wants_file and tokens else nullcontext() as token_file,
        bar() as shown,
    ):
        async with _store(session) as store:
            run = _Import(session, shown, token_file, mint, allow_anonymous=allow_anonymous, is_dry=dry_run)
            with suppress(_UndoneError):
                async with open_bulk(store) as bulk:
                    await run.check(bulk, source, _named(session, store, no_route=no_route))
                    await run.write(bulk, file)
        return run.document


class _Import:
    """One import; ``document`` is printed at the end."""

    def __init__(
        self,
        session: Session,
        shown: Bar,
        token_file: NewFile | None,
        mint: Callable[[], Token],
        *,
        allow_anonymous: bool,
        is_dry: bool,
    ) -> None:
        self.document: dict[str, Any] | None = None
        self._session = session
        self._shown = shown
        self._token_file = token_file
        self._mint_token = mint
        self._allow_anonymous = allow_anonymous
        self._is_dry = is_dry
        longest = session.database_settings.longest_key_life
        self._latest = None if longest is None else arguments.latest(longest)

    async def check(self, bulk: Bulk, source: BinaryIO, named: Named) -> None:
        """Stage the file; raises FileMistakesError with all mistakes."""
        account = self._session.database_settings.default_account
        lines = Lines(open_table(source, COLUMNS), named, account, self._latest)
        self._shown.step("reading", _size(source))
        await bulk.stage(self._read(lines, source))
        self._shown.step("checking")
        mistakes = sorted([*lines.mistakes, *await bulk.mistakes(is_complete=not lines.mistakes)])
        if mistakes:
            listed = [f"  {mistake}" for mistake in mistakes[:MOST_MISTAKES]]
            many = "one mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
            if len(mistakes) > MOST_MISTAKES:
                many, listed = f"more than {MOST_MISTAKES} mistakes", [*listed, "  and more"]
            raise FileMistakesError(f"The file has {many}, and nothing was imported:\n" + "\n".join(listed))
        self._counts = await bulk.count()
        if self._counts.minted > MOST_PRINTED and self._token_file is None and not self._is_dry:
            raise UsageError(
                f"{self._counts.minted} tokens are too many to print on the terminal.", hint="Add --tokens FILE."
            )

    async def write(self, bulk: Bulk, file: str) -> None:
        """Write everything, and output the new tokens safely before the commit."""
        minted = [] if self._is_dry else await self._mint(bulk)
        if self._counts.unchanged < self._counts.lines:
            self._shown.step("writing", TABLES)
            await self._insert(bulk)
            await bulk.audit(self._session.actor or os_user(), printable(file), self._counts)
        else:
            note("Nothing changes: the database already holds everything in the file.")
        self._shown.step("committing")
        document = self._document(minted)
        if self._is_dry:
            self.document = document
            raise _UndoneError
        if self._token_file is not None:
            self._token_file.secure()
            self._token_file.keeps = True
            self.document = document
        elif minted:
            self._shown.hide()
            note("The tokens are shown only now, and stored nowhere. They become valid when the command succeeds.")
            show(Output(document, as_json=self._session.as_json))
        else:
            self.document = document

    async def _insert(self, bulk: Bulk) -> None:
        """Write the tables; raises WouldOpenError if that would open a registered resource to anyone."""
        require = self._session.database_settings.require
        bound = await bulk.lock_resources() if require == "active" else ()
        async with judged(bulk.transaction, bound, require, allow_anonymous=self._allow_anonymous):
            await bulk.insert(self._shown.advance, self._latest)

    async def _mint(self, bulk: Bulk) -> list[MintedKey]:
        """Mint tokens; return the keys whose tokens are printed. With a file, tokens are written there instead."""
        self._shown.step("minting", self._counts.minted)
        printed: list[MintedKey] = []
        writer = csv.writer(self._token_file.text, lineterminator="\n") if self._token_file else None
        if writer:
            writer.writerow(_TOKEN_COLUMNS)
        async with aclosing(bulk.mint(self._mint_token)) as batches:
            async for minted in batches:
                if writer:
                    writer.writerows(map(guarded, _token(key).values()) for key in minted)
                else:
                    printed += minted
                self._shown.advance(len(minted))
        return printed

    def _document(self, minted: Sequence[MintedKey]) -> dict[str, Any]:
        path = str(self._token_file.path) if self._token_file else None
        extra = {"dry_run": self._is_dry, "tokens_file": path, "tokens": [_token(key) for key in minted]}
        return self._counts._asdict() | extra

    async def _read(self, lines: Lines, source: BinaryIO) -> AsyncIterator[StagedLine]:
        async for one in lines:
            if not one.line % REPORT_EVERY:
                self._shown.at(_position(source))
            yield one


async def export(
    session: Session,
    file: Annotated[
        str, typer.Argument(metavar="FILE.csv", help="A new file, for example all.csv; - for stdout.")
    ] = "-",
) -> dict[str, Any] | None:
    """Export all resources, keys (by their digests) and bindings as CSV for import.

    Example: smarter-auth export all.csv
    """
    async with aclosing(_exported(session)) as batches:
        if file == "-":
            with _stdout() as out:
                await (_write_json if session.as_json else _write_csv)(out, batches)
            return None
        with new_file(file) as made:
            lines = await _write_csv(made.text, batches)
            made.secure()
        return {"file": file, "lines": lines}


async def _exported(session: Session) -> AsyncGenerator[Sequence[Any]]:
    async with _store(session) as store, open_bulk(store) as bulk, aclosing(bulk.export()) as batches:
        async for rows in batches:
            yield rows


async def _write_csv(out: TextIO, batches: AsyncIterator[Sequence[Any]]) -> int:
    writer, lines = csv.writer(out, lineterminator="\n"), 0
    writer.writerow(COLUMNS)
    with bar() as shown:
        shown.step("writing lines")
        async for rows in batches:
            writer.writerows([[_cell(row[column]) for column in COLUMNS] for row in rows])
            lines += len(rows)
            shown.at(lines)
    return lines


async def _write_json(out: TextIO, batches: AsyncIterator[Sequence[Any]]) -> None:
    before = "[\n"
    async for rows in batches:
        for row in rows:
            out.write(before + json.dumps({column: _value(row[column]) for column in COLUMNS}))
            before = ",\n"
    out.write("[]\n" if before == "[\n" else "\n]\n")


def _cell(value: Any) -> str | None:
    plain = _value(value)
    if plain is None:
        return None
    return guarded(plain) if isinstance(plain, str) else str(plain).lower()


def _value(value: Any) -> str | bool | None:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return value if value is None or isinstance(value, bool) else str(value)


def _token(key: MintedKey) -> dict[str, str]:
    values = (str(key.key_id), key.account, key.name, key.token.token_key, key.token.reveal())
    return dict(zip(_TOKEN_COLUMNS, values, strict=True))


def _named(session: Session, store: Store, *, no_route: bool) -> Named:
    """Return how resources of the file are read: as in `resource add`; without routes only with --no-route."""
    has_routes = not no_route or bool(session.database_settings.routes)
    known: Memo[tuple[str, str | None]] = Memo(_REMEMBERED)

    async def named(text: str, name: str | None) -> Resource:
        found: Resource = known.recall((text, name))
        if found is not UNKNOWN:
            return found
        if has_routes:
            found = await arguments.resource(session, text, no_route=no_route, store=store)
            arguments.check_name(session, found.kind, name, no_route=no_route)
        else:
            found = naming.unrouted(*naming.split(text))
        known.remember((text, name), checked_resource(found))
        return found

    return named


@asynccontextmanager
async def _store(session: Session) -> AsyncIterator[Store]:
    settings = session.database_settings.model_copy(update={"query_timeout_s": BULK_TIMEOUT_S})
    async with open_store(settings) as store:
        yield store


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        if sys.stdin is None:
            raise UsageError("stdin is closed.", hint="Name a file, or redirect one: smarter-auth import - < FILE.csv")
        yield sys.stdin.buffer
        return
    try:
        opened = Path(file).open("rb")  # noqa: SIM115 - only the opening itself is our caller's mistake
    except OSError as error:
        raise UsageError(f"The file {file!r} cannot be read: {error.strerror}.") from None
    with opened:
        yield opened


def _size(source: BinaryIO) -> int | None:
    status = os.fstat(source.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _position(source: BinaryIO) -> int:
    return source.tell() if source.seekable() else 0


@contextmanager
def _stdout() -> Iterator[TextIO]:
    """Open stdout in UTF-8, whatever the terminal's encoding: the output may be redirected to a file for import."""
    out = TextIOWrapper(sys.stdout.buffer, "utf-8", newline="")
    try:
        with arriving():
            yield out
            out.flush()
    finally:
        with suppress(BrokenPipeError):
            out.detach()
