"""A real MariaDB with the tables of a Smarter platform, in a directory of its own."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymysql

from tests import programs
from tests.support.valkey import free_port

START_S = 60

DDL = """
CREATE TABLE account_account (id bigint AUTO_INCREMENT PRIMARY KEY, account_number varchar(255) UNIQUE,
    company_name varchar(255) NOT NULL DEFAULT '');
CREATE TABLE auth_user (id integer AUTO_INCREMENT PRIMARY KEY, username varchar(150) NOT NULL UNIQUE,
    password varchar(128) NOT NULL DEFAULT '', is_active bool NOT NULL DEFAULT 1, is_staff bool NOT NULL DEFAULT 1,
    is_superuser bool NOT NULL DEFAULT 0);
CREATE TABLE account_userprofile (id bigint AUTO_INCREMENT PRIMARY KEY, account_id bigint NOT NULL,
    user_id integer NOT NULL);
CREATE TABLE knox_authtoken (digest varchar(128) PRIMARY KEY, token_key varchar(25) NOT NULL, user_id integer NOT NULL,
    created datetime(6) NOT NULL DEFAULT now(6), expiry datetime(6));
CREATE TABLE drf_smarterauthtoken (authtoken_ptr_id varchar(128) PRIMARY KEY, key_id char(32) NOT NULL UNIQUE,
    name varchar(255) NOT NULL, description longtext, is_active bool NOT NULL DEFAULT 1, last_used_at datetime(6),
    created_at datetime(6), updated_at datetime(6), user_profile_id bigint NOT NULL);
CREATE TABLE llm_client_llmclientcustomdomain (id bigint AUTO_INCREMENT PRIMARY KEY, domain_name varchar(255) NOT NULL,
    is_verified bool);
CREATE TABLE llm_client_llmclient (id bigint AUTO_INCREMENT PRIMARY KEY, name varchar(255) NOT NULL,
    user_profile_id bigint NOT NULL, custom_domain_id bigint, deployed bool NOT NULL DEFAULT 1);
CREATE TABLE llm_client_llmclientapikey (id bigint AUTO_INCREMENT PRIMARY KEY, api_key_id varchar(128) NOT NULL,
    llm_client_id bigint NOT NULL);
"""
"""As Django makes them on MySQL, with a few of the columns that nobody asks for."""


class MariaDB:
    """A running server with one database, ``smarter``."""

    def __init__(self, port: int) -> None:
        self.url = f"mysql://root:@127.0.0.1:{port}/smarter"
        self._port = port

    def do(self, *statements: str, database: str | None = "smarter") -> None:
        """Run the statements in one transaction."""
        connection = pymysql.connect(host="127.0.0.1", port=self._port, user="root", database=database)
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            connection.commit()


@contextmanager
def mariadb(directory: Path) -> Iterator[MariaDB]:
    """Start the server, and stop it at the end; skips the test where there is none."""
    program, port = programs.find("mariadb"), free_port()
    (directory / "data").mkdir()
    options = [f"--datadir={directory / 'data'}", f"--socket={directory / 's'}", f"--pid-file={directory / 'pid'}"]
    options += [f"--port={port}", "--bind-address=127.0.0.1", "--user=root", "--skip-grant-tables"]
    if (share := program.parents[1] / "share/mysql").exists():
        options += [f"--lc-messages-dir={share}", f"--character-sets-dir={share / 'charsets'}"]
    with (directory / "log").open("w") as log:
        server = subprocess.Popen(
            [program, "--no-defaults", *options], env=dict(programs.libraries("mariadb")), stdout=log, stderr=log
        )
    try:
        made = MariaDB(port)
        _wait(server, made)
        made.do(*(statement for statement in DDL.split(";\n") if statement.strip()))
        yield made
    finally:
        server.terminate()
        server.wait(START_S)


def _wait(server: subprocess.Popen[Any], made: MariaDB) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            return made.do("CREATE DATABASE smarter", database=None)
        except pymysql.err.OperationalError:
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
