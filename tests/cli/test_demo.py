"""`smarter-auth demo`, as somebody runs it first of all: real processes, and what they print typed in again."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from smarter_auth_mw.postgres.embedded import place as embedded_place
from tests.support.cli import PROGRAM, Server, environment, serving

READY = re.compile(r"(http://127\.0\.0\.1:\d+)/bots/1\n(?s:.*)Ctrl-C stops")


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A home with nothing in it, so that nobody's own demo is met; its database is made once."""
    home = tmp_path_factory.mktemp("home")
    yield environment() | {"HOME": str(home), "XDG_DATA_HOME": str(home / "data")}
    shutil.rmtree(embedded_place.home_of(home / "data" / "smarter_auth" / "demo"))


def demo(env: dict[str, str], *arguments: str) -> AbstractContextManager[Server]:
    return serving([*PROGRAM, "demo", *arguments], env, READY)


def token_of(server: Server) -> str:
    (token,) = set(re.findall("[0-9a-f]{64}", server.said))
    return str(token)


def status(server: Server, token: str) -> int:
    return httpx.get(f"{server.url}/bots/1", headers={"Authorization": f"Token {token}"}).status_code


def typed(line: str, env: dict[str, str]) -> str:
    """What a shell prints when the line is typed into it."""
    ran = subprocess.run(["sh", "-c", line], env=env, capture_output=True, text=True, check=True)
    return ran.stdout


def lines(server: Server, containing: str) -> list[str]:
    return [line.strip() for line in server.said.splitlines() if containing in line]


def test_its_lines_do_what_they_say(env: dict[str, str]) -> None:
    assert shutil.which("curl"), "curl is needed: it is what people try first"
    with demo(env) as server:
        without, with_token, streamed, anonymous = (typed(line, env) for line in lines(server, "curl "))
        assert without.startswith("HTTP/1.1 401")
        assert 'www-authenticate: Token realm="smarter"' in without
        assert with_token.startswith("HTTP/1.1 200")
        assert streamed == "a streamed answer \n"
        assert anonymous.startswith("HTTP/1.1 200")
        assert '"you":"anonymous"' in anonymous
        (export,) = lines(server, "export ")
        made = typed(f"{export} && {shlex.join(PROGRAM)} key create --name by-hand --bind bot:1 --json", env)
        assert json.loads(made)["bindings"] == ["bot:1"]
        (revoke,) = lines(server, "key revoke")
        assert "revoked" in typed(revoke, env)
        exit_code, said = server.stop()
    assert exit_code == 0
    assert "stopped" in said
    assert "Traceback" not in said


@contextmanager
def signed_in(server: Server) -> Iterator[httpx.Client]:
    """Somebody who opens the page that is printed, and types the token in that stands below it."""
    page, token = re.findall(r"^  (http\S+/)\n  (sma_\w+)$", server.said, re.MULTILINE)[0]
    with httpx.Client(base_url=page, follow_redirects=True) as person:
        answer = person.post("sign-in", data={"token": token}, headers={"Origin": page.rstrip("/")})
        assert answer.status_code == 200, answer.text
        yield person


def test_each_run_makes_a_key_and_an_operator_and_revokes_the_last_runs(env: dict[str, str]) -> None:
    with demo(env) as first, signed_in(first) as person:
        old, cookies = token_of(first), dict(person.cookies)
        assert status(first, old) == 200
        keys = person.get("keys").text
        assert [name for name in ("website", "mobile app", "nightly report") if name not in keys] == []
        assert re.search("(minutes?|seconds?) ago|just now", keys), "Traffic of the last week should be there."
        assert first.stop(signal.SIGTERM)[0] == 0
    with demo(env) as second, signed_in(second) as person:
        assert httpx.get(f"{person.base_url}keys", cookies=cookies).headers["location"].endswith("sign-in?to=keys")
        assert status(second, old) == 401
        assert status(second, token_of(second)) == 200


def test_a_run_that_was_killed_leaves_a_key_that_the_next_one_revokes(env: dict[str, str]) -> None:
    with demo(env) as killed:
        old = token_of(killed)
        killed.stop(signal.SIGKILL)
    with demo(env) as server:
        assert status(server, old) == 401
        assert server.stop()[0] == 0


def test_two_at_once_have_a_port_and_a_key_each(env: dict[str, str]) -> None:
    with ExitStack() as both:
        one, other = both.enter_context(demo(env)), both.enter_context(demo(env))
        assert one.url != other.url
        assert [status(server, token_of(server)) for server in (one, other)] == [200, 200]
        assert one.stop()[0] == 0
        assert status(other, token_of(other)) == 200
        assert other.stop()[0] == 0


def test_it_touches_neither_a_port_that_is_taken_nor_somebodys_real_database(env: dict[str, str]) -> None:
    theirs = {"SMARTER_AUTH_DATABASE_URL": "postgresql://production", "SMARTER_AUTH_TYPO": "x"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with demo(env | theirs, "--port", str(port)) as server:
            assert "SMARTER_AUTH_DATABASE_URL" in lines(server, "Settings that the demo ignores")[0]
            assert status(server, token_of(server)) == 200
            assert not server.url.endswith(f":{port}")
    assert not embedded_place.home_of(Path(env["XDG_DATA_HOME"], "smarter_auth", "postgresql")).exists()


def test_ctrl_c_stops_the_database_too_even_where_a_shell_has_it_ignored(env: dict[str, str]) -> None:
    # What a script starts with & is started so.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with demo(env) as server:
            (started,) = re.findall("Starting PostgreSQL in (.+)", server.said)
            assert Path(started, "data", "postmaster.pid").exists()
            assert server.stop(signal.SIGINT)[0] == 0
            assert not Path(started, "data", "postmaster.pid").exists()
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_stream_that_goes_on_does_not_hold_up_the_end(env: dict[str, str]) -> None:
    with demo(env) as server:
        host, port = re.findall(r"//(.+):(\d+)", server.url)[0]
        with socket.create_connection((host, int(port))) as halfway:
            halfway.sendall(b"POST /bots/2/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
            assert server.stop()[0] == 0


def test_a_directory_that_cannot_be_used_is_one_clear_line(env: dict[str, str], tmp_path: Path) -> None:
    tmp_path.joinpath("x\n").mkdir()
    ran = subprocess.run(
        [*PROGRAM, "demo", "--directory", str(tmp_path / "x\n")], env=env, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert len(ran.stderr.splitlines()) == 1
    assert ran.stderr.startswith("error: ")
