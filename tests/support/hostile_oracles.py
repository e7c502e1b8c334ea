"""Apps that record which resource their handlers ran for: real routers, and dispatchers as people write them."""

from __future__ import annotations

import posixpath
import random
import re
import unicodedata
import uuid
import warnings
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any
from urllib.parse import unquote, urlsplit
from wsgiref.types import WSGIEnvironment

from fastapi import FastAPI
from flask import Flask
from litestar import Litestar
from litestar import get as litestar_get
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Host, Mount, Route, Router
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from smarter_auth_mw.routing.mounts import mounts_of
from smarter_auth_mw.routing.routes import Routes
from smarter_auth_mw.wsgi import scope_of

SERVED: list[str] = []
"""What the handlers of the oracle ran for, as ``kind:ref`` with ``_`` for ``-``, since the last request."""

UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
LINES = [
    "bot /bots/{ref:int}",
    "none /bots/new",
    "doc /docs/{ref:uuid}",
    "page /pages/{ref}",
    "run /pages/{ref}/run",
    "org /orgs/{ref}",
    "seat /orgs/{account}/seats/{ref:int}",
    "llm /api/v1/llms/{ref:hashed}",
    "none /public/**",
]
TARGETS = [
    *(
        "/bots/42",
        "/bots/42/",
        "/bots/7/chat",
        "/bots/42/a/b.pdf",
        "/bots/",
        "/bots/new",
        f"/docs/{UUID}",
        f"/docs/{UUID}/x",
    ),
    *(
        "/pages/sales",
        "/pages/my-bot/run",
        "/pages/sales/run/7",
        "/pages/42",
        "/orgs/acme",
        "/orgs/acme/seats/42",
        "/orgs/7/seats",
    ),
    *("/api/v1/llms/42/prompt/", "/api/v1/llms/rMTAwMDA0Mgx/", "/public/a.css", "/"),
]
ASGIApp = Callable[..., Awaitable[Any]]
Scope = dict[str, Any]


@dataclass
class Oracle:
    """A router, the routes that are meant to cover it, and ordinary targets to start from."""

    name: str
    app: ASGIApp
    routes: Routes
    targets: Sequence[str]
    roots: Sequence[str] = ("",)
    weight: int = 1
    prefixes: Sequence[str] = field(default=("/svc",))
    hosts: Sequence[str] = ()
    """Where they are given, it is the host that is mutated, not the target."""
    front: Callable[[Scope], Scope] = dict
    """What the middleware does to a scope before it asks the routes."""
    prefix_header: bytes = b""
    """A header in which the client names one of the prefixes, which a middleware inside takes off."""


# What a handler makes of the text that the router gave it


def number(text: str) -> str:
    """As lenient as ``int``, ``float`` and pydantic are together."""
    text = unquote(text).strip().removesuffix(".json")
    try:
        return str(int(text))
    except ValueError:
        value = float(text)
        if not value.is_integer():  # nobody cuts a fraction off
            raise
        return str(int(value))


def universal(text: str) -> str:
    return str(uuid.UUID(unquote(text).strip().removesuffix(".json")))


def slug(text: str) -> str:
    text = unicodedata.normalize("NFKC", unquote(text)).strip().removesuffix(".json").lower()
    return number(text) if text.strip("+-0123456789_. ") == "" and text else text.replace("_", "-")


def hashed(text: str) -> str:
    if text[:1] == "r":
        body = text[1:].rstrip("x=")
        return str(int(urlsafe_b64decode(body + "=" * (-len(body) % 4))) - 1_000_000)
    return number(text)


READERS: dict[str, Callable[[str], str]] = {
    "bot": number,
    "doc": universal,
    "page": slug,
    "run": slug,
    "org": slug,
    "seat": number,
    "llm": hashed,
    "note": hashed,
}


def serve(kind: str, text: str) -> None:
    try:
        read = READERS[kind](str(text))
    except (ValueError, OverflowError):
        return
    if re.fullmatch("[a-z0-9]+(?:-[a-z0-9]+)*", read):  # there is no resource of another name
        SERVED.append(f"{kind}:{read}".replace("_", "-"))


# Starlette and FastAPI


