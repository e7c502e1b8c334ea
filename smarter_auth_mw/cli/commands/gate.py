"""`smarter-auth gate`: the forward-auth endpoint, on uvicorn."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated, Any

import typer

from smarter_auth_mw import access_log
from smarter_auth_mw.cli.arguments import Fd, Host, LogFormat, LogFormatName, Port, Workers
from smarter_auth_mw.cli.output import note
from smarter_auth_mw.cli.ports import listener
from smarter_auth_mw.cli.session import say_where_data_is
from smarter_auth_mw.configured import compile_routes, load_settings
from smarter_auth_mw.gate.dialects import DIALECTS
from smarter_auth_mw.gate.forward_auth import ForwardAuth

SPOKEN = "_SMARTER_AUTH_DIALECT"
"""Passes the dialect to uvicorn's worker processes; not a setting, hence the underscore."""

DialectName = StrEnum("DialectName", ["nginx", "traefik", "envoy", "caddy"])


def gate(
    host: Host = "127.0.0.1",
    port: Port = 9000,
    fd: Fd = None,
    dialect: Annotated[DialectName, typer.Option("--dialect", help="The proxy in front.")] = DialectName["nginx"],
    workers: Workers = 1,
    log_format: LogFormat = LogFormatName.text,
) -> None:
    """Decide requests for a reverse proxy (forward auth), on any path.

    Example: smarter-auth gate --port 9000 --dialect traefik
    """
    import uvicorn

    from smarter_auth_mw.cli import server

    settings = load_settings()
    compile_routes(settings)  # Mistakes are reported before anything is served.
    if settings.hide_credentials:
        note("HIDE_CREDENTIALS does nothing here: the credentials are the proxy's to take out, as its example shows.")
    say_where_data_is(settings)
    listening = listener(host, port, fd)
    os.environ[SPOKEN] = dialect
    config = uvicorn.Config(
        f"{__name__}:application",
        factory=True,
        workers=workers,
        log_config=access_log.uvicorn_config(as_json=log_format == LogFormatName.json),
        # Every request of the proxy's clients would stand there, as one of the proxy's.
        access_log=False,
        # Switched on, it lets anyone who writes a header say where they come from.
        proxy_headers=False,
        # A handshake that a proxy asks about is answered as any other request.
        ws="none",
    )
    server.run(config, listening)


def application() -> Any:
    """The gate, in a process of uvicorn's."""
    return ForwardAuth(DIALECTS[os.environ[SPOKEN]])
