"""Bring a database to this release's schema, show how far it is, print the SQL instead: Alembic behind four functions.

The only module that needs SQLAlchemy and Alembic (the ``cli`` extra). URLs are asyncpg's, for Alembic too.
"""

from __future__ import annotations

import asyncio
import io
import re
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
from alembic import command, context
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, NullPool, String, func, literal, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from smarter_auth_mw.config.masking import mask_url
from smarter_auth_mw.errors import NotFoundError, RefusedError, SchemaError
from smarter_auth_mw.postgres.connections.connector import Connector
from smarter_auth_mw.postgres.faults import close, explained, reported
from smarter_auth_mw.postgres.queries import SQL

VERSION_TABLE = "schema_version"
NATIVE, SMARTER = "native", "smarter"
"""Layouts: our own tables alone, or those of a Smarter platform too."""
ATTACHES_FROM = "0005"
"""The schema that a platform can first be attached to."""

Progress = Callable[[str], None]

# Alembic keeps its run in globals of a module, and a run that waits for the database lets others begin.
_alembic = threading.Lock()


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """How far a database is: its schema (None: not ours yet), the migrations still to run, and the layout."""

    schema: str | None
    pending: list[str]
    layout: str = NATIVE


async def status(url: str) -> MigrationStatus:
    """How far the database is. Raises ``SchemaError`` where it is ahead of this release, ``UnavailableError``."""
    with reported(mask_url(url)):
        connection = await _connect(url)
        try:
            version = await _version(connection)
            return _status(version, await _layout(connection, version))
        finally:
            await close(connection)


async def migrate(
    url: str, runtime_role: str | None = None, progress: Progress | None = None, *, attach: bool = False
) -> MigrationStatus:
    """Run what is pending, in one transaction, and grant ``runtime_role`` what a running application needs.

    An attached platform is brought up to date too; ``attach`` attaches the one that is in the database. ``progress`` is
    told each migration as it is done. Two runs at once are harmless. Raises ``UnavailableError`` with what an
    administrator has to do, ``SchemaError``, and ``NotFoundError`` for a role that does not exist.
    """
    attach = attach or (await status(url)).layout == SMARTER
    asked = {"is_upgrade": True, "is_attached": attach, "runtime_role": runtime_role, "progress": progress}
    await _run(url, lambda config: command.upgrade(config, "head"), **asked)
    return await status(url)


async def detach(url: str) -> MigrationStatus:
    """Let the attached platform go, with all that we hold in its database, and leave no trace there."""
    if (await status(url)).layout != SMARTER:
        raise RefusedError("No platform is attached here.", hint="To see what is there: smarter-auth db status")
    connection = await _connect(url)
    try:
        with reported(mask_url(url)):
            async with connection.transaction():
                await connection.execute((SQL / "migrations" / "detach.sql").read_text("utf-8"))
    finally:
        await close(connection)
    return await status(url)


async def downgrade(url: str, schema: str = "base", progress: Progress | None = None) -> MigrationStatus:
    """Take migrations back, in one transaction; ``base`` takes all of them, with all that they hold."""
    await status(url)
    await _run(url, lambda config: command.downgrade(config, schema), progress=progress)
    return await status(url)


async def restored(url: str) -> None:
    """Tell every cache that the database is another one, after a dump was restored into it."""
    await status(url)
    connection = await _connect(url)
    try:
        with reported(mask_url(url)):
            await connection.execute("SELECT smarter_auth.renew_epoch()")
    finally:
        await close(connection)


async def sql(url: str | None = None, runtime_role: str | None = None) -> str:
    """What ``migrate`` would run on that database, or without one on an empty one, as a script for ``psql``."""
    found = await status(url) if url else MigrationStatus(None, [])
    output = io.StringIO()
    is_attached = found.layout == SMARTER
    config = _config(output_buffer=output, is_upgrade=True, is_attached=is_attached, runtime_role=runtime_role)
    async with _alone():
        command.upgrade(config, f"{found.schema or 'base'}:head", sql=True)
    return output.getvalue()


