"""An app that reads paths as sloppily as anyone might, behind the middleware: what real servers serve in the tests."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from smarter_auth_mw import SmarterAuthMiddleware

SERVED = "SERVED"
"""The environment variable that names the file of whom it served."""

DOMAIN = ".bots.example"
HOST_HEADERS = {b"host", b"x-forwarded-host", b"forwarded", b"x-host", b"x-forwarded-server", b"x-original-host"}


class SloppyApp:
    """Serves ``/bots/NUMBER`` and ``LABEL.bots.example`` however they are spelled, and writes down whom it served.

    As the most lenient of routers might, it takes any of several readings of path and host, any of what ``int`` and its
    kin in other languages make of the number, and the word of any header that names a host.
    """

    def __init__(self, served: Path) -> None:
        self._served = served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for stage in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{stage}.complete"})
            return
        bots = sorted(_by_path(scope) | _by_host(scope))
        if bots:
            with self._served.open("a") as served:
                served.write(" ".join(bots) + "\n")
        headers = [(b"x-served", " ".join(bots).encode() or b"nothing"), (b"content-length", b"0")]
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept", "headers": headers[:1]})
            await _echo(receive, send)
            return
        await send({"type": "http.response.start", "status": 200 if bots else 404, "headers": headers})
        await send({"type": "http.response.body"})


async def _echo(receive: Receive, send: Send) -> None:
    while (message := await receive())["type"] != "websocket.disconnect":
        if message["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})


def _by_host(scope: Scope) -> set[str]:
    """The bots that some router would read in one of the headers that name a host."""
    values = [value.decode("latin-1") for name, value in scope["headers"] if name in HOST_HEADERS]
    words = {word for value in values for word in re.split(r"[\s,;=\"/?#@\\]+", _clean(value)) if word}
    hosts = {re.sub(r":\d*$", "", word).strip(".") for word in words}
    labels = {host.removesuffix(DOMAIN) for host in hosts if host.endswith(DOMAIN)}
    return {f"bot:{label}" for found in labels for label in (found, *found.split("."))}


def _by_path(scope: Scope) -> set[str]:
    """The bots that some router would read in the path."""
    raw_path = scope.get("raw_path") or b""
    sources = {scope["path"], unquote_to_bytes(raw_path.partition(b"?")[0]).decode("utf-8", "replace")}
    return {bot for source in sources for reading in _readings(source) for bot in _bots(reading)}


def _readings(path: str) -> Iterator[str]:
    for _ in range(5):
        for text in {path, path.partition("#")[0], path.partition("?")[0], _path_of_url(path)}:
            yield text
            yield _clean(text)
        path = unquote(path)


def _path_of_url(text: str) -> str:
    try:
        return urlsplit(text).path
    except ValueError:
        return text


def _clean(text: str) -> str:
    text = unicodedata.normalize("NFKD", text.replace("\\", "/"))
    text = "".join(char for char in text if unicodedata.category(char) not in {"Cf", "Cc", "Mn"} and char != "\ufffd")
    segments: list[str] = []
    for segment in text.upper().casefold().split("/"):
        word = segment.partition(";")[0].strip()
        if word == "..":
            del segments[-1:]
        elif word not in ("", "."):
            segments.append(word)
    return "/" + "/".join(segments)


def _bots(path: str) -> Iterator[str]:
    match path.split("/")[1:]:
        case ["bots", reference, *_]:
            for read in (int, lambda text: int(text, 0), lambda text: int(float(text)), _leading_number):
                try:
                    yield f"bot:{read(reference)}"
                except (ValueError, OverflowError):
                    continue


def _leading_number(text: str) -> int:
    found = re.match(r"\s*([+-]?\d{1,30})", text)
    if found is None:
        raise ValueError(text)
    return int(found[1])


def application() -> ASGIApp:
    """The app behind the middleware, both configured by the environment."""
    return SmarterAuthMiddleware(SloppyApp(Path(os.environ[SERVED])))
