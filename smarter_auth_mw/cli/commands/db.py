"""`smarter-auth db`: migrate the database to this release's schema, show its state, or print the SQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, Literal

import typer
from anyio import to_thread

from smarter_auth_mw.cli.decorator import command
from smarter_auth_mw.cli.output import Script, note
from smarter_auth_mw.cli.session import Session
from smarter_auth_mw.config.settings import Settings
from smarter_auth_mw.postgres.embedded import cluster as embedded

RuntimeRole = Annotated[
    str | None,
    typer.Option("--runtime-role", metavar="ROLE", help="Grant this role the privileges to serve, and no others."),
]
ManagerRole = Annotated[
    str | None,
    typer.Option(
        "--manager-role",
        metavar="ROLE",
        help="Grant this role the privileges to serve and to write keys and resources.",
    ),
]

group = typer.Typer(
    help="Create, upgrade and inspect the database schema.",
    epilog="Example: smarter-auth db migrate",
    rich_markup_mode=None,
)


@command(group, "migrate", takes_actor=False)
async def migrate(
    session: Session, runtime_role: RuntimeRole = None, manager_role: ManagerRole = None
) -> dict[str, Any]:
    """Upgrade the database to this release's schema, in one transaction.

    Example: smarter-auth db migrate --runtime-role web
    """
    from smarter_auth_mw.postgres import migrations

    async with owner_url(session.database_settings) as (url, default_role):
        return asdict(await migrations.migrate(url, runtime_role, note, manager_role=manager_role or default_role))


@command(group, "status", takes_actor=False)
async def status(session: Session) -> dict[str, Any]:
    """Show the database's schema and the pending migrations.

    Example: smarter-auth db status
    """
    from smarter_auth_mw.postgres import migrations

    async with owner_url(session.database_settings) as (url, _):
        return asdict(await migrations.status(url))


@command(group, "attach", takes_actor=False)
async def attach(
    session: Session,
    platform: Annotated[Literal["smarter"], typer.Argument(help="The platform whose tables are in the database.")],
    runtime_role: RuntimeRole = None,
    manager_role: ManagerRole = None,
) -> dict[str, Any]:
    """Guard the Smarter platform whose tables are in this database, without changing its tables.

    Example: smarter-auth db attach smarter
    """
    from smarter_auth_mw.postgres import migrations

    async with owner_url(session.database_settings) as (url, default_role):
        manager_role = manager_role or default_role
        done = await migrations.migrate(
            url, runtime_role, note, manager_role=manager_role, attach=platform == "smarter"
        )
        return asdict(done)


@command(group, "detach", takes_actor=False)
async def detach(session: Session) -> dict[str, Any]:
    """Detach the platform and drop everything of this package from its database: own keys, audit and usage too.

    Example: smarter-auth db detach
    """
    from smarter_auth_mw.postgres import migrations

    async with owner_url(session.database_settings) as (url, _):
        return asdict(await migrations.detach(url, note))


@command(group, "restored", takes_actor=False)
async def restored(session: Session) -> dict[str, Any]:
    """Invalidate every cache, after a dump was restored into the database or the server was cloned.

    Example: smarter-auth db restored
    """
    from smarter_auth_mw.postgres import migrations

    async with owner_url(session.database_settings) as (url, _):
        await migrations.restored(url)
        return asdict(await migrations.status(url))


@command(group, "sql", takes_actor=False)
async def sql(session: Session, runtime_role: RuntimeRole = None, manager_role: ManagerRole = None) -> Script:
    """Print the SQL that `db migrate` would run, without running it.

    Example: smarter-auth db sql
    """
    from smarter_auth_mw.postgres import migrations

    async with owner_url(session.database_settings) as (url, default_role):
        text = await migrations.sql(url, runtime_role, manager_role=manager_role or default_role)
        return Script(text, asdict(await migrations.status(url)) | {"sql": text})


@asynccontextmanager
async def owner_url(settings: Settings) -> AsyncIterator[tuple[str, str | None]]:
    """Yield the URL to migrate with, and the manager role of an embedded database, which this starts."""
    from smarter_auth_mw.postgres.embedded.setup import RUNTIME

    url = settings.database_url.get_secret_value()
    if not embedded.is_embedded(url):
        yield url, None
        return
    start = partial(embedded.Cluster.start, embedded.directory_of(url), progress=note)
    with await to_thread.run_sync(start) as cluster:
        yield cluster.url("owner"), RUNTIME
