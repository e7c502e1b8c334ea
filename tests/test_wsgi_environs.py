"""WSGI: whatever a server makes of a request, it is decided or refused, and opens nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from werkzeug.test import create_environ

from smarter_auth_mw import Settings
from smarter_auth_mw.testing import AuthKit
from smarter_auth_mw.wsgi import SmarterAuthWSGIMiddleware


class World:
    """The middleware in front of one protected bot and an app that notes what reaches it."""

    def __init__(self, **settings: Any) -> None:
        self.reached: list[WSGIEnvironment] = []
        self._guarded = SmarterAuthWSGIMiddleware(self._app, Settings(**settings) if settings else None)

    def _app(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self.reached.append(environ)
        start_response("200 OK", [])
        return []

    def ask(self, environ: WSGIEnvironment) -> int:
        """Return the status that the client gets."""
        statuses: list[str] = []

        def start_response(status: str, *_: Any) -> Any:
            statuses.append(status)

        list(self._guarded(environ, start_response))
        (status,) = statuses
        return int(status.split()[0])

    def close(self) -> None:
        self._guarded.close()


@pytest.fixture(scope="module")
def worlds() -> Iterator[list[World]]:
    with AuthKit(["bot /bots/{ref}"]) as kit:
        kit.bind(kit.mint(), "bot:1")
        settings = {"database_url": "postgresql://in-memory/", "ready_path": "/ready", "trusted_proxies": ["unix:"]}
        hosts = {"routes": ["bot /bots/{ref}", "bot host:{label}.{account}.bots.example"]}
        more = [
            {"preflight": "pass", "hide_credentials": True, "routes": ["bot /bots/{ref}"]},
            hosts | {"default_account": "default", "hide_credentials": True},
        ]
        worlds = [World(), *(World(**settings | other) for other in more)]
        yield worlds
        for world in worlds:
            world.close()


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.lists(st.text(max_size=3), max_size=2),
    st.tuples(st.text(max_size=3)),
    st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
    st.sampled_from(["\ud800", "/b\u014dts/1", "/bots/\u0661", "/bots/1\u0661", "//bots/1", "http://x/bots/1", "*"]),
    st.just(object()),
)
VARIABLES = (
    *("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "RAW_URI", "REQUEST_URI", "CONTENT_LENGTH"),
    *("CONTENT_TYPE", "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL", "REMOTE_ADDR", "REMOTE_USER", "HTTP_HOST"),
    *("HTTP_AUTHORIZATION", "HTTP_X_API_KEY", "HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_FORWARDED_HOST"),
    *("HTTP_ORIGIN", "HTTP_ACCESS_CONTROL_REQUEST_METHOD", "wsgi.input", "wsgi.url_scheme", "wsgi.errors"),
)


@given(
    path=st.sampled_from(["/bots/1", "/bots/2", "/health", "/ready"]),
    method=st.sampled_from(["GET", "HEAD", "OPTIONS", "POST"]),
    changes=st.dictionaries(st.sampled_from(VARIABLES), ANYTHING, max_size=3),
    missing=st.sets(st.sampled_from(VARIABLES), max_size=3),
    strange=st.sampled_from([{}, {b"HTTP_HOST": "x"}, {1: 1, None: None}]),
)
@example("/bots/1", "GET", {"HTTP_AUTHORIZATION": b"Token x"}, set(), {})
@example("/bots/1", "GET", {"PATH_INFO": b"/bots/1"}, set(), {})
@example("/bots/1", "GET", {}, {"REQUEST_METHOD"}, {})
@example("/bots/2", "OPTIONS", {"QUERY_STRING": 1}, set(), {1: 1, None: None})
@effort(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_every_environ_is_decided_or_refused_and_opens_nothing(
    worlds: list[World], path: str, method: str, changes: dict[str, Any], missing: set[str], strange: dict[Any, Any]
) -> None:
    asks_preflight = {"Origin": "https://x", "Access-Control-Request-Method": "GET"} if method == "OPTIONS" else {}
    asked = {**create_environ(path, method=method, headers=asks_preflight), "RAW_URI": path, **strange, **changes}
    for left_out in missing:
        asked.pop(left_out, None)
    for world in worlds:
        world.reached.clear()
        assert world.ask(dict(asked)) in {200, 400, 401, 404, 405, 503}
        for reached in world.reached:
            opened = f"{reached.get('SCRIPT_NAME') or ''}{reached.get('PATH_INFO') or ''}" == "/bots/1"
            assert not opened or reached["wsgi.input"].read() == b"", "only a preflight may reach a protected bot"
            assert not opened or reached["REQUEST_METHOD"] == "OPTIONS"


@pytest.mark.parametrize(
    "broken",
    [{"PATH_INFO": b"/bots/1"}, {"SCRIPT_NAME": 1}, {"RAW_URI": b"/bots/1"}, {"HTTP_AUTHORIZATION": b"Token x"}],
)
def test_an_environ_that_nobody_can_read_is_refused(worlds: list[World], broken: dict[str, Any]) -> None:
    assert [world.ask(create_environ("/bots/1") | broken) for world in worlds] == [400] * len(worlds)


def test_a_path_that_the_server_has_decoded_already_is_read_as_it_is(worlds: list[World]) -> None:
    assert worlds[0].ask(create_environ("/") | {"PATH_INFO": "/p\u014dsts/1"}) == 200
    assert worlds[0].ask(create_environ("/") | {"PATH_INFO": "/bots/\u0661"}) == 400
