"""`smarter-auth doctor`: look at everything that can be reached, and say what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from smarter_auth_mw.cli import apps, findings, naming
from smarter_auth_mw.cli.app_routes import middlewares_of, routes_of
from smarter_auth_mw.cli.findings import Covered, Finding
from smarter_auth_mw.cli.session import Session
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.errors import ConfigurationError, SmarterAuthError
from smarter_auth_mw.parts import open_store
from smarter_auth_mw.routing import Routes

SHOWN_RESOURCES = 10


async def doctor(session: Session) -> dict[str, Any]:
    """Check settings, database and, with --app, the app's own routes; exit code 1 where there is a problem."""
    app = apps.load(session.from_app) if session.from_app else None
    found = [*_of_wrapping(session, app), *_of_settings(session)]
    covered = []
    if not any(finding.level == "problem" for finding in found):
        covered = findings.cover(routes_of(app), session.routes)
        found += [*_of_app(session, app, covered), *[finding async for finding in _of_database(session)]]
    session.exit_code = 1 if any(finding.level == "problem" for finding in found) else 0
    return {
        "routes_from": session.routes_from,
        "routes": [findings.row(one) for one in covered],
        "findings": [asdict(finding) for finding in found],
    }


def _of_wrapping(session: Session, app: Any) -> Iterator[Finding]:
    """Take an app without a middleware of ours for one that `serve` is to wrap."""
    if session.from_app and apps.find_middleware(app) is None:
        yield Finding(
            "warning",
            "wrapping",
            f"{session.from_app} has no SmarterAuthMiddleware: what the environment says is checked.",
            "Run it by: smarter-auth serve, or add the middleware.",
        )
        session.from_app = None


def _of_settings(session: Session) -> Iterator[Finding]:
    try:
        _ = session.routes
    except ConfigurationError as error:
        for mistake in error.mistakes:
            yield Finding("problem", "settings", str(mistake), "Nothing can be decided until it is right.")


def _of_app(session: Session, app: Any, covered: Sequence[Covered]) -> Iterator[Finding]:
    if covered:
        yield from findings.of_routes(covered, session.routes)
    yield from findings.of_preflights(covered, middlewares_of(app), session.settings)


async def _of_database(session: Session) -> AsyncIterator[Finding]:
    try:
        async with open_store(session.database_settings) as store:
            resources = [one.resource for one in await session.keys_of(store).resources() if one.is_protected]
            may_change_audit = await store.may_change_audit()
    except SmarterAuthError as error:
        yield Finding("problem", "database", error.message, error.hint)
        return
    if may_change_audit:
        yield Finding(
            "warning",
            "audit",
            "The role that requests are decided as may change and delete what the audit says.",
            "Let the app work as a role of its own: smarter-auth db migrate --runtime-role ROLE",
        )
    lost = [resource for resource in resources if not _is_reached(session.routes, resource)]
    for resource in lost[:SHOWN_RESOURCES]:
        yield Finding(
            "problem",
            "unrouted",
            f"{resource} is protected, and no line of ROUTES leads to it: its own URL, if it has one, is open.",
            "Add a line for its URL to SMARTER_AUTH_ROUTES.",
        )
    if len(lost) > SHOWN_RESOURCES:
        yield Finding("problem", "unrouted", f"So it is with {len(lost) - SHOWN_RESOURCES} more.", "")


def _is_reached(routes: Routes, resource: Resource) -> bool:
    """By its reference, or perhaps by its name."""
    by_name = any(
        pattern.kind == resource.kind and pattern.form.placeholder in naming.ALIAS_FORMS for pattern in routes.patterns
    )
    return by_name or bool(naming.urls(routes, resource))
