"""Real proxies with the configurations that we ship, the gate beside each, and an unprotected service behind it."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from smarter_auth_mw.cli.attack.cases import ResourceUrl
from tests.programs import find, libraries
from tests.support.cli import EXAMPLES, PROGRAM
from tests.support.server import ROOT, UVICORN, Serving
from tests.support.sloppy_app import SERVED
from tests.support.valkey import free_port
from tests.support.warm import PYTHON

Changes = Sequence[tuple[str, str]]

IMPATIENT: Changes = [("stat_prefix: ingress", "stat_prefix: ingress\n" + " " * 16 + "delayed_close_timeout: 0.05s")]
"""Envoy waits a second before it closes a connection on which it has refused something."""

SERVICE = "tests.support.echoing_app:application"
PATIENCE_S = 120
NGINX = """
daemon off; pid nginx.pid; {user} worker_processes 1;
events {{ worker_connections 512; }}
http {{
    access_log off;
    {places}
    include smarter_auth.conf;
}}
"""
"""The context of our file in an nginx.conf: Debian's says as much."""
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@dataclass(frozen=True, slots=True)
class Ports:
    """Who listens where; the shipped files say 8080, 9000 and 8000."""

    proxy: int
    gate: int
    service: int

    def written_into(self, text: str) -> str:
        for shipped, port in ((8080, self.proxy), (9000, self.gate), (8000, self.service)):
            text = text.replace(str(shipped), str(port))
        return text


def _nginx(directory: Path) -> Sequence[str | Path]:
    places = " ".join(f"{name}_temp_path {directory};" for name in TEMPORARY)
    user = "user root;" if os.geteuid() == 0 else ""
    directory.joinpath("nginx.conf").write_text(NGINX.format(user=user, places=places))
    return [find("nginx"), "-p", directory, "-c", "nginx.conf", "-e", "stderr"]


def _caddy(directory: Path) -> Sequence[str | Path]:
    return [find("caddy"), "run", "--config", directory / "Caddyfile"]


def _traefik(directory: Path) -> Sequence[str | Path]:
    return [find("traefik"), f"--configFile={directory / 'traefik.yml'}"]


def _envoy(directory: Path) -> Sequence[str | Path]:
    quiet = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "critical"]
    return [find("envoy"), "--config-path", directory / "envoy.yaml", *quiet]


COMMANDS = {"nginx": _nginx, "caddy": _caddy, "traefik": _traefik, "envoy": _envoy}


@contextmanager
def proxied(
    proxy: str, directory: Path, environment: Mapping[str, str], *, has_gate: bool = True, changes: Changes = ()
) -> Iterator[Serving]:
    """The service behind the proxy, for as long as the block lasts; ``environment`` holds the gate's settings.

    ``changes`` are made to the shipped configuration.
    """
    find(proxy)  # Skip before anything is started.
    ports = Ports(free_port(), free_port(), free_port())
    write_configuration(proxy, directory, ports, [*IMPATIENT, *changes])
    served = directory / "served"
    served.touch()
    gate = [*PROGRAM, "gate", "--port", str(ports.gate), "--dialect", proxy]
    with (
        running(service(ports.service), ports.service, {SERVED: str(served)}),
        running(gate, ports.gate, environment) if has_gate else nullcontext(),
        running(COMMANDS[proxy](directory), ports.proxy, {**libraries(proxy), "HOME": str(directory)}, directory),
    ):
        while httpx.get(f"http://127.0.0.1:{ports.proxy}/bots/2").status_code == 404:
            time.sleep(0.01)  # Traefik listens before it has read where to.
        yield Serving(ResourceUrl("127.0.0.1", ports.proxy, "/"), served)


def service(port: int) -> Sequence[str]:
    """What runs the service on a port."""
    words = [word.replace("--fd", "--port").replace("FD", str(port)) for word in UVICORN]
    return [*PYTHON, "-m", *words, SERVICE]


def write_configuration(proxy: str, directory: Path, ports: Ports, changes: Changes = ()) -> None:
    """Put the shipped files into the directory, with these ports and changes."""
    for shipped in (EXAMPLES / proxy).iterdir():
        text = ports.written_into(shipped.read_text())
        for old, new in changes:
            text = text.replace(old, new)
        directory.joinpath(shipped.name).write_text(text)


@contextmanager
def running(
    command: Sequence[str | Path],
    port: int,
    environment: Mapping[str, str],
    directory: Path = ROOT,
    user: str | None = None,
    *,
    speaks_http: bool = True,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process for as long as the block lasts, which begins when it answers on the port."""
    process = subprocess.Popen(command, cwd=directory, env={**os.environ, **environment}, user=user)
    try:
        wait_for(process, port, speaks_http=speaks_http)
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def wait_for(process: subprocess.Popen[bytes], port: int, *, speaks_http: bool) -> None:
    """Until it answers on the port: serve and gate listen there a first time to see whether they may."""
    while process.poll() is None:
        with suppress(OSError, httpx.TransportError):
            if speaks_http:
                httpx.get(f"http://127.0.0.1:{port}/")
            else:
                socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(0.01)
    raise AssertionError("It ended before it was listening; its output stands above.")
