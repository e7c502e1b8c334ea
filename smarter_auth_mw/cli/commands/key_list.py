"""`smarter-auth key list`: list keys, with filters, order and pages."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import typer

from smarter_auth_mw.cli import arguments
from smarter_auth_mw.cli.arguments import Account, NoRoute
from smarter_auth_mw.cli.output import Stream, Summary, note
from smarter_auth_mw.cli.session import Session
from smarter_auth_mw.errors import UsageError
from smarter_auth_mw.management.documents import Document, key_document
from smarter_auth_mw.management.listings import KeyFilters
from smarter_auth_mw.management.listings.filters import MAX_PAGE, Page
from smarter_auth_mw.management.listings.keys import driver_of

Limit = Annotated[
    int | None,
    typer.Option(
        "--limit", min=1, max=MAX_PAGE, help="Print one page of at most this many, for example 100.", show_default="all"
    ),
]
Cursor = Annotated[
    str | None, typer.Option("--cursor", metavar="CURSOR", help="Continue after the previous page, by its `next`.")
]
Labels = Annotated[
    list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="A label, for example team=sales; repeatable.")
]
_SHOWN = ("key_id", "name", "account", "state", "expires_at", "last_used_at", "labels", "tokens", "bindings")
"""The columns printed for people."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyOptions:
    """The filters and the order of a list of keys, as written on the command line."""

    resource: Annotated[
        str | None, typer.Option("--resource", metavar="KIND:REF", help="List keys that are bound to this resource.")
    ] = None
    account: Account = None
    state: Annotated[
        Literal["active", "inactive", "expired", "revoked", "any"] | None,
        typer.Option(
            "--state",
            help="List keys in this state. By default the whole list ends with revoked keys, and pages omit them.",
        ),
    ] = None
    find: Annotated[
        str | None,
        typer.Option(
            "--find",
            metavar="PREFIX",
            help="List keys whose name begins with this text. A to Z match a to z, other letters only themselves.",
        ),
    ] = None
    label: Labels = None
    expiring: Annotated[
        str | None,
        typer.Option("--expiring", metavar="DURATION", help="List keys that expire within this time, for example 30d."),
    ] = None
    never_expires: Annotated[bool, typer.Option("--never-expires", help="List keys without an expiry.")] = False
    unused_for: Annotated[
        str | None,
        typer.Option(
            "--unused-for",
            metavar="DURATION",
            help="List keys not used (and not created) for this long, for example 90d.",
        ),
    ] = None
    never_used: Annotated[bool, typer.Option("--never-used", help="List keys that were never used.")] = False
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than", metavar="DURATION", help="List keys created longer ago than this, for example 90d."
        ),
    ] = None
    max_lifetime: Annotated[
        str | None,
        typer.Option(
            "--max-lifetime", metavar="DURATION", help="List keys with a valid token older than this, for example 90d."
        ),
    ] = None
    rotating: Annotated[
        bool, typer.Option("--rotating", help="List keys whose previous token is still valid after a rotation.")
    ] = False
    sort: Annotated[
        Literal["name", "created_at", "-created_at"] | None,
        typer.Option("--sort", help="The order; - for newest first.", show_default="by the filters"),
    ] = None

    async def filters(self, session: Session, *, no_route: bool) -> KeyFilters:
        """Return the filters with the resource looked up and the durations read."""
        resource = self.resource and await arguments.resource(session, self.resource, no_route=no_route)
        return KeyFilters(
            resource=resource or None,
            account=self.account,
            state=self.state,
            find=self.find,
            labels=arguments.labels(self.label or ()),
            expiring_within=arguments.span(self.expiring),
            never_expires=self.never_expires,
            unused_for=arguments.span(self.unused_for),
            never_used=self.never_used,
            older_than=arguments.span(self.older_than),
            token_older_than=arguments.span(self.max_lifetime),
            rotating=self.rotating,
            sort=self.sort,
        )


async def list_(
    session: Session, *, options: KeyOptions, limit: Limit = None, cursor: Cursor = None, no_route: NoRoute = False
) -> Document | Summary | Stream:
    """List keys, without their tokens: all, or one page.

    Example: smarter-auth key list --expiring 30d
    """
    filters = await options.filters(session, no_route=no_route)
    if limit is None:
        check_no_cursor(cursor)
        return Stream(_every(session, filters), _row)
    async with session.listings() as listings:
        page = await listings.keys(filters, limit=limit, cursor=cursor)
    return page_of(session, page, [key_document(key) for key in page.items], _row)


async def _every(session: Session, filters: KeyFilters) -> AsyncGenerator[Document]:
    """Yield the whole list; without a state it includes revoked keys, at the end."""
    lists = [filters]
    if filters.state is None and filters.sort is None and driver_of(filters) in ("name", "label", "resource"):
        lists.append(replace(filters, state="revoked"))
    async with session.listings() as listings:
        for one in lists:
            async for key in listings.every_key(one):
                yield key_document(key)


def _row(document: Document) -> dict[str, Any]:
    labels = [f"{name}={value}" for name, value in document["labels"].items()]
    return {name: labels if name == "labels" else document[name] for name in _SHOWN}


def check_no_cursor(cursor: str | None) -> None:
    """Refuse a cursor without a page size."""
    if cursor is not None:
        raise UsageError("--cursor continues a page, so it needs --limit.", hint="Add --limit N.")


def page_of(session: Session, page: Page[Any], documents: Sequence[Document], row: Any) -> Summary:
    """Return one page, with the cursor of the next one; people get the cursor on stderr."""
    if page.next is not None and not session.as_json:
        note(f"There may be more: --cursor {page.next}")
    return Summary([row(document) for document in documents], {"items": documents, "next": page.next})
