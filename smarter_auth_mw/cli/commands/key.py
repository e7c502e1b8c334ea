"""`smarter-auth key`: create, bind, deactivate and revoke keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any
from uuid import UUID

import typer

from smarter_auth_mw.cli import arguments
from smarter_auth_mw.cli.arguments import Account, AllowAnonymous, KeyName, NoRoute, ResourceName, TokenOptions
from smarter_auth_mw.cli.commands.key_leaks import revoke_leaked
from smarter_auth_mw.cli.commands.key_list import Labels, list_
from smarter_auth_mw.cli.commands.key_many import Selection, change_many
from smarter_auth_mw.cli.decorator import command
from smarter_auth_mw.cli.output import note
from smarter_auth_mw.cli.session import Session
from smarter_auth_mw.domain import Key
from smarter_auth_mw.errors import UsageError
from smarter_auth_mw.management.documents import key_document
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.management.many_keys import ManyKeys
from smarter_auth_mw.management.resources import UNCHANGED

KeyOrNone = Annotated[str | None, typer.Argument(metavar="KEY", help="The key: its id, or its name if that is unique.")]

group = typer.Typer(
    help="Manage API keys.",
    epilog="Example: smarter-auth key create --name laptop --bind bot:1",
    rich_markup_mode=None,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class NewKeyOptions:
    """Options that describe a new key."""

    name: Annotated[str, typer.Option("--name", help="The name, unique within its account.")]
    account: Account = None
    description: Annotated[str, typer.Option("--description", help="What the key is for.")] = ""
    expires_in: Annotated[
        str | None,
        typer.Option(
            "--expires-in",
            metavar="WHEN",
            help="Expire after 30s, 15m, 24h or 30d, or on a date.",
            show_default="never",
        ),
    ] = None
    label: Labels = None
    bind: Annotated[
        list[str] | None,
        typer.Option(
            "--bind", metavar="KIND:REF", help="A resource to bind the key to, for example bot:1; repeatable."
        ),
    ] = None
    no_route: NoRoute = False


@command(group, "create")
async def create(
    session: Session,
    *,
    options: NewKeyOptions,
    minting: TokenOptions,
    max_lifetime: Annotated[
        str | None,
        typer.Option(
            "--max-lifetime",
            metavar="DURATION",
            help="Refuse a key that would be valid for longer than this, for example 90d.",
        ),
    ] = None,
) -> dict[str, Any]:
    """Create a key and print its token, which is shown only once.

    Example: smarter-auth key create --name laptop --bind bot:1 --expires-in 90d
    """
    expires_at, longest = arguments.expiry(options.expires_in), arguments.span(max_lifetime)
    bind = [await arguments.resource(session, text, no_route=options.no_route) for text in options.bind or ()]
    async with session.keys() as keys:
        minted = await keys.create(
            options.name,
            account=options.account,
            description=options.description,
            expires_at=expires_at,
            labels=arguments.labels(options.label or ()),
            bind=bind,
            form=minting.form,
            prefix=minting.prefix,
            max_lifetime=longest,
        )
    for resource in minted.key.bindings:
        session.tell_bound(resource, created=resource in minted.created)
    note("The token is shown only now, and stored nowhere.")
    document = key_document(minted.key)
    for obvious in ("tokens", "token_valid", "revoked_at"):
        del document[obvious]
    secret = {"token": minted.token.reveal(), "token_key": document.pop("token_key")}
    return {"key_id": document.pop("key_id"), **secret, **document, "created": bool(minted.created)}


command(group, "list", takes_actor=False)(list_)


@command(group, "show", takes_actor=False)
async def show(session: Session, key: KeyName) -> dict[str, Any]:
    """Show a key, without its tokens.

    Example: smarter-auth key show laptop
    """
    async with session.keys() as keys:
        return key_document(await keys.key(await arguments.key_id(session, key)))


@command(group, "bind")
async def bind(
    session: Session,
    key: KeyName,
    resource: ResourceName,
    *,
    allow_anonymous: AllowAnonymous = False,
    no_route: NoRoute = False,
) -> dict[str, Any]:
    """Bind a key to a resource, which requires a token from now on.

    Example: smarter-auth key bind laptop bot:1
    """
    named = await arguments.resource(session, resource, no_route=no_route)
    async with session.keys() as keys:
        bound = await keys.bind(await arguments.key_id(session, key), named, allow_anonymous=allow_anonymous)
    session.tell_bound(named, created=bound.created)
    return key_document(bound.key) | {"created": bound.created}


@command(group, "unbind")
async def unbind(
    session: Session,
    key: KeyName,
    resource: ResourceName,
    *,
    allow_anonymous: AllowAnonymous = False,
    no_route: NoRoute = False,
) -> dict[str, Any]:
    """Unbind a key from a resource; the last key needs --allow-anonymous.

    Example: smarter-auth key unbind laptop bot:1
    """
    named = await arguments.resource(session, resource, no_route=no_route)
    async with session.keys() as keys:
        unbound = await keys.unbind(await arguments.key_id(session, key), named, allow_anonymous=allow_anonymous)
        if not (await keys.resource(named, most=1)).is_protected:
            note(f"{named} is open to anyone now.")
    return key_document(unbound)


@command(group, "set")
async def set_(
    session: Session,
    key: KeyName,
    *,
    name: Annotated[str | None, typer.Option("--name", help="The new name.")] = None,
    description: Annotated[str | None, typer.Option("--description", help="The new description.")] = None,
    label: Labels = None,
    unlabel: Annotated[
        list[str] | None, typer.Option("--unlabel", metavar="NAME", help="Remove this label; repeatable.")
    ] = None,
    expires_in: Annotated[
        str | None,
        typer.Option("--expires-in", metavar="WHEN", help="Expire after 30s, 15m, 24h or 30d, on a date, or never."),
    ] = None,
) -> dict[str, Any]:
    """Change the name, description, labels or expiry of a key.

    Example: smarter-auth key set laptop --label team=sales --expires-in 90d
    """
    expires_at = None if expires_in == "never" else arguments.expiry(expires_in)
    labels = arguments.labels(label or ())
    if both := sorted(labels.keys() & set(unlabel or ())):
        raise UsageError(f"The label {both[0]!r} is in both --label and --unlabel.")
    async with session.keys() as keys:
        changed = await keys.set_key(
            await arguments.key_id(session, key),
            name=UNCHANGED if name is None else name,
            description=UNCHANGED if description is None else description,
            expires_at=UNCHANGED if expires_in is None else expires_at,
            labels={**dict.fromkeys(unlabel or ()), **labels},
        )
    return key_document(changed)


@command(group, "activate")
async def activate(session: Session, key: KeyName) -> dict[str, Any]:
    """Reactivate a key.

    Example: smarter-auth key activate laptop
    """
    return await _changed(session, key, Management.activate)


@command(group, "deactivate")
async def deactivate(
    session: Session,
    key: KeyOrNone = None,
    *,
    allow_anonymous: AllowAnonymous = False,
    selection: Selection,
) -> dict[str, Any]:
    """Deactivate a key, or all keys that match the filters, until they are activated again; resources stay protected.

    Example: smarter-auth key deactivate laptop
    """
    if key is None:
        return await change_many(
            session, selection, "deactivated", partial(ManyKeys.deactivate, allow_anonymous=allow_anonymous)
        )
    selection.check_alone()
    return await _changed(session, key, partial(Management.deactivate, allow_anonymous=allow_anonymous))


@command(group, "revoke")
async def revoke(
    session: Session,
    key: KeyOrNone = None,
    *,
    token_file: Annotated[
        str | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help="Revoke the keys of the tokens in this file, one per line; - for stdin.",
        ),
    ] = None,
    selection: Selection,
) -> dict[str, Any]:
    """Revoke a key, the keys of leaked tokens, or all keys that match the filters; resources stay protected.

    Example: smarter-auth key revoke laptop
    """
    if key is None and token_file is None:
        return await change_many(session, selection, "revoked", ManyKeys.revoke)
    selection.check_alone()
    if token_file is not None and key is None:
        return await revoke_leaked(session, token_file)
    if key is None or token_file is not None:
        raise UsageError("Name the key, or the file with leaked tokens.", hint="For the latter: --token-file FILE")
    return await _changed(session, key, Management.revoke)


async def _changed(session: Session, key: str, change: Callable[[Management, UUID], Awaitable[Key]]) -> dict[str, Any]:
    key_id = await arguments.key_id(session, key)
    async with session.keys() as keys:
        return key_document(await change(keys, key_id))
