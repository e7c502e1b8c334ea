"""The management API and its pages as an ASGI app, at the root of an origin of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from starlette.types import Receive, Scope, Send

from smarter_auth_mw.admin.api import Api, problem, send_response
from smarter_auth_mw.admin.operations import BASE
from smarter_auth_mw.admin.problems import PagesMissingError, PathError
from smarter_auth_mw.admin.security import check_host
from smarter_auth_mw.admin.services import Services, open_services
from smarter_auth_mw.config.settings import Settings
from smarter_auth_mw.engine.health import Readiness, reason_of
from smarter_auth_mw.engine.per_loop import PerLoop
from smarter_auth_mw.errors import ConfigurationError, SmarterAuthError
from smarter_auth_mw.guard import LIVE, Guard
from smarter_auth_mw.http.peers import Peers
from smarter_auth_mw.http.status_pages import Pages, StatusPage
from smarter_auth_mw.log import log
from smarter_auth_mw.metrics import samples as figures
from smarter_auth_mw.metrics.samples import ADMIN_REFUSED, ADMIN_REQUESTS, Figures, Labels

if TYPE_CHECKING:
    from smarter_auth_mw.admin.pages.site import Site

API = "/api/"
"""Paths below this are for programs, and answered in JSON; all others are pages."""


class AdminApp:
    """The management API and its pages.

    Serve it by itself, as ``smarter-auth admin`` does, and do not mount it next to another app: code on the same origin
    could act as the operator who is signed in. The database role must be a manager. Without ``settings`` it is
    configured by ``SMARTER_AUTH_*``. It never raises for a mistake there: ``lifespan.startup.failed`` reports it, and
    every request is answered 503. ``app`` is an app whose mounts the routes know, if there is one.
    """

    def __init__(self, settings: Settings | None = None, *, app: Any = None) -> None:
        self._guard = Guard(app, settings)
        known = self._guard.settings or Settings.model_construct()
        self._origin = known.admin_origin
        self._services: PerLoop[Services] = PerLoop(lambda: open_services(self._guard))
        peers = Peers(known.trusted_proxies)
        self._api = Api(self._get_services, peers)
        self._site = _site(self._get_services, peers, self._origin)
        pages = ((known.live_path, _live), (known.ready_path, self._ready), (known.metrics_path, _metrics))
        self._pages = Pages({path: make for path, make in pages if path})
        self._is_outage = False
        figures.watch(self)

    @property
    def mistakes(self) -> ConfigurationError | None:
        """Return what is wrong with the settings."""
        return self._guard.mistakes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (make := self._pages.find(scope)) is not None:
            page = await make()
            await send({"type": "http.response.start", "status": page.status, "headers": page.headers})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else page.body})
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        is_programs = f"{path}/".startswith(API)
        try:
            check_host(scope, self._origin)
            if is_programs and not path.startswith(f"{BASE}/"):
                raise PathError()
            if not is_programs and self._site is None:
                raise PagesMissingError()
        except SmarterAuthError as error:
            response = problem(error) if is_programs or self._site is None else self._site.refuse(error, scope)
            await send_response(response, scope, send)
            return
        await (self._api if is_programs or self._site is None else self._site)(scope, receive, send)

    async def _get_services(self) -> Services:
        try:
            services = await self._services.get()
        except SmarterAuthError as error:
            if not self._is_outage:
                self._is_outage = True
                log("store.unavailable", "%s %s", error, error.hint)
            raise
        self._is_outage = False
        return services

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        if self.mistakes is not None:
            await send({"type": "lifespan.startup.failed", "message": str(self.mistakes)})
            raise self.mistakes
        with suppress(SmarterAuthError):  # The error was reported, and requests try again.
            await self._get_services()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._services.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _ready(self) -> StatusPage:
        try:
            await (await self._get_services()).store.check()
        except SmarterAuthError as error:
            return Readiness(can_decide=False, reasons=(reason_of(error),)).page()
        return Readiness().page()

    def figures(self) -> Figures:
        """Return the counters of this process."""
        answered: dict[Labels, float] = dict(self._api.answered.items())
        if self._site is not None:
            answered.update(self._site.answered.items())
        refused = self._api.refused_tokens + (self._site.refused_tokens if self._site is not None else 0)
        return {ADMIN_REQUESTS.name: answered, ADMIN_REFUSED.name: {(): float(refused)}}


def _site(get_services: Callable[[], Awaitable[Services]], peers: Peers, origin: str) -> Site | None:
    """Return the pages; None without the extra that they need."""
    try:
        from smarter_auth_mw.admin.pages.site import Site
    except ModuleNotFoundError as error:
        if error.name not in ("jinja2", "markupsafe"):
            raise
        return None
    return Site(get_services, peers, origin)


async def _live() -> StatusPage:
    return LIVE


async def _metrics() -> StatusPage:
    from smarter_auth_mw.metrics import prometheus

    return await prometheus.page()
