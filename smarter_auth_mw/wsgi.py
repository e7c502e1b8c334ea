"""The WSGI shell: environ in, decision out; the same authenticator, on an event loop of its own."""

from __future__ import annotations

import atexit
import multiprocessing.util
import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar
from weakref import WeakSet
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import anyio
from anyio.from_thread import BlockingPortal

from smarter_auth_mw.authentication.authenticator import Authenticator
from smarter_auth_mw.config.settings import Settings
from smarter_auth_mw.decision import Anonymous, Decision, Denial, Grant, Reason
from smarter_auth_mw.domain import Target
from smarter_auth_mw.guard import Wiring
from smarter_auth_mw.http.app_interface import interface_of
from smarter_auth_mw.http.credentials import API_KEY_HEADER, AUTHORIZATION_HEADER, Headers, Rejection
from smarter_auth_mw.http.status_pages import Page
from smarter_auth_mw.routing import hosts

DECISION = "smarter_auth.decision"
GRACE_S = 1.0
"""What a crossing may take beyond the query that it waits for, and the loop to close what it has open."""

NO_ANSWER = Page(b'{"status": "not_ready", "reasons": ["no_answer"]}', 503)

T = TypeVar("T")

_NOT_KNOWN_YET: Target | Denial | None = Denial(Reason.UNAVAILABLE, detail="which custom domains there are")


def _variable(name: bytes) -> str:
    """Where WSGI has a header; names that differ only in ``-`` and ``_`` are one."""
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
    environment. Behind it the decision stands in ``environ["smarter_auth.decision"]``, and ``REMOTE_USER`` holds the
    key's id where one was granted. What may be a resource answers 503 while the configuration has mistakes.
    """

    def __init__(self, app: WSGIApplication, settings: Settings | None = None) -> None:
        if interface_of(app) == "asgi":
            raise TypeError("This is an ASGI app: wrap it with smarter_auth_mw.SmarterAuthMiddleware.")
        self._wiring = Wiring(app, settings)
        self._extractor = self._wiring.extractors["http"]
        self.app = PagedApp(app, self._page) if self._wiring.pages else app
        known = self._wiring.settings
        self._loop = LoopThread((known.query_timeout_s if known else 0) + GRACE_S, self._wiring.close)

    @property
    def settings(self) -> Settings | None:
        """What it is configured by; None where the configuration has mistakes."""
        return self._wiring.settings

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            target = self._wiring.by_path.young[paths_of(environ)]
        except KeyError:
            return self._answer(environ, start_response)
        if target is None:
            return self.app(environ, start_response)
        decision = self._warm(target, _headers(environ, _CREDENTIALS))
        if type(decision) is not Grant or not (tally := decision.tally).is_kept:
            return self._answer(environ, start_response)
        tally.once_more()
        return self.app(self._admitted(environ, decision), start_response)

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer what is to be looked at more closely."""
        scope = scope_of(environ, _ALL if self._wiring.minds_hosts else _HEADERS)
        if self._wiring.trusted(scope) is not scope:
            environ = {name: value for name, value in environ.items() if name not in _FORWARDED}
            scope = scope_of(environ)
        target = self._wiring.resolve(scope)
        if target is None and not self._wiring.is_sure:
            target = self._loop.run(lambda: self._wiring.resolve_surely(scope), _NOT_KNOWN_YET)
        if target is None:
            return self.app(environ, start_response)
        decision = self._decide(target, scope)
        if isinstance(decision, Denial):
            decision = self._denied(decision, scope)
            return _reject(self._wiring.rejections[decision], start_response)
        self._wiring.passed(decision, scope)
        return self.app(self._admitted(environ, decision), start_response)

    def close(self) -> None:
        """Close the connections and end the event loop; done by itself when the process ends."""
        self._loop.close()

    def _decide(self, target: Target | Denial, scope: dict[str, Any]) -> Decision:
        if isinstance(target, Denial):
            return target
        decision = self._warm(target, scope["headers"])
        if decision is not None:
            return decision
        unavailable: Decision = Denial(Reason.UNAVAILABLE, detail="no answer in time")
        return self._loop.run(lambda: self._cross(target, scope), unavailable)

    def _warm(self, target: Target, headers: Headers) -> Decision | None:
        authenticator = self._loop.kept
        if authenticator is None:
            return None
        try:
            return authenticator.warm(target, headers, self._extractor)
        except (KeyError, RuntimeError):  # The loop's thread changed under us what we were looking at.
            return None

    async def _cross(self, target: Target, scope: dict[str, Any]) -> Decision:
        decision = await self._wiring.authenticate(target, scope)
        self._loop.kept = self._wiring.authenticator()
        return decision

    def _page(self, environ: WSGIEnvironment) -> Page | None:
        make = None if DECISION in environ else self._wiring.pages.find(scope_of(environ))
        return None if make is None else self._loop.run(make, NO_ANSWER)

    def _denied(self, denial: Denial, scope: dict[str, Any]) -> Denial:
        return self._loop.run(lambda: self._wiring.denied(denial, scope), denial)

    def _admitted(self, environ: WSGIEnvironment, decision: Grant | Anonymous) -> WSGIEnvironment:
        """A copy of the environ that tells the app who is there; an outer ``REMOTE_USER`` gives way to a grant."""
        outer_user = environ.get("REMOTE_USER")
        if isinstance(decision, Grant):
            told: dict[str, Any] = {DECISION: decision, "REMOTE_USER": decision.principal.identity}
            if outer_user is not None:
                told[DECISION] = Grant(decision.resource, decision.principal, outer_user)
        else:
            told = {DECISION: decision if outer_user is None else Anonymous(decision.resource, outer_user)}
        admitted = {**environ, **told}
        if self._wiring.hides_credentials:
            kept = dict(self._wiring.extractors["http"].hide(_headers(environ)))
            for name, variable in _CREDENTIALS.items():
                if name not in kept:
                    admitted.pop(variable, None)
        return admitted


