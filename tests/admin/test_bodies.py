"""What a request brings, however hostile: read strictly, or refused with a reason, and never a 500."""

from __future__ import annotations

import json
import os
import random
from typing import Any
from urllib.parse import quote

import pytest

from smarter_auth_mw.admin.call import MAX_BODY
from smarter_auth_mw.admin.operations import BASE, OPERATIONS
from smarter_auth_mw.management.operators import Role
from tests.support.admin import OWN, Caller, Site, check_described

JSON = {"Content-Type": "application/json"}
SEED, COUNT = int(os.environ.get("SEED", "20260101")), int(os.environ.get("COUNT", "1500"))


async def _send(admin: Caller, content: bytes, path: str = "/keys", **headers: str) -> tuple[int, str]:
    response = await admin("POST", path, headers={**JSON, **headers}, content=content)
    return response.status_code, response.json().get("code", "")


HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"name=x",
    "cut": b'{"name": "x"',
    "two documents": b'{"name": "x"}{"name": "y"}',
    "array": b'[{"name": "x"}]',
    "string": b'"x"',
    "null": b"null",
    "not UTF-8": b'{"name": "\xff"}',
    "UTF-16": '{"name": "x"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"name": "x"}',
    "deep arrays": b'{"name": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "half a surrogate pair": b'{"name": "\\ud800"}',
    "NUL": b'{"name": "a\\u0000b"}',
    "huge number": b'{"name": "x", "expires_at": ' + b"9" * 5_000 + b"}",
    "huge exponent": b'{"name": "x", "expires_at": 1e999999}',
    "NaN": b'{"name": NaN}',
    "Infinity": b'{"name": "x", "expires_at": -Infinity}',
    "repeated member": b'{"name": "x", "name": "y"}',
    "repeated member within": b'{"name": "x", "labels": {"a": "1", "a": "2"}}',
    "repeated member, written otherwise": b'{"name": "x", "n\\u0061me": "y"}',
    "unknown member": b'{"name": "x", "is_admin": true}',
    "number for text": b'{"name": 1}',
    "text for a list": b'{"name": "x", "bind": "bot:1"}',
    "time without zone": b'{"name": "x", "expires_at": "2030-01-01T00:00:00"}',
    "number for a time": b'{"name": "x", "expires_at": 1900000000}',
    "time behind the calendar": b'{"name": "x", "expires_at": "9999-12-31T23:59:59-23:59"}',
    "time before the calendar": b'{"name": "x", "expires_at": "0001-01-01T00:00:00+23:59"}',
    "past": b'{"name": "x", "expires_in": "0d"}',
    "longer than the calendar": b'{"name": "x", "expires_in": "999999999d"}',
    "both expiries": b'{"name": "x", "expires_in": "1d", "expires_at": "2030-01-01T00:00:00Z"}',
    "no name": b"{}",
    "empty name": b'{"name": ""}',
    "long name": json.dumps({"name": "x" * 256}).encode(),
    "long description": json.dumps({"name": "x", "description": "x" * 10_001}).encode(),
    "bad label": b'{"name": "x", "labels": {"A": "1"}}',
    "many labels": json.dumps({"name": "x", "labels": {f"l{number}": "1" for number in range(17)}}).encode(),
    "no resource": b'{"name": "x", "bind": ["bot"]}',
    "unknown kind": b'{"name": "x", "bind": ["dog:1"]}',
    "not canonical": b'{"name": "x", "bind": ["bot:01"]}',
    "NUL in a resource": b'{"name": "x", "bind": ["bot:\\u0000"]}',
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
async def test_hostile_body_is_refused_and_nothing_is_made(admin: Caller, content: bytes) -> None:
    status, code = await _send(admin, content)
    assert (status, bool(code)) == (422, True)
    assert (await admin.json("GET", "/keys"))["items"] == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "application/problem+json"},
        {"Content-Encoding": "gzip"},
    ],
)
async def test_what_is_no_plain_json_is_415(admin: Caller, headers: dict[str, str]) -> None:
    assert await _send(admin, b'{"name": "x"}', **headers) == (415, "not_json")


async def test_json_in_utf_8_says_so_or_not(admin: Caller) -> None:
    for number, media_type in enumerate(("application/json", "application/json; charset=utf-8", "Application/JSON")):
        assert (await _send(admin, b'{"name": "%d"}' % number, **{"Content-Type": media_type}))[0] == 201


@pytest.mark.parametrize("length", [None, "70000", "9" * 30, "-1", "x"])
async def test_body_that_is_too_large_is_413_whatever_length_it_says(admin: Caller, length: str | None) -> None:
    body = json.dumps({"name": "x", "description": "x" * MAX_BODY}).encode()
    headers = {} if length is None else {"Content-Length": length}
    assert await _send(admin, body, **headers) == (413, "too_large")


