"""The pages as an ASGI app: find the page, authenticate, render it or process its form, and send it.

The order is part of the interface: 404 and 405 for the path, 403 for a form from elsewhere, 413 and 415 for its shape,
sign in, 403 for the role; then what the operations of the API say.
"""

from __future__ import annotations

import re
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from starlette.routing import compile_path
from starlette.types import Receive, Scope, Send

from smarter_auth_mw.admin.api import Response, UnexpectedError, send_response, sent
from smarter_auth_mw.admin.pages import access, assets
from smarter_auth_mw.admin.pages.access import Arrival, RefusedTokenError
from smarter_auth_mw.admin.pages.forms import Fields, Given, read_form, read_query
from smarter_auth_mw.admin.pages.rendering import Renderer, readable
from smarter_auth_mw.admin.pages.table import PAGES, Page
from smarter_auth_mw.admin.pages.visit import Html, Reply, SeeOther, Visit, path_of
from smarter_auth_mw.admin.problems import (
    ForbiddenError,
    MethodError,
    PathError,
    ThrottledError,
    document_of,
    headers_of,
    status_of,
)
from smarter_auth_mw.admin.security import Cookie, check_origin, own_origin
from smarter_auth_mw.admin.services import Services
from smarter_auth_mw.errors import SmarterAuthError
from smarter_auth_mw.http.peers import Peers
from smarter_auth_mw.log import log
from smarter_auth_mw.management.operators import Operator, is_allowed
from smarter_auth_mw.tokens import hidden, holds_token

SIGN_IN = "/sign-in"
NOTHING: Mapping[str, str] = MappingProxyType({})
HTML = "text/html; charset=utf-8"
SHOWN_AGAIN = (403, 409, 412, 422, 429)
"""Statuses of refusals after which the form is shown again, with what was typed."""


class _Place(NamedTuple):
    pattern: re.Pattern[str]
    page: Page


class _Request(NamedTuple):
    """The parts of a request that are read before authentication."""

    path: str
    root: str
    is_sent: bool
    query: Fields
    form: Fields
    url: str
    cookie: Cookie
    session_ids: list[str]
    network: str


