"""An entry to share, and how it is sealed, written down a second time."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from typing import Any

from smarter_auth_mw.cache.codec import SharedEntry
from smarter_auth_mw.domain import Binding, Bindings, Protection, Resource

SECRET = bytes(range(32))
EPOCH = "3f0b9dbe-6f6f-4a9e-9d5e-1c2b3a495867"
LOOKUP = "bot:my-bot"

ENTRY = SharedEntry(
    Bindings(
        Resource("bot", "my_bot"),
        "acme",
        Protection.BOUND,
        "deny",
        (
            Binding("11111111-1111-4111-8111-111111111111", "ci", "acme", bytes(range(64)), "0123456789abcde"),
            Binding("22222222-2222-4222-8222-222222222222", "übung", "acme", b"", "", False, True, False, 1.5),
        ),
    ),
    "100:105:101,103",
    ("resource:bot:my-bot", "bindings:7", "account:acme"),
)
NOTHING = SharedEntry(Bindings(Resource("bot", "9")), "10:10:", ("resource:bot:9", "kind:bot"))


def key(lookup: str = LOOKUP, epoch: str = EPOCH, schema: int = 1) -> str:
    name = hashlib.sha256(epoch.encode() + b"\0" + lookup.encode()).hexdigest()
    return f"smarter_auth:{schema}:{name}"


def signed(payload: bytes, lookup: str = LOOKUP, secret: bytes = SECRET) -> bytes:
    """The payload as it lies under the look-up's key."""
    return hmac.digest(secret, key(lookup).encode() + b"\0" + payload, "sha256") + payload


def row(**changes: Any) -> list[Any]:
    """The fields of ``ENTRY`` in their order."""
    first, second = ENTRY.bindings.bindings
    fields = {
        "schema": 1,
        "lookup": LOOKUP,
        "snapshot": ENTRY.snapshot,
        "sources": list(ENTRY.sources),
        "kind": "bot",
        "ref": "my_bot",
        "account": "acme",
        "protection": "bound",
        "on_error": "deny",
        "bindings": [
            [first.key_id, "ci", "acme", first.digest.hex(), first.token_key, True, False, True, None],
            [second.key_id, "übung", "acme", "", "", False, True, False, 1.5],
        ],
    }
    assert set(changes) <= set(fields)
    return list((fields | changes).values())


def payload(**changes: Any) -> bytes:
    return json.dumps(row(**changes), separators=(",", ":")).encode()


def many_bindings(count: int) -> SharedEntry:
    """An entry with as many bindings as that, each of a key of its own."""
    bindings = tuple(
        Binding(f"{number:036}", "", "acme", number.to_bytes(64), "", True, False, True, math.inf)
        for number in range(count)
    )
    return SharedEntry(Bindings(Resource("bot", "my_bot"), "acme", bindings=bindings), "10:10:", ())
