"""The existing service mounted into another app, with the middleware in front of both; one set of routes for it.

export SMARTER_AUTH_DATABASE_URL=embedded: SMARTER_AUTH_ROUTES='bot /bots/{ref}'
smarter-auth db migrate
smarter-auth key create --name my-first-key --bind bot:support
uvicorn --app-dir examples mounted:app
"""

from __future__ import annotations

from existing_service import app as existing_service
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from smarter_auth_mw import SmarterAuthMiddleware


async def home(_: Request) -> PlainTextResponse:
    """The new app's own page."""
    return PlainTextResponse("The service is at /service.\n")


# The prefix is found in the app's own Mount: /service/bots/support and /bots/support are the resource bot:support.
app = SmarterAuthMiddleware(Starlette(routes=[Route("/", home), Mount("/service", existing_service)]))
