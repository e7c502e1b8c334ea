"""From scope to resource: precedence, canonical references, readings and foldings, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smarter_auth_mw.decision import Denial
from smarter_auth_mw.domain import Target
from smarter_auth_mw.errors import ConfigurationError
from smarter_auth_mw.routing.routes import Routes
from tests.support.routing import AMBIGUOUS, NOT_CANONICAL, outcome, scope

UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
BOTS = Routes.parse(["bot /bots/{ref:int}"])


# Precedence


@pytest.mark.parametrize(
    ("lines", "target", "expected"),
    [
        (["bot /bots/{ref}", "llm /bots/special/{ref}"], "/bots/special/7", "llm:7"),
        (["bot /bots/{ref}", "llm /bots/special/{ref}"], "/bots/other/7", "bot:other"),
        (["bot /bots/{ref}", "llm /bots/special/{ref}"], "/bots/special/!", NOT_CANONICAL),
        (["bot /bots/{ref}", "llm /bots/special/{ref}"], "/bots/special", "bot:special"),
        (["bot /bots/{ref}", "llm /bots/special/{ref}"], "/bots/special/", "bot:special"),
        (["bot /bots/{ref:int}", "llm /bots/special/{ref}"], "/bots/special", None),
        (["bot /bots/{ref:int}", "llm /bots/special/{ref}"], "/bots/special/", None),
        (["bot /bots/{ref:int}", "llm /bots/special/{ref}"], "/bots/SPECIAL", NOT_CANONICAL),
        (["org /orgs/{ref}", "bot /orgs/{account}/bots/{ref}"], "/orgs/acme/bots/7", "bot:7 of acme"),
        (["org /orgs/{ref}", "bot /orgs/{account}/bots/{ref}"], "/orgs/acme/bots", "org:acme"),
        (["org /orgs/{ref}", "bot /orgs/{account}/bots/{ref}"], "/orgs/acme/else", "org:acme"),
        (["org /orgs/{ref}", "bot /orgs/{account}/bots/{ref}"], "/orgs/acme/bots/07", NOT_CANONICAL),
        (["org /orgs/{ref}", "bot /orgs/{account}/bots/{ref}"], "/orgs/acme/BOTS/7", NOT_CANONICAL),
        (["org /orgs/{ref}", "bot /orgs/{account}/bots/{ref}"], "/orgs/acme//bots/7", NOT_CANONICAL),
        # An integer that is not canonical is no collection, whatever else is mounted behind it.
        (["org /orgs/{ref:int}", "bot /orgs/{account}/bots/{ref}"], "/orgs/07/bots", NOT_CANONICAL),
        (["a /b/{ref}/chat", "c /b/{ref}/llm"], "/b/7/chat", "a:7"),
        (["a /b/{ref}/chat", "c /b/{ref}/llm"], "/b/7/llm/x", "c:7"),
        (["a /b/{ref}/chat", "c /b/{ref}/llm"], "/b/7", AMBIGUOUS),
        (["a /b/{ref}/chat", "c /b/{ref}/llm"], "/b/7/else", AMBIGUOUS),
        (["a /b/{ref}/chat", "c /b/{ref}/llm", "d /b/{ref}"], "/b/7/CHAT", NOT_CANONICAL),
        (["a /b/{ref}/chat", "c /b/{ref}/llm", "d /b/{ref}"], "/b/7//chat", NOT_CANONICAL),
        (["a /b/{ref}/chat", "c /b/{ref}/llm"], "/b/7/%63hat", "a:7"),
        (["a /b/{ref}/chat", "c /b/{ref}/llm", "d /b/{ref}"], "/b/7/%2563hat", NOT_CANONICAL),
        (["a /b/{ref}", "c /b/{ref}/llm"], "/b/7/llm.json", NOT_CANONICAL),
        (["a /b/{ref}", "c /b/{ref}/llm"], "/b/7/llm%3F", NOT_CANONICAL),
        (["a /b/{ref}", "c /b/{ref}/llm"], "/b/7/llm%23x/y", NOT_CANONICAL),
        (["a /b/{ref}", "c /b/{ref}/llm"], "/b/7/llm%00.pdf", NOT_CANONICAL),
        (["a /b/{ref}", "c /b/{ref}/llm"], "/b/7/llm%2Fx", NOT_CANONICAL),
        (["a /b/{ref}", "c /b/{ref}/llm"], "/b/7/C%23.pdf", "a:7"),
        (["a /b/{ref}"], "/b/7/llm.json", "a:7"),
        (["a /orgs/{account}/b/{ref}"], "/orgs%252F%3Bx/b/7", NOT_CANONICAL),
        (["a /orgs/{account}/b/{ref}"], "/orgs%252Fx%5Cy/b/7", NOT_CANONICAL),
        (["a /orgs/{account}/b/{ref}"], "/orgs/acme/x%2520y/b/7", None),
        # A router may split the raw path before it decodes.
        (["a /orgs/{account}/b/{ref}"], "/orgs/x%2Fy/b/sales", NOT_CANONICAL),
        (["a /b/{ref}", "none /b/new/**"], "/b/new%2F7", NOT_CANONICAL),
        (["a /b/{ref}", "none /b/new/**"], "/b%2Fnew/7", NOT_CANONICAL),
        (["a /b/{ref}", "none /b/new/**"], "/b/new/x%2F7", None),
        (["a /b/{ref}", "none /b/new/**"], "/b/new/x%2F%ff", None),
        (["a /b/{ref:int}", "none /x/**"], "/x%2Fy/b/7", NOT_CANONICAL),
        (["a /b/{ref:int}", "none /x/**"], "/x/y%2Fz/b/7", None),
        (["a /b/{ref}"], "//x%2Fy/b/sales", NOT_CANONICAL),
        (["a /b/c/{ref}"], "/b%2Fc/7/x", NOT_CANONICAL),
        # A reader may drop what is decoded later, together with a host or parameters.
        (["a /b/{ref}"], "//x%255Cy/b/sales", NOT_CANONICAL),
        (["a /b/c/{ref}"], "/b;x%255Cy/c/sales", NOT_CANONICAL),
        (["a /b/{ref}"], "/x%2Fb%2Fsales", None),
        (["a /b/{ref}/chat", "a /b/{ref}/config"], "/b/7", "a:7"),
        (["a /b/{ref}", "c /b/{ref}/llm"], "/b/7/else", "a:7"),
        (["a /b/{ref}", "c /b/{ref}/llm"], "/b/7/llm", "c:7"),
        (["a /b/{ref}/v1/chat", "c /b/{ref}/v1"], "/b/7/v1/x", "c:7"),
        (["a /b/{ref}/chat"], "/b/7/else", "a:7"),
        (["a /x/lit/{ref}/chat", "c /x/{ref}"], "/x/lit/7/else", "a:7"),
        (["a /{account}/b/{ref}", "c /x/{ref}"], "/x/b/7", "c:b"),
        (["bot /bots/{ref}", "none /bots/new"], "/bots/new", None),
        (["bot /bots/{ref}", "none /bots/new"], "/bots/new/", None),
        (["bot /bots/{ref}", "none /bots/new"], "/bots/new/x", "bot:new"),
        (["bot /bots/{ref}", "none /bots/new"], "/bots/new//", None),
        (["bot /bots/{ref}", "none /bots/new"], "/bots/NEW", NOT_CANONICAL),
        (["bot /bots/{ref}", "none /bots/new"], "/bots/new;x", NOT_CANONICAL),
        (["bot /bots/{ref}", "none /bots/static/**"], "/bots/static/a/b.css", None),
        (["bot /bots/{ref}", "none /bots/static/**"], "/bots/static", None),
        (["bot /bots/{ref}", "none /bots/static/**"], "/bots/static/../7", NOT_CANONICAL),
        (["bot /bots/{ref}", "none /bots/**"], "/bots/7", "bot:7"),
        (["bot /{account}/bots/{ref}", "none /public/**"], "/public/bots/7", None),
        (["bot /{ref}", "none /"], "/", None),
        # A word is a collection only where a reference may come next, and with nothing after it.
        (["bot /bots/{ref:int}", "llm /bots/special/{account}/x/{ref}"], "/bots/special", NOT_CANONICAL),
        (["bot /bots/{ref:int}", "llm /bots/special/{account}/x/{ref}"], "/bots/special/acme/x", None),
        (["bot /x/lit/{ref:int}", "llm /x/{account}/bots/{ref}"], "/x/lit/bots", None),
        (["bot /x/lit/{ref:int}", "llm /x/{account}/bots/{ref}"], "/x/lit/bots/", None),
        (["bot /x/lit/{ref:int}", "llm /x/{account}/bots/{ref}"], "/x/lit/bots/7", NOT_CANONICAL),
        (["bot /bots/{ref:int}", "llm /bots/a/b/c/{ref}", "doc /a/b/{ref}"], "/bots/a/b/c", NOT_CANONICAL),
        # Capital letters of a line.
        (["bot /Bots/{ref}", "none /Bots/New"], "/Bots/7", "bot:7"),
        (["bot /Bots/{ref}", "none /Bots/New"], "/bots/7", NOT_CANONICAL),
        (["bot /Bots/{ref}", "none /Bots/New"], "/Bots/New", None),
        (["bot /Bots/{ref}", "none /Bots/New"], "/Bots/new", "bot:new"),
        (["a /b/{ref}", "c /b/{ref}/Run"], "/b/7/Run", "c:7"),
        (["a /b/{ref}", "c /b/{ref}/Run"], "/b/7/run", NOT_CANONICAL),
        (["a /b/{ref}", "llm /b/Special/{ref}", "none /b/Special/x/**"], "/b/special/x", "a:special"),
        (["a /b/{ref}", "llm /b/Special/{ref}", "none /b/Special/x/**"], "/b/special/y", NOT_CANONICAL),
        # A suffix, and a dot that is part of a line.
        (["a /b/{ref}", "c /b/{ref}/run.v2"], "/b/7/run.v2", "c:7"),
        (["a /b/{ref}", "c /b/{ref}/run.v2"], "/b/7/run.v2.json", NOT_CANONICAL),
        (["a /b/{ref}", "c /b/{ref}/run.v2"], "/b/7/run.json", "a:7"),
        (["a /b/{ref}/run", "c /b/{ref}/run.v2"], "/b/7/run", "a:7"),
        (["a /b/{ref}/run", "c /b/{ref}/run.v2"], "/b/7/run.v2", NOT_CANONICAL),
        (["a /b/{ref}/x/y", "c /b/{ref}/x"], "/b/7/x.json/y", AMBIGUOUS),
        (["a /b/{ref}", "c /b/{ref}/llm"], "/b/7/.json", "a:7"),
        # What is behind an empty segment, which is not one that `{}` stands for.
        (["a /b/{ref}", "none /b/{}/{}/x/**"], "/b/7/x/x/x/x", None),
        (["a /b/{ref}", "none /b/{}/{}/x/**"], "/b/7//x/x/x", "a:7"),
        (["a /b/{ref}", "c /b/{ref}/llm"], "/b/7//x/llm", NOT_CANONICAL),
        (["a /b/{ref}", "c /b/{ref}/llm", "none /b/7/llm/**"], "/b/7//x/llm", NOT_CANONICAL),
        (["a /b/{ref}", "none /**"], "/b/7//x", "a:7"),
    ],
)
def test_most_specific_line_decides_alone(lines: list[str], target: str, expected: str | None) -> None:
    for ordered in itertools.permutations(lines):
        assert outcome(Routes.parse(ordered), target) == expected


LINES = [
    "bot /bots/{ref:int}",
    "bot /bots/{ref:int}/config",
    "llm /bots/{ref:int}/llm",
    "llm /bots/special/{ref}",
    "none /bots/new",
    "none /bots/static/**",
    "org /orgs/{ref}",
    "bot /orgs/{account}/bots/{ref:hashed}",
    "chat /Chat/{name} always",
    "any /{account}/any/{ref:uuid}",
]
WORDS = [
    "bots",
    "42",
    "042",
    "llm",
    "LLM",
    "special",
    "new",
    "static",
    "orgs",
    "acme",
    "any",
    UUID,
    "Chat",
    "chat",
    "",
    "..",
    "%2562ots",
]


@given(st.permutations(LINES), st.lists(st.sampled_from(WORDS), max_size=6), st.sampled_from(["", "/svc"]))
def test_order_of_the_lines_never_changes_an_answer(lines: list[str], words: list[str], root_path: str) -> None:
    target = "/" + "/".join(words)
    expected = outcome(Routes.parse(LINES, mounts=["/x"]), target, root_path=root_path)
    assert outcome(Routes.parse(lines, mounts=["/x"]), target, root_path=root_path) == expected


# References


@pytest.mark.parametrize(
    ("placeholder", "reference", "expected"),
    [
        ("ref", "42", "bot:42"),
        ("ref", "sales-bot", "bot:sales-bot"),
        ("ref", "sales_bot", "bot:sales_bot"),
        ("ref", UUID, f"bot:{UUID}"),
        ("ref", UUID.upper(), NOT_CANONICAL),
        ("ref", "Sales", NOT_CANONICAL),
        ("ref", "sales.json", NOT_CANONICAL),
        ("ref", UUID.replace("-", ""), NOT_CANONICAL),
        ("ref:int", "sales", NOT_CANONICAL),
        ("ref:uuid", UUID.upper(), f"bot:{UUID}"),
        ("ref:uuid", UUID.replace("-", ""), NOT_CANONICAL),
        ("ref:uuid", "42", NOT_CANONICAL),
        ("ref:hashed", "rMTAwMDA0Mgx", "bot:42"),
        ("ref:hashed", "42", "bot:42"),
        ("ref:hashed", "rmtawmda0mgx", NOT_CANONICAL),
        ("ref:exact", "Sales.v2", "bot:Sales.v2"),
        ("ref:exact", "a%20b", NOT_CANONICAL),
        ("ref:exact", "a@b", NOT_CANONICAL),
        ("ref:exact", "llama3:8b", "bot:llama3:8b"),
        ("ref:exact", "llama3%3A8b", "bot:llama3:8b"),
        ("ref:exact", "llama3%253A8b", NOT_CANONICAL),
        ("ref:exact", "Hf.co:Q4_K_M", "bot:Hf.co:Q4_K_M"),
        ("ref:exact", ":8b", NOT_CANONICAL),
        ("ref:exact", "a+b", NOT_CANONICAL),
        ("ref:exact", "a;b", NOT_CANONICAL),
        ("ref:exact", "a:b%2Fc", NOT_CANONICAL),
        ("ref:exact", "a%2Fb%5Cc", NOT_CANONICAL),
        ("ref", "llama3:8b", NOT_CANONICAL),
        ("name", "stackademy_sql", "bot:name=stackademy_sql@default"),
        ("name", "stackademy-sql", "bot:name=stackademy-sql@default"),
        ("name", "Example", NOT_CANONICAL),
        ("label", "stackademy-sql", "bot:label=stackademy-sql@default"),
        ("label", "a" * 64, NOT_CANONICAL),
    ],
)
def test_reference_has_one_spelling(placeholder: str, reference: str, expected: str) -> None:
    routes = Routes.parse([f"bot /bots/{{{placeholder}}}"])
    assert outcome(routes, f"/bots/{reference}") == outcome(routes, f"/bots/{reference}/chat") == expected


@pytest.mark.parametrize(
    "reference",
    [
        "+42",
        "%2B42",
        "042",
        "42.0",
        "4_2",
        "%2042",
        "42%20",
        "%D9%A4%D9%A2",
        "42.json",
        "999999999999999999999999999999",
        "42;v=1",
        "-42",
        "42%00",
        "42%0d%0a",
        "%34%32%20",
        "42,",
        "42:",
        "42%3A",
        "0x2a",
        "42%2F",
        "42%2Fx",
        "%ff42",
        "42%3Fx",
        "42%23",
        "%2534%2532",
    ],
)
def test_second_spelling_of_an_integer_is_refused_not_passed_over(reference: str) -> None:
    for lines in (["bot /bots/{ref:int}"], ["bot /bots/{ref}"], ["bot /bots/{ref:hashed}"]):
        assert outcome(Routes.parse(lines), f"/bots/{reference}") == NOT_CANONICAL


def test_encoded_letters_are_what_they_decode_to() -> None:
    assert outcome(BOTS, "/%62ots/%34%32") == "bot:42"


@pytest.mark.parametrize(
    ("account", "expected"),
    [
        ("acme", "bot:7 of acme"),
        ("3141-5926-5359", "bot:7 of 3141-5926-5359"),
        ("Acme", NOT_CANONICAL),
        ("", NOT_CANONICAL),
    ],
)
def test_account_of_the_path_is_told(account: str, expected: str) -> None:
    assert outcome(Routes.parse(["bot /orgs/{account}/bots/{ref}"]), f"/orgs/{account}/bots/7") == expected


def test_name_is_looked_up_in_the_account_of_the_path_or_else_in_the_default_one() -> None:
    routes = Routes.parse(["bot /bots/{name}", "bot /of/{account}/{name}"], default_account="3141-5926-5359")
    assert outcome(routes, "/bots/hr") == "bot:name=hr@3141-5926-5359"
    assert outcome(routes, "/of/acme/hr") == "bot:name=hr@acme of acme"


def test_target_says_what_else_the_line_says() -> None:
    routes = Routes.parse(["bot /bots/{ref} always", "bot /exact/{ref:exact}"])
    bot, exact = (routes.resolve(scope(path)) for path in ("/bots/7", "/exact/7"))
    assert isinstance(bot, Target)
    assert isinstance(exact, Target)
    assert (bot.always, bot.exact, exact.always, exact.exact) == (True, False, False, True)


# What can be read two ways


@pytest.mark.parametrize("path", ["/", "/bots", "/bots/", "/bots//", "/BOTS/", "/Bots", "//", "/bots///"])
def test_collection_is_no_resource(path: str) -> None:
    assert outcome(BOTS, path) is None


@pytest.mark.parametrize(
    "tail",
    [
        "/",
        "//",
        "/chat",
        "/100%25%20sure.pdf",
        "/C%23.pdf",
        "/%C3%A9.pdf",
        "/a%2Fb",
        "/a%5Cb",
        "/a;v=1",
        "/me@example.com",
        "//x",
        "/..x",
        "/...",
        "/%25%20off",
        "/bots/7",
        "/%3F",
        "/a%00b",
    ],
)
def test_anything_may_stand_behind_the_reference(tail: str) -> None:
    assert outcome(BOTS, f"/bots/42{tail}") == outcome(BOTS, "/bots/42") == "bot:42"


@pytest.mark.parametrize(
    "target",
    [
        "/BOTS/42",
        "/Bots/x",
        "//bots/42",
        "/bots//42",
        "//x/bots/42",
        "//x\\y/bots/42",
        "//x%5Cy/bots/42",
        "//;x/bots/42",
        "/;v=1/x/bots/42",
        "/%20/x/bots/42",
        "/" + "x//" * 20,
        "%2Fx/bots/42",
        "/bots%2F42",
        "/bots%2f42",
        "/bots%5C42",
        "/bots%5c42",
        "/bo%E1%85%9Fts/42",
        "/bo%E1%85%A0ts/42",
        "/bo%EF%BE%A0ts/42",
        "/bots\\42",
        "/bots%2F42/a",
        "/%2562ots/42",
        "/bots%252F42",
        "/bots;v=1/42",
        "/%20bots/42",
        "/bots%20/42",
        "/%00bots/42",
        "/bots%E2%80%8B/42",
        "/%EF%BD%82ots/42",
        "/bots/%EF%BC%94%EF%BC%92",
        "/public/../bots/42",
        "/public/%2e%2e/bots/42",
        "/public/%252e%252e/bots/42",
        "/public/..;/bots/42",
        "/public/..%2Fbots/42",
        "/public/..%5Cbots%5C42",
        "/./bots/42",
        "/bots/./42",
        "/bots/7/../42",
        "/bots/7/x/..%2f..%2f42",
        "/bots/42/..",
        "/bots/42/.",
        "/x/bots/../y",
        "/%252525252562",
        "/bots/42/" + "%C3%A9" * 5000,
        "bots/42",
        "http://evil.example/bots/42",
        "*",
    ],
)
def test_what_some_router_reads_as_a_resource_is_refused(target: str) -> None:
    assert outcome(BOTS, target) == NOT_CANONICAL


@pytest.mark.parametrize(
    "target",
    [
        "/public/../x",
        "/x//y",
        "/%2562ot/42",
        "/files/bots/100%25%20sure.pdf",
        "/files/Bots/sales",
        "/files/x%2Fbots%2Fsales",
        "/files/x%252Fbots%252Fsales",
        "/web/2024/https://example.com/bots/sales",
        "/botsy/42",
        "/x/bots/",
        "/42/bots",
        "/static/bots/42.png",
        "/%D0%B1%D0%BE%D1%82%D1%8B/bots/x",
    ],
)
def test_what_names_no_resource_in_any_reading_passes(target: str) -> None:
    assert outcome(BOTS, target) is None


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/bots/42" + "/x" * 62, "bot:42"),
        ("/bots/42" + "/x" * 62 + "/", "bot:42"),
        ("/bots/42" + "/x" * 63, NOT_CANONICAL),
        ("/x" * 63 + "/bots/", None),
        ("/x" * 63 + "/bots/42", NOT_CANONICAL),
        ("/x" * 64 + "/bots/42", NOT_CANONICAL),
        ("/x" * 500 + "/bots", NOT_CANONICAL),
        ("/x" * 500 + "/BOTS", NOT_CANONICAL),
        ("/x" * 500 + "/botsy", None),
        ("/x" * 64 + "/%62ots", NOT_CANONICAL),
        ("/x" * 500 + "/%62ots", NOT_CANONICAL),
        ("/x" * 500 + "/%2562ots", NOT_CANONICAL),
        ("/x" * 500 + "/%25", NOT_CANONICAL),
    ],
)
def test_path_that_mentions_a_pattern_has_at_most_64_segments(target: str, expected: str | None) -> None:
    assert outcome(BOTS, target) == expected


@pytest.mark.parametrize("target", ["/svcbots", "/SVCbots", "/svc/bots"])
@pytest.mark.parametrize("count", [64, 65, 500])
def test_long_path_that_mentions_a_pattern_after_root_path_is_refused(target: str, count: int) -> None:
    assert outcome(BOTS, "/x" * count + target, root_path="/svc") == NOT_CANONICAL
    assert outcome(BOTS, "/x" * count + "/svcbot", root_path="/svc") is None


def test_encoded_path_has_at_most_8192_bytes_and_any_other_path_any_number() -> None:
    longest = "/x/%41" + "a" * 8186
    assert outcome(BOTS, longest) is None
    assert outcome(BOTS, f"{longest}a") == NOT_CANONICAL
    assert outcome(BOTS, "/bots/42/" + "a" * 9000) == "bot:42"


def test_options_of_the_whole_server_and_an_empty_path_name_nothing() -> None:
    assert outcome(BOTS, "*", method="OPTIONS") is None
    assert outcome(BOTS, "*", method="GET") == NOT_CANONICAL
    assert outcome(BOTS, "") is None
    assert outcome(BOTS, "", raw_path=b"/bots/42") == "bot:42"


def test_missing_raw_path_changes_nothing() -> None:
    for raw_path in (None, b"", b"/bots/42"):
        assert outcome(BOTS, "/bots/42", raw_path=raw_path) == "bot:42"
    without = {key: value for key, value in scope("/bots/42").items() if key not in ("raw_path", "root_path")}
    assert isinstance(BOTS.resolve(without), Target)
    assert BOTS.resolve({**without, "path": "/X/bots/sales"}) is None
    assert outcome(Routes.parse(["bot /{ref}"]), "/sales", raw_path=None) == "bot:sales"


def test_raw_path_that_says_something_else_is_a_reading_of_its_own() -> None:
    assert outcome(BOTS, "/bots/42", raw_path=b"/bots/7") == AMBIGUOUS
    assert outcome(BOTS, "/x", raw_path=b"/bots/7") == "bot:7"
    assert outcome(BOTS, "/bots/42", raw_path=b"/x") == "bot:42"
    assert outcome(BOTS, "/bots/42", raw_path=b"/BOTS/42") == "bot:42"
    assert outcome(BOTS, "/bots/42/\udcff", raw_path=b"/bots/42/%ff") == "bot:42"
    assert outcome(BOTS, "/bots/42", raw_path=b"/bots/42?/bots/7") == "bot:42"
    assert outcome(BOTS, "/bots/42", raw_path=b"/bots/42?next=%2F") == "bot:42"
    assert outcome(BOTS, "/x", raw_path=b"bots/42") == NOT_CANONICAL
    assert outcome(BOTS, "/x", raw_path=b"x") == NOT_CANONICAL
    assert outcome(BOTS, "x", raw_path=b"/x") == NOT_CANONICAL
    long = Routes.parse(["bot /api/bots/{ref:int}", "llm /llms/{ref}"])
    assert outcome(long, "/svc/api/bots/42", raw_path=b"/llms/7") == NOT_CANONICAL


@pytest.mark.parametrize("path", ["/bots/\ud800", "/\udcff", "/bots/42/\x00", "/\U0010ffff/bots/42"])
def test_no_character_breaks_it(path: str) -> None:
    BOTS.resolve(scope(path, path=path))


# Mounts


def both(lines: Iterable[str], target: str, prefix: str) -> tuple[str | None, str | None]:
    """With the prefix as ``root_path``, and as a mount that is not in the scope yet."""
    lines = tuple(lines)
    return outcome(Routes.parse(lines), target, root_path=prefix), outcome(Routes.parse(lines, mounts=[prefix]), target)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/svc/bots/42", "bot:42"),
        ("/bots/42", "bot:42"),
        ("/svc/bots/", None),
        ("/svc/bots/042", NOT_CANONICAL),
        ("/svc//bots/42", "bot:42"),
        ("/SVC/bots/42", NOT_CANONICAL),
        ("/svc/BOTS/42", NOT_CANONICAL),
        ("/svc/../bots/42", NOT_CANONICAL),
        ("/svc%2Fbots/42", NOT_CANONICAL),
        ("/svc;x/bots/42", NOT_CANONICAL),
        ("/svc/bots/42/x%2Fy", "bot:42"),
    ],
)
def test_path_is_read_less_its_mount(target: str, expected: str | None) -> None:
    by_root_path, by_mount = both(["bot /bots/{ref:int}"], target, "/svc")
    assert by_root_path == expected
    assert by_mount == (NOT_CANONICAL if target == "/svc//bots/42" else expected)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/svc/bots/sales", "bot:sales"),
        ("/svc/BOTS/sales", NOT_CANONICAL),
        ("/SVC/bots/sales", NOT_CANONICAL),
        ("/svc;x/bots/sales", NOT_CANONICAL),
        ("/svc%2Fbots/sales", NOT_CANONICAL),
        ("/svc//x/bots/sales", NOT_CANONICAL),
        ("/x/bots/sales", None),
        ("/svc//x//y/bots/sales", NOT_CANONICAL),
        ("/svc/x/bots/sales", None),
    ],
)
def test_name_of_a_resource_is_found_behind_its_mount_in_every_reading(target: str, expected: str | None) -> None:
    by_root_path, by_mount = both(["bot /bots/{ref}"], target, "/svc")
    assert by_root_path == by_mount == expected


@pytest.mark.parametrize("root_path", ["/svc", "/svc/", "svc", "/SVC/../svc"])
def test_root_path_counts_however_it_is_written(root_path: str) -> None:
    expected = "bot:42" if ".." not in root_path else NOT_CANONICAL
    assert outcome(BOTS, "/svc/bots/42", root_path=root_path) == expected


@pytest.mark.parametrize(
    ("mounts", "target", "expected"),
    [
        (["/a"], "/a/a/a/b/7//x/llm", NOT_CANONICAL),
        (["/a"], "/a//x/b/7", NOT_CANONICAL),
        (["/u", "/v"], "/u//x/v/b/sales", NOT_CANONICAL),
        (["/u/v"], "/u//x/v/b/sales", None),
        (["/Svc"], "/Svc/b/sales", "a:sales"),
        (["/Svc"], "/svc/b/sales", NOT_CANONICAL),
    ],
)
def test_path_is_read_after_its_mount_in_every_spelling(mounts: list[str], target: str, expected: str | None) -> None:
    assert outcome(Routes.parse(["a /b/{ref}", "c /b/{ref}/llm"], mounts=mounts), target) == expected


URL_IN_A_PATH = "/web/2024/https://example.com/bots/sales"


@pytest.mark.parametrize(
    ("mount", "prefix", "expected"),
    [
        ("/svc", "/svc", None),
        ("/u/{user}", "/u/jane", NOT_CANONICAL),
        ("/U/{user}", "/U/jane", NOT_CANONICAL),
        ("/u/{user}", "/v/jane", None),
    ],
)
def test_placeholder_of_a_mount_may_take_any_segments_where_slashes_can_be_moved(
    mount: str, prefix: str, expected: str | None
) -> None:
    assert outcome(Routes.parse(["bot /bots/{ref}"], mounts=[mount]), prefix + URL_IN_A_PATH) == expected


@pytest.mark.parametrize("slash", ["%2f", "%2F", "%5c", "%5C"])
def test_path_with_an_encoded_slash_is_spelled_plainly_up_to_the_reference(slash: str) -> None:
    assert outcome(BOTS, f"/bots/42/a{slash}b") == "bot:42"
    for prefix in ("/%62ots/42", "/bots/%34%32"):
        assert outcome(BOTS, f"{prefix}/ab") == "bot:42"
        assert outcome(BOTS, f"{prefix}/a{slash}b") == NOT_CANONICAL


def test_server_may_leave_root_path_out_of_raw_path() -> None:
    for root_path in ("/svc", "/X", "/X/"):
        path = f"{root_path.rstrip('/')}/bots/42/a/b"
        assert outcome(BOTS, path, root_path=root_path, raw_path=b"/bots/42/a%2Fb") == "bot:42"
        assert outcome(BOTS, path, root_path=root_path, raw_path=b"/bots%2F42/a%2Fb") == NOT_CANONICAL


@pytest.mark.parametrize("root_path", ["/svc", "/svc/", "/svcX"])
def test_none_line_counts_after_root_path(root_path: str) -> None:
    routes = Routes.parse(["a /b/{ref}", "none /b/new/**"])
    assert outcome(routes, f"{root_path.rstrip('/')}/b/new/x%2F7", root_path=root_path) is None


def test_host_before_root_path_takes_no_word_away_after_it() -> None:
    assert outcome(BOTS, "//x/svc/a/bots/y/42", root_path="/svc") is None


@pytest.mark.parametrize("target", ["/x/api/bots/42", "/apibots/42", "/xapi/bots/42"])
def test_litestar_splits_at_root_path_wherever_it_stands(target: str) -> None:
    assert outcome(BOTS, target, root_path="/api") == ("bot:42" if target != "/xapi/bots/42" else NOT_CANONICAL)
    assert outcome(BOTS, "/xapibots/42", root_path="api") == "bot:42"


def test_two_readings_that_name_different_resources_are_refused() -> None:
    assert outcome(BOTS, "/bots/42/api/bots/7", root_path="/api") == AMBIGUOUS
    assert outcome(BOTS, "/bots/42/api/bots/42", root_path="/api") == "bot:42"
    assert outcome(BOTS, "/bots/+42/api/bots/7", root_path="/api") == NOT_CANONICAL


def test_mounts_nest() -> None:
    routes = Routes.parse(["bot /bots/{ref:int}"], mounts=["/a", "/b", "/u/{user}"])
    for target in ("/a/b/bots/42", "/b/a/bots/42", "/a/a/bots/42", "/u/jane/a/bots/42", "/bots/42"):
        assert outcome(routes, target) == "bot:42"
    assert outcome(routes, "/prefix/a/u/jane%20doe/bots/42", root_path="/prefix") == NOT_CANONICAL
    assert outcome(routes, "/c/bots/42") == NOT_CANONICAL
    assert outcome(routes, "/c/bots/sales") is None
    assert outcome(routes, "/a" * 50 + "/bots/42") == NOT_CANONICAL


@pytest.mark.parametrize(
    ("lines", "target", "expected"),
    [
        (["bot /api/bots/{ref}"], "/svc/api/bots/42", NOT_CANONICAL),
        (["bot /api/bots/{ref}"], "/svc/api/bots/sales", NOT_CANONICAL),
        (["bot /api/bots/{ref}"], "/svc/API/bots/42", NOT_CANONICAL),
        (["bot /api/bots/{ref}"], "/svc//api//bots/42", NOT_CANONICAL),
        (["bot /Api/Bots/{ref}"], "/svc/Api/Bots/42", NOT_CANONICAL),
        (["bot /Api/Bots/{ref}"], "/svc/api/bots/42", NOT_CANONICAL),
        (["bot /api/bots/{ref}"], "/svc/api/bots/", None),
        (["bot /api/bots/{ref}"], "/svc/api/bots/%20", NOT_CANONICAL),
        (["bot /api/bots/{ref}"], "/svc/api/x/bots/42", None),
        (["bot /api/{account}/bots/{ref}"], "/svc/api/x/bots/42", NOT_CANONICAL),
        (["bot /api/bots/{ref}", "none /svc/**"], "/svc/api/bots/42", None),
        (["bot /api/bots/{ref}", "none /api/bots/new"], "/svc/api/bots/new", None),
        (["bot /api/bots/{ref}", "none /api/bots/new"], "/svc/api/bots/new;x", NOT_CANONICAL),
        (["bot /api/bots/{ref}", "x /bots/{ref}"], "/svc/api/bots/42", NOT_CANONICAL),
        (["bot /api/bots/{ref}"], "/api/bots/42/api/bots/7", "bot:42"),
    ],
)
def test_all_words_of_a_pattern_further_back_are_refused(lines: list[str], target: str, expected: str | None) -> None:
    assert outcome(Routes.parse(lines), target) == expected


INTEGERS = ["42", "042", "+42", "%2B42", "-42", "4_2", "42.0", "4e1", "%2042", "42%20", "%D9%A4%D9%A2", "42.json"]
INTEGERS += [
    "4__2",
    "4_2.0",
    "0-42",
    "42:run",
    "42,7",
    "%EF%BC%94%EF%BC%92",
    "%2534%2532",
    "4%E2%80%8B2",
    "42;v=1",
    "42%00",
    "42%23",
    "42%3Fx",
    "42%2F",
    "42%20.json",
    "42%20:run",
    "9" * 30,
]
UUIDS = [UUID, UUID.upper(), UUID.replace("-", ""), f"%7B{UUID}%7D", f"urn:uuid:{UUID}", f"{UUID}.json"]
HASHED = ["rMTAwMDA0Mgx", "rMTAwMDA0Mg%3D%3Dx", "r%4DTAwMDA0Mgx", "rMTAwMDA0Mg"]
OTHERS = ["sales", "new", "v2", "42a", "42.png", "4-2", "0x2a", "rmtawmda0mgx", "relax", UUID[1:], "f" * 31]


@pytest.mark.parametrize(
    ("placeholder", "refused", "passed"),
    [
        ("ref:int", INTEGERS, [*UUIDS, *HASHED, *OTHERS]),
        ("ref:uuid", UUIDS, [*INTEGERS, *HASHED, *OTHERS]),
        ("ref:hashed", [*INTEGERS, *HASHED], [*UUIDS, *OTHERS]),
        ("ref", [*INTEGERS, *UUIDS], [*HASHED, *OTHERS]),
        ("name", [*INTEGERS, *UUIDS], [*HASHED, *OTHERS]),
        ("label", [*INTEGERS, *UUIDS], [*HASHED, *OTHERS]),
        ("ref:exact", [*INTEGERS, *UUIDS], [*HASHED, *OTHERS]),
    ],
)
@pytest.mark.parametrize("prefix", ["/svc", "/v1/x", "/my%20app", "/42", "/a%2Fb", "/de-ch"])
def test_id_behind_one_word_further_back_is_refused_in_every_spelling_that_a_framework_takes(
    placeholder: str, refused: list[str], passed: list[str], prefix: str
) -> None:
    routes = Routes.parse([f"bot /bots/{{{placeholder}}}"])
    for reference in refused:
        for tail in ("", "/", "/chat"):
            assert outcome(routes, f"{prefix}/bots/{reference}{tail}") == NOT_CANONICAL, reference
    for reference in passed:
        assert outcome(routes, f"{prefix}/bots/{reference}") is None, reference


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/svc/bots//x/42", NOT_CANONICAL),
        ("/svc/bots//42/x", NOT_CANONICAL),
        ("/a/b/c/d/bots//x/42", NOT_CANONICAL),
        ("/svc/bots//x/sales", None),
        ("/svc//x/bots/sales", None),
        ("/svc/bots/x//y/42", None),
    ],
)
def test_word_behind_an_empty_segment_may_be_left_out_further_back(target: str, expected: str | None) -> None:
    assert outcome(BOTS, target) == expected


@pytest.mark.parametrize(
    ("lines", "target", "expected"),
    [
        # The lines that settle what was refused.
        (["bot /bots/{ref:int}", "none /admin/bots/**"], "/admin/bots/42/x", None),
        (["bot /bots/{ref:int}", "none /{}/bots/**"], "/acme/bots/42", None),
        (["bot /bots/{ref:int}", "none /{}/bots/**"], "/acme/x/bots/42", NOT_CANONICAL),
        (["bot /bots/{ref:int}", "none /{}/bots/**"], "//bots/42", NOT_CANONICAL),
        (["bot /bots/{ref:int}", "none /{}/bots/{}"], "/acme/bots/42", None),
        (["bot /bots/{ref:int}", "none /{}/bots/{}"], "/acme/bots/42/x", NOT_CANONICAL),
        (["bot /bots/{ref:int}", "bot /admin/bots/{ref:int}"], "/admin/bots/42", "bot:42"),
        (["bot /bots/{ref:int}", "doc /{account}/bots/{ref:int}"], "/acme/bots/42", "doc:42 of acme"),
        # More specific lines go first, `{}` or not.
        (["bot /bots/{ref:int}", "none /{}/public/**"], "/bots/public/x", NOT_CANONICAL),
        (["bot /bots/{ref:int}", "none /bots/{}/public/**"], "/bots/42/public/x", None),
        (["bot /bots/{ref:int}", "none /bots/{}/public/**"], "/bots/42/private", "bot:42"),
        (["bot /bots/{ref:int}", "none /bots/new"], "/svc/bots/new", None),
        # One literal word between placeholders is one word.
        (["bot /{account}/bots/{ref:int}"], "/svc/acme/bots/42", NOT_CANONICAL),
        (["bot /{account}/bots/{ref:int}"], "/svc/acme/bots/sales", None),
        (["bot /{ref}"], "/svc/42", "bot:svc"),
    ],
)
def test_lines_go_before_what_is_further_back(lines: list[str], target: str, expected: str | None) -> None:
    assert outcome(Routes.parse(lines), target) == expected


@pytest.mark.parametrize(
    ("path", "template", "same", "mount", "none"),
    [
        (
            "/admin/persona/42/listed",
            "/admin/persona/{persona_id}/listed",
            "agent /admin/persona/{ref:int}",
            "/admin",
            "none /admin/persona/**",
        ),
        ("/a/b/persona/42", "", "agent /a/b/persona/{ref:int}", "/a/b", "none /a/b/persona/**"),
        ("/acme/persona/42", "/{organization}/persona/{id}", None, "/{organization}", "none /{}/persona/**"),
        ("/X/persona/42", "", "agent /X/persona/{ref:int}", "/X", "none /X/persona/**"),
        ("/Admin/v2/persona/42", "", "agent /Admin/v2/persona/{ref:int}", "/Admin/v2", "none /Admin/v2/persona/**"),
        ("/v2/persona/42", "/v{version}/persona/{id}", None, "/{}", "none /{}/persona/**"),
        ("/my app/persona/42", "", None, "/{}", "none /{}/persona/**"),
    ],
)
def test_remedies_settle_what_is_refused_further_back(
    path: str, template: str, same: str | None, mount: str, none: str
) -> None:
    line = "agent /persona/{ref:int}"
    found = Routes.parse([line]).further_back(path)
    assert found is not None
    assert str(found.pattern) == line
    assert found.remedies(template) == (same, mount, none, "agent")
    assert outcome(Routes.parse([line, none]), quote(path)) is None
    assert outcome(Routes.parse([line], mounts=[mount]), path) in ("agent:42", NOT_CANONICAL if " " in path else "")
    if same is not None:
        assert outcome(Routes.parse([line, same]), path) == "agent:42"


@pytest.mark.parametrize(
    "path",
    ["/persona/42", "/persona/042", "/admin/persona/sales", "/x", "/a/../persona/42", "/PERSONA/7/persona/42",
     "/bots/new/persona/42", "/" + "%" * 20],
)  # fmt: skip
def test_what_is_not_refused_for_being_further_back_has_no_remedies(path: str) -> None:
    lines = ["agent /persona/{ref:int}", "bot /bots/{ref}", "none /bots/New/**"]
    assert Routes.parse(lines).further_back(path) is None


def test_remedy_has_a_placeholder_where_the_line_has_an_account() -> None:
    routes = Routes.parse(["bot /orgs/{account}/bots/{ref:int}"])
    found = routes.further_back("/svc/orgs/acme/bots/42")
    assert found is not None
    assert found.prefix == "/svc"
    assert found.remedies() == (
        "bot /svc/orgs/{account}/bots/{ref:int}",
        "/svc",
        "none /svc/orgs/{}/bots/**",
        "bot",
    )


def test_remedies_are_written_as_advice() -> None:
    routes = Routes.parse(["agent /persona/{ref:int}"])
    literal, other = (routes.further_back(path) for path in ("/admin/persona/42", "/my app/persona/42"))
    assert literal is not None
    assert other is not None
    assert str(literal.remedies()) == (
        "If it is the same agent: add `agent /admin/persona/{ref:int}`. "
        "If the app removes the prefix: MOUNTS=/admin. If it is something else: add `none /admin/persona/**`."
    )
    assert str(other.remedies()) == (
        "If the app removes the prefix: MOUNTS=/{}. If it is something else: add `none /{}/persona/**`."
    )


def test_first_word_of_a_pattern_may_occur_in_at_most_six_places() -> None:
    assert outcome(BOTS, "/x" + "/bots" * 6) is None
    assert outcome(BOTS, "/x" + "/bots" * 7) == NOT_CANONICAL


@pytest.mark.parametrize("mount", ["svc", "/", "", "/a//b", "/a b", "/a?b", "/x/{", "https://x/y"])
def test_bad_mount_is_a_mistake(mount: str) -> None:
    with pytest.raises(ConfigurationError, match="SMARTER_AUTH_MOUNTS"):
        Routes.parse(["bot /bots/{ref}"], mounts=[mount])


@pytest.mark.parametrize("account", ["", "3141-5926", "123456789012", "A B"])
def test_bad_default_account_is_a_mistake(account: str) -> None:
    with pytest.raises(ConfigurationError, match="SMARTER_AUTH_DEFAULT_ACCOUNT"):
        Routes.parse(["bot /bots/{ref}"], default_account=account)


# The memo


def test_answers_are_remembered_and_shared() -> None:
    routes = Routes.parse(["bot /bots/{ref:int}"])
    assert routes.resolve(scope("/bots/42")) is routes.resolve(scope("/bots/42"))


def test_what_is_remembered_depends_on_all_that_the_answer_depends_on() -> None:
    routes = Routes.parse(["bot /bots/{ref:int}"])
    assert outcome(routes, "/svc/bots/sales") is None
    assert outcome(routes, "/svc/bots/sales", root_path="/svc") == NOT_CANONICAL
    assert outcome(routes, "/svc/bots/42", root_path="/svc") == "bot:42"
    assert outcome(routes, "/bots/42") == "bot:42"
    assert outcome(routes, "/bots/42", raw_path=b"/bots%2F42") == NOT_CANONICAL
    assert outcome(routes, "*", method="OPTIONS") is None
    assert outcome(routes, "*", method="GET") == NOT_CANONICAL


def test_flood_of_paths_does_not_make_the_memo_grow() -> None:
    routes = Routes.parse(["bot /bots/{ref:int}"])
    for number in range(20_000):
        routes.resolve(scope(f"/bots/{number}"))
    assert len(routes.memo) <= 8192


def test_long_paths_and_refusals_are_not_remembered() -> None:
    routes = Routes.parse(["bot /bots/{ref:int}"])
    routes.resolve(scope("/bots/042"))
    routes.resolve(scope("/x" * 1000))
    assert not routes.memo.young


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/pages/sales/run/7", "run:sales"),
        ("/pages/sales/run/", "run:sales"),
        ("/pages/sales/run//", NOT_CANONICAL),
        ("/pages/sales/run//7", NOT_CANONICAL),
        ("/pages/sales/run/a//b", "run:sales"),
        ("/pages/sales//x", "page:sales"),
        ("/bots/42//x", "bot:42"),
    ],
)
def test_an_empty_segment_behind_the_more_specific_of_two_patterns_may_be_the_others(path: str, expected: str) -> None:
    routes = Routes.parse(["page /pages/{ref}", "run /pages/{ref}/run", "bot /bots/{ref:int}"])
    assert outcome(routes, path) == expected


# Explanations


def test_explanation_tells_line_and_reading() -> None:
    routes = Routes.parse(["bot /bots/{ref:hashed}"], mounts=["/svc"])
    told = routes.explain(scope("/svc/bots/rMTAwMDA0Mgx/chat"))
    assert (told.line, told.reading) == ("bot /bots/{ref:hashed}", "/bots/rMTAwMDA0Mgx/chat")
    assert isinstance(told.result, Target)


@pytest.mark.parametrize(
    ("lines", "path", "detail"),
    [
        (["bot /orgs/{account}/bots/{ref}"], "/orgs/Acme/bots/7", "{ref} expects an account number"),
        (["a /b/{ref}", "c /b/{ref}/llm"], "/b/7/llm.json", "a lenient router would read it as c /b/{ref}/llm"),
        (["a /b/{ref}/run", "c /b/{ref}/run.v2"], "/b/7/run.v2//x", "would read it as a /b/{ref}/run"),
        (
            ["bot /bots/{ref:int}"],
            "/svc/bots/42",
            "after a prefix it matches bot /bots/{ref:int}, but no line of ROUTES",
        ),
        (["bot /bots/{ref:int}"], "/bots/./42", "it has a dot segment, and mentions a pattern"),
        (["bot /bots/{ref:int}"], "/bots%2F42", "bot /bots/{ref:int} is reached by more than one spelling"),
    ],
)
def test_refusal_says_what_can_be_read_in_two_ways(lines: list[str], path: str, detail: str) -> None:
    found = Routes.parse(lines).explain(scope(path)).result
    assert isinstance(found, Denial)
    assert detail in found.detail


def test_what_a_stranger_wrote_is_escaped_and_cut_in_an_explanation() -> None:
    told = BOTS.explain(scope("/bots/%1b[31m%E2%80%AE" + "x" * 1000)).result
    assert isinstance(told, Denial)
    assert told.detail.isprintable()
    assert told.detail.isascii()
    assert len(told.detail) < 400
