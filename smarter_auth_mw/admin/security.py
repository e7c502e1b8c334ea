"""The hosts and origins that the admin accepts, the headers of every response, and the session cookie."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Any

from smarter_auth_mw.admin.problems import MisdirectedError, OriginError

Header = tuple[bytes, bytes]

HEADERS: tuple[Header, ...] = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; form-action 'self';"
        b" base-uri 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
)
"""The headers of every response. No CORS header is among them: no other origin may read an answer."""

SESSION_ID = re.compile("[A-Za-z0-9_-]{43}")
_PORT = re.compile(":([0-9]{1,5})$")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(?::[0-9]{1,5})?")


def check_host(scope: Mapping[str, Any], origin: str) -> None:
    """Raise MisdirectedError for a request to another host.

    With ``origin`` (ADMIN_ORIGIN) any host is accepted, since proxies change it. Without one both ends must be this
    machine: a web page elsewhere whose name was rebound to a loopback address sends its own name as Host.
    """
    if origin:
        return
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    if not (_is_local_peer(scope) and len(hosts) == 1 and _is_local_host(hosts[0].decode("latin-1"))):
        raise MisdirectedError()


def check_origin(scope: Mapping[str, Any], origin: str) -> None:
    """Raise OriginError for a form that another site may have sent; ``origin`` is ADMIN_ORIGIN.

    Browsers name the origin of every form, and no page can change that. A request that names none is refused too.
    """
    own = own_origin(scope, origin)
    sent, site = _only(scope, b"origin"), _only(scope, b"sec-fetch-site", "same-origin")
    if sent.lower() != own.lower() or site != "same-origin":
        raise OriginError(own, sent, is_set=bool(origin))


def own_origin(scope: Mapping[str, Any], origin: str) -> str:
    """Return the origin that a browser sees: ADMIN_ORIGIN, or this machine by the name and port of the Host header."""
    return origin or f"http://{_only(scope, b'host')}"


def _only(scope: Mapping[str, Any], wanted: bytes, otherwise: str = "") -> str:
    """Return the value of a header; a value that matches nothing if it appears twice."""
    found = [value.decode("latin-1") for name, value in scope["headers"] if name == wanted]
    return (found[0] if len(found) == 1 else "null") if found else otherwise


def is_loopback(host: str) -> bool:
    """Return whether a host, without its port, is this machine."""
    if host.lower() == "localhost":
        return True
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def _is_local_peer(scope: Mapping[str, Any]) -> bool:
    """Return whether the peer is on this machine; one without an address came by a UNIX socket."""
    client = scope.get("client")
    return not client or not client[0] or is_loopback(str(client[0]))


def _is_local_host(host: str) -> bool:
    found = _HOST.fullmatch(host)
    return found is not None and is_loopback(found[1])


@dataclass(frozen=True, slots=True)
class Cookie:
    """The cookie that holds the id of the session at an origin; with the prefix no other host or http page can set it.

    Browsers send a cookie to every port of a host. On loopback the port is part of the name, so that two programs on
    one machine do not sign each other's operators out.
    """

    origin: str

    @property
    def is_secure(self) -> bool:
        return self.origin.startswith("https://")

    @property
    def name(self) -> str:
        if self.is_secure:
            return "__Host-smarter_auth"
        port = _PORT.search(self.origin)
        return f"smarter_auth_{port[1] if port else 80}"

    def found(self, header: str) -> list[str]:
        """Return the session ids that a browser sends."""
        pairs = (pair.strip().partition("=") for pair in header.split(";"))
        return [value for name, _, value in pairs if name == self.name and SESSION_ID.fullmatch(value)]

    def set(self, session_id: str) -> tuple[str, str]:
        return self._header(session_id, "")

    def clear(self) -> tuple[str, str]:
        return self._header("", "; Max-Age=0")

    def _header(self, value: str, more: str) -> tuple[str, str]:
        secure = "; Secure" if self.is_secure else ""
        return "Set-Cookie", f"{self.name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}{more}"