class Site:
    """Answers requests for pages; ``get_services`` opens what they need, ``origin`` is ADMIN_ORIGIN."""

    def __init__(self, get_services: Callable[[], Awaitable[Services]], peers: Peers, origin: str) -> None:
        self._get_services = get_services
        self._peers = peers
        self._origin = origin
        self._renderer = Renderer()
        pages = sorted(PAGES, key=lambda page: page.path.count("{"))
        self._places = [_Place(compile_path(page.path)[0], page) for page in pages]
        self.answered: Counter[tuple[str, str]] = Counter()
        """Requests by page and status."""
        self.refused_tokens = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name, response = await self._answer(scope, receive)
        self.answered[name, str(response.status)] += 1
        await send_response(response, scope, send)

    def refuse(self, error: SmarterAuthError, scope: Scope) -> Response:
        """Return the page for an error that no page raised."""
        return self._problem(error, _root(scope), None, "")

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[str, Response]:
        path, root, name = _path(scope), _root(scope), ""
        if (file := self._renderer.files.get(path.removeprefix("/"))) is not None and scope["method"] in _READS:
            return "page_static", _static(file)
        try:
            page, parameters = self._find(path, scope["method"])
            name = f"page_{page.name}" if page else "page_sign_in"
            request = await self._read(scope, receive)
            services = await self._get_services()
            if page is None:
                return name, await self._sign_in(request, services)
            return name, await self._serve(page, parameters, request, services)
        except SmarterAuthError as error:
            return name, self._problem(error, root, None, "")
        except Exception as error:  # Whatever it is: its text may quote anything, and is not shown.
            frame = traceback.extract_tb(error.__traceback__)[-1]
            log("admin.failed", "%s: %s at %s:%d", name, type(error).__name__, Path(frame.filename).name, frame.lineno)
            return name, self._problem(UnexpectedError(), root, None, "")

    def _find(self, path: str, method: str) -> tuple[Page | None, Mapping[str, str]]:
        """Return the page (None: sign-in) and what its path names."""
        page, found = (None, NOTHING) if path == SIGN_IN else self._match(path)
        takes = [*_READS, *(["POST"] if page is None or page.act is not None else [])]
        if method not in takes:
            raise MethodError(takes)
        return page, found

    def _match(self, path: str) -> tuple[Page, Mapping[str, str]]:
        for place in self._places:
            if (found := place.pattern.fullmatch(path)) is not None:
                return place.page, found.groupdict()
        raise PathError(hint="Begin at the overview. No path ends with a slash.")

    def _has_page(self, path: str) -> bool:
        return any(place.pattern.fullmatch(path) for place in self._places)

    async def _read(self, scope: Scope, receive: Receive) -> _Request:
        """Read a request; a form only if it comes from one of our pages."""
        is_sent = scope["method"] == "POST"
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if is_sent:
            check_origin(scope, self._origin)
        form = await read_form(receive, headers) if is_sent else Fields()
        cookies = [value.decode("latin-1") for name, value in scope["headers"] if name == b"cookie"]
        cookie = Cookie(own_origin(scope, self._origin))
        query = scope["query_string"].decode("latin-1")
        return _Request(
            _path(scope),
            _root(scope),
            is_sent,
            read_query(scope["query_string"]),
            form,
            _raw_path(scope).removeprefix("/") + (f"?{query}" if query else ""),
            cookie,
            cookie.found("; ".join(cookies)),
            self._peers.network(scope),
        )

    async def _sign_in(self, request: _Request, services: Services) -> Response:
        arrival = Arrival(services, request.cookie, request.network, request.query, request.form, self._has_page)
        return self._sent(await access.sign_in(arrival, is_sent=request.is_sent), request.root, None, "")

    async def _serve(self, page: Page, path: Mapping[str, str], request: _Request, services: Services) -> Response:
        operator, session_id = await self._recognise(request, services)
        if operator is None:
            return await self._let_sign_in(page, path, request, services)
        visit = _visit(request, services, operator, session_id, path, request.form)
        return await self._visit(page, visit, is_sent=request.is_sent)

    async def _recognise(self, request: _Request, services: Services) -> tuple[Operator | None, str]:
        for session_id in request.session_ids:
            if (operator := await services.door.by_session(session_id)) is not None:
                return operator, session_id
        return None, ""

    async def _let_sign_in(
        self, page: Page, path: Mapping[str, str], request: _Request, services: Services
    ) -> Response:
        """Show the sign-in page; what was typed into a form is kept meanwhile, except for tokens."""
        if not request.is_sent or page.name == "sign_out":
            to = "" if page.name == "sign_out" or holds_token(request.url) else request.url
            return self._sent(SeeOther(path_of("sign-in", to=to)), request.root, None, "")
        kept = request.form.without_tokens()
        context = {"kept": list(kept.pairs()), "error": None}
        if "sign_in_token" not in request.form:
            return self._sent(Html("session_over.html", context, 401), request.root, None, "")
        try:
            session_id = await access.opened(services, request.form.get("sign_in_token"), request.network)
        except SmarterAuthError as error:
            return self._sent(Html("session_over.html", context | {"error": error}), request.root, None, "")
        operator = await services.door.by_session(session_id)
        if operator is None:
            raise PathError()
        visit = _visit(request, services, operator, session_id, path, kept)
        response = await self._visit(page, visit, is_sent=False)
        name, value = request.cookie.set(session_id)
        headers = [*response.headers, (name.lower().encode("ascii"), value.encode("ascii"))]
        return response._replace(headers=headers)

    async def _visit(self, page: Page, visit: Visit, *, is_sent: bool) -> Response:
        try:
            if not is_allowed(visit.operator, page.role, everywhere=page.everywhere):
                raise ForbiddenError(page.role, everywhere=page.everywhere)
            reply = await self._reply(page, visit, is_sent=is_sent)
        except SmarterAuthError as error:
            return self._problem(error, visit.root, visit.operator, page.section)
        return self._sent(reply, visit.root, visit.operator, page.section, visit)

    async def _reply(self, page: Page, visit: Visit, *, is_sent: bool) -> Reply:
        if not is_sent or page.act is None:
            return await page.show(visit)
        try:
            return await page.act(visit)
        except ForbiddenError:
            raise
        except SmarterAuthError as error:
            if status_of(error) not in SHOWN_AGAIN:
                raise
            visit.error, visit.form = error, visit.form.without_tokens()
            return await page.show(visit)

    def _problem(self, error: SmarterAuthError, root: str, operator: Operator | None, section: str) -> Response:
        status = status_of(error)
        context = {"status": status, "phrase": HTTPStatus(status).phrase, "problem": words_of(error)}
        return self._sent(Html("problem.html", context, status, tuple(headers_of(error))), root, operator, section)

    def _sent(
        self, reply: Reply, root: str, operator: Operator | None, section: str, visit: Visit | None = None
    ) -> Response:
        if isinstance(reply, SeeOther):
            return sent(303, HTML, b"", [("Location", root + reply.path), *reply.headers])
        error = reply.context.get("error") or (visit and visit.error)
        context = {
            "operator": operator,
            "section": section,
            "visit": visit,
            "command": None,
            "label": "",
            **reply.context,
            "error": words_of(error) if error else None,
            "mistakes": {name: hidden(text) for name, text in getattr(error, "by_field", {}).items()},
        }
        self.refused_tokens += isinstance(error, RefusedTokenError | ThrottledError)
        status, headers = (status_of(error), headers_of(error)) if error else (reply.status, [])
        return sent(status, HTML, self._renderer.render(reply.template, root, context), [*reply.headers, *headers])


