"""A FastAPI app whose bots stream their answers, over HTTP and over WebSockets; each bot has keys of its own.

export SMARTER_AUTH_DATABASE_URL=embedded: SMARTER_AUTH_ROUTES='bot /bots/{ref:int}'
smarter-auth db migrate
smarter-auth key create --name my-first-key --bind bot:1
uvicorn --app-dir examples fastapi_app:app
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from smarter_auth_mw import SmarterAuthMiddleware
from smarter_auth_mw.fastapi import Grant, optional_key

app = FastAPI(title="Bots")
app.add_middleware(SmarterAuthMiddleware)


class Question(BaseModel):
    """A question to a bot."""

    text: str
    pause_s: float = 0.0


async def answer(bot: int, text: str, pause_s: float = 0.0) -> AsyncIterator[str]:
    """A language model would think here."""
    for word in (f"Bot {bot} heard:", *text.split()):
        yield f"{word} "
        await asyncio.sleep(pause_s)


@app.get("/bots/{bot}")
async def describe(bot: int, grant: Annotated[Grant | None, Depends(optional_key)]) -> dict[str, Any]:
    """Say who is asking; the dependency puts the Authorize button on the page at /docs."""
    return {
        "bot": bot,
        "key": grant.principal.display_name if grant else None,
        "key_id": grant.key_id if grant else None,
    }


@app.post("/bots/{bot}/chat")
async def chat(bot: int, question: Question) -> StreamingResponse:
    """Stream the answer word by word."""
    return StreamingResponse(answer(bot, question.text, question.pause_s), media_type="text/plain")


@app.websocket("/bots/{bot}/socket")
async def socket(bot: int, websocket: WebSocket) -> None:
    """Answer every message; a key that is revoked meanwhile closes the socket at the next one."""
    await websocket.accept()
    try:
        while True:
            text = await websocket.receive_text()
            async for word in answer(bot, text):
                await websocket.send_text(word)
    except WebSocketDisconnect:
        return


@app.get("/health")
async def health() -> dict[str, str]:
    """Not a resource: no line of ROUTES matches its path."""
    return {"status": "ok"}
