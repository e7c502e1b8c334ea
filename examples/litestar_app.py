"""A Litestar app with its bots protected.

export SMARTER_AUTH_DATABASE_URL=embedded: SMARTER_AUTH_ROUTES='bot /bots/{ref:int}'
smarter-auth db migrate
smarter-auth key create --name my-first-key --bind bot:1
granian --interface asgi --working-dir examples litestar_app:app
"""

from __future__ import annotations

from typing import Any

from litestar import Litestar, Request, WebSocket, get, websocket

from smarter_auth_mw import SmarterAuthMiddleware


@get("/bots/{bot:int}")
async def describe(bot: int, request: Request[Any, Any, Any]) -> dict[str, Any]:
    """Say who is asking: the principal is Litestar's ``request.user``."""
    decision: Any = dict(request.scope)["smarter_auth"]
    return {"resource": str(decision.resource), "bot": bot, "key_id": decision.key_id, "key": request.user.display_name}


@websocket("/bots/{bot:int}/socket")
async def chat(bot: int, socket: WebSocket[Any, Any, Any]) -> None:
    """Answer every message; a key that is revoked meanwhile closes the socket at the next one."""
    await socket.accept()
    async for text in socket.iter_data("text"):
        await socket.send_text(f"Bot {bot} heard: {text}")


@get("/health")
async def health() -> dict[str, str]:
    """Not a resource: no line of ROUTES matches its path."""
    return {"status": "ok"}


# Around the app, and not in middleware=[…]: there it would be behind Litestar's router, and get no start-up event.
app = SmarterAuthMiddleware(Litestar([describe, chat, health]))
