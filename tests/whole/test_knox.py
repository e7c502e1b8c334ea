"""A token made by django-rest-knox's own code, in each state that a key of ours can have."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

import asyncpg
import httpx
import pytest

from smarter_auth_mw.management.keys import Management
from tests.support.asgi import KEYED, OTHER

MINT = """
import json
from django.conf import settings
settings.configure(INSTALLED_APPS=[])
from knox.crypto import create_token_string, hash_token
token = create_token_string()
print(json.dumps({"token": token, "digest": hash_token(token)}))
"""
ADOPT = "UPDATE smarter_auth.token SET digest = decode($1, 'hex'), token_key = left($2, 15) WHERE key_id = $3"


@dataclass(frozen=True, slots=True)
class KnoxToken:
    token: str
    digest: str


@pytest.fixture(scope="module")
def knox() -> KnoxToken:
    """In a process of its own, since Django's settings are the process's."""
    made = subprocess.run([sys.executable, "-c", MINT], capture_output=True, text=True, check=True, timeout=60)
    return KnoxToken(**json.loads(made.stdout))


@pytest.mark.parametrize(
    ("state", "status"),
    [("active", 200), ("inactive", 401), ("revoked", 401), ("expired", 401), ("bound elsewhere", 401)],
)
async def test_it_opens_what_its_key_is_bound_to_and_nothing_else(
    http: httpx.AsyncClient, keys: Management, owner: asyncpg.Connection, knox: KnoxToken, state: str, status: int
) -> None:
    await keys.create("first", bind=[KEYED])
    key_id = (await keys.create("knox", bind=[OTHER if state == "bound elsewhere" else KEYED])).key.key_id
    await owner.execute(ADOPT, knox.digest, knox.token, key_id)
    if state == "inactive":
        await keys.deactivate(key_id)
    elif state == "revoked":
        await keys.revoke(key_id)
    elif state == "expired":
        await owner.execute("UPDATE smarter_auth.key SET expires_at = now() - interval '1 s' WHERE key_id = $1", key_id)
    assert (await http.get("/bots/1", headers={"Authorization": f"Token {knox.token}"})).status_code == status
