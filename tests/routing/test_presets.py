"""The platform's URLs, in all shapes of all its releases, row by row, and vectors of its conversions."""

from __future__ import annotations

import itertools
from urllib.parse import urlsplit

import pytest

from smarter_auth_mw.errors import ConfigurationError
from smarter_auth_mw.routing.routes import Routes
from tests.support.routing import AMBIGUOUS, NOT_CANONICAL, outcome

API = ["api.example.com", "alpha.api.example.com", "api.localhost"]
PLATFORM = ["platform.example.com", "localhost"]


def routes(*lines: str) -> Routes:
    made = Routes.parse(lines, api_domains=API, platform_domains=PLATFORM, default_account="3141-5926-5359")
    assert made.replace_domains([("foo.com", "llm_client" if "preset:smarter" in lines else "chatbot")]) == ()
    return made


SMARTER, CHATBOT = routes("preset:smarter"), routes("preset:smarter-chatbot")
BOTH = routes("preset:smarter", "preset:smarter-chatbot")
WORKBENCH = "http://localhost:9357/workbench/llm-clients/rMTAwMDAwNgx/prompt/?session_key=abc"


def named(made: Routes, url: str) -> str | None:
    parts = urlsplit(url)
    return outcome(made, parts.path, host=parts.netloc or "platform.example.com")


def account(alias: str) -> str:
    return f"{alias}@3141-5926-5359 of 3141-5926-5359"


