"""A Starlette app with its bots protected: one line, configured by the environment.

export SMARTER_AUTH_DATABASE_URL=embedded: SMARTER_AUTH_ROUTES='bot /bots/{ref:int}'
smarter-auth db migrate
smarter-auth key create --name my-first-key --bind bot:1
uvicorn --app-dir examples starlette_app:app
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from smarter_auth_mw import SmarterAuthMiddleware


async def health(_: Request) -> JSONResponse:
    """Not a resource: no line of ROUTES matches its path, and the middleware lets it pass."""
    return JSONResponse({"status": "ok"})


async def bot(request: Request) -> JSONResponse:
    """Runs only for a token that is bound to this bot, or where the bot is open."""
    decision = request.scope["smarter_auth"]
    return JSONResponse(
        {
            "resource": str(decision.resource),
            "authenticated": request.user.is_authenticated,
            "key": request.user.display_name,
            "key_id": decision.key_id,
        }
    )


app = Starlette(
    routes=[Route("/health", health), Route("/bots/{ref:int}", bot)],
    middleware=[Middleware(SmarterAuthMiddleware)],
)
