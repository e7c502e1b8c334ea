"""Refused spellings are named in the log, now and then, with what to do; a stranger cannot write there."""

from __future__ import annotations

import logging

import httpx
import pytest

from smarter_auth_mw import SmarterAuthMiddleware
from smarter_auth_mw.decision import Denial, Reason
from smarter_auth_mw.observers.refused_spellings import PAUSE_S, NearMisses
from tests.support.asgi import Conversation, scope


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(autouse=True)
def _told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "smarter_auth_mw")


async def test_a_refused_path_is_named_with_the_line_to_add(
    http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await http.get("/bots/Search")).status_code == 400
    (record,) = caplog.records
    assert "'/bots/Search'" in record.message
    assert "bot /bots/{ref} expects" in record.message
    assert "add to SMARTER_AUTH_ROUTES: none /bots/Search" in record.message


async def test_no_line_is_advised_that_would_open_a_resource(
    app: SmarterAuthMiddleware, caplog: pytest.LogCaptureFixture
) -> None:
    talk = Conversation()
    await app({**scope("/bots/1"), "raw_path": b"/bots%2F1"}, talk.receive, talk.send)
    assert talk.sent[0]["status"] == 400
    assert "none" not in caplog.text


async def test_what_settles_a_resource_below_a_prefix_is_named(
    http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await http.get("/admin/bots/42/listed")).status_code == 400
    (record,) = caplog.records
    assert "after a prefix it matches bot /bots/{ref}, but no line of ROUTES matches the whole path" in record.message
    assert (
        "If it is the same bot: add `bot /admin/bots/{ref}`. If the app removes the prefix: MOUNTS=/admin."
        in record.message
    )
    assert "If it is something else: add `none /admin/bots/**`." in record.message


async def test_a_flood_is_one_line_and_a_number(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    denial = Denial(Reason.NOT_CANONICAL, detail="'/bots/01': …")
    near_misses = NearMisses(lambda _: denial, clock=clock)
    for _ in range(1000):
        near_misses.note(denial, "/bots/01")
    clock.now_s += PAUSE_S
    near_misses.note(denial, "/bots/01")
    assert [record.message.rpartition("(")[2] for record in caplog.records] == [
        "0 more since the last such line)",
        "999 more since the last such line)",
    ]


@pytest.mark.parametrize("path", ["/bots/\x1b[2J\r\nERROR all is lost/1", "/bots/1\u202e\x00", "/bots/" + "9" * 3000])
async def test_what_a_stranger_wrote_is_escaped_and_cut(
    app: SmarterAuthMiddleware, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    talk = Conversation()
    await app({**scope("/"), "path": path, "raw_path": None}, talk.receive, talk.send)
    assert talk.sent[0]["status"] == 400
    (record,) = caplog.records
    assert record.message.isprintable()
    assert len(record.message) < 1000
    assert "none /bots" not in record.message


@pytest.mark.parametrize("reason", [Reason.UNKNOWN_TOKEN, Reason.NOT_FOUND, Reason.MALFORMED_CREDENTIALS])
def test_other_refusals_are_none_of_these(reason: Reason, caplog: pytest.LogCaptureFixture) -> None:
    NearMisses(lambda _: None).note(Denial(reason), "/bots/1")
    assert not caplog.records
