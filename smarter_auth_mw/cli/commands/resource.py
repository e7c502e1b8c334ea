"""`smarter-auth resource`: register, change, protect, open and remove resources."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

import typer

from smarter_auth_mw.cli import arguments
from smarter_auth_mw.cli.arguments import Account, NoRoute, ResourceName
from smarter_auth_mw.cli.commands.key_list import Cursor, Limit, check_no_cursor, page_of
from smarter_auth_mw.cli.decorator import command
from smarter_auth_mw.cli.output import Stream, Summary, note
from smarter_auth_mw.cli.session import Session
from smarter_auth_mw.management.documents import Document, resource_document
from smarter_auth_mw.management.listings import ResourceFilters
from smarter_auth_mw.management.resources import UNCHANGED

Name = Annotated[str | None, typer.Option("--name", help="The name that {name} and {label} in routes look up.")]
Domain = Annotated[str | None, typer.Option("--domain", help="A custom domain, treated as verified.")]
OnError = Annotated[
    Literal["deny", "stale"] | None,
    typer.Option(
        "--on-error", help="While the database is down: deny at once, or keep granting for STALE_IF_ERROR_S (stale)."
    ),
]

group = typer.Typer(help="Manage resources.", epilog="Example: smarter-auth resource show bot:1", rich_markup_mode=None)


@command(group, "add")
async def add(
    session: Session,
    resource: ResourceName,
    *,
    name: Name = None,
    account: Account = None,
    domain: Domain = None,
    protect: Annotated[bool, typer.Option("--protect", help="Protect the resource even without a key.")] = False,
    on_error: OnError = None,
    no_route: NoRoute = False,
) -> dict[str, Any]:
    """Register a resource. It is open unless --protect is given.

    Example: smarter-auth resource add bot:2 --protect
    """
    named = await arguments.resource(session, resource, no_route=no_route)
    arguments.check_name(session, named.kind, name, no_route=no_route)
    async with session.keys() as keys:
        added = await keys.add_resource(
            named, name=name, account=account, domain=domain, protect=protect, on_error=on_error or "stale"
        )
    if protect:
        session.tell_protected(named)
    return resource_document(added)


@command(group, "set")
async def set_(
    session: Session,
    resource: ResourceName,
    *,
    name: Name = None,
    account: Account = None,
    domain: Domain = None,
    on_error: OnError = None,
    no_route: NoRoute = False,
) -> dict[str, Any]:
    """Change a resource. An empty name or domain removes it.

    Example: smarter-auth resource set bot:2 --name support
    """
    named = await arguments.resource(session, resource, no_route=no_route)
    arguments.check_name(session, named.kind, name, no_route=no_route)
    async with session.keys() as keys:
        changed = await keys.set_resource(
            named,
            name=UNCHANGED if name is None else name or None,
            account=UNCHANGED if account is None else account,
            domain=UNCHANGED if domain is None else domain or None,
            on_error=on_error or UNCHANGED,
        )
    return resource_document(changed)


@command(group, "protect")
async def protect(session: Session, resource: ResourceName, *, no_route: NoRoute = False) -> dict[str, Any]:
    """Protect a resource: from now on it requires a token, even without keys.

    Example: smarter-auth resource protect bot:2
    """
    named = await arguments.resource(session, resource, no_route=no_route)
    async with session.keys() as keys:
        protected = await keys.protect(named)
    session.tell_protected(named)
    return resource_document(protected)


@command(group, "unprotect")
async def unprotect(session: Session, resource: ResourceName, *, no_route: NoRoute = False) -> dict[str, Any]:
    """Open a resource to anonymous traffic; refused while keys are bound to it.

    Example: smarter-auth resource unprotect bot:2
    """
    named = await arguments.resource(session, resource, no_route=no_route)
    async with session.keys() as keys:
        opened = await keys.unprotect(named)
    note(f"{named} is open to anyone now.")
    return resource_document(opened)


@command(group, "remove")
async def remove(session: Session, resource: ResourceName, *, no_route: NoRoute = False) -> dict[str, Any]:
    """Remove an open resource; a protected one is refused.

    Example: smarter-auth resource remove bot:2
    """
    named = await arguments.resource(session, resource, no_route=no_route)
    async with session.keys() as keys:
        removed = await keys.resource(named)
        await keys.remove_resource(named)
    return resource_document(removed)


@command(group, "list", takes_actor=False)
async def list_(
    session: Session,
    kind: Annotated[str | None, typer.Option("--kind", help="List resources of this kind, for example bot.")] = None,
    account: Account = None,
    find: Annotated[
        str | None,
        typer.Option("--find", metavar="PREFIX", help="List resources whose reference begins with this text."),
    ] = None,
    state: Annotated[
        Literal["open", "protected"] | None,
        typer.Option("--state", help="List only open, or only protected, resources."),
    ] = None,
    limit: Limit = None,
    cursor: Cursor = None,
) -> Summary | Stream:
    """List resources with the keys that are bound to them.

    Example: smarter-auth resource list --kind bot
    """
    is_open = None if state is None else state == "open"
    filters = ResourceFilters(kind=kind, account=account, find=find, open=is_open)
    if limit is None:
        check_no_cursor(cursor)
        return Stream(_every(session, filters))
    async with session.listings() as listings:
        page = await listings.resources(filters, limit=limit, cursor=cursor)
    return page_of(session, page, [resource_document(one) for one in page.items], dict)


async def _every(session: Session, filters: ResourceFilters) -> AsyncGenerator[Document]:
    async with session.listings() as listings:
        async for registered in listings.every_resource(filters):
            yield resource_document(registered)


@command(group, "show", takes_actor=False)
async def show(session: Session, resource: ResourceName, *, no_route: NoRoute = False) -> dict[str, Any]:
    """Show a resource with the keys that are bound to it.

    Example: smarter-auth resource show bot:1
    """
    named = await arguments.resource(session, resource, no_route=no_route)
    async with session.keys() as keys:
        return resource_document(await keys.resource(named))
