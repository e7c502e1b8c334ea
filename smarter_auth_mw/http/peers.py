"""The peer's address and network; forwarded headers count only from trusted proxies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

UNIX = "unix:"
"""The entry among trusted proxies for peers without an address, which connect by a UNIX socket."""
UNKNOWN = "unknown"
"""All peers without a valid address (on a UNIX socket) count as this one peer."""
NETWORK_BITS = 64
"""The smallest block that an IPv6 site gets: one address implies all of these (RFC 6177)."""
MAX_HOPS = 32
"""The most proxies in a chain that are read, from the nearest one on."""
MAX_ADDRESS_CHARS = 256
MAX_KNOWN = 4096
"""The most addresses cached with their network: parsing one takes longer than deciding a request."""

_FORWARDED_FOR = re.compile(r"(?:^|;)[ \t]*for[ \t]*=[ \t]*([^;]*)", re.IGNORECASE)
_WITH_PORT = re.compile(r"\[([^\]]*)\](?::\d+)?|([^:]*):\d+")

Address = IPv4Address | IPv6Address


class Peers:
    """Identifies peers, given the ``trusted`` proxies: addresses, networks, or ``unix:``."""

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        trusted = tuple(trusted)
        self._trusted = tuple(ip_network(network, strict=False) for network in trusted if network != UNIX)
        self._trusts_sockets = UNIX in trusted

    def is_trusted(self, scope: Mapping[str, Any]) -> bool:
        """Return whether the request comes from a trusted proxy, whose forwarded headers count."""
        if self._trusts_sockets and _is_socket(scope):
            return True
        return bool(self._trusted) and self._trusts(_client(scope))

    def network(self, scope: Mapping[str, Any]) -> str:
        """Return the peer's network: its IPv4 address, the /64 of its IPv6 address, or ``UNKNOWN``.

        Behind a trusted proxy it is the right-most address that is not trusted itself. ``X-Forwarded-For`` and
        ``Forwarded`` that differ (one may come from the client), or an invalid address, make it the proxy's own
        network.
        """
        if not self._trusted and not self._trusts_sockets:
            client = scope.get("client")
            return _network_of(str(client[0])) if client else UNKNOWN
        peer = _client(scope)
        if self.is_trusted(scope):
            chains = [list(chain) for chain in _chains(scope["headers"]) if chain]
            found = {self._beyond(peer, chain) for chain in chains}
            peer = found.pop() if len(found) == 1 else peer
        return _network(peer)

    def _beyond(self, peer: Address | None, chain: list[str]) -> Address | None:
        for text in reversed(chain):
            address = _address(text)
            if address is None:
                break
            peer = address
            if not self._trusts(address):
                break
        return peer

    def _trusts(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._trusted)


def _is_socket(scope: Mapping[str, Any]) -> bool:
    """Return whether the server gives no address: uvicorn leaves the client out, others leave it empty."""
    client = scope.get("client")
    return not client or not client[0]


def _client(scope: Mapping[str, Any]) -> Address | None:
    client = scope.get("client")
    return _address(str(client[0])) if client else None


def _chains(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[list[str]]:
    """Yield the hops of ``X-Forwarded-For`` and those of ``Forwarded`` (RFC 7239), the nearest one last."""
    headers = tuple(headers)
    yield _hops(headers, b"x-forwarded-for")
    forwarded = map(_FORWARDED_FOR.search, _hops(headers, b"forwarded"))
    yield ["" if found is None else found[1].strip().strip('"') for found in forwarded]


def _hops(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> list[str]:
    values = [value.decode("latin-1") for name, value in headers if name == wanted]
    hops = [hop for value in values[-MAX_HOPS:] for hop in value.rsplit(",", MAX_HOPS)][-MAX_HOPS:]
    return [hop.strip() if len(hop) <= MAX_ADDRESS_CHARS else "" for hop in hops]


def _address(text: str) -> Address | None:
    port = _WITH_PORT.fullmatch(text)
    try:
        address = ip_address(((port[1] or port[2]) if port else text).partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


@lru_cache(maxsize=MAX_KNOWN)
def _network_of(text: str) -> str:
    return _network(_address(text))


def _network(address: Address | None) -> str:
    if address is None:
        return UNKNOWN
    if isinstance(address, IPv4Address):
        return str(address)
    return str(ip_network((int(address) >> NETWORK_BITS << NETWORK_BITS, NETWORK_BITS)))
