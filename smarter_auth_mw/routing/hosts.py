"""Hosts: their syntax, the domains that may name resources, and the headers that name another host."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from itertools import product
from typing import NamedTuple

from starlette.types import Scope

from smarter_auth_mw.errors import Mistake
from smarter_auth_mw.tokens import shortened

API_DOMAINS = "SMARTER_AUTH_API_DOMAINS"
PLATFORM_DOMAINS = "SMARTER_AUTH_PLATFORM_DOMAINS"
MAX_HOST_CHARS = 253
SHOWN_CHARS = 63
MAX_HOSTS = 8
"""The most hosts of a request: its own, and those that proxies report."""
MAX_PAIRS = 32
"""The most pairs in a request's ``Forwarded``, to which each proxy adds up to four."""
MAX_FORWARDED_CHARS = 2048
"""The most characters of all forwarded hosts together."""

Headers = Iterable[tuple[bytes, bytes]]


def _spellings(*names: str) -> frozenset[bytes]:
    """Return the names, also with ``_`` for ``-``, since WSGI servers do not distinguish them."""
    choices = ([("-", "_") if char == "-" else (char,) for char in name] for name in names)
    return frozenset("".join(spelling).encode() for one in choices for spelling in product(*one))


FORWARDED_HOSTS = _spellings(
    "x-forwarded-host", "x-original-host", "x-host", "x-http-host-override", "x-forwarded-server"
)
"""Headers in which a proxy passes on the original host, in addition to RFC 7239's ``Forwarded``."""
FORWARDED_TARGETS = _spellings("x-original-url", "x-original-uri", "x-rewrite-url", "x-forwarded-uri")
"""Headers in which a proxy passes on the original path."""
TELLING = frozenset({b"host", b"forwarded", *FORWARDED_HOSTS})
"""All headers that host routing depends on."""

FORWARDED = frozenset({b"forwarded", *FORWARDED_HOSTS, *FORWARDED_TARGETS})
_FORWARDED_PAIR = re.compile(r"\s*(?:[A-Za-z-]+\s*=.*)?")
_FORWARDED_TEXT = re.compile(r'(?:^|[;,])\s*host\s*=\s*"?([^;"]*)', re.IGNORECASE)
_FORWARDED_HOST = re.compile(r'(?:^|[;,])\s*host\s*=\s*"?([^;,"]*)', re.IGNORECASE)
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?)(?::[0-9]{0,5})?")
_DOMAIN = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9-]{1,63}(?<!-))*")

# Second levels of registries, such as co.uk and com.au, and suffixes below which anyone can have a site. The whole
# Public Suffix List has 10,000 lines and changes every week: this part catches common mistakes.
_SECOND_LEVELS = frozenset("ac co com edu go gob gov gv mil ne net nhs nom or org plc sch".split())  # noqa: SIM905
_SHARED_SUFFIXES = frozenset(
    {
        *("amazonaws.com", "appspot.com", "azurewebsites.net", "cloudfront.net", "cloudfunctions.net", "deno.dev"),
        *("fly.dev", "github.io", "gitlab.io", "herokuapp.com", "netlify.app", "ngrok.io", "ngrok.app", "onrender.com"),
        *("pages.dev", "railway.app", "run.app", "vercel.app", "web.app", "workers.dev", "azurestaticapps.net"),
    }
)


class BadHostError(Exception):
    """A request does not name its host unambiguously."""


class Asked(NamedTuple):
    """The hosts of a request, without port and one trailing dot, and the header values they come from."""

    hosts: list[str]
    texts: list[str]


def asked_for(headers: Headers) -> Asked:
    """Return the host of ``Host`` and those in a trusted proxy's headers.

    Raises BadHostError unless there is exactly one ``Host`` and every value is a valid host (RFC 9110 §7.2).
    """
    headers = tuple(headers)
    own = [value.decode("latin-1") for name, value in headers if name == b"host"]
    if len(own) != 1:
        raise BadHostError(f"the request has {len(own) or 'no'} Host header{'s' if own else ''}: exactly one is needed")
    if reason := _excess([value for name, value in headers if name != b"host" and name in TELLING]):
        raise BadHostError(reason)
    asked = Asked([*own], [*own])
    for name, value in headers:
        text = value.decode("latin-1")
        if name in FORWARDED_HOSTS:
            asked.hosts.extend(host.strip(" \t") for host in text.split(","))
            asked.texts.append(text)
        elif name == b"forwarded":
            if not all(_FORWARDED_PAIR.fullmatch(pair) for pair in re.split("[;,]", text)):
                raise BadHostError(f"Forwarded has something other than pairs: {shortened(text, SHOWN_CHARS)!a}")
            asked.hosts.extend(_FORWARDED_HOST.findall(text))
            asked.texts.extend(_FORWARDED_TEXT.findall(text))
    if len(asked.hosts) > MAX_HOSTS + 1:  # `Forwarded` may repeat host= without a comma
        raise BadHostError(f"there are more than {MAX_HOSTS} forwarded hosts")
    return Asked([bare(host) for host in asked.hosts], asked.texts)


