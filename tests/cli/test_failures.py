"""Whatever goes wrong: one clear line, the right exit code, no traceback, and JSON where that was asked for."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from smarter_auth_mw.postgres.embedded.cluster import Cluster
from tests.support.cli import PATIENCE_S, PROGRAM, ROUTES, Commands, environment, program, rows
from tests.support.database import Database, named

KEY = "123e4567-e89b-12d3-a456-426614174000"


def unexplained(run: Commands, exit_code: int, *arguments: str) -> str:
    """The one line, after a look at the same failure as JSON."""
    ran = run(*arguments)
    assert (ran.exit_code, ran.out) == (exit_code, "")
    assert "Traceback" not in ran.err
    as_json = run("--json", *arguments)
    assert (as_json.exit_code, as_json.err) == (exit_code, "")
    assert set(as_json.json["error"]) == {"code", "message", "hint"}
    assert as_json.json["error"]["message"].splitlines()[0].rstrip(".") in ran.error
    assert ran.error.startswith("error: ")
    return ran.error


@pytest.fixture
def nowhere() -> Iterator[int]:
    """A port that nobody listens on, and that nobody else can take meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_an_unreachable_database(bare: Commands, nowhere: int) -> None:
    bare.set(database_url=f"postgresql://someone:secret@127.0.0.1:{nowhere}/db", routes=ROUTES)
    for arguments in (["db", "status"], ["key", "list"], ["check", "/bots/1"]):
        line = unexplained(bare, 3, *arguments)
        assert str(nowhere) in line
        assert "secret" not in line


def test_a_role_that_may_not_log_in(bare: Commands, database: Database) -> None:
    bare.set(database_url=database.manager.replace("smarter_auth_manager", "nobody_knows"), routes=ROUTES)
    assert "refused the log-in" in unexplained(bare, 3, "key", "list")


def test_a_database_that_is_not_there(bare: Commands, cluster: Cluster) -> None:
    bare.set(database_url=named(cluster.url("runtime"), "missing"), routes=ROUTES)
    assert "missing" in unexplained(bare, 3, "key", "list")


def test_a_database_that_is_not_migrated(bare: Commands, empty_database: Database) -> None:
    bare.set(database_url=empty_database.owner, routes=ROUTES)
    for arguments in (["key", "list"], ["key", "create", "--name", "x", "--bind", "bot:1"], ["check", "/bots/1"]):
        assert "smarter-auth db migrate" in unexplained(bare, 1, *arguments)


def test_a_schema_that_is_too_new(run: Commands, database: Database) -> None:
    rows(
        database.owner,
        "SELECT",
        "UPDATE smarter_auth.schema_version SET version_num = '9999'; UPDATE smarter_auth.meta SET serves_from = 9999",
    )
    assert "pip install -U" in unexplained(run, 1, "key", "list")
    run.set(database_url=database.owner)
    assert "too new" in unexplained(run, 1, "db", "migrate")


def test_all_mistakes_of_the_configuration_together(bare: Commands) -> None:
    bare.set(routes="bot /bots/{id}", realm='"', kredentials="token")
    ran = bare("check", "/bots/1")
    assert ran.exit_code == 2
    for name in ("DATABASE_URL", "REALM", "KREDENTIALS"):
        assert f"SMARTER_AUTH_{name}" in ran.err
    assert "Traceback" not in ran.err


def test_a_broken_pattern(run: Commands) -> None:
    run.set(routes="bot /bots/{id}")
    line = unexplained(run, 2, "key", "create", "--name", "x", "--bind", "bot:1")
    assert "SMARTER_AUTH_ROUTES" in line
    assert "{ref}" in line


def test_no_routes(bare: Commands, database: Database) -> None:
    bare.set(database_url=database.manager)
    line = unexplained(bare, 2, "resource", "add", "bot:1")
    assert "bot /bots/{ref:int}" in line
    assert "preset:smarter" in line


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["key", "show", KEY], 1),
        (["resource", "show", "bot:1"], 1),
        (["key", "show", "not-a-uuid"], 1),
        (["resource", "show", "bto:1"], 2),
        (["key", "create", "--name", "x", "--expires-in", "soon"], 2),
        (["key", "create", "--name", ""], 2),
        (["key", "create", "--name", "x" * 256], 2),
        (["key", "create"], 2),
        (["key", "list", "--no-such-option"], 2),
        (["key", "list", "superfluous"], 2),
        (["resource", "add", "bot:1", "--on-error", "maybe"], 2),
        (["no-such-command"], 2),
        (["key"], 2),
        ([], 2),
    ],
)
def test_wrong_usage_and_what_is_not_there(run: Commands, arguments: list[str], exit_code: int) -> None:
    unexplained(run, exit_code, *arguments)