# §1.3: shape, which pattern has it, what it names. H: hosts, P: the API, W: the workbench, R: the console.
ROWS = [
    ("H1", SMARTER, "https://hr.3141-5926-5359.alpha.api.example.com/config/", account("llm_client:label=hr")),
    ("H1", SMARTER, "https://hr.3141-5926-5359.api.example.com/prompt/", account("llm_client:label=hr")),
    ("H1", SMARTER, "https://hr.3141-5926-5359.api.example.com/", account("llm_client:label=hr")),
    ("H1", SMARTER, "https://hr.3141-5926-5359.api.example.com/llm-client/", account("llm_client:label=hr")),
    ("H1", CHATBOT, "https://hr.3141-5926-5359.api.example.com/chat/", account("chatbot:label=hr")),
    ("H1", CHATBOT, "https://hr.3141-5926-5359.api.example.com/chatbot/", account("chatbot:label=hr")),
    ("H1", BOTH, "https://hr.3141-5926-5359.api.example.com/chat/", account("llm_client:label=hr")),
    ("H2", SMARTER, "https://sales.foo.com/chatbot/", "llm_client:domain=foo.com"),
    ("H2", SMARTER, "https://foo.com/", "llm_client:domain=foo.com"),
    ("H2", CHATBOT, "https://sales.foo.com/chatbot/", "chatbot:domain=foo.com"),
    ("H3", SMARTER, "https://example-jdoe.3141-5926-5359.api.example.com/", account("llm_client:label=example-jdoe")),
    ("P1", SMARTER, "/api/v1/llm-clients/rMTAwMTU1Ngx/", "llm_client:1556"),
    ("P1", SMARTER, "/api/v1/llm-clients/rMTAwMTU1Ngx/config/", "llm_client:1556"),
    ("P1", SMARTER, "/api/v1/llm-clients/rMTAwMTU1Ngx/prompt/", "llm_client:1556"),
    ("P1", SMARTER, "/api/v1/llm-clients/rMTAwMTU1Ngx/prompt/config/", "llm_client:1556"),
    ("P2", SMARTER, "/api/v1/llm-clients/1556/", "llm_client:1556"),
    ("P2", SMARTER, "/api/v1/llm-clients/1556/prompt/", "llm_client:1556"),
    ("P2", SMARTER, "/api/v1/llm-clients/1556/plugins/3/", "llm_client:1556"),
    ("P2", SMARTER, "/api/v1/llm-clients/1556/apikeys/", "llm_client:1556"),
    ("P2", SMARTER, "/api/v1/llm-clients/1556/customdomains", "llm_client:1556"),
    ("P2", SMARTER, "/api/v1/llm-clients/1556/functions/2/plugins", "llm_client:1556"),
    ("P2", SMARTER, "/api/v1/llm-clients/", None),
    ("P3", CHATBOT, "/api/v1/chatbots/1556/chat/", "chatbot:1556"),
    ("P3", CHATBOT, "/api/v1/chatbots/rMTAwMTU1Ngx/chat/config/", "chatbot:1556"),
    ("P3", CHATBOT, "/api/v1/chatbots/1556/apikeys/7/", "chatbot:1556"),
    ("P3", CHATBOT, "/api/v1/chatbots/", None),
    ("P4", CHATBOT, "/api/v1/chatbots/7/chatbot/", "chatbot:7"),
    ("P4", CHATBOT, "/api/v1/chatbots/smarter/", None),
    ("P4", CHATBOT, "/api/v1/chatbots/smarter/example/", "chatbot:name=example@3141-5926-5359"),
    ("P5", CHATBOT, "/api/v0/chatbots/7", "chatbot:7"),
    ("P5", CHATBOT, "/api/v0/chatbots/7/apikeys/3", "chatbot:7"),
    ("P5", CHATBOT, "/api/v0/chatbots/7/functions", "chatbot:7"),
    ("P5", CHATBOT, "/api/v1/chatbot/7/chatbot/", "chatbot:7"),
    ("P5", CHATBOT, "/api/v1/chatbot/smarter/example/", "chatbot:name=example@3141-5926-5359"),
    ("P5", CHATBOT, "/api/v1/smarter/example/", "chatbot:name=example@3141-5926-5359"),
    ("P5", CHATBOT, "/api/v1/smarter/", None),
    ("P5, left out", CHATBOT, "/api/v1/7/chatbot/", None),
    ("P6", SMARTER, "/api/v1/workbench/1/prompt/", "llm_client:1"),
    ("P6", SMARTER, "/api/v1/workbench/1/config/", "llm_client:1"),
    ("P6", SMARTER, "/api/v1/workbench/1/", "llm_client:1"),
    ("P6", CHATBOT, "/api/v1/workbench/1/chat/", "chatbot:1"),
    ("P6", BOTH, "/api/v1/workbench/1/prompt/", "llm_client:1"),
    ("P6", BOTH, "/api/v1/workbench/1/chat/", "chatbot:1"),
    ("P6", BOTH, "/api/v1/workbench/1/", AMBIGUOUS),
    ("P6", BOTH, "/api/v1/workbench/1/CHAT/", AMBIGUOUS),
    ("P7", SMARTER, "/api/v1/prompt/1/prompt/", None),
    ("P7", CHATBOT, "/api/v1/prompt/1/chat/", None),
    ("P8", SMARTER, "/api/v1/cli/prompt/example/", "llm_client:name=example@3141-5926-5359"),
    ("P8", SMARTER, "/api/v1/cli/prompt/config/example/", "llm_client:name=example@3141-5926-5359"),
    ("P8", CHATBOT, "/api/v1/cli/chat/example/", "chatbot:name=example@3141-5926-5359"),
    ("P8", CHATBOT, "/api/v1/cli/chat/config/example/", "chatbot:name=example@3141-5926-5359"),
    ("P8", SMARTER, "/api/v1/cli/apply/", None),
    ("W1", SMARTER, "/workbench/llm-clients/rMTAwMDAwNgx/prompt/", None),
    ("W1", SMARTER, "/workbench/llm-clients/rMTAwMDAwNgx/manifest/", None),
    ("W2", CHATBOT, "/workbench/chatbots/rMTAwMDAwNgx/chat/", None),
    ("W3", CHATBOT, "/workbench/example/chat/", None),
    ("W4", CHATBOT, "/chatbots/example/config/", None),
    ("W5", CHATBOT, "/chatapp/example/", None),
    ("R1", SMARTER, "/prompt/", None),
    ("R1", CHATBOT, "/config/", None),
    ("dashboard", BOTH, "/workbench/api/listview/clone/7/", None),
    ("dashboard", BOTH, "/workbench/api/listview/rename/7/new-name/", None),
    ("dashboard", BOTH, "/authtoken/rMTAwMDA0Mgx/", None),
    ("dashboard", BOTH, "/dashboard/account/dashboard/api-keys/", None),
    ("dashboard", BOTH, "/account/api-keys/", None),
]


@pytest.mark.parametrize(("row", "made", "url", "expected"), ROWS)
def test_every_shape_of_every_year_names_its_bot(row: str, made: Routes, url: str, expected: str | None) -> None:
    assert named(made, url) == expected, row


CONSOLE_HOSTS = ("platform.example.com", "localhost:9357")
API_HOSTS = ("api.example.com", "alpha.api.example.com", "api.localhost:9357")
BOT_HOST = "hr.3141-5926-5359.api.example.com"
PATHS = [(row, made, url, expected) for row, made, url, expected in ROWS if url.startswith("/")]


def both_roots(url: str) -> tuple[str, str]:
    """The path as the console serves it, and as an API host serves it; or a console's page, and that below /api."""
    return (url, url.removeprefix("/api")) if url.startswith("/api/") else (url, f"/api{url}")