class PagedApp:
    """Answers for the middleware's own pages, and calls the app for all else."""

    def __init__(self, app: WSGIApplication, find: Callable[[WSGIEnvironment], Page | None]) -> None:
        self.app = app
        self._find = find

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        page = self._find(environ)
        if page is None:
            return self.app(environ, start_response)
        _start(page.status, page.headers, start_response)
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else page.body]


def scope_of(environ: WSGIEnvironment, names: Mapping[bytes, str] = _ALL) -> dict[str, Any]:
    """The request as routing, credentials and peers read it: an ASGI scope with the headers that they look at.

    ``PATH_INFO`` lacks ``SCRIPT_NAME``, ASGI's path holds its root. The undecoded target is no part of WSGI, but most
    servers tell it.
    """
    path, raw_path, root_path = paths_of(environ)
    return {
        "type": "http",
        "method": environ["REQUEST_METHOD"],
        "path": path,
        "raw_path": raw_path,
        "root_path": root_path,
        "headers": _headers(environ, names),
        "client": (environ["REMOTE_ADDR"], 0) if environ.get("REMOTE_ADDR") else None,
    }


def paths_of(environ: WSGIEnvironment) -> tuple[str, bytes | None, str]:
    """The path, the raw path and the root path of an ASGI scope."""
    root = environ.get("SCRIPT_NAME", "")
    target = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    raw_path = None if target is None else target.encode("latin-1", "replace").partition(b"?")[0]
    return _text(root + environ.get("PATH_INFO", "")), raw_path, _text(root)


def _headers(environ: WSGIEnvironment, names: Mapping[bytes, str] = _ALL) -> list[tuple[bytes, bytes]]:
    return [
        (name, value.encode("latin-1", "replace"))
        for name, variable in names.items()
        if (value := environ.get(variable)) is not None
    ]


def _text(native: str) -> str:
    """What stands in the path, where WSGI hands bytes as if they were Latin-1 (PEP 3333)."""
    return native if native.isascii() else native.encode("latin-1", "replace").decode("utf-8", "replace")


def _reject(rejection: Rejection, start_response: StartResponse) -> list[bytes]:
    _start(rejection.status, rejection.headers, start_response)
    return [rejection.body]


def _start(status: int, headers: Iterable[tuple[bytes, bytes]], start_response: StartResponse) -> None:
    start_response(
        _STATUS_LINES[status], [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    )


class LoopThread:
    """One event loop on a thread of its own, made by the first call of the process that serves.

    A forked child makes its own: an inherited one would have no thread. ``closing`` runs on the loop at the end.
    """

    def __init__(self, timeout_s: float, closing: Callable[[], Awaitable[None]]) -> None:
        self.kept: Authenticator | None = None
        """The loop's own, which other threads may ask for what it has at hand."""
        self._timeout_s = timeout_s
        self._closing = closing
        self._portal: BlockingPortal | None = None
        self._pid = 0
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._forget)
        _threads.add(self)

    def run(self, call: Callable[[], Awaitable[T]], otherwise: T) -> T:
        """What the call returns on the loop, or ``otherwise`` where it takes too long."""
        future: Future[T] = self._opened().start_task_soon(call)
        try:
            return future.result(self._timeout_s)
        except FutureTimeoutError:
            future.cancel()
            return otherwise

    def close(self) -> None:
        """Close what the loop has open, and end it."""
        portal, self._portal = self._portal, None
        if portal is not None and self._pid == os.getpid():
            portal.start_task_soon(portal.stop)
            self._thread.join(self._timeout_s)

    def _opened(self) -> BlockingPortal:
        with self._lock:
            if self._portal is None:
                ready: Future[BlockingPortal] = Future()
                # A daemon, since the interpreter would wait for any other one before it lets us say goodbye.
                self._thread = threading.Thread(target=anyio.run, args=(self._serve, ready), daemon=True)
                self._thread.name = "smarter_auth_mw"
                self._thread.start()
                self._portal, self._pid = ready.result(), os.getpid()
                _at_exit(self.close)
            return self._portal

    async def _serve(self, ready: Future[BlockingPortal]) -> None:
        async with BlockingPortal() as portal:
            ready.set_result(portal)
            await portal.sleep_until_stopped()
        await self._closing()

    def _forget(self) -> None:
        self._portal, self.kept, self._lock = None, None, threading.Lock()


def close_all() -> None:
    """Close what the middlewares of this process have open: for servers that end without Python's own goodbye."""
    for thread in list(_threads):
        thread.close()


def _at_exit(call: Callable[[], None]) -> None:
    """Have it called when the process ends; children of ``multiprocessing`` end without asking ``atexit``."""
    atexit.register(call)
    if multiprocessing.parent_process() is not None:
        multiprocessing.util.Finalize(None, call, exitpriority=0)


_threads: WeakSet[LoopThread] = WeakSet()
