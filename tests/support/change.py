"""A database with one resource and one key that opens it, from which changes are told."""

from __future__ import annotations

from uuid import UUID

import asyncpg
import pytest

KEY_ID = UUID("6f1f5a8e-3f0c-4f39-9d0a-2b8f6f1c0001")
KEY = f"key:{KEY_ID}"


@pytest.fixture
async def sql(owner: asyncpg.Connection) -> asyncpg.Connection:
    """A connection to a database with the resource 1, bot:my_bot, and one key, with a token, that opens it."""
    await owner.execute(f"""
        INSERT INTO smarter_auth.resource (id, kind, ref, name) VALUES (1, 'bot', 'my_bot', 'one');
        ALTER TABLE smarter_auth.resource ALTER id RESTART 100;
        INSERT INTO smarter_auth.key (key_id, name) VALUES ('{KEY_ID}', 'one');
        INSERT INTO smarter_auth.token (digest, token_key, key_id, account)
        VALUES (sha512('one'), 'one', '{KEY_ID}', 'default');
        INSERT INTO smarter_auth.binding (resource_id, key_id, account) VALUES (1, '{KEY_ID}', 'default');
        DELETE FROM smarter_auth.change;
    """)
    return owner
