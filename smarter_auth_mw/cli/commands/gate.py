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

SPOKEN = "_SMARTER_AUTH_DIALECT"
"""Passes the dialect to uvicorn's worker processes; not a setting, hence the underscore."""

DialectName = StrEnum("DialectName", ["nginx", "traefik", "envoy", "caddy"])


def gate(
    host: Host = "127.0.0.1",
    port: Port = 9000,
    fd: Fd = None,
    dialect: Annotated[
        DialectName, typer.Option("--dialect", help="The proxy in front: nginx, traefik, envoy or caddy.")
    ] = DialectName["nginx"],
    workers: Workers = 1,
    log_format: LogFormat = LogFormatName.text,
) -> None:
    """Decide requests for a reverse proxy (forward auth), on any path.

    Example: smarter-auth gate --port 9000 --dialect traefik
    """
    import uvicorn

    from smarter_auth_mw.cli import server

    settings = load_settings()
    compile_routes(settings)  # Report mistakes before serving anything.
    if settings.hide_credentials:
        note("HIDE_CREDENTIALS has no effect on the gate: remove the credentials in the proxy, as its example does.")
    say_where_data_is(settings)
    listening = listener(host, port, fd)
    os.environ[SPOKEN] = dialect
    config = uvicorn.Config(
        f"{__name__}:application",
        factory=True,
        workers=workers,
        log_config=access_log.uvicorn_config(as_json=log_format == LogFormatName.json),
        # The access log would list every request of the proxy's clients as one of the proxy.
        access_log=False,
        # If enabled, any client could claim any address in a header.
        proxy_headers=False,
        # A handshake that a proxy asks about is answered like any other request.
        ws="none",
    )
    server.run(config, listening)


def application() -> Any:
    """Return the gate, called in a process of uvicorn."""
    from smarter_auth_mw.gate.forward_auth import ForwardAuth  # Late: only a worker needs it.

    return ForwardAuth(DIALECTS[os.environ[SPOKEN]])
