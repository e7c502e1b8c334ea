"""Acts that ask for confirmation: a second page says what will happen; opening also needs a name and a token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from smarter_auth_mw.admin.call import INNER
from smarter_auth_mw.admin.pages.access import confirm_operator
from smarter_auth_mw.admin.pages.consequences import Outcome, Outlook
from smarter_auth_mw.admin.pages.forms import FieldError
from smarter_auth_mw.admin.pages.visit import Html, Visit
from smarter_auth_mw.admin.problems import ForbiddenError
from smarter_auth_mw.decision import Require
from smarter_auth_mw.domain import Key, Resource
from smarter_auth_mw.errors import WouldOpenError
from smarter_auth_mw.management.listings import KeyFilters
from smarter_auth_mw.management.operators import Role

Trail = Sequence[tuple[str, str]]
"""The pages above this one: their names and paths."""


@dataclass(frozen=True)
class Act:
    """An act to confirm: a question, its button, and what will happen.

    Without a ``button`` it cannot be done, and ``says`` explains why.
    """

    title: str
    button: str
    says: Sequence[str]
    command: str | None
    is_danger: bool = False

    def html(self, trail: Trail, visit: Visit | None = None, opened: Sequence[Resource] = ()) -> Html:
        """Return the page; where the act opens resources it has fields for their names and a token."""
        context = {"act": self, "trail": trail, "command": self.command}
        return Html("act.html", context | confirmation(visit, opened))


def impossible(title: str, why: str, trail: Trail) -> Html:
    """Return the page of an act that cannot be done now: why, and no form."""
    return Act(title, "", [why], None).html(trail)


def confirmation(visit: Visit | None, opened: Sequence[Resource] = ()) -> dict[str, str]:
    """Return what a confirmation form shows, for resources that are known or were found to open."""
    error = visit and visit.error
    if isinstance(error, WouldOpenError):
        opened = error.opened
    return {"confirm": names(opened), "confirm_typed": visit.form.get("confirm") if visit else ""}


def names(resources: Sequence[Resource]) -> str:
    """Write the names that have to be typed."""
    return " ".join(map(str, resources))


async def confirmed(visit: Visit, opened: Sequence[Resource]) -> None:
    """Check that an admin has typed the names of what is opened, and the token again; raises FieldError."""
    if not visit.is_admin:
        raise ForbiddenError(Role.ADMIN)
    if visit.form.get("confirm").split() != names(opened).split():
        raise FieldError("confirm", f"Write {names(opened)} to confirm that anyone may use it.")
    await confirm_operator(visit)


async def ask_or_open(visit: Visit, operation: str, **more: Any) -> None:
    """Run an operation; if it would open resources, run it again once these are confirmed.

    The second time it may open these and no others, whatever else has changed in between.
    """
    try:
        await visit.ask(operation, **more)
    except WouldOpenError as error:
        if "confirm" not in visit.form:
            raise
        await confirmed(visit, error.opened)
        await visit.ask(operation, opens=error.opened, **more)


async def outcomes(visit: Visit, key: Key, *, stays_closed: bool = False) -> list[Outcome]:
    """Say what happens to each resource that the key opens when it no longer does, for at most ten."""
    require = "bound" if stays_closed else visit.services.settings.require
    return [(await outlook(visit, resource, require)).without(key) for resource in key.bindings[:10]]


async def outlook(visit: Visit, resource: Resource, require: Require) -> Outlook:
    """Load only as many keys of the resource as the count that is shown needs."""
    call = visit.call()
    found = await call.find_resource(resource)
    active = await call.listings.keys(KeyFilters(resource=resource, state="active"), limit=INNER + 2, inner=0)
    keys = {key.key_id: key for key in (*found.keys, *active.items)}
    return Outlook(replace(found, keys=tuple(keys.values())), require, visit.now)