def configure() -> None:
    """Set Alembic up, in ``env.py``: our own version table in our own schema, one transaction."""
    attributes = context.config.attributes
    progress: Progress | None = attributes.get("progress")
    context.configure(
        connection=attributes.get("connection"),
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},
        literal_binds=context.is_offline_mode(),
        output_buffer=attributes.get("output_buffer"),
        version_table=VERSION_TABLE,
        version_table_schema="smarter_auth",
        on_version_apply=lambda step, **_: (
            progress(f"{step.up_revision_id} {step.up_revision.doc}") if progress else None
        ),
    )


def run(path: str) -> None:
    """Run a file of statements that a blank line ends, as they stand: a colon names no parameter there."""
    for statement in _statements((SQL / "migrations" / path).read_text("utf-8")):
        context.execute(re.sub(r"(?<!:):(?=\w)", r"\:", statement))


def settle() -> None:
    """Afterwards: another epoch where the database has moved, the attachment, the rights of the running role."""
    attributes = context.config.attributes
    if attributes.get("is_upgrade"):
        run("settle.sql")
    if attributes.get("is_attached"):
        run("attach.sql")
    if attributes.get("runtime_role") is not None:
        context.execute(select(func.smarter_auth.grant_runtime(literal(attributes["runtime_role"], String))))


def _statements(script: str) -> list[str]:
    paragraphs = (paragraph.strip().rstrip(";") for paragraph in script.split("\n\n"))
    return [paragraph for paragraph in paragraphs if not all(line.startswith("--") for line in paragraph.splitlines())]


async def _run(url: str, work: Callable[[Config], None], **attributes: Any) -> None:
    def work_on(connection: Connection) -> None:
        work(_config(connection=connection, **attributes))

    async with _alone(), _engine(url) as engine, engine.begin() as connection:
        await connection.run_sync(work_on)


@asynccontextmanager
async def _alone() -> AsyncIterator[None]:
    while not _alembic.acquire(blocking=False):  # noqa: ASYNC110 - Another loop may hold it: nothing to await.
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        _alembic.release()


@asynccontextmanager
async def _engine(url: str) -> AsyncIterator[Any]:
    def connection() -> Any:
        # No statement has a name, so that migrations run through a transaction pooler too.
        unnamed: dict[str, Any] = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": lambda: ""}
        driver: Any = engine.dialect.dbapi
        return driver.connect(async_creator_fn=lambda: _connect(url), **unnamed)

    engine = create_async_engine("postgresql+asyncpg://", creator=connection, poolclass=NullPool)
    try:
        with reported(mask_url(url)):
            yield engine
    except DBAPIError as error:
        raise _explained(error, mask_url(url)) from None
    finally:
        await engine.dispose()


async def _connect(url: str) -> Any:
    return await Connector(url).connect()


def _explained(error: DBAPIError, where: str) -> Exception:
    cause = error.orig.__cause__ if error.orig is not None else None
    if isinstance(cause, asyncpg.UndefinedObjectError):
        return NotFoundError(f"{where}: {cause}.", hint="Create the role first: CREATE ROLE … LOGIN")
    return explained(cause or error, where)


def _config(**attributes: Any) -> Config:
    config = Config(attributes=attributes, output_buffer=attributes.get("output_buffer"))
    config.set_main_option("script_location", "smarter_auth_mw.postgres:sql/migrations")
    config.set_main_option("path_separator", "os")
    return config


async def _version(connection: Any) -> str | None:
    if await connection.fetchval("SELECT to_regclass('smarter_auth.schema_version')") is None:
        return None
    version: str | None = await connection.fetchval("SELECT max(version_num) FROM smarter_auth.schema_version")
    return version


async def _layout(connection: Any, version: str | None) -> str:
    if version is None or version < ATTACHES_FROM:
        return NATIVE
    layout: str = await connection.fetchval("SELECT layout FROM smarter_auth.meta")
    return layout


def _status(schema: str | None, layout: str) -> MigrationStatus:
    known = [script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()][::-1]
    if schema is not None and schema not in known:
        raise SchemaError(
            f"The database has schema {schema}, too new for this release, which knows {known[-1]}.",
            hint="Upgrade smarter_auth_mw: pip install -U smarter_auth_mw",
        )
    return MigrationStatus(schema, [revision for revision in known if schema is None or revision > schema], layout)
