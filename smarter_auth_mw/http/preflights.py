"""CORS preflights that pass without a token, stripped of everything that could turn them into another request.

An app may have its own OPTIONS handler, and middleware that honours a method override may run another method's
handler. So a preflight passes without a body, and with no other method than in its own header.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from io import BytesIO
from typing import Any
from urllib.parse import unquote_plus

from starlette.types import Message, Receive, Scope

WSGIEnvironment = dict[str, Any]

_REQUESTED = "access-control-request-method"
_ABOUT_BODY = frozenset(
    {"content-length", "content-type", "content-encoding", "transfer-encoding", "expect", "trailer"}
)
_SEPARATOR = re.compile("([&;])")
_OTHER_METHOD = re.compile("method|verb(?!os)|override")
"""Matches the name of each header and parameter that frameworks accept as a method override."""


def is_preflight(scope: Mapping[str, Any]) -> bool:
    """Return whether it is a browser's preflight: ``OPTIONS`` with one origin and one requested method (Fetch §4.8)."""
    if scope.get("method") != "OPTIONS":
        return False
    names = [name for name, _ in scope["headers"]]
    return names.count(b"origin") == names.count(b"access-control-request-method") == 1


def bare_scope(scope: Scope) -> Scope:
    """Return the scope without body headers, and without headers and parameters that name another method."""
    headers = [header for header in scope["headers"] if not _is_left_out(header[0].decode("latin-1"))]
    return {**scope, "headers": headers, "query_string": _bare_query(scope.get("query_string", b""))}


def bare_environ(environ: WSGIEnvironment) -> WSGIEnvironment:
    """Return the environ without a body, and without headers and parameters that name another method."""
    kept = {name: value for name, value in environ.items() if not _is_left_out(_header_of(str(name)))}
    for name in ("QUERY_STRING", "RAW_URI", "REQUEST_URI"):
        if not isinstance(kept.get(name), str):
            kept.pop(name, None)
        else:
            path, mark, query = ("", "", kept[name]) if name == "QUERY_STRING" else kept[name].partition("?")
            kept[name] = path + mark + _bare_query(query.encode("latin-1", "replace")).decode("latin-1")
    return kept | {"wsgi.input": BytesIO(), "wsgi.input_terminated": True, "CONTENT_LENGTH": "0"}


def is_bare(scope: Scope, own_headers: Collection[bytes]) -> bool:
    """Return whether a scope has neither a body nor another method; ``own_headers`` are those of the proxy."""
    headers = [(name, value) for name, value in scope["headers"] if name not in own_headers]
    if any(name == b"content-length" and value not in (b"", b"0") for name, value in headers):
        return False
    names = {name.decode("latin-1") for name, _ in headers} - {"content-length", "content-type"}
    return not any(map(_is_left_out, names)) and bare_scope(scope)["query_string"] == scope["query_string"]


def without_body(receive: Receive) -> Receive:
    """Return a ``receive`` that reports an empty body first, and then only the client's disconnect."""
    first: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive_no_body() -> Message:
        if first:
            return first.pop()
        while (message := await receive())["type"] == "http.request":
            pass
        return message

    return receive_no_body


def _is_left_out(header: str) -> bool:
    name = header.lower().replace("_", "-")
    return name in _ABOUT_BODY or (name != _REQUESTED and _OTHER_METHOD.search(name) is not None)


def _header_of(variable: str) -> str:
    """Return the name of the header in a WSGI environ variable; empty for any other variable."""
    if variable in ("CONTENT_LENGTH", "CONTENT_TYPE"):
        return variable
    return variable.removeprefix("HTTP_") if variable.startswith("HTTP_") else ""


def _bare_query(query: bytes) -> bytes:
    parts = _SEPARATOR.split(query.decode("latin-1"))
    pairs = zip(parts[::2], [*parts[1::2], ""], strict=True)
    kept = "".join(pair + separator for pair, separator in pairs if not _names_method(pair))
    return (kept if kept == query.decode("latin-1") else kept.rstrip("&;")).encode("latin-1")


def _names_method(pair: str) -> bool:
    return _OTHER_METHOD.search(unquote_plus(pair.partition("=")[0]).lower()) is not None
