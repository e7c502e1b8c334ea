"""Migrates a database to this release's schema, shows its state, or prints the SQL; based on Alembic.

The only module that needs SQLAlchemy and Alembic (the ``cli`` extra). URLs are asyncpg's, for Alembic too.
"""

from __future__ import annotations

import asyncio
import io
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
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
from smarter_auth_mw.errors import NotFoundError, RefusedError, SchemaError, counted
from smarter_auth_mw.postgres.connections.connector import Connector
from smarter_auth_mw.postgres.faults import close, explained, reported
from smarter_auth_mw.postgres.queries import SQL

VERSION_TABLE = "schema_version"
NATIVE, SMARTER = "native", "smarter"
"""Layouts: own tables only, or also those of a Smarter platform."""
LOCK_TIMEOUT = "SET LOCAL lock_timeout = '30s'"
"""A statement, since a pooler refuses it as a parameter of the connection."""
ATTACHES_FROM = "0005"
"""The first schema that supports attaching a platform."""

_STRANGER = """
SELECT current_user::text AS role,
       to_regrole('smarter_auth') IS NOT NULL AND pg_has_role('smarter_auth', 'MEMBER') AS is_member
 WHERE NOT has_schema_privilege(to_regnamespace('smarter_auth')::oid, 'USAGE')
"""
"""Returns a role that may not use the existing schema."""

_HOLDINGS = """
SELECT (SELECT count(*) FROM smarter_auth.key) AS keys,
       (SELECT count(*) FROM smarter_auth.audit_event) AS events,
       (SELECT count(*) FROM smarter_auth.platform_trigger) AS triggers,
       ARRAY(SELECT name::text FROM smarter_auth.database_role JOIN pg_roles ON rolname = name ORDER BY name) AS roles
"""
"""Returns what detaching drops, and the roles that served."""

Progress = Callable[[str], None]

# Alembic stores its run in module globals, and other runs may begin while one waits for the database.
_alembic = threading.Lock()


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """The state of a database: its schema (None: not created yet), the pending migrations, and the layout."""

    schema: str | None
    pending: list[str]
    layout: str = NATIVE


async def status(url: str) -> MigrationStatus:
    """Return the schema's state. Raises ``SchemaError`` if it is newer than this release, ``UnavailableError``."""
    with reported(mask_url(url)):
        connection = await _connect(url)
        try:
            async with connection.transaction():
                await connection.execute(LOCK_TIMEOUT)
                await _look_in(connection)
                version = await _version(connection)
                return _status(version, await _layout(connection, version))
        finally:
            await close(connection)


async def migrate(
    url: str,
    runtime_role: str | None = None,
    progress: Progress | None = None,
    *,
    manager_role: str | None = None,
    attach: bool = False,
) -> MigrationStatus:
    """Run pending migrations in one transaction, and grant the roles exactly what their grade needs.

    ``runtime_role`` serves; ``manager_role`` also writes keys, bindings and resources. An attached platform is
    updated too; ``attach`` attaches the one in the database. ``progress`` is called with each migration, and
    with the database's notices about roles at the end. Two runs at once are harmless. Raises
    ``UnavailableError`` with what an administrator must do, ``SchemaError``, and ``NotFoundError`` for a role that
    does not exist.
    """
    is_attached = (await status(url)).layout == SMARTER
    grades = _grades(runtime_role, manager_role)
    done: list[str] = []
    asked = {"is_upgrade": True, "is_attached": attach or is_attached, "grades": grades}
    await _run(url, lambda config: command.upgrade(config, "head"), progress=done.append, **asked)
    if progress is not None:
        for line in done:
            progress(line)
    return await status(url)


async def detach(url: str, progress: Progress | None = None) -> MigrationStatus:
    """Detach the platform and drop the own schema from its database; ``progress`` reports what is dropped and kept."""
    found = await status(url)
    if found.layout != SMARTER:
        raise RefusedError("No platform is attached here.", hint="To see what is there: smarter-auth db status")
    held = None
    async with _as_owner(url) as connection:
        if not found.pending:
            held = await connection.fetchrow(_HOLDINGS)
        await connection.execute((SQL / "migrations" / "detach.sql").read_text("utf-8"))
        is_role_left = await connection.fetchval("SELECT to_regrole('smarter_auth') IS NOT NULL")
    if progress is not None and held is not None:
        progress(_dropped(held))
        progress(_left(held["roles"], is_role_left=is_role_left))
    return await status(url)


def _dropped(held: Any) -> str:
    return (
        f"Dropped: the schema smarter_auth with keys ({held['keys']}), audit events ({held['events']}) and usage of its"
        f" own, {counted(held['triggers'], 'trigger')} on the platform's tables, and all privileges on them."
    )


def _left(roles: Sequence[str], *, is_role_left: bool) -> str:
    left = ["the platform's tables and rows, with each last_used_at that was written"]
    if roles:
        left.append(f"the roles {', '.join(roles)}, which no longer have privileges on these tables")
    if is_role_left:
        left.append("the role smarter_auth, which another database uses or you may not drop: DROP ROLE smarter_auth;")
    return f"Left: {'; '.join(left)}. Workers that still run answer 503: stop them, or remove the middleware."


async def downgrade(url: str, schema: str = "base", progress: Progress | None = None) -> MigrationStatus:
    """Revert migrations in one transaction; ``base`` reverts all of them and deletes all data."""
    await status(url)
    await _run(url, lambda config: command.downgrade(config, schema), progress=progress)
    return await status(url)


