"""What stands in front of a user's app: `serve` guards it unless no request gets around a middleware of its own."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from smarter_auth_mw.cli import guards
from smarter_auth_mw.cli.commands.serve import Served
from smarter_auth_mw.cli.user_app import load
from smarter_auth_mw.engine import loop_thread
from tests.support.asgi import client
from tests.support.cli import ROUTES, Commands

NOWHERE = "postgresql://127.0.0.1:1/none"

HEAD = """
from a2wsgi import WSGIMiddleware
from fastapi import FastAPI
from flask import Flask
from quart import Quart
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from smarter_auth_mw import Settings, SmarterAuthMiddleware
from smarter_auth_mw.wsgi import SmarterAuthWSGIMiddleware

OWN = Settings(routes=["tool /tools/{ref}"])

def f(request):
    return PlainTextResponse("reached")

def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"reached"]

class Dispatch:
    def __init__(self, app, bots=None):
        self.app, self.bots = app, bots
    async def __call__(self, scope, receive, send):
        is_bot = scope.get("path", "").startswith("/bots/")
        await (self.bots if is_bot and self.bots else self.app)(scope, receive, send)

class Shortcut(FastAPI):
    async def __call__(self, scope, receive, send):
        is_bot = scope.get("path", "").startswith("/bots/")
        await (bots if is_bot else super().__call__)(scope, receive, send)

class Own(FastAPI):
    pass

class Unstacked(FastAPI):
    def build_middleware_stack(self):
        return self.router

class Lax(SmarterAuthMiddleware):
    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)

bots = Starlette(routes=[Route("/bots/{ref:int}", f)])
tools = Starlette(routes=[Route("/tools/{ref}", f)])
ours = SmarterAuthMiddleware(tools, OWN)
ours_in_wsgi = SmarterAuthWSGIMiddleware(wsgi, OWN)
added = [Middleware(SmarterAuthMiddleware, settings=OWN)]
"""

AROUND = {
    "a mounted app with one": 'app = Starlette(routes=[Mount("/t", ours), Route("/bots/{ref:int}", f)])',
    "an app with one added, mounted": """
app = Starlette(routes=[Mount("/t", Starlette(routes=tools.routes, middleware=added)), Route("/bots/{ref:int}", f)])""",
    "a mount with one": 'app = Starlette(routes=[Mount("/t", tools, middleware=added), Route("/bots/{ref:int}", f)])',
    "a mount in a mount": """
app = Starlette(routes=[Mount("/a", Starlette(routes=[Mount("/b", ours)])), Route("/bots/{ref:int}", f)])""",
    "an app at a host": 'app = Starlette(routes=[Host("t.example.com", ours), Route("/bots/{ref:int}", f)])',
    "a route with one": """
app = Starlette(routes=[Route("/t", f, middleware=added), Route("/bots/{ref:int}", f)])""",
    "fastapi": 'app = FastAPI(); app.mount("/t", ours); app.add_route("/bots/{ref:int}", f)',
    "a router's default": 'app = Router(routes=[Mount("/t", ours)], default=bots)',
    "a dispatcher": "app = Dispatch(ours, bots)",
    "a dispatcher behind cors": "app = CORSMiddleware(Dispatch(ours, bots))",
    "a dispatcher around an app with one added": "app = Dispatch(Starlette(middleware=added), bots)",
    "a subclass that dispatches": "app = Shortcut(middleware=added)",
    "a dispatcher that is added outside": "app = Starlette(middleware=[Middleware(Dispatch, bots=bots), *added])",
    "a dispatcher that is added behind cors": """
app = FastAPI(middleware=[Middleware(CORSMiddleware), Middleware(Dispatch, bots=bots), *added])""",
    "a function that is added outside": """
app = FastAPI(middleware=added)
@app.middleware("http")
async def answer(request, call_next):
    return PlainTextResponse("reached")""",
    "a stack without what was added": "app = Unstacked(middleware=added, routes=bots.routes)",
    "a stack that was replaced": "app = FastAPI(middleware=added); app.middleware_stack = bots",
    "a stack that dispatches": """