def test_json_counts_in_front_of_the_command_too(run: Commands) -> None:
    assert run("--json", "key", "show", KEY).json["error"]["code"] == "not_found"
    assert run("--json", "key", "list").json == []


@pytest.mark.parametrize(
    ("url", "exit_code", "says"),
    [
        ("embedded:relative", 2, "embedded:///DIR"),
        ("mysql://x/y", 2, "postgresql://"),
        ("postgresql://user:p@ss:word@host:port/db", 2, "%40"),
    ],
)
def test_what_is_no_database_url(bare: Commands, url: str, exit_code: int, says: str) -> None:
    bare.set(database_url=url)
    assert says in unexplained(bare, exit_code, "db", "status")


SECRET = "S3CR3TW0RD"
WITH_SECRETS = [
    ("database_url", f"postgresql://me:{SECRET}@127.0.0.1:{{port}}/bots"),
    ("database_url", f"postgresql://me:{SECRET}@127.0.0.1:{{port}},127.0.0.1:{{port}}/bots"),
    ("database_url", f"postgresql://me:12/{SECRET}@127.0.0.1:{{port}}/bots"),
    ("database_url", f"postgresql://me:{SECRET}@127.0.0.1:{{port}}/bots?sslmode=require&sslpassword={SECRET}"),
    ("database_url", f"postgresql://me:{SECRET}@127.0.0.1:{{port}}/bots?options=-c%20{SECRET}"),
    ("database_url", f"postgresql://127.0.0.1:{{port}}/bots?user=me&password={SECRET}"),
    ("database_url", f"postgresql://127.0.0.1:{{port}}/bots?PASSWORD={SECRET}"),
    ("database_url", f"Server=127.0.0.1;Password={SECRET}"),
    ("listen_url", f"postgresql://me:{SECRET}@127.0.0.1:{{port}}/bots"),
    ("listen_url", f"amqp://me:{SECRET}@127.0.0.1:{{port}}"),
    ("cache_url", f"redis://:{SECRET}@127.0.0.1:{{port}}/0"),
    ("cache_url", f"redis://:p[{SECRET}]w@127.0.0.1:{{port}}/0"),
    ("cache_url", f"redis://:pa?{SECRET}=1@127.0.0.1:{{port}}/0"),
    ("cache_url", f"rediss://:{SECRET}@127.0.0.1:{{port}}/0?ssl_cert_reqs=none&{SECRET}=1"),
    ("cache_url", f"memcached://me:{SECRET}@127.0.0.1:{{port}}"),
    ("cache_url", f"127.0.0.1:{{port}},password={SECRET},ssl=True"),
]


@pytest.mark.parametrize(("name", "value"), WITH_SECRETS)
def test_no_secret_of_a_setting_is_said_whatever_is_wrong_with_it(
    run: Commands, nowhere: int, name: str, value: str
) -> None:
    run.set(**{name: value.format(port=nowhere)})
    for arguments in (["doctor"], ["config"], ["key", "list"], ["db", "status"], ["check", "/bots/1"]):
        ran = run(*arguments)
        pieces = {SECRET[at : at + 6] for at in range(len(SECRET) - 5)}
        assert not [piece for piece in pieces if piece in ran.out + ran.err], arguments


