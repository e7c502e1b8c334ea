"""The forward-auth shell: answers a proxy's question about a request with a status and headers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from starlette.types import Receive, Scope, Send

from smarter_auth_mw.config.settings import Settings
from smarter_auth_mw.decision import Decision, Denial, Grant, Reason
from smarter_auth_mw.domain import Resource, Target
from smarter_auth_mw.gate.dialects import OWN_TARGET, Dialect, MisreadError
from smarter_auth_mw.guard import Guard
from smarter_auth_mw.http.credentials import Header
from smarter_auth_mw.http.preflights import is_bare
from smarter_auth_mw.http.scopes import UNUSUAL, UnreadableScopeError, is_usual, mended, readable_part
from smarter_auth_mw.log import log
from smarter_auth_mw.routing import hosts

IDENTITY = (
    b"x-smarter-auth-resource",
    b"x-smarter-auth-key-id",
    b"x-smarter-auth-key-name",
    b"x-smarter-auth-account",
)
"""The headers with the principal, for the service behind the proxy: always sent, empty for anonymous requests."""
STATUS = b"x-smarter-auth-status"
"""The true status of a refusal, for a proxy that only supports 401 and 403."""

UNAUTHORIZED, FORBIDDEN = 401, 403

_PRINTABLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
_NOBODY: list[Header] = [(name, b"") for name in IDENTITY]
_UNCACHED: list[Header] = [(b"cache-control", b"no-store"), (b"content-length", b"0")]
Passed = tuple[Header, ...]


class ForwardAuth:
    """Tells a proxy, on any path, whether a request may pass: for services in any language.

    An ASGI app. ``dialect`` names the headers in which the proxy describes the request. A response of 200 lets it
    pass; any other is the middleware's refusal, with its status, challenge and body. Without ``settings`` it is
    configured by ``SMARTER_AUTH_*`` in the environment. It never raises for a mistake there:
    ``lifespan.startup.failed`` reports it, and without lifespan every path that may be a resource answers 503.
    """

    def __init__(self, dialect: Dialect, settings: Settings | None = None) -> None:
        self._dialect = dialect
        self._guard = Guard(None, settings)
        self._misread: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":  # Proxies never ask this way.
            await receive()
            await send({"type": "websocket.close"})
        else:
            await self._answer(scope, send)

    async def _answer(self, scope: Scope, send: Send) -> None:
        passed = self._pass_at_once(scope)
        if passed is not None:
            await _send(send, 200, list(passed))
            return
        try:
            scope = scope if is_usual(scope) else mended(scope)
        except UnreadableScopeError:
            await self._reject(Denial(Reason.NOT_CANONICAL), readable_part(scope), send)
            return
        try:
            asked = self._dialect.read(scope)
        except MisreadError as error:
            if self._dialect.describes_another(scope) or not await self._show_page(scope, send):
                self._report(error)
                await self._reject(Denial(Reason.NOT_CANONICAL), scope, send)
            return
        decision = await self._decide(asked)
        if isinstance(decision, Denial):
            await self._reject(decision, scope, send)
            return
        if decision is None and self._dialect.uri == OWN_TARGET and await self._show_page(scope, send):
            return
        await _send(send, 200, [*_UNCACHED, *identity(decision)])

    def _pass_at_once(self, scope: Scope) -> Passed | None:
        """Return the headers of an answer that lets a request pass, if its path and its token are known already.

        ``Guard.by_path`` remembers a path only where nothing else of a request decides what it names.
        """
        try:
            raw_path = self._dialect.plain_path(scope)
            target = raw_path and self._guard.by_path.young[raw_path.decode("ascii"), raw_path, ""]
            if not isinstance(target, Target) or (engine := self._guard.engines.ready()) is None:
                return None
            decision = engine.authenticator.warm(target, scope["headers"], self._guard.extractors["http"])
        except UNUSUAL:
            return None
        if type(decision) is not Grant or not decision.tally.is_kept:
            return None
        decision.tally.once_more()
        principal = decision.principal
        return _passed(decision.resource, principal.key_id, principal.key_name, principal.account)

    async def _decide(self, asked: Scope) -> Decision | None:
        """Return the decision for the original request; None if it names no resource."""
        # The dialect's headers have been read; other headers with a host or a path may come from the client.
        # Status pages belong to the gate, not to the service: this mark excludes them.
        request = {**hosts.without_forwarded(asked), "smarter_auth": None}
        target = await self._guard.find(request)
        if (
            self._guard.passes_preflight(request)
            and not is_bare(asked, self._dialect.own_headers)
            and self._guard.routes
        ):
            target = self._guard.routes.resolve(
                request
            )  # Browsers do not ask like this, and the proxy passes it on unchanged.
        if target is None:
            return None
        asked = {**asked, "type": _kind(asked)}
        return await self._guard.settle(target, asked, self._guard.warm(target, asked))

    async def _show_page(self, scope: Scope, send: Send) -> bool:
        """Answer a probe of the gate itself (live, ready, metrics); return whether it was one."""
        make = self._guard.pages.find(scope)
        if make is None:
            return False
        page = await make()
        await _send(send, page.status, [*page.headers, *_NOBODY], _body(page.body, scope))
        return True

    async def _reject(self, denial: Denial, scope: Scope, send: Send) -> None:
        rejection = self._guard.rejections[denial]
        status, headers = rejection.status, [*rejection.headers, *_NOBODY]
        if self._dialect.knows_two_refusals:
            headers.append((STATUS, str(status).encode("ascii")))
            status = status if status == UNAUTHORIZED else FORBIDDEN
        await _send(send, status, headers, _body(rejection.body, scope))

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        if obstacle := self._guard.obstacle():
            await send({"type": "lifespan.startup.failed", "message": str(obstacle)})
            raise obstacle
        await self._guard.open()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._guard.close()
        await send({"type": "lifespan.shutdown.complete"})

    def _report(self, error: MisreadError) -> None:
        """Log each mistake once: it is in the proxy's configuration, and thus in every request."""
        if str(error) not in self._misread:
            self._misread.add(str(error))
            log(
                "gate.misread",
                "%s: this request is not in the dialect %s; send health checks to LIVE_PATH or READY_PATH,"
                " and start the gate with the --dialect of your proxy",
                error,
                self._dialect.name,
            )


