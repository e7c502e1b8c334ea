"""The grammar of ROUTES: what is understood, and that each mistake says what to write instead."""

from __future__ import annotations

import pytest

from smarter_auth_mw.errors import ConfigurationError
from smarter_auth_mw.routing.grammar import split
from smarter_auth_mw.routing.routes import Routes


def mistakes(*lines: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        Routes.parse(lines)
    assert all(mistake.variable == "SMARTER_AUTH_ROUTES" for mistake in caught.value.mistakes)
    return [str(mistake) for mistake in caught.value.mistakes]


def lines_of(*lines: str) -> list[str]:
    return [str(line) for line in Routes.parse(lines).lines]


@pytest.mark.parametrize(
    "text",
    [
        ["bot /bots/{ref}", "none /bots/new"],
        ["bot /bots/{ref}; none /bots/new"],
        ["bot /bots/{ref}\nnone /bots/new"],
        ["# all bots; and more", "  bot   /bots/{ref}  # one per line ", ";;", "none /bots/new;", "", "#none /x"],
        ["bot /bots/{ref}/", "none /bots/new/"],
    ],
)
def test_lines_end_at_newline_or_semicolon_and_comments_at_the_newline(text: list[str]) -> None:
    assert [line.rstrip("/") for line in lines_of(*text)] == ["bot /bots/{ref}", "none /bots/new"]


def test_split_gives_the_statements_alone() -> None:
    assert list(split(["a  b # c", "; d\n\n#e;f\n g;"])) == ["a b", "d", "g"]


@pytest.mark.parametrize(
    "line",
    [
        "bot /bots/{ref}",
        "llm_client /api/v1/llm-clients/{ref:hashed} always",
        "bot /{ref:int}",
        "bot /orgs/{account}/bots/{ref:uuid}",
        "bot /{account}/{name}",
        "bot2 /A/b.c/d~e/{ref:exact}/chat",
        "bot /{label}",
        "bot host:{label}.{account}.api.example.com",
    ],
)
def test_pattern_is_understood(line: str) -> None:
    assert lines_of(line) == [line]


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("bot", "KIND PATTERN"),
        ("bots/{ref}", "KIND PATTERN"),
        ("Bot /bots/{ref}", "a kind is made of a-z"),
        ("2bot /bots/{ref}", "a kind is made of a-z"),
        ("bot:x /bots/{ref}", "a kind is made of a-z"),
        ("bot bots/{ref}", "begins with /"),
        ("bot https://example.com/bots/{ref}", "begins with /"),
        ("bot /bots/{ref} allways", "always"),
        ("bot /bots/{ref} always always", "always"),
        ("bot /bots", "exactly one reference"),
        ("bot /bots/{ref}/{ref}", "exactly one reference"),
        ("bot /bots/{ref}/{name}", "exactly one reference"),
        ("bot /bots/{id}", "write {ref}"),
        ("bot /bots/{bot_id:int}", "write {ref:int}"),
        ("bot /bots/<int:id>", "write {ref:int}"),
        ("bot /bots/:id", "write {ref}"),
        ("bot /bots/{id:uuid}", "write {ref:uuid}"),
        ("bot /bots/{rest:path}", "owns everything below"),
        ("bot /bots/{slug:str}", "write {ref}"),
        ("bot /bots/{ref}/{tail}", "write {ref}"),
        ("bot /bots/{ref:INT}", "write {ref:int}"),
        ("bot /bots/{}", "write {ref}"),
        ("bot /bots/bot-{ref}", "a whole segment"),
        ("bot /bots/{ref}.json", "a whole segment"),
        ("bot /bots/{ref}/{account}", "before the reference"),
        ("bot /{account}/{account}/{ref}", "may appear once"),
        ("bot /bots//{ref}", "cannot be part of a pattern"),
        ("bot /bots/../{ref}", "cannot be part of a pattern"),
        ("bot /bots/*/{ref}", "cannot be part of a pattern"),
        ("bot /böts/{ref}", "cannot be part of a pattern"),
        ("bot /bots%2F/{ref}", "cannot be part of a pattern"),
        ("bot /bots/{ref}?x=1", "a whole segment"),
        ("bot /bots/{ref}/**", "cannot be part of a pattern"),
        ("none", "KIND PATTERN"),
        ("none bots", "begins with /"),
        ("none /bots/{ref}", "only the placeholder {}"),
        ("none /{organization}/bots/**", "only the placeholder {}"),
        ("none /<int:id>/bots/**", "only the placeholder {}"),
        ("none /:id/bots/**", "only the placeholder {}"),
        ("none /v{}/bots/**", "only the placeholder {}"),
        ("none /bots/new always", "nothing may follow"),
        ("none /bots/*", "cannot be part of a pattern"),
        ("none /bots/**/x", "cannot be part of a pattern"),
        ("preset:smart", "preset:smarter"),
        ("bot host:{label}.api.example.com/chat", "no path after it"),
        ("bot host:api.example.com.{label}", "ends in a domain"),
        ("bot host:{account}.{label}.api.example.com", "right of the reference"),
        ("bot host:{ref:hashed}.api.example.com", "no case"),
    ],
)
def test_mistake_says_what_to_write(line: str, advice: str) -> None:
    (mistake,) = mistakes(line)
    assert advice in mistake
    assert line in mistake


