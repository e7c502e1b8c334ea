"""`smarter-auth serve`: somebody's app behind the middleware, on uvicorn."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from smarter_auth_mw.asgi import SmarterAuthMiddleware
from smarter_auth_mw.cli.apps import find_middleware, load_asgi
from smarter_auth_mw.cli.output import note
from smarter_auth_mw.cli.ports import bound
from smarter_auth_mw.settings import Settings
from smarter_auth_mw.wiring import compile_routes

SERVED = "_SMARTER_AUTH_SERVED"
"""Tells uvicorn's worker processes which app they serve; no setting, hence the underscore."""


def serve(
    app: Annotated[str, typer.Argument(metavar="MODULE:APP", help="The app, as uvicorn takes it.")],
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0: any that is free.")] = 8000,
    workers: Annotated[int, typer.Option("--workers", min=1, help="How many processes.")] = 1,
) -> None:
    """Run an ASGI app behind the middleware."""
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
        # Switched on, it lets anyone who writes a header say where they come from.
        proxy_headers=False,
    )


def application() -> Any:
    """The app, in a worker process of uvicorn."""
    return protect(os.environ[SERVED])


def protect(name: str) -> Any:
    """The app ``MODULE:APP`` behind the middleware, or as it is where it brings its own.

    Raises UsageError, and ConfigurationError with all mistakes before anything is served.
    """
    app = load_asgi(name)
    found = find_middleware(app)
    settings = (found and found.settings) or Settings()
    compile_routes(settings, found.app if found else app)
    if found is None:
        return SmarterAuthMiddleware(app, settings)
    note(f"{name} has a SmarterAuthMiddleware of its own, so that none is put in front of it.")
    return app
