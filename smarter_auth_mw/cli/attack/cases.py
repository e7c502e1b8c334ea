"""The hostile requests: a protected resource's URL in many spellings, and many ways to pretend to have a token.

Requests are raw bytes, since a client library would repair most of them. They try to bypass the rules of path and host
routing, credentials and protocols; the tests send the same list to real servers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import urlsplit

from smarter_auth_mw.cli.attack.spellings import Named, targets

UNKNOWN = {"unknown token": "0" * 64}
NOWHERE = "/.well-known/smarter-auth-attack"
"""A path that no app has, which carries hidden requests and shows how the app answers unknown paths."""
KEY = "AAAAAAAAAAAAAAAAAAAAAA=="


@dataclass(frozen=True, slots=True)
class ResourceUrl:
    """A protected resource by its URL, and the ``address`` to connect to if it differs from the URL's host."""

    host: str
    port: int
    path: str
    query: str = ""
    is_tls: bool = False
    address: str = ""

    @classmethod
    def parse(cls, url: str) -> ResourceUrl:
        """Read ``http://HOST[:PORT]/PATH``; raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not parts.path.strip("/"):
            raise ValueError("it is not the http:// or https:// URL of a resource")
        is_tls = parts.scheme == "https"
        query = f"?{parts.query}" if parts.query else ""
        return cls(parts.hostname, parts.port or (443 if is_tls else 80), parts.path, query, is_tls)

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_tls else 80) else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Case:
    """One request, and what it tries."""

    group: str
    name: str
    request: bytes = field(repr=False)

    def __str__(self) -> str:
        return f"{self.group}: {self.name}"


@dataclass(frozen=True, slots=True)
class _Requests:
    """Builds requests for a site that differ from an ordinary one in the given parts."""

    site: ResourceUrl
    group: str

    def make(
        self,
        name: str,
        *headers: str,
        method: str = "GET",
        target: str | None = None,
        version: str = "HTTP/1.1",
        hosts: Sequence[str] | None = None,
        body: str = "",
        connection: str = "close",
    ) -> Case:
        target = self.site.path + self.site.query if target is None else target
        hosts = [self.site.authority] if hosts is None else hosts
        common = [*(f"Host: {host}" for host in hosts), f"Connection: {connection}"]
        lines = [f"{method} {target} {version}", *common, *headers]
        return Case(self.group, name, "\r\n".join([*lines, "", body]).encode("latin-1"))


def ordinary(site: ResourceUrl, *headers: str, target: str | None = None) -> bytes:
    """The request that any client makes."""
    return _Requests(site, "").make("", *headers, target=target).request


def cases(site: ResourceUrl, tokens: Mapping[str, str] = UNKNOWN) -> Iterator[Case]:
    """Every hostile request; ``tokens`` are refused ones by what is wrong with them."""
    yield from _open_cases(_Requests(site, "credentials"))
    yield from _target_cases(_Requests(site, "path"))
    yield from _host_cases(_Requests(site, "host"))
    yield from _token_cases(_Requests(site, "credentials"), tokens)
    yield from _claim_cases(_Requests(site, "claim"))
    yield from _method_cases(_Requests(site, "method"))
    yield from _protocol_cases(_Requests(site, "protocol"))
    yield from _websocket_cases(_Requests(site, "websocket"), tokens)


def nearly(token: str) -> dict[str, str]:
    """Strings that an attacker could derive from a glimpse of this token; none of them is valid."""
    return {
        "digest as token": hashlib.sha512(token.encode()).hexdigest(),
        "token_key as token": token[:15],
        "token less a character": token[:-1],
        "token and a character": f"{token}0",
        "token in upper case": token.upper(),
    }


def _target_cases(requests: _Requests) -> Iterator[Case]:
    seen = {requests.site.path}
    for name, target in targets(requests.site.path):
        if target not in seen:
            seen.add(target)
            yield requests.make(name, target=target + requests.site.query)
    for name, target in _other_forms(requests.site):
        yield requests.make(name, target=target)


def _other_forms(site: ResourceUrl) -> Iterator[Named]:
    """Yield request targets other than a path (RFC 9112 §3.2)."""
    path = site.path + site.query
    yield "absolute-form", f"http://{site.authority}{path}"
    yield "absolute-form of another host", f"http://evil.example{path}"
    yield "absolute-form, https", f"https://{site.authority}{path}"
    yield "absolute-form in upper case", f"HTTP://{site.authority}{path}"
    yield "absolute-form with an encoded slash", f"http://{site.authority}/{path[1:].replace('/', '%2F')}"
    yield "without a leading slash", path[1:]
    yield "authority-form", site.authority
    yield "? before it", f"?{path}"
    yield "the root, with the path in its query", f"/?{path}"
    yield "tab behind it", f"{path}\t"
    yield "raw UTF-8", f"{path}\u00c2\u00a0"
    yield "a raw control", f"{path}\x01"


def _host_cases(requests: _Requests) -> Iterator[Case]:
    authority, host = requests.site.authority, requests.site.host
    yield requests.make("none", hosts=[])
    yield requests.make("none, HTTP/1.0", hosts=[], version="HTTP/1.0")
    for name, hosts in (
        ("two, the same", [authority, authority]),
        ("two, another one first", ["evil.example", authority]),
        ("two, another one last", [authority, "evil.example"]),
        ("empty", [""]),
        ("a path and a query in it", [f"{authority}/health?"]),
        ("a path in it", [f"{authority}/health"]),
        ("user information", [f"a@{authority}"]),
        ("two in one", [f"{authority}, evil.example"]),
        ("upper case, dot and port", [f"{host.upper()}.:8080"]),
        ("two dots", [f"{host}.."]),
        ("an empty label", [f".{host}"]),
        ("one label more", [f"x.{host}"]),
        ("one label", ["x"]),
        ("IPv6", ["[::1]"]),
        ("punycode", ["xn--bcher-kva.example"]),
        ("a control character", [f"{host}\x0b"]),
        ("invalid UTF-8", [f"{host}\xff"]),
        ("a port that is not a number", [f"{host}:x"]),
        ("a very long one", ["a" * 4096]),
        ("evil", ["evil.example"]),
    ):
        yield requests.make(name, hosts=hosts)
    for header in FORWARDED:
        yield requests.make(header, header)


FORWARDED = [
    "X-Forwarded-Host: localhost",
    "X-Forwarded-Host: x/health?",
    "Forwarded: host=localhost;for=127.0.0.1",
    "X-Forwarded-For: 127.0.0.1",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Prefix: /health",
    "X-Forwarded-Path: /health",
    "X-Forwarded-Uri: /health",
    "X-Original-URL: /health",
    "X-Original-URI: /health",
    "X-Rewrite-URL: /health",
    "X-Script-Name: /bots",
    "Script-Name: /bots",
    "X-Real-IP: 127.0.0.1",
    "X-Envoy-Original-Path: /health",
]


def _token_cases(requests: _Requests, tokens: Mapping[str, str]) -> Iterator[Case]:
    """Yield the first token in every place where a server might read one; the others in two places."""
    (name, token), *others = tokens.items()
    for way, *headers in WAYS:
        yield requests.make(f"{name}, {way}", *(header.replace("TOKEN", token) for header in headers))
    site = requests.site
    for parameter in ("token", "api_key", "access_token", "authorization"):
        target = f"{site.path}{site.query or '?'}&{parameter}={token}"
        yield requests.make(f"{name}, query parameter {parameter}", target=target)
    for name, token in others:
        yield requests.make(f"{name}, Token", f"Authorization: Token {token}")
        yield requests.make(f"{name}, X-API-Key", f"X-API-Key: {token}")


WAYS: Sequence[Sequence[str]] = [
    ("Token", "Authorization: Token TOKEN"),
    ("token", "Authorization: token TOKEN"),
    ("Bearer", "Authorization: Bearer TOKEN"),
    ("X-API-Key", "X-API-Key: TOKEN"),
    ("double space", "Authorization: Token  TOKEN"),
    ("tab", "Authorization: Token\tTOKEN"),
    ("two words", "Authorization: Token TOKEN TOKEN"),
    ("comma", "Authorization: Token TOKEN, Token TOKEN"),
    ("behind a foreign scheme", "Authorization: Basic YTpi, Token TOKEN"),
    ("no scheme", "Authorization: TOKEN"),
    ("twice the same", "Authorization: Token TOKEN", "Authorization: Token TOKEN"),
    ("twice, different", "Authorization: Token TOKEN", "Authorization: Token x"),
    ("X-API-Key twice", "X-API-Key: TOKEN", "X-API-Key: TOKEN"),
    ("two ways", "Authorization: Token TOKEN", "X-API-Key: TOKEN"),
    ("two ways, different", "Authorization: Token TOKEN", "X-API-Key: x"),
    ("byte 0xE9 behind", "X-API-Key: TOKEN\xe9"),
    ("NUL behind", "X-API-Key: TOKEN\0"),
    ("X_API_Key", "X_API_Key: TOKEN"),
    ("cookie", "Cookie: token=TOKEN; sessionid=TOKEN; api_key=TOKEN"),
    ("subprotocol of no WebSocket", "Sec-WebSocket-Protocol: smarter-auth, TOKEN"),
    ("Proxy-Authorization", "Proxy-Authorization: Token TOKEN"),
    ("folded header", "Authorization: Token\r\n TOKEN"),
    ("blank before the colon", "Authorization : Token TOKEN"),
]


def _open_cases(requests: _Requests) -> Iterator[Case]:
    yield requests.make("none")
    for name, header in (
        ("Basic", "Authorization: Basic YWRtaW46YWRtaW4="),
        ("a scheme alone", "Authorization: Token"),
        ("an empty header", "Authorization:"),
        ("an empty X-API-Key", "X-API-Key:"),
        ("SQL", "X-API-Key: ' OR '1'='1"),
        ("SQL without blanks", "Authorization: Token '/**/OR/**/1=1--"),
        ("a wildcard", "Authorization: Token %"),
        ("null", "Authorization: Bearer null"),
        ("60 kB", f"X-API-Key: {'a' * 60_000}"),
    ):
        yield requests.make(name, header)


def _claim_cases(requests: _Requests) -> Iterator[Case]:
    """Yield headers that claim that the request was already authenticated."""
    for header in CLAIMS:
        yield requests.make(header, header)


CLAIMS = [
    "X-Smarter-Auth: granted",
    "Smarter-Auth: anonymous",
    "X-Smarter-Auth-Decision: grant",
    "X-Authenticated: true",
    "X-Auth-Request-User: admin",
    "X-Remote-User: admin",
    "Remote-User: admin",
    "X-Forwarded-User: admin",
    "X-User: admin",
    "X-User-Id: 1",
    "X-Consumer-ID: 1",
    "X-Anonymous-Consumer: true",
    "X-Middleware-Subrequest: middleware:middleware:middleware:middleware:middleware",
    "X-Internal: 1",
    "X-HTTP-Method-Override: OPTIONS",
    "Via: smarter-auth",
]


def _method_cases(requests: _Requests) -> Iterator[Case]:
    for method in ("HEAD", "OPTIONS", "TRACE", "PUT", "PATCH", "DELETE", "PROPFIND", "BREW", "get", "G", "CONNECT"):
        yield requests.make(method, method=method)
    yield requests.make("OPTIONS *", method="OPTIONS", target="*")
    preflight = ("Origin: https://evil.example", "Access-Control-Request-Method: POST")
    yield requests.make("a preflight", *preflight, method="OPTIONS")
    yield requests.make("two origins in a preflight", preflight[0], *preflight, method="OPTIONS")
    yield requests.make("a GET that looks like a preflight", *preflight)
    yield requests.make("POST that says it is OPTIONS", "X-HTTP-Method-Override: OPTIONS", method="POST")


def _protocol_cases(requests: _Requests) -> Iterator[Case]:
    plain = ordinary(requests.site).decode("latin-1")
    yield requests.make("HTTP/1.0", version="HTTP/1.0")
    yield requests.make("HTTP/0.9", version="HTTP/0.9")
    yield requests.make("HTTP/2.0", version="HTTP/2.0")
    yield requests.make("POST of a large body, not sent", "Content-Length: 10000000", method="POST")
    waits = ("Expect: 100-continue", "Content-Length: 10000000")
    yield requests.make("POST that waits for 100 Continue", *waits, method="POST")
    yield requests.make("chunked", "Transfer-Encoding: chunked", method="POST", body="1\r\nx\r\n0\r\n\r\n")
    smuggled = f"0\r\n\r\n{plain}"
    both = (f"Content-Length: {len(smuggled)}", "Transfer-Encoding: chunked")
    yield requests.make("a request within a chunked one", *both, method="POST", target=NOWHERE, body=smuggled)
    hidden = ("Content-Length: 4", "Transfer-Encoding: xchunked")
    yield requests.make(
        "a request within an odd encoding", *hidden, method="POST", target=NOWHERE, body=f"0\r\n\r{plain}"
    )
    two = ("Content-Length: 0", f"Content-Length: {len(plain)}")
    yield requests.make("two lengths", *two, method="POST", target=NOWHERE, body=plain)
    yield requests.make("Upgrade to h2c", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__", connection="Upgrade")
    yield requests.make("a header without a name", ": Token")
    yield requests.make("a bare line feed in a header", "X-A: b\nAuthorization: Token x")
    yield requests.make("Range", "Range: bytes=0-0")
    yield requests.make("If-None-Match", "If-None-Match: *")


def _websocket_cases(requests: _Requests, tokens: Mapping[str, str]) -> Iterator[Case]:
    upgrade = ("Upgrade: websocket", f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13")
    make = partial(requests.make, connection="Upgrade")
    yield make("no credentials", *upgrade)
    yield make("marker without token", *upgrade, "Sec-WebSocket-Protocol: smarter-auth")
    yield make("// before it", *upgrade, target="/" + requests.site.path)
    yield make("POST", *upgrade, method="POST")
    for name, token in tokens.items():
        yield make(name, *upgrade, f"Authorization: Token {token}")
        offered = f"Sec-WebSocket-Protocol: smarter-auth, {token}"
        yield make(f"{name} as a subprotocol", *upgrade, offered)
        yield make(f"{name} as a subprotocol, and another", *upgrade, offered, "X-API-Key: x")
