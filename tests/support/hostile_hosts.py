"""Hostile hosts: headers mutated, and apps that find the bot by them as people write it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Host, Route, Router

from smarter_auth_mw.routing.hosts import without_forwarded
from smarter_auth_mw.routing.routes import Routes
from tests.support import hostile_oracles as paths
from tests.support.hostile_oracles import SERVED, Oracle, Scope

LINES = [
    "bot host:{label}.{account}.api.example.com",
    "bot host:{label}.{account}.alpha.api.example.com",
    "team host:{ref}.teams.example.org",
]
DOMAINS = [("foo.net", "bot"), ("eu.foo.net", "team")]
HOSTS = [
    *("hr.acme.api.example.com", "it.3141-5926-5359.alpha.api.example.com", "sales.teams.example.org", "foo.net"),
    *(
        "www.foo.net",
        "eu.foo.net",
        "shop.eu.foo.net",
        "api.example.com",
        "www.example.com",
        "hr.acme.api.example.com:443",
    ),
]
FORGED = [f"{host}{target}{end}" for host in ("x", "x:80", "[::1]") for target in paths.TARGETS for end in "?#"]
"""Hosts that bring a path along."""
FORWARDING = [b"x-forwarded-host", b"x_forwarded_host", b"forwarded", b"x-original-host", b"x-host"]

Headers = tuple[tuple[bytes, bytes], ...]
_INSERTIONS = """
    . .. : :80 @ / // , ; # ? % %2e %2E _ - -- [ ] ( \\ ' a. .a x@ /x ,x #x ?x :x xn--a. \xa0 \xe9 \u017f api. example.
"""
INSERTIONS = [" ", "\t", "\0", "\r\n", *_INSERTIONS.split()]


def mutated(rng: random.Random, host: str, hosts: Sequence[str]) -> str:
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        at = rng.randint(0, len(host))
        choices = [host[:at] + rng.choice(INSERTIONS) + host[at:], host[:at].upper() + host[at:], host.title()]
        choices += [host[:at] + host[at + 1 :], f"{host}.", f"{host}:8000", f"{host},{rng.choice(hosts)}"]
        choices += [
            f"{rng.choice(hosts)}@{host}",
            f"{host}/{rng.choice(hosts)}",
            host.replace(".", rng.choice("\u3002,/%"), 1),
        ]
        choices += [f"a.{host}", host.partition(".")[2], host.replace("a", "\uff41", 1), f"{host}.evil.com"]
        host = rng.choice(choices)
    return host


def mutated_headers(rng: random.Random, hosts: Sequence[str]) -> Headers:
    """A Host header, or none or two, and now and then some that proxies send."""
    names = [b"host"] * rng.choice([1] * 12 + [0, 2]) + rng.choices(FORWARDING, k=rng.choice([0, 0, 0, 1, 2]))
    texts = ((name, mutated(rng, rng.choice(hosts), hosts)) for name in names)
    told = ((name, f"for=1;host={text}" if name == b"forwarded" else text) for name, text in texts)
    return tuple((name, text.encode("utf-8")) for name, text in told)


def served(host: str) -> None:
    """What an app would make of a host that minds the case of domains, and looks up labels without case."""
    match host.split("."):
        case [label, account, "api", "example", "com"] | [label, account, "alpha", "api", "example", "com"]:
            found = f"bot:label/{account}/{label}"
        case [ref, "teams", "example", "org"]:
            found = f"team:{ref}"
        case [*_, "eu", "foo", "net"]:
            found = "team:domain//eu.foo.net"
        case [*_, "foo", "net"]:
            found = "bot:domain//foo.net"
        case _:
            return
    if re.fullmatch(r"[A-Za-z0-9_.:/-]+", found):  # nothing is registered under another name
        SERVED.append(found.lower().replace("_", "-"))


def by_url(host: str) -> str:
    return urlsplit(f"//{host}").hostname or ""


def no_port(host: str) -> str:
    return host.partition(":")[0]


def no_dot(host: str) -> str:
    return host.rstrip(".")


def first_of_list(host: str) -> str:
    return host.split(",")[0].strip()


def last_of_list(host: str) -> str:
    return host.split(",")[-1].strip()


def no_path(host: str) -> str:
    return host.partition("/")[0]


def idna(host: str) -> str:
    return host.encode("idna").decode("ascii")


def plain(host: str) -> str:
    return "".join(char for char in host if char.isprintable()).strip()


LENIENT: list[Callable[[str], str]] = [
    str.lower,
    str.casefold,
    unquote,
    by_url,
    no_port,
    no_dot,
    first_of_list,
    last_of_list,
    no_path,
    idna,
    plain,
]


def header(scope: Scope, *names: bytes, last: bool = False) -> str:
    found = [value for name in names for key, value in scope["headers"] if key.replace(b"_", b"-") == name]
    return found[-1 if last else 0].decode("utf-8") if found else ""


def by_host(scope: Scope) -> str:
    return header(scope, b"host")


def by_last_host(scope: Scope) -> str:
    return header(scope, b"host", last=True)


def by_forwarded_host(scope: Scope) -> str:
    told = header(scope, b"forwarded").partition("host=")[2].partition(";")[0]
    return header(scope, b"x-forwarded-host", b"x-original-host", b"x-host") or told or header(scope, b"host")


def dispatcher(source: Callable[[Scope], str], seed: int) -> Callable[..., Any]:
    """Finds the bot by host, after some lenient steps that differ from request to request."""
    rng = random.Random(seed)

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        host = source(scope)
        for step in (*rng.choices(LENIENT, k=rng.randint(0, 4)), no_port):
            host = step(host)
        served(host)

    return app


def starlette_app() -> Router:
    async def endpoint(request: Request) -> Response:
        served(request.headers["host"].partition(":")[0])
        return Response()

    anything = Router(routes=[Route("/", endpoint), Route("/{rest:path}", endpoint)])
    hosts = ["{label}.{account}.api.example.com", "{label}.{account}.alpha.api.example.com", "{ref}.teams.example.org"]
    return Router(routes=[Host(host, anything) for host in (*hosts, "foo.net", "{sub}.foo.net", "{sub}.eu.foo.net")])


def request_url_path(scope: Scope) -> str:
    """The path as Starlette's ``request.url`` has it, which is made of the host, too."""
    return Request(scope).url.path


def not_trusted(scope: Scope) -> Scope:
    return dict(without_forwarded(scope))


def host_oracles() -> Iterable[Oracle]:
    routes = Routes.parse(LINES)
    assert routes.replace_domains(DOMAINS) == ()
    targets = ["/", "/config/", "/prompt/?x=1"]
    yield Oracle("hosts, starlette", starlette_app(), routes, targets, hosts=HOSTS)
    yield Oracle("hosts, the first", dispatcher(by_host, 1), routes, targets, weight=2, hosts=HOSTS)
    yield Oracle("hosts, the last", dispatcher(by_last_host, 2), routes, targets, hosts=HOSTS)
    by_path = Routes.parse(paths.LINES)
    yield Oracle("request.url.path", paths.dispatcher(source=request_url_path), by_path, paths.TARGETS, weight=2)
    forged = paths.dispatcher(source=request_url_path)
    yield Oracle("request.url.path of a forged host", forged, by_path, ["/", "/x"], weight=2, hosts=FORGED)
    trusting = dispatcher(by_forwarded_host, 3)
    yield Oracle("hosts, of a trusted proxy", trusting, routes, targets, weight=2, hosts=HOSTS)
    yield Oracle("hosts, of a stranger", trusting, routes, targets, weight=2, hosts=HOSTS, front=not_trusted)
