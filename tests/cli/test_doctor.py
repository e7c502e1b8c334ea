"""`smarter-auth doctor`: what the routes of an app and the lines of ROUTES say about each other."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

import pytest

from smarter_auth_mw.routing.routes import Routes
from tests.support.cli import Commands, rows
from tests.support.database import Database

STARLETTE = """
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, WebSocketRoute

from smarter_auth_mw import Settings, SmarterAuthMiddleware

def f(request):
    return PlainTextResponse("")

class Asking(HTTPEndpoint):
    def options(self, request):
        return PlainTextResponse("")

async def ws(websocket):
    ...

def guarded(routes, app_routes, middleware=(), **settings):
    settings = Settings(database_url="{url}", routes=routes, **settings)
    ours = Middleware(SmarterAuthMiddleware, settings=settings)
    return Starlette(routes=app_routes, middleware=[ours, *middleware])

"""


@pytest.fixture
def doctor(run: Commands, written: Callable[[str], str]) -> Callable[..., Any]:
    """The findings about an app of the test's own, and its routes."""

    def examine(body: str, exit_code: int = 0, head: str = STARLETTE) -> Any:
        url = os.environ["SMARTER_AUTH_DATABASE_URL"]
        ran = run("doctor", "--app", written(head.replace("{url}", url) + body), "--json")
        assert ran.exit_code == exit_code, ran
        return ran.json

    return examine


def told(document: Any) -> dict[str, str]:
    """The findings by what they check, slugs aside; no two of the same kind."""
    findings = [finding for finding in document["findings"] if finding["check"] != "slugs"]
    found = {finding["check"]: finding["message"] for finding in findings}
    assert len(found) == len(findings), document
    assert all(finding["hint"] for finding in document["findings"])
    return found


def test_a_sound_app_has_no_findings_and_shows_what_covers_each_route(doctor: Callable[..., Any]) -> None:
    document = doctor("""
app = guarded(["bot /bots/{ref:int}"], [
    Route("/bots/{id:int}", f),
    Route("/bots", f),
    Route("/bots/{id}/chat", f, methods=["POST"]),
    WebSocketRoute("/bots/{id}/live", ws),
    Route("/health", f),
])
""")
    assert document["findings"] == []
    assert document["routes"] == [
        {"route": "GET /bots/{id:int}", "is": "resource", "line": "bot /bots/{ref:int}"},
        {"route": "GET /bots", "is": "open", "line": None},
        {"route": "POST /bots/{id}/chat", "is": "resource", "line": "bot /bots/{ref:int}"},
        {"route": "WEBSOCKET /bots/{id}/live", "is": "resource", "line": "bot /bots/{ref:int}"},
        {"route": "GET /health", "is": "open", "line": None},
    ]


@pytest.mark.parametrize(
    ("route", "check", "said"),
    [
        ('Route("/v2/bots/{id}", f)', "refused", "GET /v2/bots/{id} is refused"),
        ('Route("/talk/{bot_id}", f)', "uncovered", "GET /talk/{bot_id} looks like a resource"),
        ('WebSocketRoute("/live/bot/{x}", ws)', "uncovered", "WEBSOCKET /live/bot/{x} looks like a resource"),
        ('Host("x.example", Mount("/", routes=[Route("/bot/{id}", f)]))', "uncovered", "GET x.example/bot/{id}"),
        ('Route("/bots/search", f)', "literal", "GET /bots/search is read as bot:search"),
        ('Route("/bots/Search", f)', "refused", "GET /bots/Search is refused"),
        ('Route("/hidden/bots/{id}", f)', "hidden", "because of the line: none /hidden/**"),
        ('Route("/bots/{id}/x", f, methods=["GET", "OPTIONS"])', "options", "/bots/{id}/x answers OPTIONS"),
        ('Route("/bots/{id}/x", Asking)', "options", "ANY /bots/{id}/x answers OPTIONS"),
        ('Mount("/bots/{id}/files", app=ws)', "options", "/bots/{id}/files/{path} answers OPTIONS"),
    ],
)
def test_a_route_that_may_be_a_mistake_is_named(doctor: Callable[..., Any], route: str, check: str, said: str) -> None:
    routes = '["bot /bots/{ref}", "none /hidden/**"]'
    found = told(doctor(f'app = guarded({routes}, [Route("/bots/{{id}}", f), {route}])'))
    assert list(found) == [check]
    assert said in found[check]


