"""`smarter-auth doctor`: check everything that can be reached, and say what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Annotated, Any

import typer

from smarter_auth_mw.cli import guards
from smarter_auth_mw.cli import user_app as apps
from smarter_auth_mw.cli.doctor import routes as findings
from smarter_auth_mw.cli.doctor import services as examination
from smarter_auth_mw.cli.doctor.keys import check_keys
from smarter_auth_mw.cli.doctor.lifetimes import of_key_lifetimes
from smarter_auth_mw.cli.doctor.routes import Covered, Finding, Level
from smarter_auth_mw.cli.output import note
from smarter_auth_mw.cli.session import Session
from smarter_auth_mw.configured import compile_routes
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.errors import ConfigurationError, SmarterAuthError
from smarter_auth_mw.management import naming
from smarter_auth_mw.postgres.opening import open_store
from smarter_auth_mw.routing.app_routes import middlewares_of, routes_of
from smarter_auth_mw.routing.routes import Routes

SHOWN_RESOURCES = 10

Strict = Annotated[bool, typer.Option("--strict", help="Exit with code 1 for warnings too.")]


async def doctor(session: Session, *, strict: Strict = False) -> dict[str, Any]:
    """Check settings, database, shared cache, clocks, keys, proxies and, with --app, the app's routes.

    Exit codes: 0 no problem, 1 a problem, 3 something could not be reached.

    Example: smarter-auth doctor --app app:app
    """
    app = apps.load(session.from_app) if session.from_app else None
    inner = [found for _, found in guards.inner_middlewares(app)]
    found = [*_of_wrapping(session, app), *_of_settings(session, inner)]
    covered, is_configured = [], not any(finding.level == "problem" for finding in found)
    if is_configured:
        covered = findings.cover(routes_of(app), session.routes, session.settings)
        found += [*_check_app(session, app, covered), *examination.check_proxies(session.settings)]
        found += examination.check_metrics(session.settings)
        note("Checking the database.")
        found += [finding async for finding in _check_database(session)]
        note("Checking the shared cache.")
        found += [finding async for finding in examination.check_cache(session.settings)]
        found += findings.check_slugs(session.routes.patterns)
    session.exit_code = exit_code(found, is_strict=strict)
    note(_summary(found))
    return {
        "routes_from": session.routes_from if is_configured else None,
        "routes": [findings.row(one) for one in covered],
        "findings": [finding.row() for finding in found],
    }


def exit_code(found: Sequence[Finding], *, is_strict: bool = False) -> int:
    """Return the exit code of the worst problem; 1 for a warning if ``is_strict``."""
    codes = [finding.exit_code for finding in found if finding.level == "problem"]
    return max(codes, default=int(is_strict and _count(found, "warning") > 0))


def _summary(found: Sequence[Finding]) -> str:
    if not found:
        return "No problem was found."
    notes = _count(found, "note")
    counted = f"problems {_count(found, 'problem')}, warnings {_count(found, 'warning')}"
    return f"Found: {counted}{f', notes {notes}' if notes else ''}."


def _count(found: Sequence[Finding], level: Level) -> int:
    return sum(finding.level == level for finding in found)


def _of_wrapping(session: Session, app: Any) -> Iterator[Finding]:
    """Report what bypasses the app's own middleware; an app without one is checked as `serve` would run it."""
    if not session.from_app:
        return
    if wrapper := guards.wrapper_of(app):
        yield Finding(
            "note" if guards.added_in_front(app) else "warning",
            "wrapping",
            f"{wrapper} wraps SmarterAuthMiddleware and may answer by itself: the check covers what passes it.",
            "Make the middleware the outermost one, or run the app with: smarter-auth serve",
        )
    elif guards.guard_of(app) is None:
        yield Finding(
            "warning",
            "wrapping",
            f"{session.from_app} has no SmarterAuthMiddleware{apps.only_at(app)}: the environment is checked instead.",
            "Run it with: smarter-auth serve, or add the middleware.",
        )
        session.from_app, session.found = None, guards.FoundMiddleware(None, app, "")


def _of_settings(session: Session, inner: Sequence[guards.FoundMiddleware]) -> Iterator[Finding]:
    try:
        for found in (session.found, *inner):
            compile_routes((found and found.settings) or session.settings, found and found.app)
    except ConfigurationError as error:
        for mistake in error.mistakes:
            yield Finding("problem", "settings", str(mistake), "No request can be decided until it is fixed.")
        return
    if session.settings.verify_router:
        yield Finding(
            "warning",
            "settings",
            "SMARTER_AUTH_VERIFY_ROUTER is for development: it checks every response a second time.",
            "Remove it in production.",
        )


def _check_app(session: Session, app: Any, covered: Sequence[Covered]) -> Iterator[Finding]:
    if covered:
        yield from findings.check_routes(covered, session.routes)
        yield from findings.check_pages(covered, session.settings)
    yield from findings.check_preflights(covered, middlewares_of(app), session.settings)
    yield from findings.check_forwarding(app)


async def _check_database(session: Session) -> AsyncIterator[Finding]:
    found = [finding async for finding in examination.check_database(session.settings)]
    for finding in found:
        yield finding
    if any(
        finding.check in ("database", "schema", "platform", "grants", "statements") and finding.level == "problem"
        for finding in found
    ):
        return  # The next checks could not read anything.
    try:
        async with open_store(session.settings) as store:
            resources = [one.resource for one in await session.keys_of(store).resources() if one.is_protected]
            attention = [finding async for finding in check_keys(store)]
            lifetimes = [finding async for finding in of_key_lifetimes(session.settings, store)]
    except SmarterAuthError as error:
        yield Finding("problem", "database", error.message, error.hint, error.exit_code)
        return
    for finding in lifetimes:
        yield finding
    lost = [resource for resource in resources if not _is_reached(session.routes, resource)]
    for resource in lost[:SHOWN_RESOURCES]:
        yield Finding(
            "problem",
            "unrouted",
            f"{resource} is protected, and no line of ROUTES leads to it: if the app serves it, its URL is open.",
            "Add a line for its URL to SMARTER_AUTH_ROUTES.",
        )
    if len(lost) > SHOWN_RESOURCES:
        yield Finding("problem", "unrouted", f"… and {len(lost) - SHOWN_RESOURCES} more.", "")
    for finding in attention:
        yield finding


def _is_reached(routes: Routes, resource: Resource) -> bool:
    """Return whether a request can reach the resource by its reference, or perhaps by its name."""
    by_name = any(
        pattern.kind == resource.kind and pattern.form.placeholder in naming.ALIAS_FORMS for pattern in routes.patterns
    )
    return by_name or bool(naming.urls(routes, resource))
