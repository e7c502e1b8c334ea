"""Credentials in: ours are read in one way or called malformed; foreign ones are none of ours."""

from __future__ import annotations

import pytest

from smarter_auth_mw.http.credentials import Extractor, Malformed, others_offered, without_subprotocol
from smarter_auth_mw.tokens import MAX_TOKEN_BYTES, Token

WAYS = ["token", "bearer", "x-api-key"]
extract = Extractor(WAYS)
extract_websocket = Extractor([*WAYS, "subprotocol"])

A, B = Token(b"aaaa"), Token(b"bbbb")


def header(name: str, value: str | bytes) -> tuple[bytes, bytes]:
    return name.lower().encode(), value if isinstance(value, bytes) else value.encode("latin-1")


@pytest.mark.parametrize(
    "value",
    [
        "Token aaaa",
        "token aaaa",
        "TOKEN aaaa",
        "Token  aaaa",
        "Token\taaaa",
        "Token aaaa ",
        "Bearer aaaa",
        "bEaReR aaaa",
    ],
)
def test_a_scheme_of_ours_brings_its_token(value: str) -> None:
    assert extract([header("Authorization", value)]) == A


def test_the_header_of_its_own_brings_its_token() -> None:
    assert extract([header("X-API-Key", "aaaa")]) == A
    assert extract([header("X-API-Key", " aaaa\t")]) == A
    for token in (b"XaaaaX", b"a" * MAX_TOKEN_BYTES):
        assert extract([header("X-API-Key", token)]) == Token(token)


@pytest.mark.parametrize(
    "value",
    ["", " ", "Basic dXNlcjpwYXNz", "Digest a=b, c=d", "Digest a=b, token=c", "aaaa", "Tokens aaaa", "Token:aaaa"],
)
def test_foreign_schemes_are_none_of_ours(value: str) -> None:
    assert extract([header("Authorization", value)]) is None
    assert extract([header("Authorization", value)] * 2) is None
    assert extract([header("Authorization", value), header("X-API-Key", "aaaa")]) == A


def test_no_header_no_credentials() -> None:
    assert extract([]) is None
    assert extract([header("Cookie", "token=aaaa"), header("X_API_Key", "aaaa")]) is None


@pytest.mark.parametrize(
    "headers",
    [
        [header("Authorization", "Token")],
        [header("Authorization", "Token a b")],
        [header("Authorization", "Token aaaa, Token bbbb")],
        [header("Authorization", "Token aaaa,bbbb")],
        [header("Authorization", "Token ' OR 1=1 --")],
        [header("Authorization", b"Token aa\xe9aa")],
        [header("Authorization", b"Token aa\x00aa")],
        [header("Authorization", "Token " + "a" * (MAX_TOKEN_BYTES + 1))],
        [header("X-API-Key", "")],
        [header("X-API-Key", "aaaa bbbb")],
        [header("X-API-Key", "aaaa, bbbb")],
        [header("X-API-Key", "a" * 60_000)],
        [header("X-API-Key", "aaaa"), header("X-API-Key", "aaaa")],
        [header("X-API-Key", "aaaa"), header("X-API-Key", "bbbb")],
        [header("Authorization", "Token aaaa"), header("Authorization", "Token aaaa")],
        [header("Authorization", "Token aaaa"), header("Authorization", "Basic dXNlcjpwYXNz")],
        [header("Authorization", "Token aaaa"), header("X-API-Key", "bbbb")],
        [header("Authorization", "Token a b"), header("X-API-Key", "aaaa")],
        [header("Authorization", "Basic dXNlcjpwYXNz, Token aaaa")],
        [header("Authorization", 'Digest username="x",bearer\taaaa')],
    ],
    ids=lambda headers: repr(headers)[:60],
)
def test_what_can_be_read_in_no_way_or_in_two_is_malformed(headers: list[tuple[bytes, bytes]]) -> None:
    found = extract(headers)
    assert isinstance(found, Malformed)
    assert "aaaa" not in found.detail


def test_two_ways_that_agree_are_one() -> None:
    assert extract([header("Authorization", "Token aaaa"), header("X-API-Key", "aaaa")]) == A


def test_an_app_may_keep_bearer_for_itself() -> None:
    own = Extractor(["x-api-key"])
    assert own([header("Authorization", "Bearer jwt.of.theirs")]) is None
    assert (
        own([header("Authorization", "Bearer a"), header("Authorization", "Bearer b"), header("X-API-Key", "bbbb")])
        == B
    )


