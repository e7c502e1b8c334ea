"""Hosts that name resources: patterns, custom domains, and all that is refused or left alone."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smarter_auth_mw.decision import Denial
from smarter_auth_mw.domain import Alias, Target
from smarter_auth_mw.errors import ConfigurationError
from smarter_auth_mw.routing import hosts
from smarter_auth_mw.routing.hosts import without_forwarded
from smarter_auth_mw.routing.routes import Routes
from tests.support.routing import AMBIGUOUS, NOT_CANONICAL, outcome, scope

LINES = [
    "bot host:{label}.{account}.api.example.com",
    "bot host:{label}.{account}.alpha.api.example.com",
    "team host:{ref}.teams.example.org",
    "team host:www.{ref}.teams.example.org always",
    "bot /bots/{ref:int}",
]
ROUTES = Routes.parse(LINES)
HR = "bot:label=hr@3141-5926-5359 of 3141-5926-5359"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("hr.3141-5926-5359.api.example.com", HR),
        ("HR.3141-5926-5359.API.Example.COM", HR),
        ("hr.3141-5926-5359.api.example.com:443", HR),
        ("hr.3141-5926-5359.api.example.com:", HR),
        ("hr.3141-5926-5359.api.example.com.", HR),
        ("hr.3141-5926-5359.api.example.com.:8080", HR),
        ("hr.3141-5926-5359.alpha.api.example.com", HR),
        ("hr.acme.api.example.com", "bot:label=hr@acme of acme"),
        ("a--b.acme.api.example.com", "bot:label=a--b@acme of acme"),
        ("sales.teams.example.org", "team:sales"),
        ("www.sales.teams.example.org", "team:sales always"),
        # The bare domain is no resource, and the longest one decides.
        ("api.example.com", None),
        ("alpha.api.example.com", None),
        ("teams.example.org", None),
        # What is not canonical below it is refused.
        ("a.b.3141-5926-5359.api.example.com", NOT_CANONICAL),
        ("3141-5926-5359.api.example.com", NOT_CANONICAL),
        ("x.alpha.api.example.com", NOT_CANONICAL),
        ("hr.123456789012.api.example.com", NOT_CANONICAL),
        ("hr.3141-5926.api.example.com", NOT_CANONICAL),
        ("h_r.acme.api.example.com", NOT_CANONICAL),
        ("-hr.acme.api.example.com", NOT_CANONICAL),
        ("a" * 64 + ".acme.api.example.com", NOT_CANONICAL),
        ("ftp.sales.teams.example.org", NOT_CANONICAL),
        ("a.www.sales.teams.example.org", NOT_CANONICAL),
        ("042.teams.example.org", NOT_CANONICAL),
        ("www.teams.example.org", "team:www"),
        # Other hosts are none of ours.
        ("example.com", None),
        ("www.example.com", None),
        ("hr.3141-5926-5359.evil.com", None),
        ("hr.3141-5926-5359.api.example.com.evil.com", None),
        ("evilapi.example.com", None),
        ("localhost:9357", None),
        ("10.0.0.1:8000", None),
        ("[::1]:8000", None),
        ("[2001:db8::1]", None),
        ("my_service", None),
    ],
)
def test_host_names_a_resource(host: str, expected: str | None) -> None:
    assert outcome(ROUTES, "/config/", host=host) == expected
    for lines in itertools.islice(itertools.permutations(LINES), 0, 120, 7):
        assert outcome(Routes.parse(lines), "/config/", host=host) == expected


BAD_HOSTS = [
    *("", " ", "bot.example/health?", "a@b", "a, b", "a b", "hr.acme.api.example.com/", "a..b", ".a", "a.com..", "a:b"),
    *(
        "a:123456",
        "[::1",
        "::1",
        "a%2eb",
        "h\x00r.com",
        "h\tr.com",
        "\xe9.com",
        "http://a.com",
        "a;b",
        "a#b",
        "a\\b",
        "'a'",
    ),
    "a" * 300,
]


@pytest.mark.parametrize("host", BAD_HOSTS)
def test_what_is_no_host_is_refused_where_hosts_name_resources(host: str) -> None:
    assert outcome(ROUTES, "/", host=host) == NOT_CANONICAL
    assert outcome(ROUTES, "/bots/42", host=host) == NOT_CANONICAL
    assert outcome(Routes.parse(["bot /bots/{ref:int}"]), "/", host=host) is None


@pytest.mark.parametrize("more", [{"host": None}, {"headers": [(b"host", b"a.com"), (b"host", b"a.com")]}])
def test_request_has_exactly_one_host_where_hosts_name_resources(more: dict[str, Any]) -> None:
    assert outcome(ROUTES, "/", **more) == NOT_CANONICAL
    assert outcome(Routes.parse(["bot /bots/{ref:int}"]), "/bots/42", **more) == "bot:42"


def test_host_and_path_that_name_different_resources_are_refused() -> None:
    host = "hr.acme.api.example.com"
    assert outcome(ROUTES, "/bots/", host=host) == "bot:label=hr@acme of acme"
    assert outcome(ROUTES, "/bots/42", host=host) == "bot:label=hr@acme if also bot:42 of acme"
    assert outcome(ROUTES, "/bots/42", host="www.example.com") == "bot:42"
    assert outcome(ROUTES, "/bots/042", host=host) == NOT_CANONICAL
    both = Routes.parse(["bot /bots/{ref}", "bot host:{ref}.bots.example.com always"])
    assert outcome(both, "/bots/42", host="42.bots.example.com") == "bot:42 always"
    assert outcome(both, "/bots/42", host="7.bots.example.com") == AMBIGUOUS


def test_host_pattern_with_a_word_where_another_has_a_placeholder_goes_first() -> None:
    lines = ["team host:{ref}.eu.{account}.example.org", "bot host:www.{ref}.{account}.example.org"]
    for ordered in itertools.permutations(lines):
        routes = Routes.parse(ordered)
        assert outcome(routes, "/", host="www.eu.acme.example.org") == "team:www of acme"
        assert outcome(routes, "/", host="www.us.acme.example.org") == "bot:us of acme"


def test_options_of_the_whole_server_is_a_request_to_its_host() -> None:
    assert outcome(ROUTES, "*", method="OPTIONS", host="hr.acme.api.example.com") == "bot:label=hr@acme of acme"
    assert outcome(ROUTES, "", host="hr.acme.api.example.com") == "bot:label=hr@acme of acme"


def test_scope_without_headers_is_a_question_about_the_path_alone() -> None:
    made = scope("/bots/42")
    del made["headers"]
    assert isinstance(ROUTES.explain(made).result, Target)


def test_explanation_tells_the_host_and_its_line() -> None:
    told = ROUTES.explain(scope("/config/", host="HR.acme.api.example.com:443"))
    assert (told.line, told.reading) == ("bot host:{label}.{account}.api.example.com", "hr.acme.api.example.com")


HOST_LABELS = [
    "hr",
    "acme",
    "3141-5926-5359",
    "api",
    "alpha",
    "example",
    "com",
    "www",
    "teams",
    "org",
    "-x",
    "a_b",
    "HR",
    "",
]


@given(st.permutations(LINES), st.lists(st.sampled_from(HOST_LABELS), max_size=7))
def test_order_of_the_lines_never_changes_what_a_host_names(lines: list[str], labels: list[str]) -> None:
    host = ".".join(labels)
    assert outcome(Routes.parse(lines), "/", host=host) == outcome(ROUTES, "/", host=host)


# Custom domains


def with_domains(*claims: tuple[str, str], **options: Any) -> tuple[Routes, tuple[str, ...]]:
    routes = Routes.parse(options.pop("lines", LINES), **options)
    return routes, routes.replace_domains(claims)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("foo.net", "bot:domain=foo.net"),
        ("FOO.net.:80", "bot:domain=foo.net"),
        ("sales.foo.net", "bot:domain=foo.net"),
        ("a.b.foo.net", "bot:domain=foo.net"),
        ("eu.foo.net", "team:domain=eu.foo.net"),
        ("x.eu.foo.net", "team:domain=eu.foo.net"),
        ("_x.foo.net", NOT_CANONICAL),
        ("-x.foo.net", NOT_CANONICAL),
        ("twice.net", AMBIGUOUS),
        ("x.twice.net", AMBIGUOUS),
        # A router that minds the case would take this for a host of the one above.
        ("EU.foo.net", NOT_CANONICAL),
        ("eu.FOO.net", "team:domain=eu.foo.net"),
        ("barfoo.net", None),
        ("net", None),
        ("foo.net.evil.com", None),
    ],
)
def test_custom_domain_owns_itself_and_what_is_below_it(host: str, expected: str | None) -> None:
    claims = [
        ("foo.net", "bot"),
        ("Eu.Foo.NET.", "team"),
        ("twice.net", "bot"),
        ("twice.net", "team"),
        ("foo.net", "bot"),
    ]
    routes, ignored = with_domains(*claims, lines=["bot /bots/{ref:int}"])
    assert outcome(routes, "/", host=host) == expected
    assert ignored == ()


def test_domain_that_several_kinds_claim_belongs_to_the_presets_kind_or_is_ambiguous() -> None:
    claims = [("foo.net", "llm_client"), ("foo.net", "chatbot"), ("bar.net", "chatbot"), ("bar.net", "team")]
    for ordered in itertools.permutations(claims):
        routes, _ = with_domains(*ordered, lines=["preset:smarter"])
        assert outcome(routes, "/", host="foo.net") == "llm_client:domain=foo.net"
        assert outcome(routes, "/", host="bar.net") == AMBIGUOUS


def test_domains_can_be_replaced_and_nothing_of_the_old_ones_is_remembered() -> None:
    routes, _ = with_domains(("foo.net", "bot"), lines=["bot /bots/{ref:int}"])
    assert outcome(routes, "/", host="foo.net") == "bot:domain=foo.net"
    assert outcome(routes, "/", host="bar.net") is None
    assert routes.replace_domains([("bar.net", "team")]) == ()
    assert outcome(routes, "/", host="foo.net") is None
    assert outcome(routes, "/", host="bar.net") == "team:domain=bar.net"
    assert routes.replace_domains([]) == ()
    assert not routes.reads_hosts
    assert outcome(routes, "/", host="a, b") is None


@pytest.mark.parametrize(
    ("domain", "why"),
    [
        ("api.example.com", "overlaps api.example.com"),
        ("x.api.example.com", "overlaps api.example.com"),
        ("example.com", "overlaps api.example.com"),
        ("platform.example.net", "overlaps platform.example.net"),
        ("example.net", "overlaps platform.example.net"),
        ("teams.example.org", "overlaps teams.example.org"),
        ("co.uk", "public suffix"),
        ("io", "public suffix"),
        ("github.io", "public suffix"),
        ("192.0.2.1", "IP address"),
        ("a b.com", "a domain is made of labels"),
        ("foo.com:8000", "a domain is made of labels"),
        ("", "a domain is made of labels"),
        ("x" * 64 + ".com", "at most 63"),
    ],
)
def test_domain_that_cannot_be_a_custom_one_is_ignored_and_reported(domain: str, why: str) -> None:
    domains = {"api_domains": ["api.example.com"], "platform_domains": ["platform.example.net"]}
    routes, (ignored,) = with_domains((domain, "bot"), ("fine.net", "bot"), **domains)
    assert why in ignored
    assert outcome(routes, "/", host="fine.net") == "bot:domain=fine.net"
    if domain not in ("", "a b.com"):
        assert outcome(routes, "/", host=domain) in (None, NOT_CANONICAL)


def test_a_random_host_is_not_remembered_for_ever() -> None:
    routes, _ = with_domains(("foo.net", "bot"))
    for number in range(10_000):
        assert outcome(routes, "/", host=f"h{number}.foo.net") == "bot:domain=foo.net"
    assert len(routes._hosts._memo) <= 8192
    assert outcome(routes, "/", host="foo.net", headers=[(b"host", b"foo.net"), (b"x-host", b"x." * 400 + b"net")])


def test_hosts_are_remembered_whatever_the_other_headers_are() -> None:
    host = b"hr.acme.api.example.com"
    one, other = (
        ROUTES.resolve(scope("/", **headers((b"accept-language", lang), host=host))) for lang in (b"de", b"fr")
    )
    assert isinstance(one, Target)
    assert one is other


def test_refusal_of_a_host_is_not_remembered() -> None:
    one, other = (ROUTES.resolve(scope("/", host="h_r.acme.api.example.com")) for _ in range(2))
    assert isinstance(one, Denial)
    assert one == other
    assert one is not other


@pytest.mark.parametrize(("chars", "is_remembered"), [(512, True), (513, False)])
def test_hosts_of_at_most_512_characters_are_remembered(chars: int, is_remembered: bool) -> None:
    host = b"hr.acme.api.example.com"
    names = [(b"x-host", b"x" * 250), (b"x-original-host", b"y" * (chars - len(host) - 250))]
    one, other = (ROUTES.resolve(scope("/", **headers(*names, host=host))) for _ in range(2))
    assert one == other == Target(Alias("bot", "label", "hr", "acme"), account="acme")
    assert (one is other) is is_remembered


# Configuration


@pytest.mark.parametrize(
    ("domain", "why"),
    [
        ("com", "public suffix"),
        ("co.uk", "public suffix"),
        ("herokuapp.com", "public suffix"),
        ("localhost", "public suffix"),
        ("192.0.2.1", "IP address"),
        ("[::1]", "IP address"),
        ("::1", "IP address"),
        ("api.localhost:9357", "without scheme, port and path"),
        ("https://api.example.com", "without scheme, port and path"),
        ("api.example.com/x", "without scheme, port and path"),
        (".example.com", "a domain is made of labels"),
        ("api..example.com", "a domain is made of labels"),
        ("*.example.com", "a domain is made of labels"),
        ("a_b.example.com", "a domain is made of labels"),
        ("x" * 64 + ".example.com", "at most 63"),
        ("", "a domain is made of labels"),
    ],
)
def test_bad_api_domain_is_a_mistake(domain: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match="SMARTER_AUTH_API_DOMAINS") as caught:
        Routes.parse(["preset:smarter"], api_domains=[domain])
    (mistake,) = caught.value.mistakes
    assert mistake.variable == "SMARTER_AUTH_API_DOMAINS"
    assert why in mistake.rule
    if "/" not in domain and domain:
        with pytest.raises(ConfigurationError) as caught:
            Routes.parse([f"bot host:{{label}}.{domain}"])
        assert len(caught.value.mistakes) == 1


ANYONE_CAN_HAVE_A_SITE_BELOW = """
    amazonaws.com appspot.com azurewebsites.net cloudfront.net cloudfunctions.net deno.dev fly.dev github.io gitlab.io
    herokuapp.com netlify.app ngrok.io ngrok.app onrender.com pages.dev railway.app run.app vercel.app web.app
    workers.dev azurestaticapps.net co.uk com.au ac.at org.uk io localhost
