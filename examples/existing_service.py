"""A service as one finds it: plain ASGI, written long ago, knowing nothing of keys. Nothing in it is touched.

export SMARTER_AUTH_DATABASE_URL=embedded: SMARTER_AUTH_ROUTES='bot /bots/{ref}'
smarter-auth db migrate
smarter-auth key create --name my-first-key --bind bot:support
cd examples && smarter-auth serve existing_service:app
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Answer every HTTP request with its path; it does not speak lifespan."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    while (await receive()).get("more_body"):
        pass
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": f"You have reached {path}\n".encode()})