@pytest.mark.parametrize("host", [*CONSOLE_HOSTS, *API_HOSTS])
@pytest.mark.parametrize(("row", "made", "url", "expected"), PATHS)
def test_console_and_api_hosts_name_the_same_bot_with_and_without_api(
    row: str, made: Routes, url: str, expected: str | None, host: str
) -> None:
    assert [outcome(made, one, host=host) for one in both_roots(url)] == [expected, expected], row


@pytest.mark.parametrize(("row", "made", "url", "expected"), PATHS)
def test_path_on_a_bots_own_host_names_a_second_bot_that_must_be_the_same(
    row: str, made: Routes, url: str, expected: str | None
) -> None:
    kind = "chatbot" if made is CHATBOT else "llm_client"
    bot = f"{kind}:label=hr@3141-5926-5359"
    for one in both_roots(url):
        found = outcome(made, one, host=BOT_HOST)
        if expected is None:
            assert found == account(f"{kind}:label=hr"), row
        elif expected == AMBIGUOUS or expected.partition(":")[0] != kind:
            assert found == AMBIGUOUS, row
        else:
            assert found == f"{bot} if also {expected} of 3141-5926-5359", row


def test_presets_kinds_are_reached_at_the_root_only_where_the_platform_serves_them() -> None:
    for near_miss in ("/v1/llm-clients", "/v1/llm-clients/", "/v1/cli/prompt/", "/v1/1/"):
        assert outcome(SMARTER, near_miss, host="api.example.com") is None
    for two_ways in ("/v1/llm-clients/042/", "/V1/llm-clients/42/", "//v1/llm-clients/42/", "/v1/llm-clients/4_2/"):
        assert outcome(SMARTER, two_ways, host="api.example.com") == NOT_CANONICAL


# §1.5, upstream's own tests. Where its code does something else than its tests or docs say, ours is what they say.
UPSTREAM = [
    ("test_non_api_url", SMARTER, "http://localhost:9357/", None),
    ("test_custom_domain", SMARTER, "https://custom.foo.com/", "llm_client:domain=foo.com"),
    ("E0", CHATBOT, "https://example.3141-5926-5359.api.example.com/", account("chatbot:label=example")),
    ("E0", CHATBOT, "https://www.google.com", None),
    ("E0", CHATBOT, "https://custom-1.foo.com/chatbot/", "chatbot:domain=foo.com"),
    # Two names in one request: the directory must find that they are one bot's.
    (
        "E1",
        CHATBOT,
        "https://custom-1.foo.com/api/v1/chatbots/smarter/example/",
        "chatbot:domain=foo.com if also chatbot:name=example@3141-5926-5359",
    ),
    ("named", SMARTER, "http://example.3141-5926-5359.api.localhost:9357/", account("llm_client:label=example")),
    ("sandbox", SMARTER, WORKBENCH, None),
    ("sandbox", SMARTER, "http://platform.example.com/workbench/llm-clients/rMTAwMDAwNgx/prompt/", None),
    ("sandbox", SMARTER, "http://localhost:9357/api/v1/prompt/1/prompt/", None),
    ("cli", SMARTER, "http://localhost:9357/api/v1/cli/prompt/example/", "llm_client:name=example@3141-5926-5359"),
    # !BUG: upstream's assertion sits in a try that swallows it.
    ("smarter_api", SMARTER, "http://localhost:9357/api/v1/llm-clients/1/prompt/", "llm_client:1"),
    ("none", SMARTER, "http://localhost:9357/shooby/dooby/do/", None),
    ("none", SMARTER, "http://api.localhost:9357/", None),
    ("none", SMARTER, "http://wikipedia.org/", None),
    # Upstream looks for "api." anywhere; only the domains that are configured count.
    ("other api", SMARTER, "http://example.3141-5926-5359.api.stackademy.edu/", None),
    ("cdn", SMARTER, "http://cdn.stackademy.edu/", None),
    ("account", SMARTER, "https://hr.3141-5926-5359.alpha.api.example.com/", account("llm_client:label=hr")),
    ("account", SMARTER, "https://noaccount.example.com/", None),
]
DERIVED = [
    # !BUG: HEAD cuts the name at its first hyphen.
    (
        "hyphen",
        SMARTER,
        "https://stackademy-sql.3141-5926-5359.api.example.com/",
        account("llm_client:label=stackademy-sql"),
    ),
    ("case, port", SMARTER, "https://HR.3141-5926-5359.API.example.com:443/", account("llm_client:label=hr")),
    ("trailing dot", SMARTER, "https://hr.3141-5926-5359.api.example.com./", account("llm_client:label=hr")),
    ("foreign domain", SMARTER, "https://hr.3141-5926-5359.evil.com/", None),
    # !BUG: upstream looks for the account number in the query, and for the API domain in the path.
    ("query", SMARTER, "https://api.example.com/?x=3141-5926-5359", None),
    ("domain in the path", SMARTER, "https://evil.com/api.example.com/", None),
    ("one label only", SMARTER, "https://a.b.3141-5926-5359.api.example.com/", NOT_CANONICAL),
    # !BUG: upstream finds the hashed id r…x anywhere in the URL.
    ("no hashed id", SMARTER, "https://relax.3141-5926-5359.api.example.com/", account("llm_client:label=relax")),
    ("no hashed id", SMARTER, "https://proxy.example.com/x", None),
    ("two spellings", SMARTER, "/api/v1/llm-clients/42/prompt/", "llm_client:42"),
    ("two spellings", SMARTER, "/api/v1/llm-clients/rMTAwMDA0Mgx/prompt/", "llm_client:42"),
    ("traversal", SMARTER, "/api/v1/llm-clients/rMTAwMDA0Mgx%2F..%2F1/prompt", NOT_CANONICAL),
    ("slashes", SMARTER, "//api/v1//llm-clients/42", NOT_CANONICAL),
    ("zeros", SMARTER, "/api/v1/llm-clients/00042/", NOT_CANONICAL),
    ("digits", SMARTER, "/api/v1/llm-clients/%D9%A4%D9%A2/", NOT_CANONICAL),
    ("30 digits", SMARTER, "/api/v1/llm-clients/" + "1" * 30 + "/", NOT_CANONICAL),
    ("list", SMARTER, "/api/v1/llm-clients/", None),
]