async def restored(url: str) -> None:
    """Invalidate every cache, after a dump was restored into the database."""
    if (await status(url)).schema is None:
        raise SchemaError()
    async with _as_owner(url) as connection:
        await connection.execute("SET LOCAL ROLE smarter_auth; SELECT smarter_auth.renew_epoch()")


async def sql(url: str | None = None, runtime_role: str | None = None, *, manager_role: str | None = None) -> str:
    """Return the SQL that ``migrate`` would run on that database, or on an empty one, as a ``psql`` script."""
    found = await status(url) if url else MigrationStatus(None, [])
    output = io.StringIO()
    asked = {"is_attached": found.layout == SMARTER, "grades": _grades(runtime_role, manager_role)}
    config = _config(output_buffer=output, is_upgrade=True, **asked)
    async with _alone():
        command.upgrade(config, f"{found.schema or 'base'}:head", sql=True)
    return output.getvalue()


def configure() -> None:
    """Configure Alembic, in ``env.py``: a version table in the own schema, one transaction."""
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
    """Run a file of statements that end with a blank line, unchanged: a colon does not mark a parameter."""
    for statement in _statements((SQL / "migrations" / path).read_text("utf-8")):
        context.execute(re.sub(r"(?<!:):(?=\w)", r"\:", statement))


def settle() -> None:
    """Run the steps after migrations: a new epoch if the database was moved, the attachment, the grades of roles."""
    attributes = context.config.attributes
    if not attributes.get("is_upgrade"):
        return
    run("settle.sql")
    if attributes.get("is_attached"):
        run("attach.sql")
    for role, grade in attributes.get("grades", {}).items():
        context.execute(select(func.smarter_auth.assign_grade(literal(role, String), literal(grade, String))))
    run("roles.sql")


def _grades(runtime_role: str | None, manager_role: str | None) -> dict[str, str]:
    """Return the grade of each role. A role named for both is a manager, which may also serve."""
    named = {runtime_role: "runtime", manager_role: "manager"}
    return {role: grade for role, grade in named.items() if role is not None}


def _statements(script: str) -> list[str]:
    paragraphs = (paragraph.strip().rstrip(";") for paragraph in script.split("\n\n"))
    return [paragraph for paragraph in paragraphs if not all(line.startswith("--") for line in paragraph.splitlines())]


async def _run(
    url: str, work: Callable[[Config], None], *, progress: Progress | None = None, **attributes: Any
) -> None:
    def work_on(connection: Connection) -> None:
        work(_config(connection=connection, progress=progress, **attributes))

    async with _alone(), _engine(url, progress) as engine, engine.begin() as connection:
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
async def _engine(url: str, progress: Progress | None) -> AsyncIterator[Any]:
    async def connect() -> Any:
        made = await _connect(url)
        made.add_log_listener(lambda _, message: progress(message.message) if progress else None)
        return made

    def connection() -> Any:
        # Unnamed statements, so that migrations also run through a transaction pooler.
        unnamed: dict[str, Any] = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": lambda: ""}
        driver: Any = engine.dialect.dbapi
        return driver.connect(async_creator_fn=connect, **unnamed)

    engine = create_async_engine("postgresql+asyncpg://", creator=connection, poolclass=NullPool)
    try:
        with _reported(url):
            yield engine
    finally:
        await engine.dispose()


@asynccontextmanager
async def _as_owner(url: str) -> AsyncIterator[Any]:
    """Open a connection, in a transaction, as a role that may act as the schema's owner; the error names one."""
    connection = await _connect(url)
    try:
        with _reported(url):
            async with connection.transaction():
                await connection.execute(LOCK_TIMEOUT)
                await connection.execute((SQL / "migrations" / "own.sql").read_text("utf-8"))
                yield connection
    finally:
        await close(connection)


@contextmanager
def _reported(url: str) -> Iterator[None]:
    """Turn errors of the database into errors that an administrator can act on."""
    with reported(mask_url(url)):
        try:
            yield
        except DBAPIError as error:
            cause = error.orig.__cause__ if error.orig is not None else None
            raise _explained(cause or error, mask_url(url)) from None
        except asyncpg.PostgresError as error:
            raise _explained(error, mask_url(url)) from None


async def _connect(url: str) -> Any:
    return await Connector(url).connect()


def _explained(error: BaseException, where: str) -> Exception:
    if isinstance(error, asyncpg.UndefinedObjectError):
        return NotFoundError(f"{where}: {error}.", hint="Create the role first: CREATE ROLE … LOGIN")
    if isinstance(error, asyncpg.NoDataFoundError):
        return SchemaError(str(error.args[0]), hint=error.hint)
    if isinstance(error, asyncpg.InsufficientPrivilegeError) and error.hint is None:
        return RefusedError(
            f"{where}: {error}.", hint="Use the URL of a superuser, or of the role that owns what is named."
        )
    return explained(error, where)


def _config(**attributes: Any) -> Config:
    config = Config(attributes=attributes, output_buffer=attributes.get("output_buffer"))
    config.set_main_option("script_location", "smarter_auth_mw.postgres:sql/migrations")
    config.set_main_option("path_separator", "os")
    return config


async def _look_in(connection: Any) -> None:
    """Make the schema readable: act as its owner if this role is a member that does not inherit."""
    stranger = await connection.fetchrow(_STRANGER)
    if stranger is None:
        return
    if not stranger["is_member"]:
        raise RefusedError(
            f"The role {stranger['role']} has no rights in the schema smarter_auth.",
            hint="Use the URL of the role that migrated it, or of a superuser.",
        )
    await connection.execute("SET LOCAL ROLE smarter_auth")


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