REFUSED = [
    # route, others, same, mount, none
    ("/admin/persona/{persona_id}/listed", [], "/admin/persona/{ref:int}", "/admin", "/admin/persona/**"),
    ("/admin/persona/{id}", ["/admin/persona/{id}/x"], "/admin/persona/{ref:int}", "/admin", "/admin/persona/{}"),
    ("/admin/persona/{id}/x", ["/admin/{any}/{id}"], "/admin/persona/{ref:int}", "/admin", "/admin/persona/**"),
    ("/admin/persona/{id}/x", ["/{any}/persona/{id}"], "/admin/persona/{ref:int}", "/admin", "/admin/persona/{}/x"),
    ("/{org}/persona/{id}", [], None, "/{org}", "/{}/persona/**"),
    ("/{org}/persona/{id}", ["/{org}/persona/{id}/secret"], None, "/{org}", "/{}/persona/{}"),
]


@pytest.mark.parametrize(("path", "others", "same", "mount", "none"), REFUSED)
def test_what_settles_a_route_further_back_is_named_and_opens_no_other(
    doctor: Callable[..., Any], path: str, others: list[str], same: str | None, mount: str, none: str
) -> None:
    lines = ["agent /persona/{ref:int}"]
    body = f'Route("/persona/{{id}}", f), *[Route(path, f) for path in {[path, *others]}]'
    document = doctor(f"app = guarded({lines}, [{body}])")
    (found,) = [one for one in document["findings"] if one["message"].startswith(f"GET {path} is")]
    assert found["message"] == (
        f"GET {path} is refused: after a prefix it matches agent /persona/{{ref:int}}, "
        "but no line of ROUTES matches the whole path."
    )
    first = f"If it is the same agent: add `agent {same}`. " if same else ""
    assert (
        found["hint"]
        == f"{first}If the app removes the prefix: MOUNTS={mount}. If it is something else: add `none {none}`."
    )
    before, after = Routes.parse(lines), Routes.parse([*lines, f"none {none}"])
    asked = {one: {"path": re.sub(r"\{.*?\}", "42", one)} for one in [path, *others]}
    assert [one for one in asked if before.resolve(asked[one]) and not after.resolve(asked[one])] == [path]


def test_slugs_and_names_of_one_word_are_open_below_an_unknown_prefix(doctor: Callable[..., Any]) -> None:
    lines = ["bot /bots/{name}", "page /pages/{ref}", "a /a/{ref:int}", "b /x/b/{ref}"]
    document = doctor(f'app = guarded({lines}, [Route("/health", f)])')
    slugs = [finding for finding in document["findings"] if finding["check"] == "slugs"]
    assert [finding["message"].partition(" has ")[0] for finding in slugs] == lines[:2]
    assert all("SMARTER_AUTH_MOUNTS" in finding["hint"] for finding in slugs)


def test_an_uncovered_route_is_no_reason_to_open_others(doctor: Callable[..., Any]) -> None:
    document = doctor('app = guarded(["agent /agents/{ref:int}"], [Route("/{org}/agent/{id}", f)])')
    hints = {finding["check"]: finding["hint"] for finding in document["findings"]}
    assert hints["uncovered"].endswith("none /{}/agent/{}")


def test_a_pattern_that_covers_nothing_is_named(doctor: Callable[..., Any]) -> None:
    found = told(doctor('app = guarded(["bot /bots/{ref}", "llm /llms/{ref}"], [Route("/bots/{id}", f)])'))
    assert found == {"idle": "No route of the app matches llm /llms/{ref}."}


def test_mounts_hosts_and_included_routers_are_walked_through(doctor: Callable[..., Any]) -> None:
    document = doctor("""
inner = Mount("/api", routes=[Route("/bots/{id}", f)])
app = guarded(["bot /bots/{ref}", "bot host:{label}.bots.example"], [
    Mount("/u/{user}", app=CORSMiddleware(Starlette(routes=[inner]))),
    Host("{bot}.bots.example", Mount("/", routes=[Route("/chat", f)])),
])
""")
    assert [(row["route"], row["line"]) for row in document["routes"]] == [
        ("GET /u/{user}/api/bots/{id}", "bot /bots/{ref}"),
        ("GET {bot}.bots.example/chat", "bot host:{label}.bots.example"),
    ]


FASTAPI = """
from fastapi import APIRouter, FastAPI
from smarter_auth_mw import Settings, SmarterAuthMiddleware

router = APIRouter(prefix="/v1")

@router.get("/bots/{id}")
def bot(id: int): ...

app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
app.include_router(router, prefix="/api")
settings = Settings(database_url="{url}", routes=["bot /api/v1/bots/{ref:int}"])
app.add_middleware(SmarterAuthMiddleware, settings=settings)
"""


def test_the_routers_of_fastapi_are_too(doctor: Callable[..., Any]) -> None:
    document = doctor("", head=FASTAPI)
    assert [(row["route"], row["line"]) for row in document["routes"]] == [
        ("GET /api/v1/bots/{id}", "bot /api/v1/bots/{ref:int}")
    ]
    assert document["findings"] == []