def test_the_usual_spellings_of_a_scheme_are_those_that_need_no_folding() -> None:
    spelled = [b"token", b"Token", b"TOKEN", b"bearer", b"Bearer", b"bEARER", b"basic", b""]
    assert [one for one in spelled if extract.is_usual(one + b" aaaa")] == [b"token", b"Token", b"bearer", b"Bearer"]
    assert [one for one in spelled if Extractor(["bearer"]).is_usual(one + b" aaaa")] == [b"bearer", b"Bearer"]
    assert not any(map(extract.is_usual, [b"Token", b"Token ", b"Token  aaaa", b"Token aaaa ", b"Token a\ta"]))


def test_hiding_takes_out_ours_and_leaves_everything_else_as_it_was() -> None:
    theirs = [header("Host", "x"), header("Authorization", "Basic dXNlcjpwYXNz"), header("accept", b"\xff,\x00")]
    assert extract.hide([*theirs, header("X-API-Key", "aaaa"), header("Authorization", "Token aaaa")]) == theirs
    offered = [*theirs, header("Sec-WebSocket-Protocol", "smarter-auth, aaaa")]
    assert extract_websocket.hide([header("X-API-Key", "aaaa"), *offered]) == offered


class TestSubprotocol:
    """Browsers cannot set headers on a WebSocket: they offer the token as a subprotocol."""

    @pytest.mark.parametrize(
        "value", ["smarter-auth, aaaa", "smarter-auth,aaaa", "chat, smarter-auth ,\taaaa , graphql-ws"]
    )
    def test_the_token_follows_the_marker(self, value: str) -> None:
        assert extract_websocket([header("Sec-WebSocket-Protocol", value)]) == A
        capital = header("Sec-WebSocket-Protocol", value.replace("aaaa", "XaaaaX"))
        assert extract_websocket([capital]) == Token(b"XaaaaX")

    @pytest.mark.parametrize("value", ["", "chat", "chat, aaaa", "Smarter-Auth, aaaa", "aaaa, smarter"])
    def test_without_the_marker_it_is_none_of_ours(self, value: str) -> None:
        assert extract_websocket([header("Sec-WebSocket-Protocol", value)]) is None

    @pytest.mark.parametrize(
        "value", ["smarter-auth", "aaaa, smarter-auth", "smarter-auth,", "smarter-auth, smarter-auth, aaaa"]
    )
    def test_the_marker_without_one_token_is_malformed(self, value: str) -> None:
        assert isinstance(extract_websocket([header("Sec-WebSocket-Protocol", value)]), Malformed)

    def test_it_may_repeat_what_a_header_says_and_not_contradict_it(self) -> None:
        offered = header("Sec-WebSocket-Protocol", "smarter-auth, aaaa")
        assert extract_websocket([header("Authorization", "Token aaaa"), offered]) == A
        assert isinstance(extract_websocket([header("X-API-Key", "bbbb"), offered]), Malformed)
        assert isinstance(extract_websocket([offered, offered]), Malformed)

    def test_a_request_that_is_no_websocket_brings_no_token_so(self) -> None:
        assert extract([header("Sec-WebSocket-Protocol", "smarter-auth, aaaa")]) is None

    @pytest.mark.parametrize(
        ("value", "left"),
        [
            ("smarter-auth, aaaa", None),
            ("chat, smarter-auth, aaaa,graphql-ws", "chat, graphql-ws"),
            ("smarter-auth, smarter-auth, aaaa, chat", "chat"),
            ("chat,  graphql-ws", "chat,  graphql-ws"),
            ("", ""),
        ],
    )
    def test_the_app_sees_the_others_only(self, value: str, left: str | None) -> None:
        host = header("Host", "x")
        expected = [host] if left is None else [host, header("Sec-WebSocket-Protocol", left)]
        assert without_subprotocol([host, header("Sec-WebSocket-Protocol", value)]) == expected
        assert without_subprotocol([header("X-Offers", value)]) == [header("X-Offers", value)]

    def test_a_token_among_too_many_is_malformed_and_hidden(self) -> None:
        few, many = (", ".join(["chat"] * count + ["smarter-auth", "aaaa"]) for count in (62, 63))
        assert extract_websocket([header("Sec-WebSocket-Protocol", few)]) == A
        assert isinstance(extract_websocket([header("Sec-WebSocket-Protocol", many)]), Malformed)
        assert without_subprotocol([header("Sec-WebSocket-Protocol", many)]) == []
        others = header("Sec-WebSocket-Protocol", ", ".join(["chat"] * 1000))
        assert extract_websocket([others]) is None
        assert without_subprotocol([others]) == [others]

    @pytest.mark.parametrize(("count", "left"), [(0, 0), (62, 62), (63, 0)])
    def test_a_server_that_has_split_the_offers_is_answered_alike(self, count: int, left: int) -> None:
        offered = ["chat"] * count + ["smarter-auth", "aaaa"]
        assert others_offered(offered, "smarter-auth") == ["chat"] * left
        assert others_offered(["chat"] * count, "smarter-auth") == ["chat"] * count
