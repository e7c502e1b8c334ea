"""Explain what the middleware does with a request, and why: the same resolution and decision, with the details."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol
from urllib.parse import quote, unquote

from smarter_auth_mw.decision import Anonymous, Decision, Denial, Grant
from smarter_auth_mw.domain import Alias, Key, Target
from smarter_auth_mw.errors import NotFoundError, UsageError
from smarter_auth_mw.http.credentials import Credentials, Extractor
from smarter_auth_mw.management.documents import Document
from smarter_auth_mw.management.listings import KeyFilters, Listings
from smarter_auth_mw.postgres.store import Store
from smarter_auth_mw.routing.resolution import NOTHING
from smarter_auth_mw.routing.routes import Routes
from smarter_auth_mw.tokens import Token

Authenticate = Callable[[Target, Credentials], Awaitable[Decision]]

MOST_NAMED = 10
"""The most bound resources of a key that are named."""
_AS_IT_STANDS = "%!#$&'()*+,/:;=?@[]~"
"""The characters that may appear unencoded in a path; a client encodes all others."""


_BARE_AUTHORITY = re.compile(
    r"(?:localhost|\[[0-9A-Fa-f:.]+\]|[\w-]+(?:\.[\w-]+)+|[\w.-]+(?=:\d))(?::\d{1,5})?(?:[/?]|$)"
)
"""URLs without a scheme: ``localhost:8000/bots/1``, ``api.example.com/bots/1``."""


class Resolver(Protocol):
    """The part of a middleware that decides about a request without the database."""

    @property
    def routes(self) -> Routes | None: ...
    @property
    def extractors(self) -> Mapping[str, Extractor]: ...
    @property
    def resolve(self) -> Callable[[Mapping[str, Any]], Target | Denial | None]: ...
    def trusted(self, scope: Any) -> Any: ...
    def may_be_custom(self, scope: Mapping[str, Any]) -> bool: ...


class Checker:
    """Explains requests, with the database that ``open_store`` opens when one is needed.

    ``routes_from`` says where the routes come from. ``account`` limits what is shown to the resources and keys of that
    account: any other resource is not found, whether it exists or not. None shows everything.
    """

    def __init__(
        self,
        resolver: Resolver,
        open_store: Callable[[], AbstractAsyncContextManager[Store]],
        authenticator: Callable[[Store], Authenticate],
        *,
        routes_from: str,
        account: str | None = None,
    ) -> None:
        self._resolver = resolver
        self._open_store = open_store
        self._authenticator = authenticator
        self._routes_from = routes_from
        self._account = account

    async def check(self, scope: Mapping[str, Any], token: Token | None = None) -> Document:
        """Describe the decision about the request in ``scope``, the ASGI scope that a server would build.

        With ``token``, it is decided as if the request carried that token, whatever its headers say.
        """
        scope = dict(self._resolver.trusted(scope))
        await self._know_domains(scope)
        decision, detail = await self._decide(scope, token)
        found = {"routes_from": self._routes_from, **self._found(scope), "detail": detail or None}
        return decision_document(decision) | found

    async def _know_domains(self, scope: Mapping[str, Any]) -> None:
        """Look up the custom domains if one of them may name the resource."""
        if self._resolver.routes is not None and self._resolver.may_be_custom(scope):
            async with self._open_store() as store:
                self._resolver.routes.replace_domains(await store.domains())

    async def _decide(self, scope: Mapping[str, Any], token: Token | None) -> tuple[Decision | None, str]:
        """Return the middleware's decision (None: no resource), and a detail for operators."""
        target = self._resolver.resolve(scope)
        if target is None or isinstance(target, Denial):
            return target, target.detail if target else ""
        credentials = token or self._resolver.extractors[scope["type"]](scope["headers"])
        async with self._open_store() as store:
            await self._check_scope(store, target)
            decision = await self._authenticator(store)(target, credentials)
            detail = decision.detail if isinstance(decision, Denial) else ""
            return decision, detail or await self._owner(store, decision, credentials)

    async def _check_scope(self, store: Store, target: Target) -> None:
        if self._account is not None and (await store.read(target)).bindings.account != self._account:
            raise NotFoundError("There is no such resource.")

    async def _owner(self, store: Store, decision: Decision, credentials: Credentials) -> str:
        """Name the key of a token that does not open this resource."""
        if not isinstance(decision, Denial) or not isinstance(credentials, Token):
            return ""
        filters = KeyFilters(token_key=credentials.token_key, state="any")
        for key in (await Listings(store, scope=self._account).keys(filters, limit=1)).items:
            return f"The token begins like one of key {key.name!r} ({key.key_id}), which is bound to {_bound(key)}."
        return "No key has a token with this beginning."

    def _found(self, scope: Mapping[str, Any]) -> Document:
        """Return the line of ROUTES, the reading of the request and the alias that decided."""
        routes = self._resolver.routes
        resolution = routes.explain(scope) if routes else NOTHING
        names = resolution.result.names if isinstance(resolution.result, Target) else None
        return {
            "route": resolution.line or None,
            "reading": resolution.reading or None,
            "alias": str(names) if isinstance(names, Alias) else None,
        }


def decision_document(decision: Decision | None) -> Document:
    """Describe a decision, with the status that the middleware would send; None is a request for no resource."""
    match decision:
        case None:
            words, status = ("pass", "no_resource"), 200
        case Anonymous():
            words, status = ("anonymous", "not_protected"), 200
        case Grant():
            words, status = ("grant", "valid_token"), 200
        case Denial(reason=reason):
            words, status = ("deny", reason.value), reason.status
    resource = decision and decision.resource
    return {
        "resource": str(resource) if resource else None,
        "decision": words[0],
        "reason": words[1],
        "status": status,
    }


def request_scope(
    url: str, method: str = "GET", headers: Sequence[tuple[bytes, bytes]] = (), root_path: str = ""
) -> dict[str, Any]:
    """Build the ASGI scope that a server makes of this request; a path alone is a request to localhost."""
    scheme, host, target = _split_url(url)
    path, _, query = target.partition("?")
    raw_path = quote(path.encode("utf-8", "surrogateescape"), safe=_AS_IT_STANDS)
    if not any(name == b"host" for name, _ in headers):
        headers = [(b"host", host.encode("idna")), *headers]
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
    """Split a URL into scheme, host with port, and request target, as it stands (``curl --path-as-is``)."""
    url = url.partition("#")[0]
    if url.startswith("/"):
        return "http", "localhost", url
    if _BARE_AUTHORITY.match(url):
        url = f"http://{url}"
    scheme, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    authority, mark, query = authority.partition("?")
    host = authority.rpartition("@")[2]
    if scheme.lower() not in {"http", "https", "ws", "wss"} or not separator or not host:
        raise UsageError(
            f"{url!r} is not the URL of a request.", hint="For example: http://localhost:8000/bots/1, or /bots/1"
        )
    return scheme.lower(), host, f"/{mark}{query}" if mark else slash + path or "/"


def _bound(key: Key) -> str:
    named = list(map(str, key.bindings[:MOST_NAMED]))
    return ", ".join([*named, "…"] if len(key.bindings) > MOST_NAMED else named) or "nothing"