def _excess(forwarded: Sequence[bytes]) -> str | None:
    """Return why the forwarded values exceed what proxies send, if they do."""
    if sum(map(len, forwarded)) > MAX_FORWARDED_CHARS:
        return f"forwarded hosts have more than {MAX_FORWARDED_CHARS} characters"
    if sum(value.count(b",") + 1 for value in forwarded) > MAX_HOSTS:
        return f"there are more than {MAX_HOSTS} forwarded hosts"
    return f"Forwarded has more than {MAX_PAIRS} pairs" if sum(v.count(b";") for v in forwarded) > MAX_PAIRS else None


def bare(text: str) -> str:
    """Return the host without port and one trailing dot; raises BadHostError."""
    if len(text) > MAX_HOST_CHARS + len(".:65535") or not _HOST.fullmatch(text):
        raise BadHostError(f"{shortened(text, SHOWN_CHARS)!a} is not a host")
    return text if text.startswith("[") else text.partition(":")[0].removesuffix(".")


def without_forwarded(scope: Scope) -> Scope:
    """Return ``scope`` without the headers that name another host or path, for untrusted peers."""
    kept = [header for header in scope["headers"] if header[0] not in FORWARDED]
    return scope if len(kept) == len(scope["headers"]) else {**scope, "headers": kept}


def normal(domain: str) -> str:
    """Return a configured domain in lower case, without one trailing dot."""
    return domain.lower().removesuffix(".")


def problem(domain: str, *, may_be_single: bool = False) -> str | None:
    """Return why a resource's host cannot end in ``domain``, if so."""
    if _is_address(domain):
        return "an IP address has no hosts below it; write a domain"
    if len(domain) > MAX_HOST_CHARS or not _DOMAIN.fullmatch(domain):
        return "a domain is made of labels of a-z, 0-9 and -, at most 63 characters each, without scheme, port and path"
    if is_public_suffix(domain) and not (may_be_single and "." not in domain):
        return "anyone can register a host below it (a public suffix); write a domain of your own: api.example.com"
    return None


def is_public_suffix(domain: str) -> bool:
    """Return whether anyone can register a host below ``domain``, as far as known here."""
    labels = domain.split(".")
    if len(labels) == 1 or domain in _SHARED_SUFFIXES:
        return True
    return len(labels) == 2 and len(labels[1]) == 2 and labels[0] in _SECOND_LEVELS


def overlap(one: str, other: str) -> bool:
    """Return whether two domains are equal, or one is below the other."""
    return one == other or one.endswith(f".{other}") or other.endswith(f".{one}")


def check(api_domains: Sequence[str], platform_domains: Sequence[str]) -> list[Mistake]:
    """Return the mistakes in the configured domains."""
    found = [Mistake(API_DOMAINS, domain, rule) for domain in api_domains if (rule := problem(domain))]
    found += [
        Mistake(PLATFORM_DOMAINS, domain, rule)
        for domain in platform_domains
        if (rule := problem(domain, may_be_single=True))
    ]
    for variable, domains in ((API_DOMAINS, api_domains), (PLATFORM_DOMAINS, platform_domains)):
        found += [Mistake(variable, twice, "it appears twice") for twice in _twice(domains)]
    found += [
        Mistake(PLATFORM_DOMAINS, domain, f"its hosts would be read as resources of API_DOMAINS={api}")
        for domain in platform_domains
        for api in api_domains
        if domain == api or domain.endswith(f".{api}")
    ]
    return found


def _twice(domains: Sequence[str]) -> list[str]:
    return [domain for domain in dict.fromkeys(domains) if domains.count(domain) > 1]


def _is_address(text: str) -> bool:
    try:
        ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True
