"""`smarter-auth serve`: somebody's app behind the middleware, on uvicorn."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer
from a2wsgi import WSGIMiddleware

from smarter_auth_mw import access_log
from smarter_auth_mw.asgi import SmarterAuthMiddleware
from smarter_auth_mw.cli.apps import EXAMPLE, find_middleware, interface_of, load
from smarter_auth_mw.cli.output import note
from smarter_auth_mw.cli.ports import bound
from smarter_auth_mw.errors import UsageError
from smarter_auth_mw.settings import Settings
from smarter_auth_mw.wiring import compile_routes
from smarter_auth_mw.wsgi import SmarterAuthWSGIMiddleware

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
    front: Any = SmarterAuthMiddleware if interface == "asgi" else SmarterAuthWSGIMiddleware
    protected = app if found else front(app, settings)
    return protected if interface == "asgi" else WSGIMiddleware(protected)
