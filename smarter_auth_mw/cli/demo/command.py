"""`smarter-auth demo`: a database, a protected and an open bot, a server, and curl commands to try."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from smarter_auth_mw.cli.output import line, note
from smarter_auth_mw.cli.session import os_user

if TYPE_CHECKING:
    import uvicorn

    from smarter_auth_mw.cli.demo.runs import Run
    from smarter_auth_mw.config.settings import Settings
    from smarter_auth_mw.postgres.embedded.cluster import Cluster

HOST = "127.0.0.1"
ROUTES = ["bot /bots/{ref:int}"]
PAGES_PORT = 8010
FAREWELL_S = 1
"""The time for which running requests may delay the shutdown, in seconds."""


def demo(
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="The port; a free one if it is taken.")] = 8000,
    directory: Annotated[
        Path | None, typer.Option("--directory", metavar="DIR", help="The directory of the demo database.")
    ] = None,
) -> None:
    """Start a demo: a database, a protected and an open bot, pages to look at their keys, and curl commands to try.

    Example: smarter-auth demo
    """
    from smarter_auth_mw.postgres.embedded.cluster import Cluster

    place = (directory or default_directory()).absolute()
    _leave_environment_aside()
    try:
        with _stopped_by_signals(), Cluster.start(place, progress=note) as cluster:
            asyncio.run(_run(cluster, place, port))
    except KeyboardInterrupt:
        note("The server and the database have stopped.")


def default_directory() -> Path:
    """Return the demo's own directory, next to the default one, which may hold the user's real keys."""
    from smarter_auth_mw.postgres.embedded import place as embedded_place

    return embedded_place.default_directory().with_name("demo")


def _leave_environment_aside() -> None:
    from smarter_auth_mw.config.origins import PREFIX

    found = [name for name in os.environ if name.startswith(PREFIX)]
    for name in found:
        del os.environ[name]
    if found:
        note(f"Settings that the demo ignores: {', '.join(sorted(found))}")


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """End the block on SIGTERM as on Ctrl-C, and on Ctrl-C even if the shell made it ignored (`demo &`)."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def _run(cluster: Cluster, place: Path, port: int) -> None:
    import uvicorn

    from smarter_auth_mw.asgi import SmarterAuthMiddleware
    from smarter_auth_mw.cli.demo import app as demo_app
    from smarter_auth_mw.cli.demo.runs import demo_run
    from smarter_auth_mw.cli.ports import bound_nearby
    from smarter_auth_mw.config.settings import Settings
    from smarter_auth_mw.postgres import migrations
    from smarter_auth_mw.postgres.embedded.setup import RUNTIME

    await migrations.migrate(cluster.url("owner"), progress=note, manager_role=RUNTIME)
    owner, settings = (Settings(database_url=cluster.url(role), routes=ROUTES) for role in ("owner", "runtime"))
    async with demo_run(owner, Path(cluster.home), os_user()) as run, _pages(settings) as pages:
        listener = bound_nearby(HOST, port)
        announce = partial(_announce, run, listener.getsockname()[1], pages, place)
        app = SmarterAuthMiddleware(demo_app.create(announce), settings)
        await uvicorn.Server(_config(app)).serve(sockets=[listener])


def _config(app: Any) -> uvicorn.Config:
    import uvicorn

    from smarter_auth_mw import access_log

    return uvicorn.Config(
        app,
        lifespan="on",
        log_level="warning",
        proxy_headers=False,
        log_config=access_log.uvicorn_config(),
        timeout_graceful_shutdown=FAREWELL_S,
    )


@asynccontextmanager
async def _pages(settings: Settings) -> AsyncIterator[str]:
    """Serve the pages while the block runs; yields their address, or an empty string without the extra."""
    from smarter_auth_mw.admin import AdminApp
    from smarter_auth_mw.cli import server
    from smarter_auth_mw.cli.ports import bound_nearby

    if find_spec("jinja2") is None:
        yield ""
        return
    listener = bound_nearby(HOST, PAGES_PORT)
    async with server.beside(_config(AdminApp(settings)), listener):
        yield f"http://{HOST}:{listener.getsockname()[1]}/"


def _announce(run: Run, port: int, pages: str, place: Path) -> None:
    minted = run.minted
    bots = f"http://{HOST}:{port}/bots"
    credentials = f"-H 'Authorization: Token {minted.token.reveal()}'"
    line(f"""
Bot 1 is protected, bot 2 is open. The token of bot 1, shown only now:

  {minted.token.reveal()}

Without the token, in another terminal: 401 and a challenge.

  curl -i {bots}/1

With the token: 200.

  curl -i {credentials} {bots}/1
  curl -N {credentials} -d 'a streamed answer' {bots}/1/chat

The open bot, without a token: 200.

  curl -i {bots}/2

Revoke the key. Within seconds, the token no longer works.

  {_url(place)} {_program()} key revoke {minted.key.key_id}

{_about_pages(run, pages, place)}

Ctrl-C stops the server and the database.""")


def _url(place: Path) -> str:
    return f"SMARTER_AUTH_DATABASE_URL={shlex.quote(f'embedded://{quote(str(place))}')}"


def _about_pages(run: Run, pages: str, place: Path) -> str:
    if not pages:
        return "To see keys, usage and the audit in a browser too: pip install 'smarter_auth_mw[admin]'"
    return f"""Keys, usage and the audit in a browser. Sign in with the token of an operator created for this run:

  {pages}
  {run.operator.token.reveal()}

Each page shows the command that does the same. To run these commands in a terminal, first set:

  export {_url(place)} SMARTER_AUTH_ROUTES={shlex.quote(";".join(ROUTES))}"""


def _program() -> str:
    """Return the command that runs this program in another terminal."""
    script = Path(sys.executable).with_name("smarter-auth")
    if shutil.which(script.name) == str(script):
        return script.name
    return shlex.quote(str(script)) if script.exists() else f"{shlex.quote(sys.executable)} -m smarter_auth_mw"
