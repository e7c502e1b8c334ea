"""The log: events by names that stay, and no token in any line, whoever wrote it and wherever it was put."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import re
import socket
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote
from uuid import UUID

import asyncpg
import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import smarter_auth_mw
from smarter_auth_mw.access_log import PAUSE_S, JsonLines, OnlyUnhandled, WithoutFloods, WithoutTokens
from smarter_auth_mw.decision import Denial
from smarter_auth_mw.log import _LEVELS, EVENTS, Event, level_of, log
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.observers.audit import Audit, RequestEvent
from smarter_auth_mw.observers.hub import AUDIT, USAGE
from smarter_auth_mw.observers.refused_spellings import NearMisses
from smarter_auth_mw.routing.routes import Routes
from smarter_auth_mw.tokens import TokenFormat, hidden, mint
from tests.cli.test_serve import SERVICE
from tests.support.asgi import KEYED, client, guarded, lifespan, scope
from tests.support.cli import PATIENCE_S, PROGRAM, ROUTES, Commands, environment, serving
from tests.support.database import Database
from tests.support.worker import until

SOURCE = Path(smarter_auth_mw.__file__).parent
TOKEN = mint().reveal()


class Written:
    def __init__(self) -> None:
        self.events: list[RequestEvent] = []

    async def write_requests(self, events: Sequence[RequestEvent], batch_id: UUID) -> None:
        self.events.extend(events)


def in_every_place(token: str) -> list[tuple[str, dict[str, str]]]:
    """Requests with the token where it belongs, and where people put it all the same."""
    return [
        ("/bots/1", {"Authorization": f"Token {token}"}),
        ("/bots/1", {"Authorization": f"Bearer {token} {token}"}),
        ("/bots/1", {"X-API-Key": token, "Authorization": f"Token {token[::-1]}"}),
        (f"/bots/1?token={token}", {}),
        (f"/bots/1?api_key=%{ord(token[0]):x}{token[1:]}", {}),
        (f"/bots/{token}", {}),
        (f"/bots/{token}/%2e%2e/x", {}),
        (f"/bots/1/{token}", {}),
        (f"/elsewhere/{token}?{token}", {}),
        (f"/bots//{token}", {}),
    ]


@pytest.mark.parametrize("event", EVENTS)
def test_a_line_begins_with_its_event_and_bears_it(event: Event, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "smarter_auth_mw")
    log(event, "%s of %d%%", "some", 5)
    log(event)
    first, second = caplog.records
    assert (first.getMessage(), second.getMessage()) == (f"{event}: some of 5%", event)
    assert [record.__dict__["event"] for record in caplog.records] == [event, event]
    assert {record.levelno for record in caplog.records} == {level_of(event)}
    assert {record.filename for record in caplog.records} == {Path(__file__).name}


def test_every_event_is_written_somewhere_and_nobody_writes_another_way() -> None:
    written, strangers = set(), set()
    for path in SOURCE.rglob("*.py"):
        text = path.read_text("utf-8")
        if path.name != "log.py":
            written.update(re.findall(r'"([a-z]+\.[a-z_]+)"', text))
        if path.name not in ("log.py", "access_log.py", "server.py", "descriptors.py") and "getLogger" in text:
            strangers.add(path.name)
    assert set(EVENTS) <= written | {*USAGE, *AUDIT}
    assert not strangers
    assert _LEVELS.keys() <= set(EVENTS)


@pytest.mark.parametrize("form", ["knox", "checked"])
def test_what_looks_like_a_token_is_hidden(form: TokenFormat, caplog: pytest.LogCaptureFixture) -> None:
    token = mint(form).reveal()
    log("request.refused", "it is %s, or prefix%s", token, token)
    assert token not in caplog.text
    assert hidden(f"/bots/{token}/x") == f"/bots/{token[:4]}…/x"
    for ordinary in ("/bots/42", "9c56cc51-b374-4b1c-8f5e-2c6a1b0c1d2e", "sm_all", "a" * 40, "prism_" + "a" * 30):
        assert hidden(ordinary) == ordinary


@pytest.mark.parametrize("form", ["knox", "checked"])
async def test_no_token_reaches_our_log_or_the_audit(
    form: TokenFormat, database: Database, keys: Management, owner: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    minted = await keys.create("laptop", bind=[KEYED], form=form)
    async with lifespan(guarded(database.runtime, audit="all")) as app, client(app) as http:
        for token in (minted.token.reveal(), mint(form).reveal()):
            statuses = [(await http.get(path, headers=headers)).status_code for path, headers in in_every_place(token)]
            assert 400 in statuses
            ours = [record.getMessage() for record in caplog.records if record.name == "smarter_auth_mw"]
            assert token not in "".join(ours)
    events = await owner.fetch("SELECT to_json(audit_event)::text FROM smarter_auth.audit_event")
    assert len(events) > 10
    assert not [event for event in events if token in event[0] or minted.token.reveal() in event[0]]


@pytest.mark.parametrize("form", ["knox", "checked"])
@pytest.mark.parametrize("place", ["path", "account", "host", "forwarded"])
async def test_no_piece_of_a_token_is_shown_near_the_cut(
    form: TokenFormat, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    token = mint(form).reveal()
    routes = Routes.parse(["bot /bots/{ref}", "bot /u/{account}/bots/{name}", "bot host:{label}.api.example.com"])
    written = Written()
    for chars in range(420):
        filling = ("x" * 15 + ".") * (chars // 16) + "." * (chars % 16)
        asked = {**scope("/bots/a"), "headers": [(b"host", b"www.example.com")]}
        match place:
            case "path":
                asked["path"] = f"/bots/{filling}/{token}/%2e"
            case "account":
                asked["path"] = f"/u/{filling}-{token}/bots/a"
            case "host":
                asked["headers"] = [(b"host", f"{filling}.{token}.api.example.com".encode())]
            case "forwarded":
                asked["headers"] += [(b"forwarded", f"{filling} {token}".encode())]
        denial = routes.resolve({**asked, "raw_path": asked["path"].encode()})
        assert isinstance(denial, Denial), chars
        NearMisses(routes.resolve).note(denial, asked["path"])
        audit = Audit("all", lambda _: "192.0.2.1")
        audit.observe(denial, asked)
        await audit.flush(written)
    said = caplog.text + "".join(str(event.facts) for event in written.events)
    assert len(caplog.records) == len(written.events) == 420
    pieces = [token[at : at + 6] for at in range(4, len(token) - 5)]
    assert not [piece for piece in pieces if piece in said]


def test_no_token_reaches_the_log_of_a_server(database: Database, run: Commands) -> None:
    token = run.json("key", "create", "--name", "laptop", "--bind", "bot:1")["token"]
    env = environment(database_url=database.runtime, routes=ROUTES)
    with serving([*PROGRAM, "serve", "existing_service:app", "--port", "0"], env) as server:
        places = in_every_place(token)
        for path, headers in places:
            httpx.get(f"{server.url}{path}", headers=headers)
        for path, offered in ((f"/bots/1/chat?token={token}", None), ("/bots/1/chat", ["smarter-auth", token])):
            with pytest.raises(InvalidStatus), connect(f"ws{server.url[4:]}{path}", subprotocols=offered):
                pass
        _, said = server.stop()
    assert '"GET /bots/1?… HTTP/1.1" 401' in said
    assert said.count("GET /") == len(places)
    assert "WebSocket /bots/1/chat" in said or "/bots/1/chat" in said
    for shown in (token, token[::-1], quote(token), token[1:]):
        assert shown not in said


def test_the_filter_cleans_any_handler_it_is_put_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(kept := WithoutTokens())
    logging.getLogger("somebody").warning('"%s %s" %d', "GET", f"/x?a={TOKEN}&b=1", 200)
    logging.getLogger("somebody").warning(f"plain {TOKEN}")
    caplog.handler.removeFilter(kept)
    assert caplog.messages == ['"GET /x?…" 200', f"plain {TOKEN[:4]}…"]


def test_connections_that_cannot_be_accepted_are_one_line_in_ten_seconds(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [1000.0]
    loop = logging.getLogger("asyncio")
    monkeypatch.setattr(loop, "filters", [WithoutFloods(lambda: now_s[0])])  # A server in this process left its own.
    error = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    for _ in range(3):
        for _ in range(2048):
            loop.error("socket.accept() out of system resource\nsocket: …", exc_info=error)
        now_s[0] += PAUSE_S
    loop.error("Task exception was never retrieved")
    assert [message.partition("(")[2].partition(")")[0] for message in caplog.messages] == [
        "1 time since the last such line",
        "2,048 times since the last such line",
        "2,048 times since the last such line",
        "",
    ]
    assert caplog.messages[0].startswith("Connections cannot be accepted: Too many open files")
    assert "Traceback" not in caplog.text


def is_served(url: str) -> bool:
    """Whether the server answers; libuv resets connections until it has noticed that others are closed."""
    try:
        return httpx.get(url, timeout=PATIENCE_S).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_server_out_of_descriptors_says_so_in_a_line_and_serves_on(database: Database, loop: str) -> None:
    without = "uvloop" if loop == "asyncio" else "nothing"
    program = (
        f"import sys; sys.modules[{without!r}] = None; from smarter_auth_mw.__main__ import main; sys.exit(main())"
    )
    limited = ["sh", "-c", 'ulimit -n 64; exec "$0" "$@"', sys.executable, "-c", program, *SERVICE[len(PROGRAM) :]]
    with serving(limited, environment(database_url=database.runtime, routes=ROUTES)) as server:
        host, port = server.url.removeprefix("http://").split(":")
        held = [socket.create_connection((host, int(port))) for _ in range(150)]
        assert server.process.stdout is not None
        line = server.process.stdout.readline()
        for one in held:
            one.close()
        asyncio.run(until(lambda: is_served(f"{server.url}/bots/1")))
        _, said = server.stop()
    assert "Connections cannot be accepted: Too many open files" in line
    assert "Traceback" not in said
    assert len(said.splitlines()) < 200


def test_a_line_of_json_says_when_how_grave_and_which_event_and_hides_tokens_in_tracebacks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    token = mint().reveal()
    try:
        raise ValueError(token)
    except ValueError:
        log("store.unavailable", "it said %s", "no", exc_info=True)
    line = JsonLines().format(caplog.records[0])
    assert "\n" not in line
    assert token not in line
    entry = json.loads(line)
    assert datetime.fromisoformat(entry.pop("time")).utcoffset() == timedelta(0)
    assert "ValueError" in entry.pop("exception")
    assert entry == {
        "level": "error",
        "logger": "smarter_auth_mw",
        "event": "store.unavailable",
        "message": "store.unavailable: it said no",
    }


def test_a_server_leaves_our_lines_to_an_app_that_configures_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    record = logging.makeLogRecord({})
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    assert OnlyUnhandled().filter(record)
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.NullHandler()])
    assert not OnlyUnhandled().filter(record)