def words_of(error: SmarterAuthError) -> Given:
    """Describe an error for people: like the API, with hints for pages where those of programs do not fit."""
    words = Given(document_of(error))
    words["detail"] = readable(_PREFIX.sub("", words["detail"]))
    if error.code in _HINTS:
        words["hint"] = _HINTS[error.code]
    return words


_UNREACHED = "To accept it anyway, register it first: a new resource may be one that no route reaches."
_HINTS: Mapping[str, str] = {
    "would_open": "If this is intended, an admin must confirm it in this form. Otherwise, protect the resource first.",
    "rotation_overlaps": "Wait until then, or rotate it again; with an overlap of 0 if a token has leaked.",
    "changed_meanwhile": "Read it again, then repeat the change.",
    "unknown_kind": _UNREACHED,
    "hidden": _UNREACHED,
}
_READS = ("GET", "HEAD")
_PREFIX = re.compile(r"\b(?:query|body)[.:] ?(?=\w)")


def _visit(
    request: _Request,
    services: Services,
    operator: Operator,
    session_id: str,
    path: Mapping[str, str],
    form: Fields,
) -> Visit:
    return Visit(
        *(services, operator, session_id, request.cookie, request.root, request.network, path, request.query, form)
    )


def _path(scope: Scope) -> str:
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))


def _raw_path(scope: Scope) -> str:
    raw = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogatepass")
    return str(raw.decode("latin-1")).partition("?")[0].removeprefix(scope.get("root_path", ""))


def _root(scope: Scope) -> str:
    """Return the relative path from this page to the overview, which stays right behind any prefix."""
    return "../" * (_raw_path(scope).count("/") - 1) or "./"


def _static(file: assets.Asset) -> Response:
    response = sent(200, file.media_type, file.body)
    kept = [header for header in response.headers if header[0] != b"cache-control"]
    return response._replace(headers=[*kept, (b"cache-control", assets.CACHED.encode("ascii"))])
