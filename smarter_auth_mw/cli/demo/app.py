"""The app of `smarter-auth demo`: bots that answer, without any code for keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route


def create(announce: Callable[[], None]) -> Starlette:
    """Return the app; ``announce`` is called when it is ready to serve."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        announce()
        yield

    routes = [
        Route("/", _home),
        Route("/bots/{ref:int}", _bot),
        Route("/bots/{ref:int}/chat", _chat, methods=["POST"]),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


async def _home(_: Request) -> Response:
    return PlainTextResponse("Two bots live here: /bots/1 is protected, /bots/2 is open.\n")


async def _bot(request: Request) -> Response:
    return JSONResponse({"bot": request.path_params["ref"], "you": request.user.display_name or "anonymous"})


async def _chat(request: Request) -> Response:
    words = (await request.body()).decode("utf-8", "replace").split()

    async def echo() -> AsyncIterator[str]:
        for word in words:
            yield f"{word} "
        yield "\n"

    return StreamingResponse(echo(), media_type="text/plain")
