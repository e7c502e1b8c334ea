"""The whole command line through a real PgBouncer, twice: what one process leaves behind must not trip the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg.connection
import pytest

from tests.support.cli import Commands
from tests.support.pgbouncer import pgbouncer, through
from tests.support.plain_postgres import OWNER, RUNTIME, PlainPostgres, installed

IGNORING = (
    "ignore_startup_parameters = jit, plan_cache_mode, random_page_cost, default_transaction_isolation,"
    " statement_timeout, lock_timeout\nmax_prepared_statements = 100"
)
WAYS: dict[str, tuple[str, str, str]] = {
    "PgBouncer without statements": ("pgbouncer", "", "0"),
    "PgBouncer that knows statements, and none has a name": ("pgbouncer 1.24", "max_prepared_statements = 100", "0"),
    "PgBouncer that knows statements": ("pgbouncer 1.24", IGNORING, "100"),
}


@pytest.fixture(scope="module")
def newest() -> Iterator[PlainPostgres]:
    with PlainPostgres([*installed().values()][-1]).made() as server:
        yield server


@pytest.mark.parametrize("way", WAYS)
def test_every_command_runs_twice_in_a_row_through_a_transaction_pooler(
    way: str, newest: PlainPostgres, bare: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, more, statements = WAYS[way]
    name = asyncio.run(newest.database()).rpartition("/")[2]
    with pgbouncer(newest, "transaction", size=1, more=more, program=program) as port:
        bare.set(
            database_url=through(newest.url(name, OWNER), port),
            listen_url=newest.url(name, OWNER),
            statement_cache_size=statements,
            routes="bot /bots/{ref:int}",
            query_timeout_s="30",
        )

        def run(*arguments: str) -> Any:
            # asyncpg numbers the names of its statements; each process begins with the same ones.
            monkeypatch.setattr(asyncpg.connection, "_uid", 0)
            ran = bare(*arguments, "--json")
            assert ran.exit_code == 0, (arguments, ran.out, ran.err)
            return ran.json

        for number in ("1", "2"):
            everything(run, number, tmp_path)


def everything(run: Any, number: str, directory: Path) -> None:
    bot, other = f"bot:{number}", f"bot:{number}0"
    run("db", "migrate", "--runtime-role", RUNTIME)
    run("db", "status")
    run("db", "sql")
    run("resource", "add", other, "--name", f"other-{number}", "--protect")
    run("resource", "set", other, "--on-error", "deny")
    run("resource", "unprotect", other)
    run("resource", "protect", other)
    key_id = run("key", "create", "--name", f"laptop {number}", "--bind", bot)["key_id"]
    run("key", "bind", key_id, other)
    run("key", "unbind", key_id, other, "--allow-anonymous")
    run("key", "deactivate", key_id)
    run("key", "activate", key_id)
    run("key", "rotate", key_id)
    run("key", "show", key_id)
    run("resource", "show", bot)
    assert run("key", "list")
    assert run("resource", "list")
    run("check", f"/bots/{number}7")
    (whole := directory / f"{number}.csv").write_text(
        f"resource,account,key\nbot:{number}1,default,imported {number}\nbot:{number}2,default,imported {number}b\n"
    )
    assert run("import", str(whole))["keys"] == 2
    assert run("export")
    assert run("audit")
    run("usage")
    run("audit", "prune", "--older-than", "400d")
    run("key", "revoke", key_id)
    run("doctor")
    run("db", "restored")