def handler(kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        serve(kind, request.path_params["ref"])
        return Response()

    return endpoint


async def public(_: Request) -> Response:
    return Response()


def starlette_routes(convertor: str = "") -> list[Route]:
    integer = convertor or ":int"
    return [
        Route("/bots/new", public),
        Route(f"/bots/{{ref{integer}}}:{{verb}}", handler("bot")),
        *(Route(f"/bots/{{ref{integer}}}{tail}", handler("bot")) for tail in ("", "/", "/{rest:path}")),
        *(Route(f"/docs/{{ref}}{tail}", handler("doc")) for tail in ("", "/{rest:path}")),
        *(Route(f"/pages/{{ref}}/run{tail}", handler("run")) for tail in ("", "/{rest:path}")),
        *(Route(f"/pages/{{ref}}{tail}", handler("page")) for tail in ("", "/{rest:path}")),
        *(Route(f"/orgs/{{org}}/seats/{{ref{integer}}}{tail}", handler("seat")) for tail in ("", "/{rest:path}")),
        *(Route(f"/orgs/{{ref}}{tail}", handler("org")) for tail in ("", "/{rest:path}")),
        *(Route(f"/api/v1/llms/{{ref}}{tail}", handler("llm")) for tail in ("", "/{rest:path}")),
        Route("/public/{rest:path}", public),
    ]


def fastapi_app(**options: Any) -> FastAPI:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # root_path= of the app is deprecated, and in use
        app = FastAPI(openapi_url=None, redirect_slashes=False, **options)

    async def bot(ref: int) -> None:
        serve("bot", str(ref))

    async def doc(ref: uuid.UUID) -> None:
        serve("doc", str(ref))

    async def page(ref: str) -> None:
        serve("page", ref)

    async def org(ref: str) -> None:
        serve("org", ref)

    async def seat(ref: int) -> None:
        serve("seat", str(ref))

    async def new() -> None: ...

    async def run_page(ref: str) -> None:
        serve("run", ref)

    app.add_api_route("/bots/new", new)
    shapes: dict[str, Callable[..., Any]] = {"/bots/{ref}": bot, "/docs/{ref}": doc}
    shapes |= {"/pages/{ref}/run": run_page, "/pages/{ref}": page, "/orgs/{org}/seats/{ref}": seat, "/orgs/{ref}": org}
    for path, endpoint in shapes.items():
        for tail in ("", "/", "/{rest:path}"):
            app.add_api_route(path + tail, endpoint)
    return app


def with_root_path(app: ASGIApp, root_path: str) -> ASGIApp:
    async def wrapped(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await app({**scope, "root_path": root_path}, receive, send)

    return wrapped


# Litestar and Django


def litestar_app() -> Litestar:
    def shape(kind: str, path: str, of: type) -> Any:
        async def endpoint(ref: Any) -> None:
            serve(kind, str(ref))

        endpoint.__annotations__["ref"] = of
        return litestar_get([path, path + "/{rest:path}"] if kind != "org" else path, name=f"{kind}{path}")(endpoint)

    shapes = [("bot", "/bots/{ref:int}", int), ("doc", "/docs/{ref:uuid}", uuid.UUID), ("org", "/orgs/{ref:str}", str)]
    shapes += [
        ("run", "/pages/{ref:str}/run", str),
        ("page", "/pages/{ref:str}", str),
        ("llm", "/api/v1/llms/{ref:str}", str),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer releases want another way to declare a path parameter
        return Litestar([shape(*one) for one in shapes], openapi_config=None, logging_config=None)


def django_app(force_script_name: str | None) -> ASGIApp:
    """Django's own request and resolver; the rest of its handler costs a millisecond and decides nothing."""
    from django.conf import settings
    from django.core.handlers.asgi import ASGIRequest
    from django.test import override_settings
    from django.urls import include, path, re_path
    from django.urls.resolvers import RegexPattern, URLResolver

    if not settings.configured:
        settings.configure()

    def view(kind: str) -> Callable[..., None]:
        return lambda request, ref, **_: serve(kind, str(ref))

    patterns: Sequence[Any] = [
        path("bots/new", lambda request: None),
        re_path(r"^bots/(?P<ref>[^/]+)/?", view("bot")),
        path("docs/<uuid:ref>", view("doc")),
        path("docs/<uuid:ref>/<path:rest>", view("doc")),
        path("pages/<str:ref>/run", view("run")),
        path("pages/<slug:ref>/", view("page")),
        path("pages/<slug:ref>", view("page")),
        path("orgs/<str:org>/seats/<int:ref>", view("seat")),
        path(
            "api/", include([path("v1/llms/<str:ref>/", view("llm")), path("v1/llms/<str:ref>/<path:x>", view("llm"))])
        ),
    ]
    resolver = URLResolver(RegexPattern(r"^/"), patterns)

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        with override_settings(FORCE_SCRIPT_NAME=force_script_name):
            request = ASGIRequest(scope, BytesIO())
        found = resolver.resolve(request.path_info)
        found.func(request, *found.args, **found.kwargs)

    return app


# Flask, behind the WSGI middleware


def flask_app() -> Callable[[WSGIEnvironment], None]:
    """Flask's own map of URLs; the rest of it costs ten times as much and decides nothing."""
    app = Flask("oracle", static_folder=None)
    shapes = {
        "bot": "/bots/<int:ref>",
        "doc": "/docs/<uuid:ref>",
        "run": "/pages/<ref>/run",
        "page": "/pages/<ref>",
        "seat": "/orgs/<org>/seats/<int:ref>",
        "org": "/orgs/<ref>",
        "llm": "/api/v1/llms/<ref>",
    }
    for kind, shape in shapes.items():
        for tail in ("", "/", "/<path:rest>"):
            app.add_url_rule(shape + tail, kind + tail, methods=["GET"])
    app.add_url_rule("/bots/new", "new")

    def called(environ: WSGIEnvironment) -> None:
        endpoint, found = app.url_map.bind_to_environ(environ).match()
        if endpoint != "new":
            serve(endpoint.partition("/")[0], str(found["ref"]))

    return called


def environ_of(scope: Scope, *, tells_target: bool) -> WSGIEnvironment:
    """The request as gunicorn hands it on, which takes ``SCRIPT_NAME`` off where the path begins with it."""
    root = scope["root_path"]
    is_below = bool(root) and scope["path"].startswith(root + "/")
    environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": root if is_below else "",
        "PATH_INFO": scope["path"].removeprefix(root if is_below else "").encode().decode("latin-1"),
        "HTTP_HOST": "app.example.com",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
    }
    return environ | ({"RAW_URI": scope["raw_path"].decode("latin-1")} if tells_target else {})


def behind_wsgi(called: Callable[[WSGIEnvironment], None], *, tells_target: bool) -> dict[str, Any]:
    """The parts of an oracle: what the WSGI middleware asks the routes, and the app that gets the environ."""

    def front(scope: Scope) -> Scope:
        environ = environ_of(scope, tells_target=tells_target)
        return {**scope_of(environ), "environ": environ}

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        called(scope["environ"])

    return {"app": app, "front": front}


def dispatched(prefix: str, called: Callable[[WSGIEnvironment], None]) -> Callable[[WSGIEnvironment], None]:
    """Below a prefix of werkzeug's dispatcher, which stands between the middleware and the app."""

    def app(environ: WSGIEnvironment, _: Any) -> list[bytes]:
        called(environ)
        return []

    dispatcher = DispatcherMiddleware(lambda environ, start_response: [], {prefix: app})

    def outer(environ: WSGIEnvironment) -> None:
        dispatcher(environ, lambda *_: lambda _: None)

    return outer


# Dispatchers as people write them


def no_parameters(path: str) -> str:
    return re.sub(r";[^/]*", "", path)


def no_controls(path: str) -> str:
    return "".join(char for char in path if unicodedata.category(char)[0] != "C")


def stripped(path: str) -> str:
    return "/".join(segment.strip() for segment in path.split("/"))


def url_path(path: str) -> str:
    return urlsplit(path).path


def normal(path: str) -> str:
    return posixpath.normpath(path)


def collapsed(path: str) -> str:
    return re.sub(r"/{2,}", "/", path)


def backslashed(path: str) -> str:
    return path.replace("\\", "/")


def compatible(path: str) -> str:
    return unicodedata.normalize("NFKC", path)


def no_fragment(path: str) -> str:
    return path.partition("#")[0]


LENIENT: list[Callable[[str], str]] = [
    *(str.lower, str.casefold, unquote, unquote, normal, collapsed, backslashed, no_parameters, no_controls, stripped),
    *(url_path, compatible, no_fragment),
]


def dispatch(words: list[str], *, reference: Callable[[str], str] = str) -> None:
    """The hand-written router: words by position, whatever comes behind is ignored."""
    match words:
        case ["bots", "new"] | []:
            pass
        case ["orgs", _, "seats", _, *_]:
            serve("seat", reference(words[3]))
        case ["pages", _, "run", *_]:
            serve("run", reference(words[1]))
        case ["bots" | "docs" | "pages" | "orgs" | "notes", _, *_]:
            serve(words[0].removesuffix("s"), reference(words[1]))
        case ["api", "v1", "llms", _, *_]:
            serve("llm", reference(words[3]))


def dispatcher(*steps: Callable[[str], str], source: Callable[[dict[str, Any]], str] | None = None) -> ASGIApp:
    """A dispatcher that puts the path through ``steps`` first."""

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        path = source(scope) if source else scope["path"]
        for step in steps:
            path = step(path)
        if path.startswith("/") and any(path):
            dispatch(path[1:].split("/"))

    return app


def mixed(seed: int) -> ASGIApp:
    """A dispatcher that puts each path through other steps, in another order."""
    rng = random.Random(seed)

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await dispatcher(*rng.choices(LENIENT, k=rng.randint(1, 5)))(scope, receive, send)

    return app


async def raw_segments(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Splits the raw path, and decodes what is between; of a reference with slashes the last part counts."""
    segments = scope["raw_path"].decode("latin-1").partition("?")[0].split("/")[1:]
    dispatch([unquote(segment) for segment in segments], reference=posixpath.basename)


def raw_path(scope: dict[str, Any]) -> str:
    return unquote(scope["raw_path"].decode("latin-1").partition("?")[0])


def stripping(prefix: str, app: ASGIApp, *, repeatedly: bool = False) -> ASGIApp:
    """Takes a prefix off before it asks ``app``."""

    async def wrapped(scope: dict[str, Any], receive: Any, send: Any) -> None:
        path = scope["path"]
        while path.startswith(prefix + "/"):
            path = path.removeprefix(prefix)
            if not repeatedly:
                break
        await app({**scope, "path": path}, receive, send)

    return wrapped


def stripping_user(app: ASGIApp) -> ASGIApp:
    """Decodes, and takes ``/u/`` and one segment off."""

    async def wrapped(scope: dict[str, Any], receive: Any, send: Any) -> None:
        match = re.match("/u/[^/]+(?=/)", unquote(scope["path"]))
        if match:
            await app({**scope, "path": unquote(scope["path"])[match.end() :]}, receive, send)

    return wrapped


def stripping_language(app: ASGIApp) -> ASGIApp:
    """Takes a language off, as ``de`` or ``pt-br``."""

    async def wrapped(scope: Scope, receive: Any, send: Any) -> None:
        match = re.match("/[A-Za-z]{2}(?:-[A-Za-z]{2,4})?(?=/)", scope["path"])
        if match:
            await app({**scope, "path": scope["path"][match.end() :]}, receive, send)

    return wrapped


def stripping_what_a_header_names(header: bytes, app: ASGIApp) -> ASGIApp:
    """Takes off what the client says that a proxy in front has added."""

    async def wrapped(scope: Scope, receive: Any, send: Any) -> None:
        prefix = dict(scope["headers"])[header].decode("latin-1")
        path = scope["path"].removeprefix(prefix) if prefix else scope["path"]
        await app({**scope, "path": path, "root_path": ""}, receive, send)

    return wrapped


def django_app_in_languages() -> ASGIApp:
    """Django's own resolver below ``i18n_patterns``."""
    from django.apps import apps
    from django.conf import settings
    from django.urls import path, re_path
    from django.urls.resolvers import LocalePrefixPattern, RegexPattern, URLResolver
    from django.utils.translation import get_language_from_path, override

    if not settings.configured:
        settings.configure()

    apps.populate(settings.INSTALLED_APPS)  # where it looks for languages

    def view(kind: str) -> Callable[..., None]:
        return lambda request, ref, **_: serve(kind, str(ref))

    views = [re_path(r"^bots/(?P<ref>[^/]+)/?", view("bot")), path("docs/<uuid:ref>", view("doc"))]
    views += [path("notes/<str:ref>/", view("note")), path("pages/<int:ref>/<path:rest>", view("page"))]
    resolver = URLResolver(RegexPattern(r"^/"), [URLResolver(LocalePrefixPattern(), views)])

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        with override(get_language_from_path(scope["path"])):
            found = resolver.resolve(scope["path"])
        found.func(scope, *found.args, **found.kwargs)

    return app


def ids_alone(app: ASGIApp) -> ASGIApp:
    """Below a prefix that nobody told of, names stay open: what counts is what ran for an id."""

    async def wrapped(scope: Scope, receive: Any, send: Any) -> None:
        with suppress(Exception):
            await app(scope, receive, send)
        SERVED[:] = [
            served
            for served in SERVED
            if re.fullmatch(r"(?:bot|doc|note|page):(?:\d+|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", served)
        ]

    return wrapped


# The oracles


def routers() -> Iterable[Oracle]:
    plain = Routes.parse(LINES)
    svc = [*TARGETS, *("/svc" + target for target in TARGETS)]
    starlette = Starlette(routes=starlette_routes())
    yield Oracle("starlette", starlette, plain, TARGETS, weight=3)
    yield Oracle("starlette, references as text", Starlette(routes=starlette_routes("")), plain, TARGETS, weight=2)
    yield Oracle(
        "starlette, root_path", Starlette(routes=starlette_routes()), plain, svc, ("", "/svc", "/svc/", "svc"), 2
    )
    yield Oracle("fastapi", fastapi_app(), plain, TARGETS, weight=3)
    inside = fastapi_app(root_path="/svc")
    yield Oracle("fastapi, root_path of its own", inside, Routes.parse(LINES, mounts=mounts_of(inside)), svc, weight=2)
    outside = with_root_path(fastapi_app(), "/svc")
    yield Oracle("fastapi, root_path from within", outside, Routes.parse(LINES, mounts=["/svc"]), svc, weight=2)
    inner = Starlette(routes=[Mount("/in", routes=starlette_routes()), *starlette_routes()])
    hosted = Router(routes=[Mount("/hosted", app=inner)])
    nested = Starlette(
        routes=[
            Mount("/a", app=inner),
            Mount("/u/{user}/x", app=inner),
            Mount("/svc", app=fastapi_app()),
            Host("app.example.com", app=hosted),
        ]
    )
    prefixes = ("/a", "/a/in", "/u/jane/x", "/u/jane%20doe/x/in", "/svc", "/hosted", "/hosted/in")
    targets = [prefix + target for prefix in prefixes for target in TARGETS]
    told = Routes.parse(LINES, mounts=mounts_of(nested))
    yield Oracle("nested mounts", nested, told, targets, ("", "/a"), 4, prefixes)
    yield Oracle("litestar", litestar_app(), plain, svc, ("", "/svc", "/api", "/bots"), 3)


def dispatchers() -> Iterable[Oracle]:
    plain = Routes.parse(LINES)
    for step in dict.fromkeys(LENIENT):
        name = f"dispatcher, {step.__name__}"
        yield Oracle(name, dispatcher(step), plain, TARGETS)
    yield Oracle("dispatcher, decoding three times", dispatcher(unquote, unquote, unquote), plain, TARGETS)
    yield Oracle("dispatcher, raw path", dispatcher(source=raw_path), plain, TARGETS)
    yield Oracle("dispatcher, segments of the raw path", raw_segments, plain, TARGETS, weight=2)
    yield Oracle("dispatcher, all sorts of steps", mixed(1), plain, TARGETS, weight=6)
    svc = [*TARGETS, *("/svc" + target for target in TARGETS)]
    mounted = Routes.parse(LINES, mounts=["/svc"])
    yield Oracle("mount, then all sorts of steps", stripping("/svc", mixed(2)), mounted, svc, weight=3)
    yield Oracle("mounts repeatedly", stripping("/svc", dispatcher(), repeatedly=True), mounted, svc)
    long_lines = [line for line in LINES if "/llms/" in line or "/seats/" in line]
    long_targets = ["/svc/api/v1/llms/42/x", "/svc/orgs/acme/seats/42", "/svc/api/v1/llms/rMTAwMDA0Mgx"]
    untold = stripping("/svc", only({"llm", "seat"}, dispatcher(collapsed)))
    seats = Routes.parse([line for line in LINES if "/seats/" in line])
    odd_accounts = [f"/orgs/{odd}/seats/42" for odd in ("acme", "%3Bacme", "ac%5Cme", "%20", "%C2%AD")]
    yield Oracle("accounts, decoding", only({"seat"}, dispatcher(unquote)), seats, odd_accounts)
    yield Oracle("accounts, segments of the raw path", only({"seat"}, raw_segments), seats, odd_accounts)
    users = Routes.parse(LINES, mounts=["/u/{user}"])
    odd_users = [f"/u/{odd}{target}" for odd in ("jane", "%3Bjane", "ja%5Cne", "%20") for target in TARGETS]
    yield Oracle("mount of users, decoding", stripping_user(dispatcher()), users, odd_users)
    yield Oracle("mount that nobody told of", untold, Routes.parse(long_lines), long_targets, weight=2)


ONE_WORD = ["bot /bots/{ref:int}", "doc /docs/{ref:uuid}", "note /notes/{ref:hashed}", "page /pages/{ref}"]
ONE_WORD += ["none /bots/new"]
ID_TARGETS = [
    "/bots/42",
    "/bots/7/chat",
    f"/docs/{UUID}",
    "/notes/rMTAwMDA0Mgx",
    "/notes/42/x",
    "/pages/42",
    "/pages/42/a",
]
PREFIXES = ("/svc", "/v2", "/admin/x", "/de", "/pt-br", "/my%20app", "/a%2Fb", "/x;v=1", "/42", "/%C3%BC")


def behind_an_unknown_prefix() -> Iterable[Oracle]:
    """Patterns of one word, and routers that take off what no line and no mount says."""
    lines, count = Routes.parse(ONE_WORD), len(ID_TARGETS)
    targets = [prefix + target for prefix in PREFIXES for target in ID_TARGETS]
    unusual = Starlette(routes=[Mount("/v{version}", app=fastapi_app()), Mount("/my app", app=fastapi_app())])
    languages = [*targets[3 * count : 5 * count], *targets[:count]]

    def oracle(name: str, app: ASGIApp, targets: Sequence[str] = targets, weight: int = 2, **options: Any) -> Oracle:
        name = f"mount that nobody told of, {name}"
        return Oracle(name, ids_alone(app), lines, targets, weight=weight, prefixes=PREFIXES, **options)

    yield oracle("one word", stripping("/svc", dispatcher(collapsed)), targets[:count])
    yield oracle("all sorts of steps", stripping("/svc", mixed(4)), targets[:count])
    yield oracle("segments of the raw path", raw_segments_behind("svc"), targets[:count])
    yield oracle("unusual mounts of fastapi", unusual)
    yield oracle("languages", stripping_language(mixed(5)), languages)
    yield oracle("django's languages", django_app_in_languages(), languages)
    within = behind_wsgi(dispatched("/svc", flask_app()), tells_target=True)
    yield oracle("flask, dispatched", within["app"], targets[:count], front=within["front"])
    for header in (b"x-forwarded-prefix", b"x-script-name"):
        app = stripping_what_a_header_names(header, mixed(6))
        yield oracle(f"named in {header.decode()}", app, prefix_header=header)
    named = stripping_what_a_header_names(b"x-forwarded-prefix", fastapi_app())
    yield oracle("named in a header, fastapi", named, prefix_header=b"x-forwarded-prefix")


def raw_segments_behind(prefix: str) -> ASGIApp:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        segments = scope["raw_path"].decode("latin-1").partition("?")[0].split("/")[1:]
        if segments[0] == prefix:
            dispatch([unquote(segment) for segment in segments[1:]])

    return app


def only(kinds: set[str], app: ASGIApp) -> ASGIApp:
    async def wrapped(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await app(scope, receive, send)
        SERVED[:] = [served for served in SERVED if served.partition(":")[0] in kinds]

    return wrapped


def django_oracles() -> Iterable[Oracle]:
    svc = [*TARGETS, *("/svc" + target for target in TARGETS)]
    yield Oracle("django", django_app(None), Routes.parse(LINES), svc, ("", "/svc"), 2)
    for forced in ("/svc", "/svc/"):
        yield Oracle(
            f"django, forced {forced}", django_app(forced), Routes.parse(LINES, mounts=[forced]), svc, weight=2
        )


def flask_oracles() -> Iterable[Oracle]:
    svc = [*TARGETS, *("/svc" + target for target in TARGETS)]
    called, plain, roots = flask_app(), Routes.parse(LINES), ("", "/svc")
    told, untold = behind_wsgi(called, tells_target=True), behind_wsgi(called, tells_target=False)
    within = behind_wsgi(dispatched("/svc", called), tells_target=True)
    yield Oracle("flask", routes=plain, targets=svc, roots=roots, weight=2, **told)
    yield Oracle("flask, on a server that keeps the target to itself", routes=plain, targets=svc, roots=roots, **untold)
    yield Oracle("flask, dispatched from within", routes=Routes.parse(LINES, mounts=["/svc"]), targets=svc, **within)


def all_oracles() -> list[Oracle]:
    return [*routers(), *dispatchers(), *behind_an_unknown_prefix(), *django_oracles(), *flask_oracles()]