@pytest.mark.parametrize(("story", "made", "url", "expected"), [*UPSTREAM, *DERIVED])
def test_url_vector(story: str, made: Routes, url: str, expected: str | None) -> None:
    parts = urlsplit(url)
    target = url if not parts.netloc or not parts.scheme else parts.path
    host = parts.netloc if parts.scheme else "platform.example.com"
    assert outcome(made, target, host=host) == expected, story


@pytest.mark.parametrize("ids", ["rox", "relax", "rMTAwMDAwMAx", "rOTk5OTk5x"])
def test_hashed_id_at_or_below_its_floor_or_none_at_all_is_refused(ids: str) -> None:
    for made, collection in ((SMARTER, "llm-clients"), (CHATBOT, "chatbots")):
        assert outcome(made, f"/api/v1/{collection}/{ids}/prompt/") == NOT_CANONICAL


@pytest.mark.parametrize(
    "line", ["llm_client /workbench/llm-clients/{ref:hashed} always", "chatbot /workbench/{name} always"]
)
def test_line_with_always_wins_over_a_presets_none(line: str) -> None:
    made = routes(line, "preset:smarter", "preset:smarter-chatbot")
    sandbox = {
        "llm_client": ("/workbench/llm-clients/rMTAwMDA0Mgx/prompt/", "llm_client:42 always"),
        "chatbot": ("/workbench/example/chat/", "chatbot:name=example@3141-5926-5359 always"),
    }
    target, expected = sandbox[line.split()[0]]
    assert outcome(made, target) == expected
    assert outcome(made, "/workbench/api/listview/clone/7/") is None


@pytest.mark.parametrize(
    "presets", [["preset:smarter"], ["preset:smarter-chatbot"], ["preset:smarter", "preset:smarter-chatbot"]]
)
def test_presets_stand_alone_and_together_in_either_order(presets: list[str]) -> None:
    urls = [url for _, _, url, _ in ROWS]
    expected = [named(routes(*presets), url) for url in urls]
    for ordered in itertools.permutations(presets):
        assert [named(routes(*ordered), url) for url in urls] == expected


def test_custom_domain_that_both_generations_claim_belongs_to_the_newer_one() -> None:
    for claims in itertools.permutations([("bar.net", "chatbot"), ("bar.net", "llm_client")]):
        made = routes("preset:smarter", "preset:smarter-chatbot")
        assert made.replace_domains(claims) == ()
        assert named(made, "https://sales.bar.net/") == "llm_client:domain=bar.net"


def test_presets_without_api_domains_read_no_host() -> None:
    made = Routes.parse(["preset:smarter"])
    assert not made.reads_hosts
    assert outcome(made, "/config/", host="hr.3141-5926-5359.api.example.com") is None


def test_unknown_preset_is_a_mistake_that_names_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match="preset:smarter-chatbot"):
        Routes.parse(["preset:chatbot"])


def test_preset_that_stands_there_twice_is_a_mistake() -> None:
    with pytest.raises(ConfigurationError, match="neither is more specific"):
        Routes.parse(["preset:smarter", "preset:smarter"])
