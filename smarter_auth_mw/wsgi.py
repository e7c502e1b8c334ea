"""The WSGI shell: decides requests with the same authenticator, on its own event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from smarter_auth_mw.config.settings import Settings
from smarter_auth_mw.decision import Anonymous, Decision, Denial, Grant, Reason
from smarter_auth_mw.domain import Target
from smarter_auth_mw.engine.loop_thread import LoopThread
from smarter_auth_mw.guard import Guard
from smarter_auth_mw.http.app_interface import interface_of
from smarter_auth_mw.http.credentials import API_KEY_HEADER, AUTHORIZATION_HEADER, Headers
from smarter_auth_mw.http.preflights import bare_environ
from smarter_auth_mw.http.rejections import Rejection
from smarter_auth_mw.http.scopes import UnreadableScopeError
from smarter_auth_mw.http.status_pages import StatusPage
from smarter_auth_mw.routing import hosts

DECISION = "smarter_auth.decision"
GRACE_S = 1.0
"""The time that a call to the loop may take in addition to its query, and the deadline for closing the loop."""

NO_ANSWER = StatusPage(b'{"status": "not_ready", "reasons": ["no_answer"]}', 503)

_NOT_KNOWN_YET: Target | Denial | None = Denial(Reason.UNAVAILABLE, detail="which custom domains there are")


def _variable(name: bytes) -> str:
    """Return the WSGI variable of a header; names that differ only in ``-`` and ``_`` share one."""
    return "HTTP_" + name.decode("ascii").upper().replace("-", "_")


_HEADERS = {
    name: _variable(name)
    for name in (
        b"authorization",
        b"x-api-key",
        b"host",
        b"x-forwarded-for",
        b"forwarded",
        b"origin",
        b"access-control-request-method",
    )
}
_CREDENTIALS = {name: _HEADERS[name] for name in (AUTHORIZATION_HEADER, API_KEY_HEADER)}
_FORWARDED = frozenset(_variable(name) for name in hosts.FORWARDED)
_HOSTS = {name: _variable(name) for name in hosts.TELLING}
_ALL = _HEADERS | _HOSTS
_STATUS_LINES = {
    200: "200 OK",
    400: "400 Bad Request",
    401: "401 Unauthorized",
    404: "404 Not Found",
    405: "405 Method Not Allowed",
    429: "429 Too Many Requests",
    503: "503 Service Unavailable",
}


class SmarterAuthWSGIMiddleware:
    """Lets a request for a protected resource pass only with a valid token that is bound to it.

    For ``SmarterAuthWSGIMiddleware(wsgi_app)``; without ``settings`` it is configured by ``SMARTER_AUTH_*`` in the
    environment. Behind it the decision is in ``environ["smarter_auth.decision"]``, and ``REMOTE_USER`` is the
    key's id if the request was granted. While the configuration has mistakes, every path that may be a resource answers
    503.
    """

    def __init__(self, app: WSGIApplication, settings: Settings | None = None) -> None:
        if interface_of(app) == "asgi":
            raise TypeError("This is an ASGI app: wrap it with smarter_auth_mw.SmarterAuthMiddleware.")
        self._guard = Guard(app, settings)
        self._extractor = self._guard.extractors["http"]
        self.app = StatusPageApp(app, self._page) if self._guard.pages else app
        known = self._guard.settings
        self._loop = LoopThread((known.query_timeout_s if known else 0) + GRACE_S, self._guard.close)

    @property
    def settings(self) -> Settings | None:
        """Return the settings in effect; None if the configuration has mistakes."""
        return self._guard.settings

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        decision = None
        try:
            target = self._guard.by_path.young[paths_of(environ)]
            if target is not None:
                decision = self._warm(target, _headers(environ, _CREDENTIALS))
        except (KeyError, UnreadableScopeError):
            return self._answer(environ, start_response)
        if target is None:
            return self.app(environ, start_response)
        if type(decision) is not Grant or not (tally := decision.tally).is_kept:
            return self._answer(environ, start_response)
        tally.once_more()
        return self.app(self._admitted(environ, decision), start_response)

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request that cannot be decided on the fast path."""
        try:
            scope = scope_of(environ, _ALL if self._guard.minds_hosts else _HEADERS)
        except UnreadableScopeError as error:
            return self._refuse(Denial(Reason.NOT_CANONICAL, detail=str(error)), environ, start_response)
        if self._guard.trusted(scope) is not scope:
            environ = {name: value for name, value in environ.items() if name not in _FORWARDED}
            scope = scope_of(environ)
        target = None if self._guard.pages.find(scope) else self._guard.resolve(scope)
        if target is None and not self._guard.is_sure:
            target = self._loop.run(lambda: self._guard.find(scope), _NOT_KNOWN_YET)
        if target is None:
            passing = bare_environ(environ) if self._guard.passes_preflight(scope) else environ
            return self.app(passing, start_response)
        decision = self._decide(target, scope)
        if isinstance(decision, Denial):
            return _reject(self._guard.rejections[decision], environ, start_response)
        return self.app(self._admitted(environ, decision), start_response)

    def _refuse(self, denial: Denial, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Refuse a request whose resource cannot be determined."""
        decision = self._decide(denial, {**_unread_scope(environ), "path": "", "headers": []})
        return _reject(self._guard.rejections[cast("Denial", decision)], environ, start_response)

    def close(self) -> None:
        """Close the connections and end the event loop; this happens automatically when the process ends."""
        self._loop.close()

    def _decide(self, target: Target | Denial, scope: dict[str, Any]) -> Decision:
        decision = target if isinstance(target, Denial) else self._warm(target, scope["headers"])
        if isinstance(decision, Grant | Anonymous):
            self._guard.passed(decision, scope)
            return decision
        refusal: Decision = decision or Denial(Reason.UNAVAILABLE, detail="no answer in time")
        return self._loop.run(lambda: self._cross(target, scope, decision), refusal)

    def _warm(self, target: Target, headers: Headers) -> Decision | None:
        engine = self._loop.kept
        if engine is None:
            return None
        try:
            return engine.authenticator.warm(target, headers, self._extractor)
        except (KeyError, RuntimeError):  # The loop's thread changed the cache during the look-up.
            return None

    async def _cross(self, target: Target | Denial, scope: dict[str, Any], decision: Decision | None) -> Decision:
        settled = await self._guard.settle(target, scope, decision)
        self._loop.kept = self._guard.engines.ready()
        return settled

    def _page(self, environ: WSGIEnvironment) -> StatusPage | None:
        if DECISION in environ:
            return None
        try:
            path, raw_path, root_path = paths_of(environ)
        except UnreadableScopeError:
            return None
        scope = _unread_scope(environ) | {"path": path, "raw_path": raw_path, "root_path": root_path}
        make = self._guard.pages.find(scope)
        return None if make is None else self._loop.run(make, NO_ANSWER)

    def _admitted(self, environ: WSGIEnvironment, decision: Grant | Anonymous) -> WSGIEnvironment:
        """Return a copy of the environ with the principal for the app; a grant replaces an outer ``REMOTE_USER``."""
        outer_user = environ.get("REMOTE_USER")
        if isinstance(decision, Grant):
            added: dict[str, Any] = {DECISION: decision, "REMOTE_USER": decision.principal.identity}
            if outer_user is not None:
                added[DECISION] = Grant(decision.resource, decision.principal, outer_user)
        else:
            added = {DECISION: decision if outer_user is None else Anonymous(decision.resource, outer_user)}
        admitted = {**environ, **added}
        if self._guard.hides_credentials:
            kept = dict(self._guard.extractors["http"].hide(_headers(environ, _CREDENTIALS)))
            for name, variable in _CREDENTIALS.items():
                if name not in kept:
                    admitted.pop(variable, None)
        return admitted


class StatusPageApp:
    """Answers requests for the middleware's own pages, and calls the app for all others."""

    def __init__(self, app: WSGIApplication, find: Callable[[WSGIEnvironment], StatusPage | None]) -> None:
        self.app = app
        self._find = find

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        page = self._find(environ)
        if page is None:
            return self.app(environ, start_response)
        _start(page.status, page.headers, start_response)
        return [_body(page.body, environ)]


def scope_of(environ: WSGIEnvironment, names: Mapping[bytes, str] = _ALL) -> dict[str, Any]:
    """Return the request as an ASGI scope with the headers that routing, credentials and peers read.

    ``PATH_INFO`` lacks ``SCRIPT_NAME``, while ASGI's path includes the root path. The undecoded target is not part of
    WSGI, but most servers provide it.
    """
    path, raw_path, root_path = paths_of(environ)
    return {
        **_unread_scope(environ),
        "path": path,
        "raw_path": raw_path,
        "root_path": root_path,
        "headers": _headers(environ, names),
    }


def _unread_scope(environ: WSGIEnvironment) -> dict[str, Any]:
    """Return the parts of the scope that need no parsing; a method that is not a string becomes an empty one."""
    method, address = environ.get("REQUEST_METHOD"), environ.get("REMOTE_ADDR")
    return {
        "type": "http",
        "method": method if isinstance(method, str) else "",
        "client": (str(address), 0) if address else None,
    }


def paths_of(environ: WSGIEnvironment) -> tuple[str, bytes | None, str]:
    """The path, the raw path and the root path of an ASGI scope; raises UnreadableScopeError if one is not a string."""
    root = environ.get("SCRIPT_NAME") or ""
    target = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    try:
        path = "".join((root, environ.get("PATH_INFO") or ""))
        # Nothing in it becomes a question mark, which would end the path.
        raw_path = target.partition("?")[0].encode("latin-1", "backslashreplace") if target else None
    except (TypeError, AttributeError):
        raise UnreadableScopeError("the server's paths are not all of type str") from None
    return _text(path), raw_path, _text(root)


def _headers(environ: WSGIEnvironment, names: Mapping[bytes, str] = _ALL) -> list[tuple[bytes, bytes]]:
    try:
        return [
            (name, value.encode("latin-1", "replace"))
            for name, variable in names.items()
            if (value := environ.get(variable)) is not None
        ]
    except (TypeError, AttributeError):
        raise UnreadableScopeError("the server's headers are not all of type str") from None


def _text(native: str) -> str:
    """Return the path's bytes as text: WSGI passes them as if they were Latin-1 (PEP 3333).

    Text that is not Latin-1 comes from a server that has decoded it already.
    """
    if native.isascii():
        return native
    try:
        return native.encode("latin-1").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return native


def _reject(rejection: Rejection, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    _start(rejection.status, rejection.headers, start_response)
    return [_body(rejection.body, environ)]


def _body(body: bytes, environ: WSGIEnvironment) -> bytes:
    """The body, or none for HEAD: a server that sends it spoils the connection for the next request."""
    return b"" if environ.get("REQUEST_METHOD") == "HEAD" else body


def _start(status: int, headers: Iterable[tuple[bytes, bytes]], start_response: StartResponse) -> None:
    start_response(
        _STATUS_LINES[status], [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    )