def test_all_mistakes_are_reported_together() -> None:
    assert len(mistakes("bot /a/{id}", "bot /b/{ref}", "Bot /c/{ref}; none /d/{ref}")) == 3


@pytest.mark.parametrize("lines", [[], ["# bot /bots/{ref}"], ["none /bots/new"]])
def test_routes_that_name_no_resource_are_a_mistake(lines: list[str]) -> None:
    (mistake,) = mistakes(*lines)
    assert "bot /bots/{ref:int}" in mistake
    assert "preset:smarter" in mistake


def test_line_that_a_comment_swallows_is_a_mistake() -> None:
    (mistake,) = mistakes("bot /bots/{ref} # all bots; llm /clients/{ref}")
    assert "a line of its own" in mistake


@pytest.mark.parametrize("line", ["none /{}/bots/**", "none /{}", "none /a/{}/{}/b", "none /**"])
def test_none_line_takes_any_segment(line: str) -> None:
    assert lines_of("bot /bots/{ref}", line) == ["bot /bots/{ref}", line]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("bot /bots/{ref}", "none /bots/{}"),
        ("bot /bots/{ref}", "none /Bots/{}/**"),
        ("bot /bots/{ref}/chat", "none /bots/{}/{}/**"),
        ("bot /{account}/bots/{ref}", "none /{}/bots/{}"),
        ("bot /bots/{ref}", "llm /bots/{ref}"),
        ("bot /bots/{ref:int}", "bot /bots/{ref:uuid}"),
        ("bot /bots/{ref}", "bot /bots/{name}"),
        ("bot /bots/{ref}", "llm /Bots/{ref}"),
        ("bot /bots/{ref}", "bot /bots/{ref}"),
        ("bot /bots/{ref}", "bot /bots/{ref} always"),
        ("bot /x/{ref}", "llm /x/{account}/{ref}"),
        ("bot /x/{ref}/chat", "llm /x/{ref}/chat"),
        ("bot /x/{ref}/chat", "llm /x/{account}/{ref}"),
        ("bot host:{label}.api.example.com", "llm host:{ref}.api.example.com"),
    ],
)
def test_patterns_that_tie_are_a_mistake(one: str, other: str) -> None:
    for lines in ((one, other), (other, one)):
        (mistake,) = mistakes(*lines)
        assert "neither is more specific" in mistake


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("bot /bots/{ref}", "llm /clients/{ref}"),
        ("bot /bots/{ref}", "llm /bots/special/{ref}"),
        ("bot /bots/{ref}", "llm /bots/{ref}/llm"),
        ("bot /bots/{ref}/chat", "llm /bots/{ref}/llm"),
        ("org /orgs/{ref}", "bot /orgs/{account}/bots/{ref}"),
        ("bot /{account}/bots/{ref}", "llm /{account}/llms/{ref}"),
        ("bot host:{label}.api.example.com", "llm host:{label}.{account}.api.example.com"),
        ("bot host:{label}.api.example.com", "bot /bots/{ref}"),
    ],
)
def test_patterns_of_which_one_is_more_specific_stand_side_by_side(one: str, other: str) -> None:
    assert len(lines_of(one, other)) == 2


def test_kinds_are_those_of_the_patterns() -> None:
    assert Routes.parse(["bot /b/{ref}", "llm /l/{ref}", "bot /c/{ref}", "none /d"]).kinds == ("bot", "llm")
