"""What a start-up says about an app: routes of its own that are refused, and mounts that nobody can look through."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from tests.support.asgi import guarded, lifespan
from tests.support.database import Database


async def endpoint(_: Any) -> None: ...


async def opaque(*_: Any) -> None: ...


async def started(database: Database, caplog: pytest.LogCaptureFixture, *routes: Any, **settings: Any) -> list[str]:
    """The lines that a start-up writes about the app."""
    caplog.set_level(logging.INFO, "smarter_auth_mw")
    async with lifespan(guarded(database.runtime, Starlette(routes=routes), **settings)):
        pass
    return [line for line in caplog.messages if line.startswith(("routes.", "mounts.", "app."))]


async def test_refused_routes_of_the_app_are_counted_and_doctor_is_named(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    paths = ["/bots/{id}", "/admin/bots/{id}", "/admin/bots/{id:int}/listed", "/health"]
    (line,) = await started(database, caplog, *[Route(path, endpoint) for path in paths])
    assert line.startswith("routes.refused: 2 of the app's own routes are refused")
    assert "smarter-auth doctor --app MODULE:APP" in line


async def test_mounts_that_could_not_be_looked_through_are_named_unless_mounts_are_set(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    mounts = [Mount("/socket", app=opaque), Mount("/other", app=opaque), Mount("/seen", routes=[])]
    (line,) = await started(database, caplog, *mounts)
    assert line.startswith(
        "mounts.unknown: the routes of a mounted app could not be inspected: /socket (opaque), /other (op"
    )
    assert "SMARTER_AUTH_MOUNTS" in line
    caplog.clear()
    assert await started(database, caplog, *mounts, mounts=["/svc"]) == []


async def test_a_sound_app_starts_in_silence(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    assert await started(database, caplog, Route("/bots/{id}", endpoint), Mount("/api", routes=[])) == []
