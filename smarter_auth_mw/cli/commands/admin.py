"""`smarter-auth admin`: the management API and its pages, on uvicorn."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING

import typer

from smarter_auth_mw import access_log
from smarter_auth_mw.cli.arguments import Fd, Host, LogFormat, LogFormatName, Port, Workers
from smarter_auth_mw.cli.decorator import FromApp, Globals
from smarter_auth_mw.cli.output import note
from smarter_auth_mw.cli.ports import listener
from smarter_auth_mw.cli.session import Session
from smarter_auth_mw.errors import UsageError

if TYPE_CHECKING:
    from smarter_auth_mw.admin import AdminApp

FROM_APP = "_SMARTER_AUTH_ADMIN_APP"
"""Passes the app to uvicorn's worker processes; not a setting, hence the underscore."""


def admin(
    context: typer.Context,
    host: Host = "127.0.0.1",
    port: Port = 8010,
    fd: Fd = None,
    workers: Workers = 1,
    log_format: LogFormat = LogFormatName.text,
    from_app: FromApp = None,
) -> None:
    """Serve the management API and its pages, on an origin of their own.

    Example: smarter-auth admin --port 8010
    """
    import uvicorn

    from smarter_auth_mw.admin.security import is_loopback
    from smarter_auth_mw.cli import server

    given = context.obj or Globals()
    session = Session(from_app or given.from_app)
    settings = session.settings
    session.routes  # noqa: B018 - Mistakes are reported before anything is served.
    if fd is None and not settings.admin_origin and not is_loopback(host):
        raise UsageError(
            f"--host {host} accepts connections from other machines, but SMARTER_AUTH_ADMIN_ORIGIN is not set.",
            hint="Set it to the origin that people will use: SMARTER_AUTH_ADMIN_ORIGIN=https://admin.example.com",
        )
    listening = listener(host, port, fd)
    os.environ[FROM_APP] = session.from_app or ""
    origin = settings.admin_origin or (f"http://localhost:{port}" if fd is None else "")
    note(f"Pages for people: {origin}/ - the management API for programs: {origin}/api/v1")
    if find_spec("jinja2") is None:
        note("The pages need an extra that is not installed: pip install 'smarter_auth_mw[admin]'")
    note("To create the first operator, as the owner of the schema:")
    note("  smarter-auth operator create --name NAME --role admin")
    config = uvicorn.Config(
        f"{__name__}:application",
        factory=True,
        workers=workers,
        log_config=access_log.uvicorn_config(as_json=log_format == LogFormatName.json),
        # If enabled, any client could claim any address in a header.
        proxy_headers=False,
        server_header=False,
        ws="none",
    )
    server.run(config, listening)


def application() -> AdminApp:
    """Return the API, called in a process of uvicorn."""
    from smarter_auth_mw.admin import AdminApp

    session = Session(os.environ[FROM_APP] or None)
    return AdminApp(session.settings, app=session.found and session.found.app)
