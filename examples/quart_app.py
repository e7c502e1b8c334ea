"""A Quart app with its bots protected.

export SMARTER_AUTH_DATABASE_URL=embedded: SMARTER_AUTH_ROUTES='bot /bots/{ref:int}'
smarter-auth db migrate
smarter-auth key create --name my-first-key --bind bot:1
cd examples && hypercorn quart_app:app
"""

from __future__ import annotations

from typing import Any

from quart import Quart, request, websocket

from smarter_auth_mw import SmarterAuthMiddleware

app = Quart(__name__)


@app.get("/bots/<int:bot>")
async def describe(bot: int) -> dict[str, Any]:
    """Say who is asking: the scope of the request holds the decision."""
    decision: Any = dict(request.scope)["smarter_auth"]
    return {"resource": str(decision.resource), "bot": bot, "key_id": decision.key_id}


@app.websocket("/bots/<int:bot>/socket")
async def chat(bot: int) -> None:
    """Answer every message; a key that is revoked meanwhile closes the socket at the next one."""
    while True:
        text = str(await websocket.receive())
        await websocket.send(f"Bot {bot} heard: {text}")


@app.get("/health")
async def health() -> dict[str, str]:
    """Not a resource: no line of ROUTES matches its path."""
    return {"status": "ok"}


app.asgi_app = SmarterAuthMiddleware(app.asgi_app)  # type: ignore[method-assign,assignment]
