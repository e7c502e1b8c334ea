"""`smarter-auth check`: what the middleware would do with a request, and why."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any

import typer

from smarter_auth_mw.cli import arguments, guards
from smarter_auth_mw.cli import user_app as apps
from smarter_auth_mw.cli.output import note
from smarter_auth_mw.cli.session import Session
from smarter_auth_mw.management.check import Authenticate, Checker, request_scope
from smarter_auth_mw.postgres.opening import open_store
from smarter_auth_mw.postgres.store import Store


async def check(
    session: Session,
    url: Annotated[str, typer.Argument(metavar="URL", help="The request's URL or path, for example /bots/1.")],
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header",
            "-H",
            metavar="'NAME: VALUE'",
            help="A request header, for example 'Authorization: Token …'; repeatable.",
        ),
    ] = None,
    method: Annotated[str, typer.Option("--method", "-X", help="The request's method, for example POST.")] = "GET",
) -> dict[str, Any]:
    """Explain what the middleware does with a request; exit code 1 if it is denied.

    Example: smarter-auth check http://localhost/bots/1
    """
    from smarter_auth_mw.engine.assembly import authenticator_of  # Late: this one command needs them.
    from smarter_auth_mw.guard import Guard

    if session.from_app and (wrapper := guards.wrapper_of(apps.load(session.from_app))):
        note(f"{wrapper} wraps the middleware and may answer by itself: this decides the requests that it passes on.")
    scope = request_scope(url, method, arguments.headers(header or ()), session.root_path)
    guard = Guard(session.found and session.found.app, session.settings)

    def authenticator(store: Store) -> Authenticate:
        return authenticator_of(session.settings, store).authenticate

    def opened() -> AbstractAsyncContextManager[Store]:
        return open_store(session.settings)

    document = await Checker(guard, opened, authenticator, routes_from=session.routes_from).check(scope)
    session.exit_code = 1 if document["decision"] == "deny" else 0
    return document
