"""Dialects of proxies: which headers describe the original request, and how each status is treated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from smarter_auth_mw.routing.by_path import MAX_RAW_BYTES
from smarter_auth_mw.routing.folding import UnreadableError, unquoted

OWN_TARGET = ""
"""Instead of a header name: method and target are those of the proxy's own request."""

_OF_WEBSOCKETS = b"sec-websocket-key"
_PLAIN_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE"})
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")

Headers = list[tuple[bytes, bytes]]


class MisreadError(Exception):
    """The proxy's headers do not name one request unambiguously."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """The headers of one proxy, and whether it only supports the refusals 401 and 403."""

    name: str
    uri: str
    method: str
    host: str = "Host"
    knows_two_refusals: bool = False
    uri_header: bytes = field(init=False, repr=False)
    method_header: bytes = field(init=False, repr=False)
    told_by: frozenset[bytes] = field(init=False, repr=False)
    """The names of the headers that describe the request in question, each of which comes exactly once."""

    def __post_init__(self) -> None:
        names = [name.lower().encode("ascii") for name in (self.uri, self.method, self.host)]
        object.__setattr__(self, "uri_header", names[0])
        object.__setattr__(self, "method_header", names[1])
        object.__setattr__(self, "told_by", frozenset(filter(None, names)))

    def plain_path(self, scope: Mapping[str, Any]) -> bytes | None:
        """Return the path of the request that ``scope`` asks about, if no more than its token decides beyond that.

        None has ``read`` look closer: at headers that do not describe one request, at what may be a preflight or a
        WebSocket, and at a path that is encoded. Raises one of ``UNUSUAL`` for a scope in another form than usual.
        """
        described: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in self.told_by:
                if name in described or not value:
                    return None
                described[name] = value
            elif name == _OF_WEBSOCKETS or not name.islower():
                return None
        if self.uri == OWN_TARGET:
            method, target = scope["method"].encode("ascii"), scope["raw_path"]
        else:
            method, target = described[self.method_header], described[self.uri_header]
        raw_path: bytes = target.partition(b"?")[0]
        is_plain = b"%" not in raw_path and method in _PLAIN_METHODS and len(described) == len(self.told_by)
        return raw_path if is_plain else None

    def read(self, scope: Mapping[str, Any]) -> dict[str, Any]:
        """Return the scope of the original request that ``scope`` describes; raises MisreadError."""
        headers: Headers = list(scope["headers"])
        target = self._target(scope, headers)
        if not target.startswith(b"/"):
            raise MisreadError(f"{self.uri or 'the target'} does not begin with a slash")
        raw_path, _, query = target.partition(b"?")
        host = _only(headers, self.host)
        others = [header for header in headers if header[0] != b"host"]
        return {
            "type": "http",
            "method": self._method(scope, headers),
            "path": _decoded(raw_path),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": [(b"host", host), *others],
            "client": scope.get("client"),
        }

    @property
    def own_headers(self) -> frozenset[bytes]:
        """The names of the headers in which the proxy sends the original target and method."""
        return frozenset({self.uri_header, self.method_header})

    def describes_another(self, scope: Mapping[str, Any]) -> bool:
        """Return whether a request contains headers that describe another one."""
        return any(name in self.own_headers for name, _ in scope["headers"])

    def _target(self, scope: Mapping[str, Any], headers: Headers) -> bytes:
        if self.uri != OWN_TARGET:
            return _only(headers, self.uri)
        # A server without raw_path has decoded the path: encoding it again gives the same decoded path.
        raw_path = scope.get("raw_path") or quote(scope["path"], errors="surrogatepass").encode("ascii")
        target: bytes = raw_path + b"?" + scope["query_string"]
        return target

    def _method(self, scope: Mapping[str, Any], headers: Headers) -> str:
        method = str(scope["method"]).encode("latin-1") if self.method == OWN_TARGET else _only(headers, self.method)
        if not _METHOD.fullmatch(method):
            raise MisreadError(f"{self.method or 'the method'} is not a method")
        return method.decode("ascii")


def _decoded(raw_path: bytes) -> str:
    if b"%" in raw_path and len(raw_path) > MAX_RAW_BYTES:
        raise MisreadError(f"the target is encoded, and has more than {MAX_RAW_BYTES} bytes")
    try:
        return unquoted(raw_path).decode("utf-8", "replace")
    except UnreadableError as error:
        raise MisreadError(f"the target: {error}") from None


def _only(headers: Headers, name: str) -> bytes:
    """Return the value of a header that appears exactly once and is not empty."""
    wanted = name.lower().encode("ascii")
    values = [value for header, value in headers if header == wanted]
    if len(values) != 1 or not values[0]:
        fault = "empty" if values == [b""] else "given more than once" if values else "missing"
        raise MisreadError(f"the header {name} is {fault}")
    return values[0]


NGINX = Dialect("nginx", "X-Original-URI", "X-Original-Method", knows_two_refusals=True)
TRAEFIK = Dialect("traefik", "X-Forwarded-Uri", "X-Forwarded-Method", "X-Forwarded-Host")
CADDY = Dialect("caddy", "X-Forwarded-Uri", "X-Forwarded-Method", "X-Forwarded-Host")
ENVOY = Dialect("envoy", OWN_TARGET, OWN_TARGET)
DIALECTS = {dialect.name: dialect for dialect in (NGINX, TRAEFIK, ENVOY, CADDY)}
