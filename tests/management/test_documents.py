"""The JSON shapes: a token that somebody put into a name is in none of them, and references stay exact."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

from smarter_auth_mw.domain import Key, Protection, RegisteredResource, Resource
from smarter_auth_mw.management.documents import audit_document, key_document, resource_document, usage_document
from smarter_auth_mw.management.usage import Total
from smarter_auth_mw.postgres.reports import AuditEvent
from smarter_auth_mw.tokens import mint, mint_operator_token

NOW, KEY_ID = datetime(2026, 1, 1, tzinfo=UTC), UUID(int=1)
TOKENS = [mint("checked").reveal(), mint("checked", "live").reveal(), mint().reveal(), mint_operator_token().reveal()]
NAME = f"x{' '.join(TOKENS)}x"
BOT = Resource("bot", "a" * 64)
"""Its reference looks like a token; clients have to find it in an answer as it is."""
KEY = Key(KEY_ID, "acme", NAME, NAME, True, None, None, NOW, NOW, bindings=(BOT,), labels={"team": NAME})


def test_no_document_holds_a_token_that_stands_in_a_name() -> None:
    resource = RegisteredResource(BOT, "acme", NAME, None, Protection.BOUND, "deny", NOW, NOW, (KEY,))
    about = {"name": NAME, "labels": {"team": NAME}, "kind": "bot", "ref": BOT.ref}
    event = AuditEvent(1, NOW, NAME, "key.set", "bot", BOT.ref, "acme", KEY_ID, NAME, about, about, None)
    total = Total(str(BOT), str(KEY_ID), NAME, NOW, timedelta(hours=1), [1], [0])
    documents = [key_document(KEY), resource_document(resource), audit_document(event), usage_document(total)]
    text = json.dumps(documents)
    assert [token for token in TOKENS if token in text] == []
    assert documents[0]["bindings"] == [f"bot:{BOT.ref}"]
    assert (documents[1]["ref"], documents[2]["resource"]) == (BOT.ref, f"bot:{BOT.ref}")
    assert documents[2]["after"]["ref"] == BOT.ref


def test_what_no_token_stands_in_is_shown_as_it_is() -> None:
    names = ["laptop", "x" * 255, "SHA " + "0123456789ABCDEF" * 4, "sm_live_ is a prefix", "f" * 63]
    documents = [key_document(Key(KEY_ID, "a", name, name, True, None, None, NOW, NOW)) for name in names]
    assert [document["name"] for document in documents] == names
