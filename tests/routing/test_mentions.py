"""Mentions: the literal words of a pattern as segments of a path, in their order."""

from __future__ import annotations

import pytest

from smarter_auth_mw.routing.mentions import Mentions


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/v1/bots/42", True),
        ("/api/x/v1/y/bots", True),
        ("/x/api/v1/bots/z", True),
        ("/v1/api/api/v1/v1/bots", True),
        ("/api/v1/bot", False),
        ("/v1/api/bots", False),
        ("/apiv1/bots", False),
    ],
)
def test_mention_is_all_words_in_their_order(path: str, expected: bool) -> None:
    others = [(("api", "v1", "llms"), "llm"), (("x", "y", "z"), "z")]
    mentions = Mentions([(("api", "v1", "bots"), "bot"), *others])
    assert ("bot" in mentions.find(path.split("/"))) is expected
    assert "llm" not in mentions.find(path.split("/"))


def test_pattern_without_words_is_always_mentioned() -> None:
    assert Mentions([((), "any"), (("a",), "a")]).find(["b"]) == ["any"]


def test_words_in_another_order_may_be_found_and_are_not() -> None:
    mentions = Mentions([(("api", "bots"), "bot")])
    assert mentions.may_find(["bots", "x", "api"])
    assert not mentions.find(["bots", "x", "api"])
    assert not mentions.may_find(["bots", "x"])
    assert Mentions([((), "any")]).may_find(["x"])
