"""A token is in the one answer that brings it, and nowhere else: no other answer, log, metric, audit row or table."""

from __future__ import annotations

import hashlib
import logging
from base64 import b64encode

import asyncpg
import httpx
import pytest

from smarter_auth_mw.management.operators import Role
from smarter_auth_mw.metrics import samples
from tests.admin.test_operations import state
from tests.support.admin import OWN, Caller, Site
from tests.support.database import Database, dumped


async def test_a_token_is_in_one_answer_and_nowhere_else(
    site: Site, admin: Caller, owner: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    minted = await admin.json("POST", "/keys", {"name": "customer", "bind": ["bot:1"]})
    rotated = await admin.json(
        "POST", f"/keys/{minted['key_id']}/rotate", {"token_key": minted["token_key"], "overlap": "1h"}
    )
    tokens = {minted["token"], rotated["token"]}
    operator = (await site.operators.create("other", Role.ADMIN, account=OWN)).token.reveal()
    admin.answered.clear()
    await _use_everywhere(site, admin, [*tokens, operator])
    secrets = {*tokens, operator, admin.token}
    assert not [answer for answer in admin.answered if holds(answer.text + str(answer.headers), secrets)]
    lines = [record.getMessage() for record in caplog.records if not record.name.startswith("http")]
    assert not holds("\n".join(lines), secrets)
    assert not holds(str(samples.samples_of_all()), secrets)
    assert not holds(str(await state(owner)), secrets)


async def _use_everywhere(site: Site, admin: Caller, tokens: list[str]) -> None:
    """Put tokens where people put them, rightly and wrongly."""
    for token in tokens:
        await admin("POST", "/check", {"url": "/bots/1", "token": token})
        await admin(
            "POST", "/check", {"url": f"/bots/1?token={token}", "headers": {"Authorization": f"Bearer {token}"}}
        )
        await admin("GET", f"/keys?find={token}")
        await admin("GET", f"/keys?{token}=1")
        await admin("GET", f"/keys?limit={token}")
        await admin("GET", f"/keys/{token}")
        await admin("GET", f"/resources/bot/{token}")
        await admin("GET", f"/audit?actor={token}&cursor={token}")
        await admin("POST", "/resources", {"kind": "bot", "ref": token})
        await admin("POST", "/resources", {"kind": token, "ref": "1"})
        await admin("POST", "/keys", {token: 1})
        await admin("POST", "/keys", {"name": "x", "bind": [f"bot:{token}"]})
        await admin("POST", "/keys", {"name": "x", "labels": {token: "1"}})
        await Caller(site.client, f"{token}x")("GET", "/me")
    await admin("POST", "/leaks", {"tokens": tokens})
    for path in ("/keys", "/resources", "/audit", "/audit?format=jsonl", "/openapi.json", "/me"):
        await admin("GET", path)


def holds(text: str, secrets: set[str]) -> list[str]:
    return [secret[:6] for secret in secrets if secret in text]


async def test_a_dump_of_the_database_holds_no_token(site: Site, admin: Caller, database: Database) -> None:
    """In no form that a dump could have it in, whatever was done with it."""
    minted = await admin.json("POST", "/keys", {"name": "customer", "bind": ["bot:1"]})
    rotated = await admin.json("POST", f"/keys/{minted['key_id']}/rotate", {"token_key": minted["token_key"]})
    tokens = [minted["token"], rotated["token"], admin.token]
    await _use_everywhere(site, admin, tokens)
    assert_dump_holds_digests_alone(await dumped(database.owner), tokens)


def assert_dump_holds_digests_alone(dump: str, tokens: list[str]) -> None:
    digests = [hashlib.sha512(token.encode()).hexdigest() for token in tokens]
    assert [digest for digest in digests if digest not in dump] == []  # It is the whole of the database.
    forms = {form for token in tokens for form in (token, token.encode().hex(), b64encode(token.encode()).decode())}
    assert not holds(dump, forms)


async def test_no_digest_is_in_an_answer(admin: Caller, owner: asyncpg.Connection) -> None:
    minted = await admin.json("POST", "/keys", {"name": "customer", "bind": ["bot:1"]})
    answers: list[httpx.Response] = [
        await admin("GET", path) for path in ("/keys", f"/keys/{minted['key_id']}", "/audit", "/resources/bot/1", "/me")
    ]
    rows = await owner.fetch(
        "SELECT encode(digest, 'hex') AS digest FROM smarter_auth.token"
        " UNION ALL SELECT encode(digest, 'hex') FROM smarter_auth.operator_token"
    )
    digests = [row["digest"] for row in rows]
    assert len(digests) == 2
    assert not [answer for answer in answers if holds(answer.text, set(digests))]