""".split()  # noqa: SIM905


@pytest.mark.parametrize("domain", ANYONE_CAN_HAVE_A_SITE_BELOW)
def test_suffix_below_which_anyone_can_have_a_site_is_no_domain_of_yours(domain: str) -> None:
    assert "public suffix" in (hosts.problem(domain) or "")
    assert hosts.problem(f"mine.{domain}") is None


@pytest.mark.parametrize("domain", ["example.io", "co.example", "co.uk.example.org", "xn--bcher-kva.example", "1.2.eu"])
def test_domain_of_yours_may_look_like_a_suffix_in_part(domain: str) -> None:
    assert hosts.problem(domain) is None


def test_domain_has_at_most_253_characters() -> None:
    longest = ".".join(["x" * 63] * 3 + ["y" * 61])
    assert len(longest) == 253
    assert hosts.problem(longest) is None
    assert "a domain is made of labels" in (hosts.problem(f"{longest}y") or "")


@pytest.mark.parametrize("domain", ["co.uk", "github.io", "192.0.2.1", "a b.com", "https://example.com", ""])
def test_bad_platform_domain_is_a_mistake(domain: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Routes.parse(["preset:smarter"], platform_domains=[domain])
    assert [mistake.variable for mistake in caught.value.mistakes] == ["SMARTER_AUTH_PLATFORM_DOMAINS"]


@pytest.mark.parametrize("platform", ["api.example.com", "console.api.example.com"])
def test_platform_domain_that_would_be_a_resource_is_a_mistake(platform: str) -> None:
    with pytest.raises(ConfigurationError, match="SMARTER_AUTH_PLATFORM_DOMAINS"):
        Routes.parse(["preset:smarter"], api_domains=["api.example.com"], platform_domains=[platform])


@pytest.mark.parametrize(
    ("api_domain", "platform_domain"),
    [
        ("api.localhost", "localhost"),
        ("api.platform.example.com", "platform.example.com"),
        ("alpha.api.example.com", "alpha.platform.example.com"),
        ("API.example.com.", "PLATFORM.example.com."),
    ],
)
def test_domains_as_the_platform_has_them_are_fine(api_domain: str, platform_domain: str) -> None:
    routes = Routes.parse(["preset:smarter"], api_domains=[api_domain], platform_domains=[platform_domain])
    assert routes.reads_hosts


@pytest.mark.parametrize("domains", [(["a.example.com", "A.example.com."], []), ([], ["a.net", "a.net"])])
def test_domain_that_stands_there_twice_is_a_mistake(domains: tuple[list[str], list[str]]) -> None:
    with pytest.raises(ConfigurationError, match="twice") as caught:
        Routes.parse(["preset:smarter"], api_domains=domains[0], platform_domains=domains[1])
    assert len(caught.value.mistakes) == 1


# Forwarded hosts


def headers(*more: tuple[bytes, bytes], host: bytes = b"internal") -> dict[str, Any]:
    return {"headers": [(b"host", host), (b"accept", b"*/*"), *more]}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ([(b"x-forwarded-host", b"hr.acme.api.example.com")], "bot:label=hr@acme of acme"),
        ([(b"x_forwarded_host", b"hr.acme.api.example.com")], "bot:label=hr@acme of acme"),
        ([(b"x-original-host", b"HR.acme.api.example.com:443")], "bot:label=hr@acme of acme"),
        ([(b"forwarded", b'for=192.0.2.1;host="hr.acme.api.example.com";proto=https')], "bot:label=hr@acme of acme"),
        ([(b"forwarded", b"for=1.2.3.4, for=5.6.7.8;Host=hr.acme.api.example.com")], "bot:label=hr@acme of acme"),
        ([(b"forwarded", b"for=192.0.2.1;proto=https")], None),
        ([(b"x-forwarded-host", b"www.example.com")], None),
        ([(b"x-forwarded-host", b"hr.acme.api.example.com, www.example.com")], "bot:label=hr@acme of acme"),
        ([(b"x-forwarded-host", b"hr.acme.api.example.com, it.acme.api.example.com")], AMBIGUOUS),
        ([(b"x-forwarded-host", b"hr.acme.api.example.com"), (b"x-host", b"it.acme.api.example.com")], AMBIGUOUS),
        ([(b"x-forwarded-server", b"hr.acme.api.example.com")], "bot:label=hr@acme of acme"),
        ([(b"x-http-host-override", b"hr.acme.api.example.com")], "bot:label=hr@acme of acme"),
        ([(b"x-forwarded-host", b"a/b")], NOT_CANONICAL),
        ([(b"forwarded", b"for=192.0.2.1;hr.acme.api.example.com")], NOT_CANONICAL),
        ([(b"forwarded", b"for=192.0.2.1, ?")], NOT_CANONICAL),
        ([(b"x-forwarded-host", b"")], NOT_CANONICAL),
    ],
)
def test_host_that_a_proxy_tells_of_is_a_reading_of_its_own(
    more: list[tuple[bytes, bytes]], expected: str | None
) -> None:
    assert outcome(ROUTES, "/", **headers(*more)) == expected


def test_host_and_forwarded_host_that_differ_are_refused() -> None:
    told = (b"x-forwarded-host", b"it.acme.api.example.com")
    assert outcome(ROUTES, "/", **headers(told, host=b"hr.acme.api.example.com")) == AMBIGUOUS
    assert outcome(ROUTES, "/", **headers(told, host=b"it.acme.api.example.com")) == "bot:label=it@acme of acme"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"eu.foo.net:80,x.org:1", "team:domain=eu.foo.net"),
        (b"eu.foo.net,x.org", "team:domain=eu.foo.net"),
        (b"eu.foo.net:80", "team:domain=eu.foo.net"),
        (b"eu.foo.net.", "team:domain=eu.foo.net"),
        # These are of foo.net for a reader that minds the case, or looks at how the whole list ends.
        (b"EU.foo.net:80,x.org:1", NOT_CANONICAL),
        (b"EU.foo.net.", NOT_CANONICAL),
        (b"x.org:1,eu.foo.net:80", NOT_CANONICAL),
        (b"x.org,eu.foo.net", NOT_CANONICAL),
        (b"X.ORG,eu.FOO.NET", NOT_CANONICAL),
    ],
)
def test_forwarded_host_is_also_read_as_a_careless_router_reads_it(value: bytes, expected: str) -> None:
    routes, _ = with_domains(("foo.net", "bot"), ("eu.foo.net", "team"))
    assert outcome(routes, "/", **headers((b"x-forwarded-host", value))) == expected
    if b"," not in value:
        assert outcome(routes, "/", **headers((b"forwarded", b"for=1;host=" + value + b";proto=http"))) == expected


@pytest.mark.parametrize(
    "name",
    [
        *(
            b"x-forwarded-host",
            b"x_forwarded_host",
            b"x-forwarded_host",
            b"forwarded",
            b"x-original-url",
            b"x-rewrite-url",
            b"x-forwarded-server",
            b"x-forwarded-uri",
        ),
        *(b"x-host", b"x-original-host", b"x-http-host-override", b"x_http-host_override", b"x-original-uri"),
    ],
)
def test_forwarded_headers_of_a_stranger_are_taken_out_of_the_scope(name: bytes) -> None:
    made = scope("/", **headers((name, b"hr.acme.api.example.com"), (b"x-forwarded-for", b"192.0.2.1")))
    cleaned = without_forwarded(made)
    assert [header for header, _ in cleaned["headers"]] == [b"host", b"accept", b"x-forwarded-for"]
    assert len(made["headers"]) == 4
    assert ROUTES.resolve(cleaned) is None


def test_scope_without_forwarded_headers_is_handed_on_as_it_is() -> None:
    made = scope("/", **headers((b"x-forwarded-for", b"192.0.2.1")))
    assert without_forwarded(made) is made


@pytest.mark.parametrize(
    ("name", "fits", "is_too_much"),
    [
        (b"x-forwarded-host", b",".join([b"x.org"] * 8), b",".join([b"x.org"] * 9)),
        (b"x-forwarded-host", b"a." * 20 + b"org", b"x" * 60_000),
        (
            b"x-forwarded-host",
            b",".join([b"x" * 255] * 7 + [b"x" * 256]),
            b",".join([b"x" * 255] * 6 + [b"x" * 256] * 2),
        ),
        (b"forwarded", b";".join([b"for=x"] * 33), b";".join([b"for=x"] * 34)),
        (b"forwarded", b",".join([b"for=x"] * 8), b",".join([b"for=x"] * 9)),
        (b"forwarded", b",".join([b"host=x.org"] * 8), b",".join([b"host=x.org"] * 9)),
        (b"forwarded", b";".join([b"host=x.org"] * 8), b";".join([b"host=x.org"] * 9)),
    ],
)
def test_more_than_proxies_write_of_hosts_is_refused(name: bytes, fits: bytes, is_too_much: bytes) -> None:
    answers = [ROUTES.resolve(scope("/", **headers((name, value)))) for value in (fits, is_too_much)]
    assert answers[0] is None
    assert isinstance(answers[1], Denial)
    assert "more than" in answers[1].detail
    several = [(b"x-forwarded-host", b"x.org")] * 9
    assert isinstance(ROUTES.resolve(scope("/", **headers(*several))), Denial)


def test_headers_that_name_no_host_may_be_long_and_full_of_commas() -> None:
    more = [(b"cookie", b"c" * 4000), (b"accept", b"text/html," * 100), (b"via", b"a;b" * 100)]
    given = headers(*more, host=b"hr.acme.api.example.com")
    assert outcome(ROUTES, "/bots/", **given) == "bot:label=hr@acme of acme"
    assert outcome(ROUTES, "/bots/42", **given) == "bot:label=hr@acme if also bot:42 of acme"


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("Example.com", "Example.com"),
        ("example.com.:443", "example.com"),
        ("x" * 253 + ".:65535", "x" * 253),
        ("[::1]", "[::1]"),
    ],
)
def test_host_is_bare_without_port_and_trailing_dot(text: str, host: str) -> None:
    assert hosts.bare(text) == host


def test_longer_host_than_any_is_none() -> None:
    with pytest.raises(hosts.BadHostError, match="is not a host"):
        hosts.bare("x" * 254 + ".:65535")


def test_headers_may_be_read_only_once() -> None:
    given_once = iter([(b"host", b"a.org"), (b"forwarded", b"host=b.org:80"), (b"x-host", b"c.org, d.org.")])
    assert hosts.asked_for(given_once).hosts == ["a.org", "b.org", "c.org", "d.org"]


@pytest.mark.parametrize(
    ("given", "detail"),
    [
        ([], "'Host': the request has no Host header: exactly one is needed"),
        ([(b"host", b"a.org")] * 2, "'Host': the request has 2 Host headers: exactly one is needed"),
        ([(b"host", b"a/b")], "'Host': 'a/b' is not a host"),
        ([(b"host", b"a.org"), (b"forwarded", b"a.org")], "'Host': Forwarded has something other than pairs: 'a.org'"),
    ],
)
def test_refusal_says_what_is_wrong_with_the_hosts(given: list[tuple[bytes, bytes]], detail: str) -> None:
    found = ROUTES.resolve(scope("/", headers=given))
    assert isinstance(found, Denial)
    assert found.detail == detail


@given(st.text(max_size=50))
def test_no_text_breaks_the_reading_of_a_host(text: str) -> None:
    try:
        host = hosts.bare(text)
    except hosts.BadHostError:
        return
    assert hosts.bare(host) == host


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_no_header_breaks_it(host: bytes, forwarded: bytes) -> None:
    answer = ROUTES.resolve(scope("/", headers=[(b"host", host), (b"forwarded", forwarded)]))
    assert answer is None or isinstance(answer, Target | Denial)


def test_target_of_a_host_tells_its_alias_and_account() -> None:
    target = ROUTES.resolve(scope("/", host="hr.acme.api.example.com"))
    assert target == Target(Alias("bot", "label", "hr", "acme"), account="acme")
