"""Several apps in one process, below a path and at a host of their own, each with keys and settings of its own.

export SMARTER_AUTH_DATABASE_URL=embedded: SMARTER_AUTH_ROUTES='bot /bots/{ref}'
smarter-auth db migrate
smarter-auth key create --name for-bots --bind bot:1
uvicorn --app-dir examples several_apps:app
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Host, Mount, Route

from smarter_auth_mw import Settings, SmarterAuthMiddleware


async def describe(request: Request) -> JSONResponse:
    """Return the requested resource and the principal."""
    decision = request.scope["smarter_auth"]
    return JSONResponse({"resource": str(decision.resource), "key_id": decision.key_id})


@requires("authenticated")
async def members(request: Request) -> JSONResponse:
    """Starlette's own decorator: 403 for requests without a key, on an open bot too."""
    return await describe(request)


def protected(*routes: str, realm: str) -> list[Middleware]:
    """The middleware with settings of its own; the database is the environment's."""
    return [Middleware(SmarterAuthMiddleware, settings=Settings(routes=routes, realm=realm))]


bots = Starlette(
    routes=[Route("/bots/{ref}", describe), Route("/bots/{ref}/members", members)],
    middleware=protected("bot /bots/{ref}", realm="bots"),
)
tools = Starlette(
    routes=[Route("/tools/{ref}", describe)],
    middleware=protected("tool /tools/{ref} always", realm="tools"),
)

# Neither app knows its prefix: routes are matched after Mount has removed it.
app = Starlette(routes=[Host("tools.example.com", tools), Mount("/chat", bots), Mount("/workshop", tools)])
