"""`smarter-auth attack`: finds nothing where there is nothing, and the holes that were made on purpose."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.cli import Commands, Ran, environment, serving
from tests.support.database import Database
from tests.support.warm import PYTHON

HOLES = """
import re
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from smarter_auth_mw import SmarterAuthMiddleware
from smarter_auth_mw.cli.demo.app import create

async def bot(request):
    return PlainTextResponse(f"this is bot {request.path_params['ref']}")


app = create(lambda: None)
bots = Starlette(routes=[Route("/bots/{ref:int}", bot)])
guarded = SmarterAuthMiddleware(app)


def header(scope, name):
    return dict(scope.get("headers", ())).get(name, b"").decode("latin-1")


async def claims(scope, receive, send):
    await (app if header(scope, b"x-internal") else guarded)(scope, receive, send)


async def paths(scope, receive, send):
    if "//" in scope.get("path", ""):
        bare = {**scope, "path": re.sub("/+", "/", scope["path"])}
        await bots(bare, receive, send)
    else:
        await guarded(scope, receive, send)


async def tokens(scope, receive, send):
    await (bots if len(header(scope, b"x-api-key")) == 128 else guarded)(scope, receive, send)


def create_with_page():
    app = create(lambda: None)
    app.router.routes.append(Route("/{rest:path}", lambda request: PlainTextResponse("Welcome!")))
    return app


everything = SmarterAuthMiddleware(create_with_page())
"""


@pytest.fixture
def token(run: Commands) -> str:
    token: str = run.json("key", "create", "--name", "first", "--bind", "bot:1")["token"]
    return token


@pytest.fixture
def target(
    database: Database, token: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[str]:
    """The URL of a protected bot of the demo's app, behind the middleware, with the hole of that name."""
    directory = tmp_path_factory.mktemp("app")
    directory.joinpath("holes.py").write_text(HOLES)
    env = environment(database_url=database.runtime, routes="bot /bots/{ref:int}")
    command = [*PYTHON, "-m", "uvicorn", f"holes:{request.param}", "--port", "0", "--no-access-log"]
    with serving(command, env, cwd=directory) as server:
        yield f"{server.url}/bots/1"


@pytest.mark.parametrize("target", ["guarded"], indirect=True)
def test_it_finds_nothing_where_there_is_nothing(bare: Commands, target: str, token: str) -> None:
    ran = bare("attack", target, "--header", f"X-API-Key: {token}", "--json")
    assert (ran.exit_code, ran.json["reached"]) == (0, [])
    assert ran.json["requests"] > 250
    assert sum(outcome["requests"] for outcome in ran.json["outcomes"]) == ran.json["requests"]
    assert "path: " in ran.err
    assert token not in ran.out + ran.err


@pytest.mark.parametrize("target", ["claims"], indirect=True)
def test_it_finds_a_header_that_is_believed(bare: Commands, target: str) -> None:
    assert cases(bare("attack", target, "--json")) == {"claim: X-Internal: 1"}


@pytest.mark.parametrize("target", ["paths"], indirect=True)
def test_it_finds_a_spelling_that_is_read_two_ways(bare: Commands, target: str) -> None:
    found = cases(bare("attack", target, "--body", "this is bot 1", "--json"))
    assert {"path: // for slash 1", "path: /// for slash 2"} <= found
    assert all(case.startswith(("path: ", "websocket: ")) for case in found)


@pytest.mark.parametrize("target", ["tokens"], indirect=True)
def test_it_finds_what_is_close_to_a_token(bare: Commands, target: str, token: str) -> None:
    assert cases(bare("attack", target, "--json")) == set()
    ran = bare("attack", target, "--header", f"X-API-Key: {token}", "--json")
    assert "credentials: digest as token, X-API-Key" in cases(ran)
    assert token not in ran.out + ran.err


@pytest.mark.parametrize("target", ["everything"], indirect=True)
def test_an_app_that_answers_anything_is_no_hole(bare: Commands, target: str) -> None:
    assert cases(bare("attack", target, "--json")) == set()


def cases(ran: Ran) -> set[str]:
    found = {reached["case"] for reached in ran.json["reached"]}
    assert ran.exit_code == (1 if found else 0)
    return found


@pytest.mark.parametrize("target", ["guarded"], indirect=True)
def test_what_would_prove_nothing_is_refused(bare: Commands, target: str) -> None:
    for url, arguments, exit_code, said in (
        (target.replace("/bots/1", "/bots/2"), [], 1, "it answers 200"),
        (target, ["--header", f"X-API-Key: {'0' * 64}"], 1, "are refused"),
        (target, ["--header", "Accept: */*"], 2, "None of the headers contains a token"),
        (target, ["--marker", "x"], 2, "not a marker"),
        (target, ["--body", "("], 2, "not a regular expression"),
        ("http://127.0.0.1:1/bots/1", [], 3, "cannot be reached"),
        ("http://bots.example/bots/1", [], 2, "--i-own-this"),
        ("ftp://localhost/bots/1", [], 2, "cannot be attacked"),
    ):
        ran = bare("attack", url, *arguments)
        assert (ran.exit_code, said in ran.err) == (exit_code, True), ran