def identity(decision: Decision | None) -> Iterable[Header]:
    """Return the principal's headers in printable ASCII; everything else, and ``%``, is percent-encoded UTF-8."""
    if not isinstance(decision, Grant):
        return _NOBODY
    principal = decision.principal
    return _identity(decision.resource, principal.key_id, principal.key_name, principal.account)


def _identity(resource: Resource, key_id: str, key_name: str, account: str) -> Iterable[Header]:
    return zip(IDENTITY, map(_printable, (str(resource), key_id, key_name, account)), strict=True)


@lru_cache(maxsize=10_000)
def _passed(resource: Resource, key_id: str, key_name: str, account: str) -> Passed:
    """Return the headers of an answer that lets such a request pass; quoting them costs as much as deciding."""
    return (*_UNCACHED, *_identity(resource, key_id, key_name, account))


def _printable(text: str) -> bytes:
    return quote(text, safe=_PRINTABLE).encode("ascii")


def _kind(asked: Mapping[str, Any]) -> str:
    """Return the type of the original request: a browser's WebSocket may carry its token as a subprotocol."""
    return "websocket" if any(name == b"sec-websocket-key" for name, _ in asked["headers"]) else "http"


def _body(body: bytes, scope: Scope) -> bytes:
    """Return the body, or none for HEAD, which Envoy passes on unchanged."""
    return b"" if scope["method"] == "HEAD" else body


async def _send(send: Send, status: int, headers: list[Header], body: bytes = b"") -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
