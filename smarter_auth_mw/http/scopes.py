"""Normalises the scopes that servers and adapters send: the usual form, other valid ASGI forms, and invalid ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from starlette.types import Scope

from smarter_auth_mw.http.credentials import Header

UNUSUAL = (KeyError, TypeError, IndexError, ValueError, AttributeError)
"""The errors that reading an unusual scope raises."""
_RAW_PATHS = (bytes, type(None))


class UnreadableScopeError(Exception):
    """The scope violates the ASGI specification, so the request cannot be read."""


def is_usual(scope: Scope) -> bool:
    """Return whether all fields that a decision reads have the usual types, with lower-case header names."""
    try:
        if not (
            type(scope["headers"]) is list
            and type(scope["path"]) is str
            and type(scope["query_string"]) is bytes
            and type(scope.get("root_path", "")) is str
            and type(scope.get("raw_path")) in _RAW_PATHS
            and type(scope.get("client") or ()) is tuple
            and type(scope.get("extensions") or {}) is dict
            and type(scope.get("method", "")) is str
            and type(scope.get("subprotocols", [])) is list
            and ("method" in scope or scope["type"] != "http")
        ):
            return False
        for name, value in scope["headers"]:
            if type(name) is not bytes or type(value) is not bytes or not name.islower():
                return False
    except (KeyError, TypeError, ValueError):
        return False
    return True


def mended(scope: Scope) -> Scope:
    """Return a copy in the usual form; raises UnreadableScopeError if a required field is missing.

    ASGI lets headers be any iterable of pairs, a client be any pair, and optional keys be absent. Header names must
    be lower-case; others are converted, since the app may convert them too.
    """
    mending = {
        "path": _text(scope, "path"),
        "root_path": _text(scope, "root_path", ""),
        "raw_path": _raw_path(scope.get("raw_path")),
        "query_string": _query_string(scope.get("query_string")),
        "headers": _headers(scope.get("headers")),
        "client": _client(scope.get("client")),
        "extensions": scope["extensions"] if isinstance(scope.get("extensions"), Mapping) else {},
    }
    if scope["type"] == "http":
        mending["method"] = _text(scope, "method")
    else:
        mending["subprotocols"] = _subprotocols(scope.get("subprotocols"))
    return {**scope, **mending}


def readable_part(scope: Scope) -> Scope:
    """Return the part of an unreadable scope that a refusal needs."""
    method = scope.get("method")
    return {
        "type": scope["type"],
        "method": method if isinstance(method, str) else "GET",
        "path": "",
        "headers": [],
        "client": _client(scope.get("client")),
        "extensions": scope.get("extensions") if isinstance(scope.get("extensions"), Mapping) else {},
    }


def _text(scope: Scope, name: str, default: str | None = None) -> str:
    value = scope.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise UnreadableScopeError(f"the server's {name} is a {type(value).__name__}, not a str")
    return str(value)


def _raw_path(value: Any) -> bytes | None:
    if value is not None and not isinstance(value, bytes | bytearray | memoryview):
        raise UnreadableScopeError(f"the server's raw_path is a {type(value).__name__}, not bytes")
    return None if value is None else bytes(value)


def _query_string(value: Any) -> bytes:
    return bytes(value) if isinstance(value, bytes | bytearray | memoryview) else b""


def _headers(value: Any) -> list[Header]:
    try:
        pairs = [cast("tuple[Any, Any]", tuple(pair)) for pair in value or ()]
        return [(_bytes(name).lower(), _bytes(content)) for name, content in pairs]
    except (TypeError, ValueError):
        raise UnreadableScopeError("the server's headers are not pairs of bytes") from None


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise TypeError
    return bytes(value)


def _client(value: Any) -> tuple[Any, ...] | None:
    """Return the address that the server reports, or None if it is not an address."""
    return (tuple(value) or None) if isinstance(value, Iterable) and not isinstance(value, str | bytes) else None


def _subprotocols(value: Any) -> list[str]:
    is_list = isinstance(value, Iterable) and not isinstance(value, str | bytes)
    return [one for one in value if isinstance(one, str)] if is_list else []
