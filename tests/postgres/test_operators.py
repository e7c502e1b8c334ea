"""What a runtime or manager role may do with plain SQL to become an operator, raise one or bring one back: nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from smarter_auth_mw.management.operators import Doorkeeper, Operators, Role
from smarter_auth_mw.postgres import migrations
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from smarter_auth_mw.tokens import Token
from tests.support.database import Database

DENIED = asyncpg.InsufficientPrivilegeError

MINE = "decode(repeat('aa', 64), 'hex')"
"""The digest of a token that the attacker knows."""

ATTEMPTS = [
    # make an operator, or a token or session of one
    "INSERT INTO smarter_auth.operator (name, role) VALUES ('eve', 'admin')",
    f"INSERT INTO smarter_auth.operator_token (digest, operator_id, token_key)"
    f" SELECT {MINE}, operator_id, repeat('a', 15) FROM smarter_auth.operator",
    f"INSERT INTO smarter_auth.operator_token (digest, operator_id, token_key)"
    f" VALUES ({MINE}, gen_random_uuid(), repeat('a', 15))",
    f"INSERT INTO smarter_auth.operator_session (digest, token_digest)"
    f" SELECT {MINE}, digest FROM smarter_auth.operator_token",
    f"INSERT INTO smarter_auth.operator_session (digest, token_digest) VALUES ({MINE}, {MINE})",
    "COPY smarter_auth.operator_token (digest, operator_id, token_key) FROM STDIN",
    # raise one
    "UPDATE smarter_auth.operator SET role = 'admin'",
    "UPDATE smarter_auth.operator SET account = NULL",
    "INSERT INTO smarter_auth.operator (name, role) VALUES ('low', 'admin')"
    " ON CONFLICT (name) DO UPDATE SET role = 'admin'",
    "MERGE INTO smarter_auth.operator USING (SELECT 1) AS one ON true WHEN MATCHED THEN UPDATE SET role = 'admin'",
    # bring one back
    "UPDATE smarter_auth.operator SET revoked_at = NULL, expires_at = NULL",
    "UPDATE smarter_auth.operator_token SET valid_until = NULL",
    f"UPDATE smarter_auth.operator_token SET digest = {MINE}",
    "UPDATE smarter_auth.operator_session SET seen_at = now(), created_at = now()",
    "DELETE FROM smarter_auth.operator",
    "TRUNCATE smarter_auth.operator CASCADE",
    # read what the functions take
    "SELECT digest FROM smarter_auth.operator_token",
    "SELECT digest FROM smarter_auth.operator_session",
    "SELECT digest FROM smarter_auth.living_operator",
    "SELECT * FROM smarter_auth.operator",
    "TABLE smarter_auth.operator_session",
    "COPY smarter_auth.operator_token TO STDOUT",
    # get there another way
    "GRANT SELECT ON smarter_auth.operator_token TO CURRENT_USER",
    "ALTER TABLE smarter_auth.operator OWNER TO CURRENT_USER",
    "CREATE RULE mine AS ON UPDATE TO smarter_auth.key DO ALSO UPDATE smarter_auth.operator SET role = 'admin'",
    "CREATE TRIGGER mine AFTER INSERT ON smarter_auth.operator EXECUTE FUNCTION smarter_auth.note()",
    "CREATE OR REPLACE FUNCTION smarter_auth.operator_by_token(asked bytea) RETURNS void LANGUAGE sql AS 'SELECT'",
    "INSERT INTO smarter_auth.privilege (grade, privilege) VALUES ('manager', 'ALL ON smarter_auth.operator')",
    "SELECT smarter_auth.write_event('operator eve', 'operator.create', NULL, NULL, NULL, NULL, '', NULL, NULL)",
    "SET ROLE smarter_auth",
    "SET SESSION AUTHORIZATION smarter_auth",
]

FUNCTIONS = [
    f"SELECT smarter_auth.operator_by_token({MINE})",
    f"SELECT smarter_auth.operator_by_session({MINE})",
    f"SELECT smarter_auth.open_operator_session({MINE}, {MINE})",
    f"SELECT smarter_auth.end_operator_session({MINE})",
    f"SELECT smarter_auth.end_operator_sessions({MINE})",
    f"SELECT smarter_auth.end_operator_tokens(ARRAY[{MINE}], NULL, 'eve')",
]
"""What a manager role may call; without a valid digest it is told nothing."""


@pytest.fixture
async def token(database: Database) -> AsyncIterator[Token]:
    """The token of the operator ``low``; another, ``gone``, is revoked."""
    async with open_pool(database.owner) as pool:
        operators = Operators(Store(pool), "tester")
        token = (await operators.create("low", Role.VIEWER, account="acme")).token
        await operators.create("gone", Role.ADMIN)
        await operators.revoke("gone")
        assert await Doorkeeper(Store(pool)).sign_in(token)
        yield token


async def _done(connection: asyncpg.Connection, statements: list[str], error: type[Exception] = DENIED) -> list[str]:
    """Return the statements that are not refused for want of privilege, each tried by itself and rolled back."""
    done = []
    for statement in statements:
        transaction = connection.transaction()
        await transaction.start()
        try:
            await connection.execute(statement)
            done.append(statement)
        except error:
            pass
        finally:
            await transaction.rollback()
    return done


@pytest.mark.parametrize("role", ["runtime", "manager"])
async def test_no_statement_makes_raises_or_revives_an_operator(
    database: Database, token: Token, owner: asyncpg.Connection, role: str
) -> None:
    connection = await asyncpg.connect(getattr(database, role))
    before = await _state(owner)
    assert await _done(connection, ATTEMPTS) == []
    await connection.close()
    assert await _state(owner) == before


async def _state(owner: asyncpg.Connection) -> list[object]:
    tables = ("operator", "operator_token", "operator_session")
    return [list(await owner.fetch(f"SELECT * FROM smarter_auth.{table} ORDER BY 1")) for table in tables]


async def test_only_a_manager_calls_the_functions_and_learns_nothing_without_a_digest(
    token: Token, runtime: asyncpg.Connection, manager: asyncpg.Connection, owner: asyncpg.Connection
) -> None:
    assert await _done(runtime, FUNCTIONS) == []
    assert await _done(manager, FUNCTIONS) == FUNCTIONS
    before = await _state(owner)
    for statement in FUNCTIONS:
        assert {value for row in await manager.fetch(statement) for value in row} <= {None, False, ""}
    assert await _state(owner) == before


async def test_a_manager_cannot_open_a_session_whose_token_it_does_not_know(
    token: Token, manager: asyncpg.Connection
) -> None:
    for asked in (token.token_key.encode(), b"", token.digest[:-1], token.digest[:-1] + bytes([token.digest[-1] ^ 1])):
        assert not await manager.fetchval(f"SELECT smarter_auth.open_operator_session($1, {MINE})", asked)


async def test_keys_of_a_manager_are_no_operators_whatever_their_digests(
    token: Token, manager: asyncpg.Connection
) -> None:
    await manager.execute("INSERT INTO smarter_auth.key (name) VALUES ('eve')")
    await manager.execute(
        f"INSERT INTO smarter_auth.token (digest, token_key, key_id, account)"
        f" SELECT {MINE}, repeat('a', 15), key_id, account FROM smarter_auth.key"
    )
    assert await manager.fetch(f"SELECT * FROM smarter_auth.operator_by_token({MINE})") == []
    assert not await manager.fetchval(f"SELECT smarter_auth.open_operator_session({MINE}, {MINE})")


async def test_an_upgraded_database_keeps_operators_from_roles_that_it_knew(
    empty_database: Database,
) -> None:
    await migrations.migrate(
        empty_database.owner, empty_database.runtime_role, manager_role=empty_database.manager_role
    )
    await migrations.downgrade(empty_database.owner, "0007")
    await migrations.migrate(empty_database.owner)
    for url in (empty_database.runtime, empty_database.manager):
        connection = await asyncpg.connect(url)
        reads = [attempt for attempt in ATTEMPTS if attempt.startswith(("SELECT digest", "SELECT *", "UPDATE"))]
        assert await _done(connection, reads) == []
        await connection.close()