CORS = '[Route("/bots/{id}", f)], [Middleware(CORSMiddleware, allow_origins=["*"])]'


def test_cors_inside_ours_is_named(doctor: Callable[..., Any]) -> None:
    assert (
        "preflights, which carry no token, get 401"
        in told(doctor(f'app = guarded(["bot /bots/{{ref}}"], {CORS})'))["cors"]
    )
    passing = told(doctor(f'app = guarded(["bot /bots/{{ref}}"], {CORS}, preflight="pass")'))["cors"]
    assert "refusals lack Access-Control-Allow-Origin" in passing
    assert "get 401" not in passing
    assert told(doctor('app = CORSMiddleware(guarded(["bot /bots/{ref}"], [Route("/bots/{id}", f)]))')) == {}


def test_cors_of_an_app_that_serve_guards_is_inside_too(doctor: Callable[..., Any], run: Commands) -> None:
    run.set(routes="bot /bots/{ref}")
    found = told(doctor('app = CORSMiddleware(Starlette(routes=[Route("/bots/{id}", f)]))'))
    assert "refusals lack Access-Control-Allow-Origin" in found["cors"]


def test_a_resource_that_no_route_leads_to_is_a_problem(doctor: Callable[..., Any], run: Commands) -> None:
    run.json("resource", "add", "llm:1", "--protect", "--no-route")
    run.json("resource", "add", "llm:2", "--no-route")
    found = told(doctor('app = guarded(["bot /bots/{ref}"], [Route("/bots/{id}", f)])', exit_code=1))
    assert "llm:1 is protected, and no line of ROUTES leads to it" in found["unrouted"]


def test_without_an_app_settings_and_database_are_checked(run: Commands) -> None:
    assert run.json("doctor")["findings"] == []
    run.set(routes="bot /bots/{id}")
    ran = run("doctor", "--json")
    assert (ran.exit_code, ran.json["findings"][0]["check"]) == (1, "settings")
    run.set(routes="bot /bots/{ref}", database_url="postgresql://127.0.0.1:1/none")
    ran = run("doctor", "--json")
    assert (ran.exit_code, ran.json["findings"][0]["check"]) == (3, "database")


def test_an_audit_that_the_running_role_may_rewrite_is_named(run: Commands, database: Database) -> None:
    assert not run.json("doctor")["findings"]
    run.set(database_url=database.owner)
    ran = run("doctor", "--json")
    assert ran.exit_code == 0
    assert list(told(ran.json)) == ["audit"]


def test_an_app_that_serve_is_to_wrap_is_checked_with_the_environment(
    run: Commands, written: Callable[[str], str]
) -> None:
    app = written("""
from starlette.applications import Starlette
from starlette.routing import Route
app = Starlette(routes=[Route("/bots/{id}", lambda request: None)])
""")
    document = run.json("doctor", "--app", app)
    assert [finding["check"] for finding in document["findings"]] == ["wrapping"]
    assert document["routes"][0]["line"] == "bot /bots/{ref:int}"
    assert "GET /bots/{id}" in run("doctor", "--app", app).out


def test_keys_that_need_attention_are_named_and_fail_nothing(run: Commands, database: Database) -> None:
    for name, expiry in (("ci", "3d"), ("laptop", "60d")):
        run("key", "create", "--name", name, "--expires-in", expiry)
    run("key", "create", "--name", "old")
    rows(
        database.owner,
        "SELECT 1",
        """UPDATE smarter_auth.key_use SET idle_since = now() - interval '91 days'
            FROM smarter_auth.key WHERE key.key_id = key_use.key_id AND name = 'old'""",
    )
    run("key", "rotate", "laptop")
    ran = run("doctor", "--json")
    found = {finding["check"]: (finding["level"], finding["message"]) for finding in ran.json["findings"]}
    assert found == {
        "expiring": ("warning", "Keys that expire within 7 days: ci."),
        "rotating": ("note", "Keys whose previous token is still valid after a rotation: laptop."),
        "unused": ("note", "Keys that have not been used for 90 days: old."),
    }
    assert (ran.exit_code, ran.err.splitlines()[-1]) == (0, "Found: problems 0, warnings 1, notes 2.")


def test_a_note_does_not_count_even_with_strict_and_a_warning_does(run: Commands) -> None:
    run("key", "create", "--name", "laptop")
    run("key", "rotate", "laptop")
    assert run("doctor", "--strict").exit_code == 0
    for number in range(7):
        run("key", "create", "--name", f"ci {number}", "--expires-in", "1d")
    ran = run("doctor", "--strict", "--json")
    (finding,) = (one for one in ran.json["findings"] if one["check"] == "expiring")
    assert (ran.exit_code, finding["message"].endswith("ci 4 and others.")) == (1, True)
