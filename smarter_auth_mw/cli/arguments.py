"""How people write things to the command line: ``KIND:REF``, durations, headers, URLs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import quote, unquote
from uuid import UUID

import typer

from smarter_auth_mw.cli import naming
from smarter_auth_mw.cli.session import Session
from smarter_auth_mw.domain import Resource, Target
from smarter_auth_mw.errors import InvalidReferenceError, RefusedError, UnknownKindError, UsageError
from smarter_auth_mw.postgres.opening import open_store
from smarter_auth_mw.postgres.store import Store
from smarter_auth_mw.tokens import TokenFormat

ResourceName = Annotated[str, typer.Argument(metavar="KIND:REF", help="The resource, for example bot:42.")]
KeyId = Annotated[UUID, typer.Argument(metavar="KEY_ID", help="The key, as `key list` shows it.")]
NoRoute = Annotated[bool, typer.Option("--no-route", help="Also a resource that no route names, or that one hides.")]
Form = Annotated[
    TokenFormat | None,
    typer.Option("--format", help="knox's 64 hexadecimal characters, or sm_… with a checksum.", show_default="knox"),
]
Account = Annotated[str | None, typer.Option("--account", help="The account it belongs to.")]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AS_IT_STANDS = "%!#$&'()*+,/:;=?@[]~"
"""What may stand in a path as it is; a client encodes everything else."""
_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhd])")


async def resource(session: Session, text: str, *, no_route: bool, store: Store | None = None) -> Resource:
    """The resource that ``KIND:REF`` names, spelled as requests name it; a name becomes the reference it stands for.

    Names are looked up in the ``store``, or in one that is opened for it.
    """
    kind, ref = naming.split(text)
    try:
        return naming.routed(session.routes, kind, ref)
    except (UnknownKindError, naming.HiddenResourceError):
        if not no_route:
            raise
    except InvalidReferenceError:
        found = await _named(session, kind, ref, store)
        if found is None:
            raise
        return found
    return naming.unrouted(kind, ref)


async def _named(session: Session, kind: str, name: str, store: Store | None) -> Resource | None:
    """The one resource of this name or host label in the default account."""
    aliases = naming.aliases(session.routes, kind, name, session.settings.default_account)
    if not aliases:
        return None
    async with nullcontext(store) if store else open_store(session.database_settings) as opened:
        for alias in aliases:
            found = (await opened.read(Target(alias))).bindings
            if found.account is not None and not found.resource.ref:
                raise RefusedError(f"Several resources are called {kind}:{name}.", hint="Write the reference of one.")
            if found.account is not None:
                return found.resource
    return None


def check_name(session: Session, kind: str, name: str | None, *, no_route: bool) -> None:
    """Refuse a name that no request could ever reach."""
    if name and not no_route:
        naming.check_name(session.routes, kind, name)


def duration(text: str) -> timedelta:
    """``30s``, ``15m``, ``24h`` or ``30d``."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise UsageError(f"{text!r} is no duration.", hint="Write a number and its unit: 30s, 15m, 24h, 30d.")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def expiry(text: str | None) -> datetime | None:
    """The time that is this duration from now; None: never."""
    if text is None:
        return None
    try:
        return datetime.now(UTC) + duration(text)
    except OverflowError:
        raise UsageError(f"{text!r} is longer than the calendar.", hint="Leave it out for a key for ever.") from None


def headers(lines: Sequence[str]) -> list[tuple[bytes, bytes]]:
    """``Name: value`` lines as a server hands them on; no error repeats a value, since it may be a token."""
    return [_header(line) for line in lines]


def _header(line: str) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(":")
    if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or re.search(r"[\r\n\0]", value):
        raise UsageError("A header is written 'Name: value'.", hint="For example: --header 'Authorization: Token …'")
    return name.lower().encode("ascii"), value.strip(" \t").encode("utf-8", "surrogateescape")


def request_scope(url: str, method: str, given: list[tuple[bytes, bytes]], root_path: str) -> dict[str, Any]:
    """The ASGI scope that a server makes of this request; a path alone is one to localhost."""
    scheme, host, target = _split_url(url)
    path, _, query = target.partition("?")
    raw_path = quote(path.encode("utf-8", "surrogateescape"), safe=_AS_IT_STANDS)
    headers = given if any(name == b"host" for name, _ in given) else [(b"host", host.encode("idna")), *given]
    return {
        "type": "websocket" if scheme.startswith("ws") else "http",
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        "path": unquote(raw_path),
        "raw_path": raw_path.encode("ascii"),
        "query_string": query.encode("utf-8", "surrogateescape"),
        "root_path": root_path,
        "headers": headers,
        "client": ("127.0.0.1", 0),
    }


def _split_url(url: str) -> tuple[str, str, str]:
    """Scheme, host with port, and request target of a URL; nothing is repaired, as ``curl --path-as-is`` does."""
    url = url.partition("#")[0]
    if url.startswith("/"):
        return "http", "localhost", url
    scheme, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    authority, mark, query = authority.partition("?")
    host = authority.rpartition("@")[2]
    if scheme.lower() not in {"http", "https", "ws", "wss"} or not separator or not host:
        raise UsageError(
            f"{url!r} is no URL of a request.", hint="For example: http://localhost:8000/bots/1, or /bots/1"
        )
    return scheme.lower(), host, f"/{mark}{query}" if mark else slash + path or "/"
