"""The apps that the benchmarks compare. Each protects ``/bots/1`` with a token from the environment."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from fastapi import FastAPI, HTTPException, Request, Security
from fastapi.security import APIKeyHeader
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from smarter_auth_mw import SmarterAuthMiddleware

TOKEN, DATABASE = "BENCHMARK_TOKEN", "BENCHMARK_DATABASE_URL"
"""The environment variables for the token that opens ``/bots/1``, and for the database that contains it."""


async def answer(request: Request) -> Response:
    return PlainTextResponse("ok")


async def refuse(request: Request) -> Response:
    return Response(status_code=401)


def app() -> Starlette:
    return Starlette(routes=[Route("/bots/{id:int}", answer), Route("/health", answer), Route("/no", refuse)])


def answers() -> ASGIApp:
    """Return the minimal app: it answers every request with 200, without reading it."""

    async def bare(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})

    return bare


class DictBackend(AuthenticationBackend):
    """A minimal check: one header, one dict, no hashing."""

    def __init__(self, token: str) -> None:
        self.users = {token: SimpleUser("laptop")}

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        user = self.users.get(conn.headers.get("authorization", "")[6:])
        return None if user is None else (AuthCredentials(["authenticated"]), user)


class Floor:
    """A careful check written by hand, without audit, metrics or invalidation."""

    def __init__(self, wrapped: ASGIApp, token: str) -> None:
        self.app = wrapped
        self.pattern = re.compile(r"/bots/([1-9][0-9]{0,18})(?:/|$)")
        self.bound = {"1": {hashlib.sha512(token.encode()).digest(): (SimpleUser("laptop"), float("inf"))}}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match = self.pattern.match(scope["path"])
        if match and match[1] in self.bound:
            token = next((value[6:] for name, value in scope["headers"] if name == b"authorization"), b"")
            found = self.bound[match[1]].get(hashlib.sha512(token).digest())
            if found is None or found[1] < time.time():
                return await PlainTextResponse("no", 401)(scope, receive, send)
            scope = {**scope, "user": found[0], "auth": AuthCredentials(["authenticated"])}
        return await self.app(scope, receive, send)


def with_authentication_middleware() -> ASGIApp:
    return AuthenticationMiddleware(app(), DictBackend(os.environ[TOKEN]))


def with_floor() -> ASGIApp:
    return Floor(app(), os.environ[TOKEN])


def guarded() -> ASGIApp:
    """Our middleware, configured by the environment, with every default."""
    return SmarterAuthMiddleware(app())


QUERY = """
SELECT key.name FROM smarter_auth.token
  JOIN smarter_auth.key ON key.key_id = token.key_id AND key.is_active AND key.revoked_at IS NULL
  JOIN smarter_auth.binding ON binding.key_id = key.key_id
  JOIN smarter_auth.resource ON resource.id = binding.resource_id
 WHERE token.digest = $1 AND resource.kind = 'bot' AND replace(resource.ref, '_', '-') = $2
"""


def with_query() -> FastAPI:
    """Return what people write with FastAPI and asyncpg: a dependency that asks the database, each time."""

    @asynccontextmanager
    async def lifespan(asked: FastAPI) -> AsyncIterator[None]:
        async with asyncpg.create_pool(os.environ[DATABASE], min_size=8, max_size=8) as asked.state.pool:
            yield

    asked = FastAPI(lifespan=lifespan)

    async def key_name(request: Request, header: str = Security(APIKeyHeader(name="Authorization"))) -> Any:
        digest = hashlib.sha512(header.removeprefix("Token ").encode()).digest()
        name = await request.app.state.pool.fetchval(QUERY, digest, request.path_params["bot_id"])
        if name is None:
            raise HTTPException(401)
        return name

    @asked.get("/bots/{bot_id}", response_class=PlainTextResponse)
    async def bot(bot_id: str, name: str = Security(key_name)) -> str:
        return "ok"

    return asked