async def test_a_thousand_leaked_tokens_are_taken_and_one_more_is_not(admin: Caller) -> None:
    tokens = [f"{number:064}" for number in range(1_001)]
    assert await admin.code("POST", "/leaks", {"tokens": tokens}) == (422, "invalid")
    assert (await admin.json("POST", "/leaks", {"tokens": tokens[1:]}))["unknown"] == 1_000


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "limit=x",
        "limit=1&limit=2",
        "limit=1e2",
        "unknown=1",
        "state=anything",
        "state=revoked&sort=name",
        "cursor=nonsense",
        "cursor=" + "A" * 9_000,
        "cursor=%00",
        "key_id=1",
        "key_id={11111111-1111-4111-8111-111111111111}",
        "key_id=11111111111141118111111111111111",
        "label=x",
        "label=%00%3D1",
        "resource=bot",
        "resource=%00:1",
        "find=%00",
        "find=%ff",
        "find=%ED%A0%80",
        "account=",
        "expiring_within=1",
        "expiring_within=1y",
        "unused_for=-1d",
        "never_used=perhaps",
        "&&&",
        "=",
        "limit",
        "x" * 20_000 + "=1",
        "&".join(f"label=a%3D{number}" for number in range(70)),
    ],
)
async def test_bad_query_is_refused(admin: Caller, query: str) -> None:
    response = await admin("GET", f"/keys?{query}")
    assert response.status_code == 422, response.text


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("since=yesterday", "/audit"),
        ("since=2026-01-01T00:00:00", "/audit"),
        ("until=0001-01-01T00:00:00%2B23:59", "/audit"),
        ("format=xml", "/audit"),
        ("since=99999-01-01T00:00:00Z", "/usage"),
        ("resource=bot:1&since=x", "/usage"),
    ],
)
async def test_bad_time_is_refused(admin: Caller, query: str, path: str) -> None:
    assert (await admin("GET", f"{path}?{query}")).status_code == 422


@pytest.mark.parametrize("since", ["999999999d", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "1s"])
async def test_any_time_of_the_calendar_can_be_asked_for(admin: Caller, since: str) -> None:
    await admin.json("POST", "/keys", {"name": "x", "bind": ["bot:1"]})
    for path in ("/audit?", "/usage?resource=bot:1&"):
        for name in ("since", "until"):
            assert (await admin("GET", f"{path}{name}={since}")).status_code == 200


async def test_mistakes_are_named_without_the_values(admin: Caller) -> None:
    secret = "sm_" + "a" * 49
    response = await admin("POST", "/keys", {"name": {"x": secret}, secret: 1, "expires_in": secret, "bind": [secret]})
    assert response.status_code == 422
    assert secret not in response.text
    assert "body.name" in response.text
    assert "sm_a…" in response.json()["detail"]


PARTS = [
    "0",
    "1",
    "bot",
    "bot:1",
    "cat:x",
    "",
    "null",
    "-1",
    "x" * 300,
    "%00",
    "é",
    "%ff",
    "true",
    "1d",
    "\u202e",
    "..",
]


def _value(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.randrange(9 if depth < 3 else 6)
    match kind:
        case 0:
            return rng.choice([0, 1, -1, 2**31, 2**63, 2**70, 1.5, 1e308])
        case 1:
            return rng.choice([True, False, None])
        case 2 | 3 | 4 | 5:
            return rng.choice(PARTS) + rng.choice(["", chr(rng.randrange(0x110000))])
        case 6 | 7:
            return [_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice([*_MEMBERS, *PARTS]): _value(rng, depth + 1) for _ in range(rng.randrange(5))}


_MEMBERS = sorted({name for operation in OPERATIONS if operation.body for name in operation.body.model_fields})
_PARAMETERS = sorted({name for operation in OPERATIONS for name in operation.query.model_fields})


def _known(rng: random.Random, key_id: str) -> str:
    return rng.choice([key_id, *PARTS]).replace("%00", "\0")


async def test_random_requests_are_never_answered_by_a_500(site: Site) -> None:
    """COUNT and SEED choose more of them, and others."""
    rng = random.Random(SEED)
    callers = [await site.caller(role, account) for role in (Role.ADMIN, Role.MANAGER) for account in (None, OWN)]
    key_id = (await callers[0].json("POST", "/keys", {"name": "x", "bind": ["bot:1"]}))["key_id"]
    for _ in range(COUNT):
        operation, caller = rng.choice(OPERATIONS), rng.choice(callers)
        parts = {name: _known(rng, key_id).replace("?", "").replace("#", "") for name in ("kind", "ref", "key_id")}
        query = "&".join(f"{rng.choice(_PARAMETERS)}={rng.choice([*PARTS, key_id])}" for _ in range(rng.randrange(3)))
        taken = operation.body.model_fields if operation.body else {}
        body = {name: _value(rng) for name in taken if rng.random() < 0.7} if rng.random() < 0.9 else _value(rng)
        content = json.dumps(body, allow_nan=True).encode()
        if rng.random() < 0.1:
            content = content[: rng.randrange(len(content) + 1)]
        response = await site.client.request(
            operation.method,
            _url(operation.path, parts, query),
            headers={"Authorization": f"Bearer {caller.token}", **JSON},
            content=content if operation.body else None,
        )
        check_described(operation.method, response)


def _url(path: str, parts: dict[str, str], query: str) -> str:
    quoted = {name: quote(value, safe="%") for name, value in parts.items()}
    return f"{BASE}{path.format(**quoted)}?{quote(query, safe='%&=:')}"