app = Starlette(middleware=added)
app.middleware_stack = Dispatch(app.build_middleware_stack(), bots)""",
    "a subclass of ours that lets through": "app = Lax(bots, OWN)",
    "a subclass of ours, added": "app = Starlette(routes=bots.routes, middleware=[Middleware(Lax, settings=OWN)])",
    "no middleware at all": "app = bots",
    "werkzeug's dispatcher": 'app = DispatcherMiddleware(ours_in_wsgi, {"/bots": wsgi})',
    "werkzeug's dispatcher behind ProxyFix": 'app = ProxyFix(DispatcherMiddleware(ours_in_wsgi, {"/bots": wsgi}))',
    "werkzeug's dispatcher in asgi": 'app = WSGIMiddleware(DispatcherMiddleware(ours_in_wsgi, {"/bots": wsgi}))',
    "flask with a dispatcher": """
app = Flask(__name__)
app.wsgi_app = DispatcherMiddleware(SmarterAuthWSGIMiddleware(app.wsgi_app, OWN), {"/bots": wsgi})""",
}
INSIDE = {
    "wrapped": "app = ours",
    "added": "app = Starlette(middleware=added)",
    "added to a subclass": "app = Own(middleware=added)",
    "in a stack that is built": """
app = Starlette(middleware=added)
app.middleware_stack = app.build_middleware_stack()""",
    "behind cors": "app = CORSMiddleware(ours)",
    "behind several": 'app = ProxyHeadersMiddleware(GZipMiddleware(CORSMiddleware(ours)), trusted_hosts="127.0.0.1")',
    "behind one that is added": "app = Starlette(middleware=[Middleware(CORSMiddleware), *added])",
    "in front of others": "app = Starlette(middleware=[*added, Middleware(Dispatch, bots=bots)])",
    "wsgi": "app = ours_in_wsgi",
    "wsgi behind ProxyFix": "app = ProxyFix(ours_in_wsgi)",
    "wsgi in asgi": "app = WSGIMiddleware(ours_in_wsgi)",
    "flask": "app = Flask(__name__); app.wsgi_app = SmarterAuthWSGIMiddleware(app.wsgi_app, OWN)",
    "quart": "app = Quart(__name__); app.asgi_app = SmarterAuthMiddleware(app.asgi_app, OWN)",
}


def until_closed(statuses: Coroutine[Any, Any, dict[str, int]]) -> dict[str, int]:
    """Run it, and close the apps in WSGI before their database is gone."""
    try:
        return asyncio.run(statuses)
    finally:
        loop_thread.close_all()


async def status_of(app: Any, path: str) -> int:
    async with client(app) as http:
        return (await http.get(path)).status_code


def test_serve_guards_by_the_environment_what_gets_around_a_middleware_further_in(
    run: Commands, written: Callable[[str], str]
) -> None:
    run.json("resource", "add", "bot:42", "--protect")

    async def statuses() -> dict[str, int]:
        apps = {way: Served(written(HEAD + text)).protect() for way, text in AROUND.items()}
        return {way: await status_of(app, "/bots/42") for way, app in apps.items()}

    assert until_closed(statuses()) == dict.fromkeys(AROUND, 401)


def test_serve_puts_no_second_one_in_front_of_a_middleware_that_every_request_meets(
    run: Commands, written: Callable[[str], str]
) -> None:
    run.json("resource", "add", "tool:saw", "--protect", "--no-route")
    said: list[str] = []

    async def statuses() -> dict[str, int]:
        apps = {way: Served(written(HEAD + text)).protect(said.append) for way, text in INSIDE.items()}
        return {way: await status_of(app, "/tools/saw") for way, app in apps.items()}

    assert until_closed(statuses()) == dict.fromkeys(INSIDE, 401)
    assert [line.partition(" has ")[2] for line in said] == [
        "SmarterAuthMiddleware, so none is added in front of it."
    ] * len(INSIDE)


@pytest.mark.parametrize("way", [*AROUND, *INSIDE])
def test_a_middleware_counts_only_if_every_request_meets_it(
    bare: Commands, written: Callable[[str], str], way: str
) -> None:
    bare.set(database_url=NOWHERE)
    app = load(written(HEAD + (AROUND | INSIDE)[way]))
    assert (guards.guard_of(app) is not None) == (way in INSIDE)


def test_a_middleware_further_in_decides_again(run: Commands, written: Callable[[str], str]) -> None:
    token = run.json("key", "create", "--name", "for-tools", "--bind", "tool:saw", "--no-route")["token"]
    run.json("resource", "add", "bot:42", "--protect")
    app = Served(written(HEAD + AROUND["a mounted app with one"])).protect()

    async def statuses() -> list[int]:
        async with client(app) as http:
            headers = {"X-API-Key": token}
            return [
                (await http.get("/t/tools/saw")).status_code,
                (await http.get("/t/tools/saw", headers=headers)).status_code,
                (await http.get("/bots/42", headers=headers)).status_code,
            ]

    assert asyncio.run(statuses()) == [401, 200, 401]


def test_without_routes_an_app_is_served_only_if_each_app_that_it_mounts_has_its_own(
    run: Commands, written: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SMARTER_AUTH_ROUTES")
    mounted = 'Starlette(routes=[Mount("/t", ours), Host("t.example.com", Router(routes=[Mount("/u", ours)]))])'
    said: list[str] = []
    Served(written(f"{HEAD}app = {mounted}")).protect(said.append)
    assert said[-1].startswith("Each app that ")
    for way in ("a mounted app with one", "a router's default", "a dispatcher", "fastapi"):
        ran = run("serve", written(HEAD + AROUND[way]), "--port", "0")
        assert ran.exit_code == 2, way
        assert "SMARTER_AUTH_ROUTES must be set" in ran.err.replace(":", ""), way


def test_without_routes_what_an_app_adds_outside_of_its_middleware_is_named_and_left(
    run: Commands, written: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SMARTER_AUTH_ROUTES")
    said: list[str] = []
    for way in ("a dispatcher that is added outside", "a function that is added outside"):
        Served(written(HEAD + AROUND[way])).protect(said.append)
    assert [line.partition(" is in front ")[0] for line in said] == ["Dispatch", "answer"]


@pytest.mark.parametrize("name", sorted(guards.PASSED_ON))
def test_every_class_that_is_known_to_pass_requests_on_is_where_it_is_said_to_be(name: str) -> None:
    module, _, cls = name.rpartition(".")
    assert "__call__" in vars(getattr(importlib.import_module(module), cls))


def test_check_says_when_another_app_may_answer_in_front(run: Commands, written: Callable[[str], str]) -> None:
    dispatched = run("check", "/tools/saw", "--app", written(HEAD + AROUND["a dispatcher"]))
    assert "Dispatch wraps the middleware and may answer by itself" in dispatched.err
    assert run("check", "/tools/saw", "--app", written(HEAD + INSIDE["behind several"])).err == ""
    mounted = run("check", "/bots/42", "--app", written(HEAD + AROUND["a mounted app with one"]))
    assert mounted.exit_code == 1
    assert "has no SmarterAuthMiddleware in front, only at /t." in mounted.err


def doctor(bare: Commands, name: str) -> Any:
    return bare("doctor", "--app", name, "--json").json


def wrapping(document: Any) -> list[str]:
    return [finding["message"] for finding in document["findings"] if finding["check"] == "wrapping"]


@pytest.mark.parametrize("way", AROUND)
def test_doctor_names_what_gets_around_the_middleware(bare: Commands, written: Callable[[str], str], way: str) -> None:
    bare.set(database_url=NOWHERE, routes=ROUTES)
    (said,) = wrapping(doctor(bare, written(HEAD + AROUND[way])))
    assert "has no SmarterAuthMiddleware" in said or "may answer by itself" in said


@pytest.mark.parametrize("way", INSIDE)
def test_doctor_has_nothing_to_say_where_nothing_does(bare: Commands, written: Callable[[str], str], way: str) -> None:
    bare.set(database_url=NOWHERE, routes=ROUTES)
    assert wrapping(doctor(bare, written(HEAD + INSIDE[way]))) == []


def test_doctor_shows_the_lines_of_a_middleware_further_in_and_those_of_the_environment(
    bare: Commands, written: Callable[[str], str]
) -> None:
    bare.set(database_url=NOWHERE, routes=ROUTES)
    document = doctor(bare, written(HEAD + AROUND["a mounted app with one"]))
    assert [(row["route"], row["line"]) for row in document["routes"]] == [
        ("GET /t/tools/{ref}", "tool /tools/{ref}"),
        ("GET /bots/{ref:int}", "bot /bots/{ref:int}"),
    ]


def test_doctor_finds_the_mounts_of_an_app_that_serve_is_to_wrap(bare: Commands, written: Callable[[str], str]) -> None:
    bare.set(database_url=NOWHERE, routes=ROUTES)
    document = doctor(bare, written(f'{HEAD}app = Starlette(routes=[Mount("/v1", bots)])'))
    assert [(row["route"], row["is"], row["line"]) for row in document["routes"]] == [
        ("GET /v1/bots/{ref:int}", "resource", "bot /bots/{ref:int}")
    ]
