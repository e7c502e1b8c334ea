"""`smarter-auth serve`: run an app behind the middleware, on uvicorn."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

import typer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from smarter_auth_mw import access_log
from smarter_auth_mw.asgi import SmarterAuthMiddleware
from smarter_auth_mw.cli import failures, guards
from smarter_auth_mw.cli.arguments import Fd, Host, LogFormat, LogFormatName, Port, Workers
from smarter_auth_mw.cli.output import note
from smarter_auth_mw.cli.ports import listener
from smarter_auth_mw.cli.session import say_where_data_is
from smarter_auth_mw.cli.user_app import EXAMPLE, load
from smarter_auth_mw.config.settings import RouteSettings
from smarter_auth_mw.configured import compile_routes, load_settings
from smarter_auth_mw.errors import SmarterAuthError, UsageError
from smarter_auth_mw.http.app_interface import interface_of

InterfaceName = StrEnum("InterfaceName", ["auto", "asgi", "wsgi"])
SERVED = "_SMARTER_AUTH_SERVED"
"""Passes the app to uvicorn's worker processes; not a setting, hence the underscore."""


def serve(
    app: Annotated[str, typer.Argument(metavar="MODULE:APP", help="The app, for example main:app.")],
    host: Host = "127.0.0.1",
    port: Port = 8000,
    fd: Fd = None,
    workers: Workers = 1,
    log_format: LogFormat = LogFormatName.text,
    *,
    reload: Annotated[
        bool, typer.Option("--reload", help="Restart when a file in the working directory changes.")
    ] = False,
    factory: Annotated[
        bool, typer.Option("--factory", help="Treat MODULE:APP as a factory function and call it.")
    ] = False,
    interface: Annotated[
        InterfaceName, typer.Option("--interface", help="The app's interface: asgi, wsgi or auto (detect).")
    ] = InterfaceName.auto,
) -> None:
    """Run an ASGI or WSGI app behind the middleware.

    Example: smarter-auth serve main:app --port 8000 --workers 2
    """
    import uvicorn

    from smarter_auth_mw.cli import server

    if reload and workers > 1:
        raise UsageError("Use --reload or --workers, not both.")
    served = Served(app, factory, interface)
    protected = served.protect(tell=note)
    listening = listener(host, port, fd)
    os.environ[SERVED] = json.dumps(served)
    is_other_process = reload or workers > 1
    config = uvicorn.Config(
        f"{__name__}:application" if is_other_process else protected,
        factory=is_other_process,
        workers=workers,
        reload=reload,
        log_config=access_log.uvicorn_config(as_json=log_format == LogFormatName.json),
        # If enabled, any client could claim any address in a header.
        proxy_headers=False,
    )
    server.run(config, listening)


def application() -> Any:
    """Return the app, called in a process of uvicorn; a new mistake is reported in one line."""
    try:
        return Served(*json.loads(os.environ[SERVED])).protect()
    except SmarterAuthError as error:
        sys.exit(failures.report(error, as_json=False))


class Served(NamedTuple):
    """The app to serve: its name, whether it is a factory, and its interface."""

    name: str
    is_factory: bool = False
    interface: str = InterfaceName.auto

    def protect(self, tell: Callable[[str], None] = lambda _: None) -> Any:
        """Return the app as an ASGI app that no request reaches without passing the middleware.

        Raises UsageError, and ConfigurationError with all mistakes before anything is served.
        """
        app = self._load()
        is_wsgi = self._interface_of(app) == "wsgi"
        guard = guards.guard_of(app)
        inner = [] if guard else guards.inner_middlewares(app)
        for one in [guard] if guard else [found for _, found in inner]:
            compile_routes(one.settings or load_settings(), one.app)
        for place in guards.idle_lifespans(app):
            tell(f"The app at {place} has its own lifespan, which nothing runs: run it in the lifespan of {self.name}.")
        if guard:
            tell(f"{self.name} already has SmarterAuthMiddleware, so none is added in front of it.")
        elif guards.is_guarded_below(app) and not RouteSettings().routes:
            tell(f"Each app that {self.name} mounts already has SmarterAuthMiddleware: none is added in front of them.")
        elif (added := guards.added_in_front(app)) and not RouteSettings().routes:
            tell(f"{added} is in front of the app's own middleware, and may answer by itself.")
        else:
            for reason in _reasons(app, inner):
                tell(reason)
            app = _guarded(app, tell, is_wsgi=is_wsgi)
        return _as_asgi(app) if is_wsgi else app

    def _load(self) -> Any:
        app = load(self.name)
        if not self.is_factory:
            return app
        try:
            return app()
        except Exception as error:
            raise UsageError(f"The factory {self.name!r} failed: {type(error).__name__}: {error}") from error

    def _interface_of(self, app: Any) -> str:
        interface = interface_of(app)
        if interface is None:
            hint = EXAMPLE if self.is_factory else f"{EXAMPLE} For a function that creates the app, add --factory."
            raise UsageError(f"{self.name!r} is a {type(app).__name__}, and neither an ASGI nor a WSGI app.", hint=hint)
        if self.interface != InterfaceName.auto:
            if interface not in ("either", self.interface):
                raise UsageError(
                    f"{self.name!r} is {interface.upper()} by its signature, and not {self.interface.upper()}."
                )
            return self.interface
        if interface == "either":
            hint = "Add --interface asgi or --interface wsgi."
            raise UsageError(f"{self.name!r} may be ASGI or WSGI: its signature accepts both.", hint=hint)
        return interface


def _reasons(app: Any, inner: Iterable[tuple[str, guards.FoundMiddleware]]) -> Iterator[str]:
    """Explain why a middleware is put in front of an app that already has one."""
    if wrapper := guards.wrapper_of(app):
        yield (
            f"{wrapper} wraps the app's own middleware and may answer by itself:"
            " another middleware with SMARTER_AUTH_ROUTES is added in front."
        )
    for place in dict.fromkeys(place for place, _ in inner):
        yield f"The middleware of the app at {place} decides again, after the one in front with SMARTER_AUTH_ROUTES."


def _guarded(app: Any, tell: Callable[[str], None], *, is_wsgi: bool) -> Any:
    from smarter_auth_mw.wsgi import SmarterAuthWSGIMiddleware  # Late: only a server needs it.

    settings = load_settings()
    compile_routes(settings, app)
    for path in settings.files:
        tell(f"Settings are read from {path}.")
    say_where_data_is(settings, tell)
    return SmarterAuthWSGIMiddleware(app, settings) if is_wsgi else SmarterAuthMiddleware(app, settings)


def _as_asgi(wsgi_app: Any) -> ASGIApp:
    """Return the WSGI app on threads; the middlewares are closed when the server ends, which skips atexit."""
    from a2wsgi import WSGIMiddleware

    from smarter_auth_mw.engine.loop_thread import close_all

    served: Any = WSGIMiddleware(wsgi_app)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_closed(message: Message) -> None:
            if message["type"] == "lifespan.shutdown.complete":
                await asyncio.to_thread(close_all)
            await send(message)

        await served(scope, receive, send_closed)

    return app
