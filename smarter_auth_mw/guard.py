"""Decides requests for the three shells (ASGI, WSGI, gate), which share this code."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import ASGIApp, Scope

from smarter_auth_mw.authentication.throttle import GUESSES, window_s
from smarter_auth_mw.config.settings import RouteSettings, Settings
from smarter_auth_mw.configured import compile_routes, together
from smarter_auth_mw.decision import Decision, Denial, Holds, Reason, never
from smarter_auth_mw.domain import Target
from smarter_auth_mw.engine import health
from smarter_auth_mw.engine.assembly import open_engine, running
from smarter_auth_mw.engine.engine import Engine
from smarter_auth_mw.engine.engines import Engines
from smarter_auth_mw.engine.health import Readiness
from smarter_auth_mw.engine.per_loop import running_loop
from smarter_auth_mw.engine.stand_in import own_settings
from smarter_auth_mw.errors import ConfigurationError, NoEventLoopError, SmarterAuthError, UnavailableError, counted
from smarter_auth_mw.http.credentials import Credentials, Extractor
from smarter_auth_mw.http.peers import Peers
from smarter_auth_mw.http.preflights import is_preflight
from smarter_auth_mw.http.rejections import Rejections
from smarter_auth_mw.http.status_pages import Pages, StatusPage
from smarter_auth_mw.log import log
from smarter_auth_mw.metrics import multiprocess as exchange
from smarter_auth_mw.metrics import samples as figures
from smarter_auth_mw.metrics.samples import Figures
from smarter_auth_mw.observers.audit import Audit
from smarter_auth_mw.observers.hub import Observers
from smarter_auth_mw.observers.refused_spellings import ABOUT_SPELLING, NearMisses
from smarter_auth_mw.observers.usage import Usage
from smarter_auth_mw.routing import hosts
from smarter_auth_mw.routing.further_back import Remedies
from smarter_auth_mw.routing.memo import Memo
from smarter_auth_mw.routing.mounts import unknown_mounts
from smarter_auth_mw.routing.router_check import RouterCheck
from smarter_auth_mw.routing.routes import Routes, refused_routes
from smarter_auth_mw.signals import Announcer

_ROUTES_REFUSED = (
    "%s refused, because each matches a line of ROUTES after a prefix; "
    "smarter-auth doctor --app MODULE:APP lists them with the line to add"
)
_MOUNTS_UNKNOWN = (
    "the routes of a mounted app could not be inspected: %s. "
    "If it removes a path prefix, add that to SMARTER_AUTH_MOUNTS; until then, ids below it are refused"
)
LIVE = StatusPage(b'{"status": "live"}')

Resolve = Callable[[Mapping[str, Any]], Target | Denial | None]


class Guard:
    """Decides requests according to the settings; mistakes in them are kept, and never raised.

    A shell calls ``decide``, or ``find`` and then ``settle`` if it needs to know what the request names. ``warm``
    returns the decision if it needs no waiting; pass it to ``settle``.
    """

    def __init__(self, app: Any, settings: Settings | None = None) -> None:
        self.mistakes: ConfigurationError | None = None
        self._app = app
        self.settings, self.routes = self._configured(app, settings)
        known = self.settings or Settings.model_construct()  # the defaults, which are enough to refuse everything
        self.extractors = {
            "http": Extractor(known.credentials),
            "websocket": Extractor((*known.credentials, "subprotocol")),
        }
        self.rejections = Rejections(
            known.credentials, known.realm, known.error_format, throttled_for_s=window_s(known.failed_attempts)
        )
        self.hides_credentials = known.hide_credentials
        is_plain = self.routes is not None and known.preflight == "protect"
        self.resolve: Resolve = self.routes.resolve if self.routes and is_plain else self._resolve
        """Returns what a request names; while hosts matter, None may mean that the custom domains are unknown."""
        self._is_plain = is_plain
        self.by_path: Memo[tuple[str, bytes | None, str]] = Memo()
        """The resource that a path names, if the path alone determines it; otherwise an empty string."""
        self._peers = Peers(known.trusted_proxies)
        self._near_misses = NearMisses(self.resolve, self._remedies)
        self._usage, self._audit = Usage(), Audit(known.audit, self._peers.network)
        self._observers = Observers(self._usage, self._audit)
        self.observe, self.passed = self._observers.observe, self._observers.passed
        self._announcer = Announcer(app, self._credentials_of, self._observers.note, self._observers.add)
        self.authenticate: Callable[[Target | Denial, Mapping[str, Any]], Awaitable[Decision]] = self._authenticate
        """Returns the decision of the running loop's authenticator, opening its connections if necessary."""
        self._is_traced = False
        pages_ = ((known.live_path, _live), (known.ready_path, self._ready), (known.metrics_path, _metrics))
        self.pages = Pages({path: make for path, make in pages_ if path})
        self._is_outage = False
        self._ignored: set[str] = set()
        self.unrouted_kinds: frozenset[str] = frozenset()
        """Kinds with protected resources that no route reaches: readiness is degraded while there are any."""
        self._claims: frozenset[tuple[str, str]] | None = None
        self._own_domains = set(map(hosts.normal, (*known.platform_domains, *known.api_domains)))
        self.is_sure = False
        """True if the custom domains are known."""
        self.minds_hosts = True
        """True if a host may name a resource, as far as is known."""
        self.engines = Engines(self.settings, self._opened)
        self._closed: dict[int, Figures] = {}
        """The counters of closed engines, by process id."""
        figures.watch(self)

    def _configured(self, app: Any, settings: Settings | None) -> tuple[Settings | None, Routes | None]:
        """Return settings and routes, as far as they are valid; mistakes are kept and reported."""
        routes = None
        try:
            settings = settings or own_settings()
        except ConfigurationError as error:
            self._note(error)
        try:
            routes = compile_routes(settings or RouteSettings(), app)
        except ConfigurationError as error:
            self._note(error)
        if self.mistakes:
            log("settings.mistaken", "%s", self.mistakes)
        return settings, routes

    def _report(self, error: SmarterAuthError) -> None:
        """Log the error once for each outage, since every request tries to open the connections again."""
        if not self._is_outage:
            self._is_outage = True
            log("store.unavailable", "%s %s", error, error.hint)

    def _note(self, error: ConfigurationError) -> None:
        self.mistakes = together(self.mistakes, error) if self.mistakes else error

    def _resolve(self, scope: Mapping[str, Any]) -> Target | Denial | None:
        if self.routes is None:
            return Denial(Reason.UNAVAILABLE, detail="the routes have mistakes")
        target = self.routes.resolve(scope)
        return None if isinstance(target, Target) and is_preflight(scope) else target

    def passes_preflight(self, scope: Mapping[str, Any]) -> bool:
        """Return whether the request names a resource but passes as a CORS preflight."""
        if self._is_plain or self.routes is None or not is_preflight(scope):
            return False
        return isinstance(self.routes.resolve(scope), Target)

    def _remedies(self, path: str) -> Remedies | None:
        found = self.routes.further_back(path) if self.routes else None
        return found and found.remedies()

    async def decide(self, scope: Mapping[str, Any]) -> Decision | None:
        """Return the decision for a request, observed and throttled; None if it names no resource."""
        target = await self.find(scope)
        return None if target is None else await self.settle(target, scope, self.warm(target, scope))

    async def settle(
        self, target: Target | Denial, scope: Mapping[str, Any], decision: Decision | None = None
    ) -> Decision:
        """Return the decision for a request that names the target, observed and throttled, or the known one."""
        decision = decision or await self.authenticate(target, scope)
        if not isinstance(decision, Denial):
            self.passed(decision, scope)
            return decision
        if decision.reason in ABOUT_SPELLING:
            self._near_misses.note(decision, scope["path"])
        elif decision.reason in GUESSES and (engine := self.engines.ready()) and engine.authenticator.throttle:
            decision = await engine.authenticator.throttle.judge(decision, self._peers.network(scope))
        self.observe(decision, scope)
        return decision

    async def decide_again(self, target: Target | Denial, scope: Mapping[str, Any]) -> tuple[Decision, Holds]:
        """Return the decision for a further message, and what says whether it holds for the next one.

        Only the refusal is observed, since the request was counted.
        """
        decision, holds = self.warm(target, scope), never
        if decision is None:
            decision = await self.authenticate(target, scope)
        elif (engine := self.engines.ready()) is not None:
            holds = engine.authenticator.holding(target, decision)
        if isinstance(decision, Denial):
            self.observe(decision, scope)
        return decision, holds

    async def find(self, scope: Mapping[str, Any]) -> Target | Denial | None:
        """Return what a request names; a possible custom domain is refused until all custom domains are known.

        A status page names nothing, whatever the host: load balancers probe without one.
        """
        if self.pages.find(scope):
            return None
        target = self.resolve(scope)
        if target is not None or self.is_sure or not self.may_be_custom(scope):
            return target
        try:
            await self.engines.get()
        except SmarterAuthError as error:
            self._report(error)
            return Denial(Reason.UNAVAILABLE, detail="the custom domains have not been read yet")
        return self.resolve(scope)

    def may_be_custom(self, scope: Mapping[str, Any]) -> bool:
        """Return whether the host may be a custom domain: not an address, a single label, or a configured domain."""
        try:
            asked = {hosts.normal(host) for host in hosts.asked_for(scope["headers"]).hosts}
        except hosts.BadHostError:
            return True  # A lenient router may still read it as one.
        return any(hosts.problem(host) is None and host not in self._own_domains for host in asked)

    def trusted(self, scope: Scope) -> Scope:
        """Return the scope, without forwarded hosts and paths unless its peer is a trusted proxy."""
        if self.routes is None or not self.routes.reads_hosts or self._peers.is_trusted(scope):
            return scope
        return hosts.without_forwarded(scope)

    def verified(self, app: ASGIApp) -> ASGIApp:
        """Return the app; with VERIFY_ROUTER, wrapped in a check that its router agrees with ROUTES."""
        is_checked = self.settings is not None and self.settings.verify_router
        return RouterCheck(app, self.routes) if is_checked and self.routes else app

    def warm(self, target: Target | Denial, scope: Mapping[str, Any]) -> Decision | None:
        """Return the decision if the running loop has the facts in memory, without waiting; for WebSockets too."""
        if isinstance(target, Denial):
            return target
        engine = self.engines.ready()
        if engine is None:
            return None
        return engine.authenticator.warm(target, scope["headers"], self.extractors[scope["type"]])

    async def _authenticate(self, target: Target | Denial, scope: Mapping[str, Any]) -> Decision:
        if isinstance(target, Denial):
            return target
        credentials = self._credentials_of(scope)
        try:
            engine = await self.engines.get()
        except SmarterAuthError as error:
            self._report(error)
            return Denial(Reason.UNAVAILABLE, detail=error.message)
        self._is_outage = False
        return await engine.authenticator.authenticate(target, credentials, self._peers.network(scope))

    def _credentials_of(self, scope: Mapping[str, Any]) -> Credentials:
        return self.extractors[scope["type"]](scope["headers"])

    def _trace(self) -> None:
        """Report decisions to OpenTelemetry if the process has a provider, which is loaded by now."""
        if self._is_traced or "opentelemetry.trace" not in sys.modules:
            return
        from smarter_auth_mw.observers import tracing

        if tracing.is_on():
            self._is_traced = True
            self._observers.add(tracing.observe)
            self.authenticate = tracing.traced(self._authenticate)

    def _report_app(self) -> None:
        """Log once what an app's own routes and mounts leave to be configured."""
        app, self._app = self._app, None
        if app is None or self.routes is None or self.settings is None:
            return
        refused, unknown = refused_routes(app, self.routes), unknown_mounts(app)
        if refused:
            own = counted(len(refused), "of the app's own routes is", "of the app's own routes are")
            log("routes.refused", _ROUTES_REFUSED, own)
        if unknown and not self.settings.mounts:
            log("app.unknown" if unknown[0][:1] == " " else "mounts.unknown", _MOUNTS_UNKNOWN, ", ".join(unknown))

    async def open(self) -> None:
        """Open the running loop's connections; if the database is down, log it and let requests try again."""
        self._report_app()
        try:
            await self.engines.get()
        except SmarterAuthError as error:
            self._report(error)

    def obstacle(self) -> SmarterAuthError | None:
        """Return the error that prevents all decisions, if any: wrong settings, or no asyncio event loop."""
        if self.mistakes:
            return self.mistakes
        try:
            running_loop()
        except NoEventLoopError as error:
            return NoEventLoopError(f"{error} {error.hint}", hint="")
        return None

    def figures(self) -> Figures:
        """Return the counters of this process."""
        own = figures.samples_of_middleware(self._usage, self._audit, self._observers, self._near_misses)
        engines = map(figures.samples_of_engine, self.engines.in_this_process())
        return figures.merged([own, self._closed.get(os.getpid(), {}), *engines])

    async def readiness(self) -> Readiness:
        """Return whether requests can be decided on the running loop, opening its connections if necessary."""
        try:
            engine = await self.engines.get()
        except SmarterAuthError as error:
            self._report(error)
            return Readiness(can_decide=False, reasons=(health.reason_of(error),))
        found = await engine.health.readiness()
        return found.and_also([health.UNROUTED] if self.unrouted_kinds else [])

    async def _ready(self) -> StatusPage:
        return (await self.readiness()).page()

    async def close(self) -> None:
        """Close the running loop's connections."""
        was_written = bool(self.engines.in_this_process())
        await self.engines.close()
        if not was_written:  # There never was a connection to write with.
            self._observers.report_lost()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Engine]:
        self._trace()
        if self.mistakes is not None or self.settings is None:
            raise self.mistakes or UnavailableError()
        if self.settings.metrics_path:
            exchange.warn_of_one_worker()
        async with open_engine(self.settings, self._know_domains, self._observers) as engine:
            self._know_kinds(await engine.store.protected_kinds())
            async with running(exchange.publishing()):
                try:
                    yield engine
                finally:  # No await in between, or a scrape would count it twice or not at all.
                    counted = figures.only_counted(figures.samples_of_engine(engine))
                    self._closed[os.getpid()] = figures.merged([self._closed.get(os.getpid(), {}), counted])

    def _know_kinds(self, protected: frozenset[str]) -> None:
        """Warn once about kinds with protected resources that no line names, which the settings cannot show."""
        unrouted = protected.difference(self.routes.kinds if self.routes else ())
        for kind in sorted(unrouted - self.unrouted_kinds):
            log("routes.missing", "resources of the kind %s are protected, but no line of ROUTES has this kind", kind)
        self.unrouted_kinds = unrouted

    def _know_domains(self, claims: Iterable[tuple[str, str]]) -> None:
        known, self._claims = self._claims, frozenset(claims)
        if self.routes is not None and known != self._claims:
            ignored = self.routes.replace_domains(self._claims)
            for domain in set(ignored) - self._ignored:
                log("domain.ignored", "%s", domain)
            self._ignored = set(ignored)
            self.is_sure, self.minds_hosts = True, self.routes.reads_hosts
            self.by_path = Memo() if self.minds_hosts or not self._is_plain else self.routes.memo


async def _live() -> StatusPage:
    return LIVE


async def _metrics() -> StatusPage:
    from smarter_auth_mw.metrics import prometheus as metrics

    return await metrics.page()
