"""The example that keeps a copy of a platform on MySQL: a real MariaDB, copied, attached and asked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import Commands, rows
from tests.support.database import Database
from tests.support.mariadb import MariaDB, mariadb
from tests.support.platform import ACCOUNT, digest_of, token_of

SCRIPT = Path(__file__).parents[2] / "examples/mysql/copy_platform.py"
PATIENCE_S = 30
DIGEST = digest_of(token_of("first"))
ROWS = [
    f"INSERT INTO account_account (id, account_number) VALUES (7, '{ACCOUNT}')",
    "INSERT INTO auth_user (id, username) VALUES (1, 'admin')",
    "INSERT INTO account_userprofile (id, account_id, user_id) VALUES (3, 7, 1)",
    f"INSERT INTO knox_authtoken (digest, token_key, user_id) VALUES ('{DIGEST}', '{token_of('first')[:15]}', 1)",
    "INSERT INTO drf_smarterauthtoken (authtoken_ptr_id, key_id, name, user_profile_id)"
    f" VALUES ('{DIGEST}', '{'0f' * 16}', 'first', 3)",
    "INSERT INTO llm_client_llmclientcustomdomain (id, domain_name, is_verified) VALUES (5, 'sales.example.net', 1)",
    "INSERT INTO llm_client_llmclient (id, name, user_profile_id, custom_domain_id) VALUES (42, 'hr_bot', 3, 5)",
    "INSERT INTO llm_client_llmclient (id, name, user_profile_id) VALUES (43, 'open_bot', 3)",
    f"INSERT INTO llm_client_llmclientapikey (api_key_id, llm_client_id) VALUES ('{DIGEST}', 42)",
]
HEADER = f"Authorization: Token {token_of('first')}"


@pytest.fixture(scope="module")
def mysql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    with mariadb(tmp_path_factory.mktemp("mariadb")) as server:
        server.do(*ROWS)
        yield server


def _decision(run: Commands, path: str, header: str = "X-Other: x") -> str:
    return str(run("check", path, "--header", header, "--json").json["decision"])


def _comes_to(run: Commands, decision: str, path: str, header: str = "X-Other: x") -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while _decision(run, path, header) != decision:
        assert time.monotonic() < deadline
    return True


def test_a_platform_on_mysql_is_guarded_by_its_copy(bare: Commands, empty_database: Database, mysql: MariaDB) -> None:
    bot, other = "/api/v1/llm-clients/42/prompt/", "/api/v1/llm-clients/43/prompt/"
    env = {**os.environ, "MYSQL_URL": mysql.url, "POSTGRES_URL": empty_database.owner}
    assert subprocess.run([sys.executable, SCRIPT, "--once"], env=env).returncode == 0
    bare.set(database_url=empty_database.owner, routes="preset:smarter", default_account=ACCOUNT)
    assert bare.json("db", "attach", "smarter")["layout"] == "smarter"
    assert (_decision(bare, bot), _decision(bare, bot, HEADER), _decision(bare, other)) == (
        "deny",
        "grant",
        "anonymous",
    )
    (shown,) = bare.json("resource", "list")
    assert (shown["name"], shown["domain"], shown["account"]) == ("hr_bot", "sales.example.net", ACCOUNT)
    rows(empty_database.owner, "UPDATE drf_smarterauthtoken SET last_used_at = now() RETURNING 1")
    copying = subprocess.Popen([sys.executable, SCRIPT], env=env)
    try:
        mysql.do(f"INSERT INTO llm_client_llmclientapikey (api_key_id, llm_client_id) VALUES ('{DIGEST}', 43)")
        assert _comes_to(bare, "deny", other)
        mysql.do("UPDATE drf_smarterauthtoken SET is_active = 0")
        assert _comes_to(bare, "deny", bot, HEADER)
        mysql.do(
            "UPDATE drf_smarterauthtoken SET is_active = 1",
            "DELETE FROM llm_client_llmclientapikey WHERE llm_client_id = 43",
        )
        assert _comes_to(bare, "anonymous", other)
        assert _comes_to(bare, "grant", bot, HEADER)
        assert rows(empty_database.owner, "SELECT last_used_at FROM drf_smarterauthtoken")[0]["last_used_at"]
        mysql.do(
            *(
                f"DELETE FROM {table}"
                for table in ("llm_client_llmclientapikey", "drf_smarterauthtoken", "knox_authtoken")
            )
        )
        assert _comes_to(bare, "deny", bot, HEADER)
        assert bare.json("resource", "show", "llm_client:42")["protected"] is True
    finally:
        copying.terminate()
        copying.wait(PATIENCE_S)


def test_a_second_run_writes_no_row(empty_database: Database, mysql: MariaDB) -> None:
    env = {**os.environ, "MYSQL_URL": mysql.url, "POSTGRES_URL": empty_database.owner}
    written = "SELECT id, name, xmin::text FROM llm_client_llmclient ORDER BY id"
    subprocess.run([sys.executable, SCRIPT, "--once"], env=env, check=True)
    before = rows(empty_database.owner, written)
    subprocess.run([sys.executable, SCRIPT, "--once"], env=env, check=True)
    assert rows(empty_database.owner, written) == before
