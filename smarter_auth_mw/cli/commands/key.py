"""`smarter-auth key`: create, bind, deactivate and revoke keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from uuid import UUID

import typer

from smarter_auth_mw.cli import arguments
from smarter_auth_mw.cli.arguments import Account, Form, KeyId, NoRoute, ResourceName
from smarter_auth_mw.cli.commands.key_leaks import revoke_leaked
from smarter_auth_mw.cli.commands.key_list import list_
from smarter_auth_mw.cli.decorator import command
from smarter_auth_mw.cli.output import note
from smarter_auth_mw.cli.session import Session
from smarter_auth_mw.domain import Key
from smarter_auth_mw.errors import UsageError
from smarter_auth_mw.management.documents import key_document
from smarter_auth_mw.management.keys import Keys

group = typer.Typer(help="The keys that open resources.", rich_markup_mode=None)


@command(group, "create")
async def create(
    session: Session,
    *,
    name: Annotated[str, typer.Option("--name", help="What people call it; one of a kind within its account.")],
    account: Account = None,
    description: Annotated[str, typer.Option("--description", help="What it is for.")] = "",
    expires_in: Annotated[
        str | None, typer.Option("--expires-in", metavar="DURATION", help="30s, 15m, 24h, 30d.", show_default="never")
    ] = None,
    bind: Annotated[
        list[str] | None, typer.Option("--bind", metavar="KIND:REF", help="A resource to bind it to; any number.")
    ] = None,
    no_route: NoRoute = False,
    form: Form = None,
    max_lifetime: Annotated[
        str | None, typer.Option("--max-lifetime", metavar="DURATION", help="Refuse a key that would live longer.")
    ] = None,
) -> dict[str, Any]:
    """Create a key and print its token, this once."""
    expires_at = arguments.expiry(expires_in)
    longest = arguments.duration(max_lifetime) if max_lifetime is not None else None
    resources = [await arguments.resource(session, text, no_route=no_route) for text in bind or ()]
    async with session.keys() as keys:
        minted = await keys.create(
            name,
            account=account,
            description=description,
            expires_at=expires_at,
            bind=resources,
            form=form or "knox",
            max_lifetime=longest,
        )
    for resource in minted.key.bindings:
        session.tell_bound(resource, created=resource in minted.created)
    note("The token is shown this once, and stored nowhere.")
    document = key_document(minted.key)
    for obvious in ("tokens", "token_valid", "created_at", "updated_at", "revoked_at"):
        del document[obvious]
    secret = {"token": minted.token.reveal(), "token_key": document.pop("token_key")}
    return {"key_id": document.pop("key_id"), **secret, **document, "created": bool(minted.created)}


command(group, "list", takes_actor=False)(list_)


@command(group, "show", takes_actor=False)
async def show(session: Session, key_id: KeyId) -> dict[str, Any]:
    """Show a key, without its tokens."""
    async with session.keys() as keys:
        return key_document(await keys.key(key_id))


@command(group, "bind")
async def bind(session: Session, key_id: KeyId, resource: ResourceName, *, no_route: NoRoute = False) -> dict[str, Any]:
    """Let a key open a resource, which asks for a token from now on."""
    named = await arguments.resource(session, resource, no_route=no_route)
    async with session.keys() as keys:
        bound = await keys.bind(key_id, named)
    session.tell_bound(named, created=bound.created)
    return key_document(bound.key) | {"created": bound.created}


@command(group, "unbind")
async def unbind(
    session: Session,
    key_id: KeyId,
    resource: ResourceName,
    *,
    allow_anonymous: Annotated[
        bool, typer.Option("--allow-anonymous", help="Also the last key: the resource is open to anyone then.")
    ] = False,
    no_route: NoRoute = False,
) -> dict[str, Any]:
    """Take a key off a resource; taking off the last one needs --allow-anonymous."""
    named = await arguments.resource(session, resource, no_route=no_route)
    async with session.keys() as keys:
        key = await keys.unbind(key_id, named, allow_anonymous=allow_anonymous)
        if not (await keys.resource(named)).is_protected:
            note(f"{named} is open to anyone now.")
    return key_document(key)


@command(group, "activate")
async def activate(session: Session, key_id: KeyId) -> dict[str, Any]:
    """Let a key open what it is bound to again."""
    return await _changed(session, lambda keys: keys.activate(key_id))


@command(group, "deactivate")
async def deactivate(session: Session, key_id: KeyId) -> dict[str, Any]:
    """Let a key open nothing for now; what it is bound to stays protected."""
    return await _changed(session, lambda keys: keys.deactivate(key_id))


@command(group, "revoke")
async def revoke(
    session: Session,
    key_id: Annotated[UUID | None, typer.Argument(metavar="[KEY_ID]", help="The key, as `key list` shows it.")] = None,
    *,
    token_file: Annotated[
        str | None,
        typer.Option("--token-file", metavar="FILE", help="Leaked tokens, one a line; - is stdin. Their keys end."),
    ] = None,
) -> dict[str, Any]:
    """End a key for good, or those that leaked tokens belong to; what they are bound to stays protected."""
    if token_file is not None and key_id is None:
        return await revoke_leaked(session, token_file)
    if key_id is None or token_file is not None:
        raise UsageError("Name the key, or the file with leaked tokens.", hint="For the latter: --token-file FILE")
    return await _changed(session, lambda keys: keys.revoke(key_id))


async def _changed(session: Session, change: Callable[[Keys], Awaitable[Key]]) -> dict[str, Any]:
    async with session.keys() as keys:
        return key_document(await change(keys))