def test_what_is_unexpected_is_told_with_its_place_and_nothing_more(
    run: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smarter_auth_mw.management.listings.reader.Listings.keys", _fail)
    line = unexplained(run, 1, "key", "list")
    assert re.search(r"KeyError in test_failures.py:\d+, from \w+.py:\d+", line)
    assert "report it" in line
    assert "surprise" not in line


async def _fail(*_: object, **__: object) -> None:
    raise KeyError("surprise")


def test_a_token_in_the_wrong_place_is_not_repeated(run: Commands) -> None:
    token = run.json("key", "create", "--name", "x")["token"]
    for arguments in (["key", "show", token], ["check", "/bots/1", token], ["resource", "show", f"bot:{token}"]):
        ran = run(*arguments)
        assert ran.exit_code in (1, 2)  # a name that no key has, and wrong usage
        assert token not in ran.err
        assert token not in run(*arguments, "--json").out


def test_the_program_says_its_version() -> None:
    ran = program("--version", env=environment())
    assert (ran.exit_code, ran.err) == (0, "")
    assert re.fullmatch(r"smarter-auth \d+\.\d+\.\d+\n", ran.out)


def test_the_program_ends_with_the_exit_code_and_one_line(database: Database) -> None:
    ran = program("key", "show", KEY, env=environment(database_url=database.manager))
    assert (ran.exit_code, ran.out) == (1, "")
    assert ran.error.startswith(f"error: There is no key {KEY}.")


@pytest.mark.parametrize("json", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize(
    "arguments",
    [
        *("key list", "resource list", "audit", "audit --jsonl", "usage", "export", "config", "doctor", "db status"),
        *("check /bots/1", "db sql", "resource show bot:1", "config --schema", "import in.csv", "--version", "--help"),
    ],
)
def test_a_reader_that_has_seen_enough_is_no_failure(
    arguments: str, json: list[str], database: Database, run: Commands, tmp_path: Path
) -> None:
    if json and ("--jsonl" in arguments or arguments.startswith("--")):
        pytest.skip("These are no documents.")
    run.json("key", "create", "--name", "x", "--bind", "bot:1")
    tmp_path.joinpath("in.csv").write_text("resource,key\nbot:2,y\n")
    reading, writing = os.pipe()
    os.close(reading)
    env = environment(database_url=database.manager, routes=ROUTES)
    command = [*PROGRAM, *arguments.split(), *json]
    ran = subprocess.run(command, env=env, stdout=writing, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False)
    os.close(writing)
    assert ran.returncode == (0 if ran.stderr == "No results.\n" else 1)
    for word in ("error", "Traceback", "Broken", "cannot"):
        assert word not in ran.stderr


def test_a_long_list_that_is_read_in_part_ends_quietly(database: Database, run: Commands) -> None:
    rows(
        database.owner,
        "SELECT",
        "INSERT INTO smarter_auth.audit_event (actor, action)"
        " SELECT repeat('x', 200), 'key.set' FROM generate_series(1, 9999)",
    )
    env = environment(database_url=database.manager, routes=ROUTES)
    for options in ("audit", "audit --jsonl", "audit --json"):
        script = f'"$0" "$@" {options} | head -1'
        ran = subprocess.run(["sh", "-c", script, *PROGRAM], env=env, capture_output=True, text=True, check=False)
        assert (len(ran.stdout.splitlines()), ran.stderr) == (1, "")


def test_without_a_stdout_nothing_is_done(database: Database, run: Commands) -> None:
    env = environment(database_url=database.manager, routes=ROUTES)
    create = ["sh", "-c", '"$0" "$@" >&-', *PROGRAM, "key", "create", "--name", "x"]
    ran = subprocess.run(create, env=env, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr.startswith("error: stdout is closed.")) == (2, True), ran
    assert run.json("key", "list") == []


@pytest.mark.parametrize("json", [[], ["--json"]])
def test_ctrl_c_ends_a_command_that_waits(json: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(PATIENCE_S)
        env = environment(database_url=f"postgresql://127.0.0.1:{silent.getsockname()[1]}/db")
        command = [*PROGRAM, "key", "list", *json]
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        connection, _ = silent.accept()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
        connection.close()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert '"interrupted"' in out if json else err.startswith("error: Interrupted.")


OF_THE_LOOP = """
import asyncio, typer
from smarter_auth_mw.cli.decorator import command

group = typer.Typer()

@command(group, "stumble", takes_actor=False)
async def stumble(session):
    asyncio.get_running_loop().call_exception_handler({"message": "told", "exception": OSError("told")})

group(standalone_mode=False)
"""


def test_a_traceback_of_the_event_loop_itself_is_shown_to_nobody() -> None:
    ran = subprocess.run([sys.executable, "-c", OF_THE_LOOP], stderr=subprocess.PIPE, text=True, check=True)
    assert ran.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("key create --name x", "could not be printed: No space left on device."),
        ("key list --json", "could not be printed: No space left on device."),
        ("export --json", "could not be printed: No space left on device."),
        ("key --help", "could not be written: No space left on device."),
    ],
)
def test_a_full_disk_is_one_clear_line(arguments: str, said: str, database: Database) -> None:
    command = [*PROGRAM, *arguments.split()]
    env = environment(database_url=database.manager)
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(command, env=env, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ran.returncode == 1
    assert said in ran.stderr
    for word in ("Traceback", "report it"):
        assert word not in ran.stderr


def test_without_typer_the_program_says_what_to_install() -> None:
    script = textwrap.dedent(
        """
        import sys
        sys.modules["typer"] = None
        from smarter_auth_mw.__main__ import main
        sys.exit(main())
        """
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stderr == "error: The command line is not installed. Run: pip install 'smarter_auth_mw[cli]'\n"
