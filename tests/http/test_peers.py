"""Whose request it is: by what the server saw, and by headers only where a trusted proxy wrote them."""

from __future__ import annotations

import pytest

from smarter_auth_mw.http.peers import MAX_HOPS, UNKNOWN, Peers

PEERS = Peers(["10.0.0.0/8", "fd00::1"])


def network(client: object, *headers: tuple[str, str]) -> str:
    return PEERS.network({"client": client, "headers": [(name.encode(), value.encode()) for name, value in headers]})


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_a_peer_is_known_by_its_network(address: str, expected: str) -> None:
    assert network((address, 50000)) == expected


def test_peers_without_an_address_are_one() -> None:
    assert network(None) == UNKNOWN
    assert PEERS.network({"headers": []}) == UNKNOWN


def test_a_stranger_is_not_asked_whom_it_forwards_for() -> None:
    assert network(("203.0.113.7", 1), ("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=1.1.1.1")) == "203.0.113.7"
    assert not PEERS.is_trusted({"client": ("203.0.113.7", 1), "headers": []})


@pytest.mark.parametrize(
    "headers",
    [
        [("x-forwarded-for", "203.0.113.7")],
        [("x-forwarded-for", "1.1.1.1, 203.0.113.7, 10.9.9.9")],
        [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "203.0.113.7")],
        [("x-forwarded-for", "203.0.113.7:4711")],
        [("forwarded", "for=1.1.1.1, for=203.0.113.7;proto=https")],
        [("forwarded", 'proto=https; For="203.0.113.7:4711"')],
        [("forwarded", "for=203.0.113.7"), ("x-forwarded-for", "203.0.113.7")],
    ],
)
def test_behind_a_trusted_proxy_the_nearest_stranger_counts(headers: list[tuple[str, str]]) -> None:
    assert network(("10.1.2.3", 1), *headers) == "203.0.113.7"
    assert PEERS.is_trusted({"client": ("10.1.2.3", 1), "headers": []})


def test_an_ipv6_peer_behind_a_proxy_is_read_in_both_spellings() -> None:
    for header in (("forwarded", 'for="[2001:db8::7]:4711"'), ("x-forwarded-for", "2001:db8::7")):
        assert network(("fd00::1", 1), header) == "2001:db8::/64"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("x-forwarded-for", "1.1.1.1, garbage")],
        [("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=2.2.2.2")],
        [("forwarded", "for=unknown")],
        [("forwarded", "proto=https")],
    ],
    ids=repr,
)
def test_what_cannot_be_read_in_one_way_counts_for_the_proxy(headers: list[tuple[str, str]]) -> None:
    assert network(("10.1.2.3", 1), *headers) == "10.1.2.3"


def test_a_request_of_the_proxys_own_is_the_proxys() -> None:
    assert network(("10.1.2.3", 1), ("x-forwarded-for", "10.5.5.5")) == "10.5.5.5"


@pytest.mark.parametrize("client", [None, ("", 0), ["", 0]])
def test_peers_behind_a_unix_socket_are_told_apart_where_that_is_trusted(client: object) -> None:
    scope = {"client": client, "headers": [(b"x-forwarded-for", b"203.0.113.7")]}
    assert Peers(["unix:"]).network(scope) == "203.0.113.7"
    assert Peers(["unix:"]).is_trusted(scope)
    assert Peers(["10.0.0.0/8"]).network(scope) == UNKNOWN
    assert Peers().network(scope) == UNKNOWN


@pytest.mark.parametrize("client", [("testclient", 1), ("203.0.113.9", 1)])
def test_a_peer_with_an_address_is_not_behind_a_unix_socket(client: object) -> None:
    scope = {"client": client, "headers": [(b"x-forwarded-for", b"203.0.113.7")]}
    assert not Peers(["unix:"]).is_trusted(scope)
    assert Peers(["unix:"]).network(scope) != "203.0.113.7"


def test_only_so_many_proxies_in_a_row_are_looked_at() -> None:
    near = ["10.9.9.9"] * (MAX_HOPS - 1)
    for count, expected in ((0, "203.0.113.7"), (1, "10.9.9.9"), (5000, "10.9.9.9")):
        chain = ["203.0.113.7", *["10.9.9.9"] * count, *near]
        assert network(("10.1.2.3", 1), ("x-forwarded-for", ", ".join(chain))) == expected
        assert network(("10.1.2.3", 1), *[("x-forwarded-for", hop) for hop in chain]) == expected


def test_a_long_text_is_no_address() -> None:
    assert network(("10.1.2.3", 1), ("x-forwarded-for", "1" * 60_000)) == "10.1.2.3"
