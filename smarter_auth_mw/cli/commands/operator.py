"""`smarter-auth operator`: who may use the management API and its pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from smarter_auth_mw.cli import arguments
from smarter_auth_mw.cli.decorator import command
from smarter_auth_mw.cli.output import Summary, note
from smarter_auth_mw.cli.session import Session, os_user
from smarter_auth_mw.errors import UsageError
from smarter_auth_mw.management.documents import Document, operator_document
from smarter_auth_mw.management.operators import MintedOperator, Operators, Role
from smarter_auth_mw.management.resources import UNCHANGED
from smarter_auth_mw.postgres.opening import open_store

Name = Annotated[str, typer.Argument(metavar="NAME", help="The operator's name, for example alice.")]
Within = Annotated[
    str | None,
    typer.Option("--account", help="Limit the operator to the keys and resources of this account.", show_default="all"),
]
ExpiresIn = Annotated[
    str | None, typer.Option("--expires-in", metavar="DURATION", help="Expire after 30s, 15m, 24h or 30d.")
]
_ROLE_HELP = "viewer reads; manager also changes keys and protects resources; admin also opens resources."

group = typer.Typer(
    help="Manage operators, who may use the management API. Needs the database URL of the schema's owner.",
    epilog="Example: smarter-auth operator create --name alice --role viewer",
    rich_markup_mode=None,
)


@command(group, "create")
async def create(
    session: Session,
    *,
    name: Annotated[str, typer.Option("--name", help="A unique name; the audit uses it.")],
    role: Annotated[Role, typer.Option("--role", help=_ROLE_HELP)],
    account: Within = None,
    expires_in: ExpiresIn = None,
) -> Document:
    """Create an operator and print the token, which is shown only once.

    Example: smarter-auth operator create --name alice --role manager
    """
    expires_at = arguments.expiry(expires_in)
    async with _operators(session) as operators:
        return _minted(await operators.create(name, role, account=account, expires_at=expires_at))


@command(group, "list", takes_actor=False)
async def list_(session: Session) -> Summary:
    """List all operators, including revoked ones.

    Example: smarter-auth operator list
    """
    async with _operators(session) as operators:
        documents = [operator_document(operator) for operator in await operators.all()]
    return Summary([_row(document) for document in documents], documents)


@command(group, "set")
async def set_(
    session: Session,
    name: Name,
    *,
    role: Annotated[Role | None, typer.Option("--role", help=_ROLE_HELP)] = None,
    account: Annotated[str | None, typer.Option("--account", help="Limit the operator to this account.")] = None,
    all_accounts: Annotated[bool, typer.Option("--all-accounts", help="Give access to every account.")] = False,
    expires_in: Annotated[
        str | None,
        typer.Option("--expires-in", metavar="DURATION", help="Expire after 30s, 15m, 24h or 30d, or never."),
    ] = None,
) -> Document:
    """Change the role, account or expiry of an operator, from the next request on.

    Example: smarter-auth operator set alice --role viewer
    """
    if account is not None and all_accounts:
        raise UsageError("Use --account or --all-accounts, not both.")
    expires_at = None if expires_in == "never" else arguments.expiry(expires_in)
    async with _operators(session) as operators:
        changed = await operators.set(
            name,
            role=role or UNCHANGED,
            account=None if all_accounts else UNCHANGED if account is None else account,
            expires_at=UNCHANGED if expires_in is None else expires_at,
        )
    return operator_document(changed)


@command(group, "rotate")
async def rotate(
    session: Session,
    name: Name,
    *,
    overlap: Annotated[
        str,
        typer.Option(
            "--overlap",
            metavar="DURATION",
            help="How long earlier tokens stay valid, for example 24h; 0s to end them at once.",
        ),
    ] = "0s",
) -> Document:
    """Give an operator a new token and print it, once; earlier tokens and their sessions end.

    Example: smarter-auth operator rotate alice
    """
    span = timedelta(0) if overlap in ("0", "0s") else arguments.duration(overlap)
    async with _operators(session) as operators:
        return _minted(await operators.rotate(name, span))


@command(group, "revoke")
async def revoke(session: Session, name: Name) -> Document:
    """Revoke an operator for good, with all tokens and sessions.

    Example: smarter-auth operator revoke alice
    """
    async with _operators(session) as operators:
        return operator_document(await operators.revoke(name))


@asynccontextmanager
async def _operators(session: Session) -> AsyncIterator[Operators]:
    settings = session.database_settings
    async with open_store(settings, "owner") as store:
        yield Operators(store, session.actor or os_user(), longest_life=settings.longest_key_life)


def _minted(minted: MintedOperator) -> Document:
    note("The token is shown only now, and stored nowhere.")
    document = operator_document(minted.operator)
    secret = {"token": minted.token.reveal(), "token_key": minted.token.token_key}
    names = ("operator_id", "name", "role", "account", "expires_at")
    return {name: document[name] for name in names} | secret


def _row(document: Document) -> dict[str, Any]:
    tokens = document["tokens"]
    used = [token["last_used_at"] for token in tokens if token["last_used_at"]]
    return {
        "name": document["name"],
        "role": document["role"],
        "account": document["account"] or "all accounts",
        "state": document["state"],
        "expires_at": document["expires_at"],
        "last_used_at": max(used, default=None),
        "tokens": sum(_is_valid(token) for token in tokens),
    }


def _is_valid(token: Document) -> bool:
    return token["valid_until"] is None or datetime.fromisoformat(token["valid_until"]) > datetime.now(UTC)
