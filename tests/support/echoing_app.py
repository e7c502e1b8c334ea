"""The sloppy app without the middleware, which tells what it was sent: the service behind a proxy in the tests."""

from __future__ import annotations

import json
import os
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.support.sloppy_app import SERVED, SloppyApp


class EchoingApp(SloppyApp):
    """Answers with the headers that it got, as JSON, and otherwise as its sloppy parent."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        got = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
        body = json.dumps({"headers": got, "raw_path": scope["raw_path"].decode("latin-1")}).encode("ascii")

        async def send_told(message: Message) -> None:
            if message["type"] == "http.response.start":
                served = [header for header in message["headers"] if header[0] != b"content-length"]
                length = (b"content-length", str(len(body)).encode("ascii"))
                await send({**message, "headers": [*served, length]})
            else:
                await send({**message, "body": body})

        await super().__call__(scope, receive, send_told)


def application() -> ASGIApp:
    """The app, configured by the environment."""
    return EchoingApp(Path(os.environ[SERVED]))
