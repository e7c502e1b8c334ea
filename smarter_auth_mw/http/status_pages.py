"""The middleware's own pages (probes and metrics), if configured; they do not call the app."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from smarter_auth_mw.config.origins import PREFIX
from smarter_auth_mw.config.settings import RouteSettings
from smarter_auth_mw.errors import Mistake

SETTINGS = ("live_path", "ready_path", "metrics_path")

_PLAIN = re.compile(r"(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._~-]+)+")
_RULE = "a plain path, for example /livez: letters, digits and -._~ between slashes, and no slash at its end"


@dataclass(frozen=True, slots=True)
class StatusPage:
    """A complete response."""

    body: bytes
    status: int = 200
    media_type: str = "application/json"
    more_headers: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"content-type", self.media_type.encode("ascii")),
            (b"content-length", str(len(self.body)).encode("ascii")),
            (b"cache-control", b"no-store"),
            *self.more_headers,
        ]


Make = Callable[[], Awaitable[StatusPage]]

METHODS = ("GET", "HEAD", "OPTIONS")
"""OPTIONS receives the page too: it is what HAProxy's ``option httpchk`` sends unless it names a method."""
NOT_ALLOWED = StatusPage(
    b'{"status": "method_not_allowed"}', 405, more_headers=((b"allow", ", ".join(METHODS).encode("ascii")),)
)
"""RFC 9110 §15.5.6 requires the header."""


async def _not_allowed() -> StatusPage:
    return NOT_ALLOWED


class Pages:
    """Maps paths to pages.

    Routes come first: a path that belongs to a resource is never a page, and requests for resources do not get
    slower.
    """

    def __init__(self, pages: Mapping[str, Make]) -> None:
        self._pages = dict(pages)

    def __bool__(self) -> bool:
        return bool(self._pages)

    def find(self, scope: Mapping[str, Any]) -> Make | None:
        """Return the page function for an HTTP request by its exact path, with or without ``root_path``; else None."""
        if not self._pages or scope["type"] != "http" or "smarter_auth" in scope:
            return None
        if b"%" in (scope.get("raw_path") or b""):
            return None
        path = scope["path"]
        found = self._pages.get(path) or self._pages.get(path.removeprefix(scope.get("root_path", "")))
        return _not_allowed if found and scope["method"] not in METHODS else found

    def before(self, app: ASGIApp) -> ASGIApp:
        """Return the app wrapped in the pages, or the app itself if there are no pages."""
        return PagedApp(app, self) if self else app


class PagedApp:
    """Answers requests for pages, and calls the app for all others."""

    def __init__(self, app: ASGIApp, pages: Pages) -> None:
        self.app = app
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        make = self._pages.find(scope)
        if make is None:
            await self.app(scope, receive, send)
            return
        page = await make()
        await send({"type": "http.response.start", "status": page.status, "headers": page.headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else page.body})


def mistakes_of(settings: RouteSettings, names: Callable[[str], object]) -> Iterable[Mistake]:
    """Return the mistakes in the paths of pages; ``names`` returns what a path names, or None."""
    taken: dict[str, str] = {}
    for name in SETTINGS:
        variable, path = PREFIX + name.upper(), getattr(settings, name)
        if not path:
            continue
        if not _PLAIN.fullmatch(path):
            yield Mistake(variable, path, _RULE)
        elif path in taken:
            yield Mistake(variable, path, f"{taken[path]} already has this path")
        elif names(path) is not None:
            yield Mistake(variable, path, "a line of ROUTES owns this path, and a page cannot lie inside a resource")
        taken[path] = variable
    if settings.metrics_path and find_spec("prometheus_client") is None:
        rule = "its client is not installed: pip install 'smarter_auth_mw[metrics]'"
        yield Mistake(f"{PREFIX}METRICS_PATH", settings.metrics_path, rule)
