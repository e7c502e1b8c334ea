"""`smarter-auth serve`: somebody's app behind the middleware, on uvicorn."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated, Any

import typer
from a2wsgi import WSGIMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from smarter_auth_mw import access_log
from smarter_auth_mw.asgi import SmarterAuthMiddleware
from smarter_auth_mw.cli.apps import EXAMPLE, find_middleware, load
from smarter_auth_mw.cli.output import note
from smarter_auth_mw.cli.ports import bound
from smarter_auth_mw.errors import UsageError
from smarter_auth_mw.interfaces import interface_of
from smarter_auth_mw.settings import Settings
from smarter_auth_mw.wiring import compile_routes
from smarter_auth_mw.wsgi import SmarterAuthWSGIMiddleware, close_all

SERVED = "_SMARTER_AUTH_SERVED"
"""Tells uvicorn's worker processes which app they serve; no setting, hence the underscore."""


def serve(
    app: Annotated[str, typer.Argument(metavar="MODULE:APP", help="The app, as uvicorn takes it.")],
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0: any that is free.")] = 8000,
    workers: Annotated[int, typer.Option("--workers", min=1, help="How many processes.")] = 1,
) -> None:
    """Run an app, ASGI or WSGI, behind the middleware."""
    import uvicorn

    protected = protect(app)
    bound(host, port).close()  # What is wrong with the address is told here in one line, and not in uvicorn's log.
    os.environ[SERVED] = app
    uvicorn.run(
        protected if workers == 1 else f"{__name__}:application",
        factory=workers > 1,
        host=host,
        port=port,
        workers=workers,
        log_config=access_log.of_uvicorn(),
        # Switched on, it lets anyone who writes a header say where they come from.
        proxy_headers=False,
    )


def application() -> Any:
    """The app, in a worker process of uvicorn."""
    return protect(os.environ[SERVED])


def protect(name: str) -> Any:
    """The app ``MODULE:APP`` as an ASGI app behind the middleware, which may be one that it brings along.

    Raises UsageError, and ConfigurationError with all mistakes before anything is served.
    """
    app = load(name)
    interface = interface_of(app)
    if interface is None:
        raise UsageError(f"{name!r} is a {type(app).__name__}, and neither an ASGI nor a WSGI app.", hint=EXAMPLE)
    found = find_middleware(app)
    settings = (found and found.settings) or Settings()
    compile_routes(settings, found.app if found else app)
    if found is not None:
        note(f"{name} has a middleware of ours already, so that none is put in front of it.")
    front: Any = SmarterAuthWSGIMiddleware if interface == "wsgi" else SmarterAuthMiddleware
    protected = app if found else front(app, settings)
    return _as_asgi(protected) if interface == "wsgi" else protected


def _as_asgi(wsgi_app: Any) -> ASGIApp:
    """The WSGI app on threads; what the middlewares have open is closed when the server ends, which asks no atexit."""
    served: Any = WSGIMiddleware(wsgi_app)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_closed(message: Message) -> None:
            if message["type"] == "lifespan.shutdown.complete":
                await asyncio.to_thread(close_all)
            await send(message)

        await served(scope, receive, send_closed)

    return app
