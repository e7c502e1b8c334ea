"""The decision table, a row a test: what was never bound is open, everything in doubt is closed."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from typing import Any

import pytest

from smarter_auth_mw import decision
from smarter_auth_mw.decision import (
    Anonymous,
    Decision,
    Denial,
    Grant,
    Reason,
    Require,
    decide,
    is_protected,
    opens,
)
from smarter_auth_mw.domain import FEW, Binding, Bindings, Protection, Resource
from smarter_auth_mw.tokens import Token, mint

BOT = Resource("bot", "42")
NOW_S = 1_800_000_000.0
TOKEN, OTHER, CHECKED = mint(), mint(), mint("checked")
MISTYPED = Token(b"sm_" + b"x" * 49)


def binding(token: Token = TOKEN, **changes: Any) -> Binding:
    bound = Binding("key-1", "laptop", "default", token.digest, token.token_key)
    return bound._replace(**changes)


def bindings(*bound: Binding, protection: Protection = Protection.BOUND) -> Bindings:
    return Bindings(BOT, "default", protection, "stale", bound)


UNKNOWN = Bindings(BOT)
OPEN = bindings(protection=Protection.OPEN)
GOOD = bindings(binding())

TABLE: list[tuple[str, Bindings, Token | None, str]] = [
    ("an unknown resource is open", UNKNOWN, None, "anonymous"),
    ("an unknown resource ignores a token", UNKNOWN, OTHER, "anonymous"),
    ("an open resource is open", OPEN, None, "anonymous"),
    ("an open resource ignores a bad token", OPEN, OTHER, "anonymous"),
    ("a protected resource asks for credentials", GOOD, None, "missing_credentials"),
    ("a bound, active, unexpired token is granted", GOOD, TOKEN, "grant"),
    ("an unknown token is denied", GOOD, OTHER, "unknown_token"),
    ("an inactive key is denied", bindings(binding(is_active=False)), TOKEN, "inactive"),
    ("a revoked key is denied", bindings(binding(is_revoked=True)), TOKEN, "revoked"),
    ("an expired key is denied", bindings(binding(expires_at_s=NOW_S - 0.001)), TOKEN, "expired"),
    ("expiry exactly now is still valid", bindings(binding(expires_at_s=NOW_S)), TOKEN, "grant"),
    ("a key that never expires is granted", bindings(binding(expires_at_s=math.inf)), TOKEN, "grant"),
    ("an inactive owner is denied", bindings(binding(owner_is_active=False)), TOKEN, "inactive_owner"),
    ("a foreign account is denied", bindings(binding(account="acme")), TOKEN, "foreign_account"),
    ("all inactive is still protected", bindings(binding(is_active=False)), None, "missing_credentials"),
    ("all revoked is still protected", bindings(binding(is_revoked=True)), None, "missing_credentials"),
    ("all expired is still protected", bindings(binding(expires_at_s=0)), None, "missing_credentials"),
    ("a latch without bindings is protected", bindings(), None, "missing_credentials"),
    ("a latch without bindings grants nobody", bindings(), TOKEN, "unknown_token"),
    ("a declared one without bindings is protected", bindings(protection=Protection.DECLARED), TOKEN, "unknown_token"),
    ("a binding protects where the latch is lost", bindings(binding(), protection=Protection.OPEN), None,
     "missing_credentials"),
    ("duplicate bindings change nothing", bindings(binding(), binding()), TOKEN, "grant"),
    ("one of two keys inactive: the other opens", bindings(binding(OTHER, is_active=False), binding()), TOKEN, "grant"),
    ("one of two keys inactive: it does not", bindings(binding(OTHER, is_active=False), binding()), OTHER, "inactive"),
    ("the same token twice, once inactive: granted", bindings(binding(is_active=False), binding()), TOKEN, "grant"),
    ("an empty digest protects", bindings(binding(digest=b"")), None, "missing_credentials"),
    ("an empty digest never matches", bindings(binding(digest=b"")), Token(b""), "unknown_token"),
    ("the digest is no token", GOOD, Token(TOKEN.digest.hex().encode()), "unknown_token"),
    ("the token_key is no token", GOOD, Token(TOKEN.token_key.encode()), "unknown_token"),
    ("a mistyped token is denied", GOOD, MISTYPED, "unknown_token"),
    ("a mistyped token is ignored where it is open", OPEN, MISTYPED, "anonymous"),
    ("a checked token is granted as any other", bindings(binding(CHECKED)), CHECKED, "grant"),
    ("the same head is not the same token", GOOD, Token(TOKEN.token_key.encode() + b"0" * 49), "unknown_token"),
]  # fmt: skip


def name_of(decision: Decision) -> str:
    if isinstance(decision, Denial):
        return decision.reason.value
    return type(decision).__name__.lower()


@pytest.mark.parametrize(("bound", "token", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_decision_table(bound: Bindings, token: Token | None, expected: str) -> None:
    assert name_of(decide(bound, token, NOW_S)) == expected


def test_a_declared_route_is_protected_without_any_binding() -> None:
    assert decide(UNKNOWN, None, NOW_S, always=True) == Denial(Reason.MISSING_CREDENTIALS, BOT)
    assert decide(UNKNOWN, TOKEN, NOW_S, always=True) == Denial(Reason.UNKNOWN_TOKEN, BOT)


def test_a_grant_tells_who_it_is() -> None:
    granted = decide(GOOD, TOKEN, NOW_S)
    assert isinstance(granted, Grant)
    assert granted.resource == BOT
    assert granted.key_id == granted.principal.identity == "key-1"
    assert granted.principal.is_authenticated
    assert granted.principal.display_name == "laptop"
    assert granted.account == granted.principal.account == "default"
    assert granted.binding is GOOD.bindings[0]


def test_a_grant_shows_and_compares_who_it_is_and_keeps_its_own_tally() -> None:
    granted = decide(GOOD, TOKEN, NOW_S)
    assert isinstance(granted, Grant)
    assert "Binding" not in repr(granted)  # It has the token's digest.
    assert "Tally" not in repr(granted)
    assert granted == Grant(BOT, granted.principal)
    granted.tally.once_more()
    assert replace(granted, outer_user="jane").tally.total() == 0


def test_a_denial_names_account_and_known_token_for_the_audit_and_compares_neither() -> None:
    revoked = bindings(binding(is_revoked=True))
    for bound, token, expected, token_key in (
        (GOOD, None, Denial(Reason.MISSING_CREDENTIALS, BOT), ""),
        (GOOD, OTHER, Denial(Reason.UNKNOWN_TOKEN, BOT), ""),
        (revoked, TOKEN, Denial(Reason.REVOKED, BOT, "key-1"), TOKEN.token_key),
    ):
        denial = decide(bound, token, NOW_S)
        assert isinstance(denial, Denial)
        assert (denial, denial.account, denial.token_key) == (expected, "default", token_key)


def test_an_unknown_token_is_compared_with_as_many_bytes_as_a_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []
    monkeypatch.setattr(decision, "same_digest", lambda one, other: compared.append((len(one), len(other))))
    for bound in (GOOD, bindings()):
        decide(bound, OTHER, NOW_S)
    assert compared == [(64, 64)] * 2


def test_a_decision_that_never_holds_is_made_again() -> None:
    assert decision.never() is False


def test_operators_are_told_that_a_token_is_mistyped() -> None:
    denial = decide(GOOD, MISTYPED, NOW_S)
    assert isinstance(denial, Denial)
    assert "checksum" in denial.detail
    assert denial.reason is Reason.UNKNOWN_TOKEN


def test_an_anonymous_decision_has_nobody() -> None:
    passed = decide(OPEN, TOKEN, NOW_S)
    assert isinstance(passed, Anonymous)
    assert (passed.resource, passed.principal, passed.key_id) == (BOT, None, None)
    assert not is_protected(OPEN)


@pytest.mark.parametrize(
    ("bound", "require", "always", "expected"),
    [
        (bindings(binding(is_active=False)), "active", False, False),
        (bindings(binding(is_active=False)), "bound", False, True),
        (bindings(binding(is_active=False), binding(OTHER)), "active", False, True),
        (bindings(binding(is_active=False, is_revoked=True)), "active", False, True),
        (bindings(binding(is_revoked=True)), "active", False, True),
        (bindings(binding(expires_at_s=0)), "active", False, True),
        (bindings(), "active", False, True),
        (bindings(binding(is_active=False), protection=Protection.DECLARED), "active", False, True),
        (bindings(binding(is_active=False)), "active", True, True),
        (UNKNOWN, "active", False, False),
        (UNKNOWN, "bound", False, False),
    ],
)
def test_only_deactivating_the_last_key_opens_and_only_where_that_is_asked_for(
    bound: Bindings, require: Require, always: bool, expected: bool
) -> None:
    assert is_protected(bound, always=always, require=require) is expected


def test_what_active_keys_require_is_what_is_decided() -> None:
    bound = replace(bindings(binding(is_active=False)), account="platform")
    assert decide(bound, None, NOW_S, require="active") == Anonymous(bound.resource)
    assert decide(bound, None, NOW_S, require="active").account == "platform"
    assert isinstance(decide(bound, None, NOW_S), Denial)


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        (binding(), True),
        (binding(expires_at_s=NOW_S), True),
        (binding(expires_at_s=NOW_S - 1), False),
        (binding(is_active=False), False),
        (binding(is_revoked=True), False),
        (binding(account="acme"), False),
        (binding(digest=b""), False),
    ],
)
def test_a_binding_opens_where_its_token_would_be_granted(held: Binding, expected: bool) -> None:
    assert opens(held, bindings(held), NOW_S) is expected


def test_every_reason_has_its_status_and_what_is_wrong_with_a_token_does_not_show_in_it() -> None:
    about_tokens = "missing_credentials unknown_token inactive revoked expired inactive_owner foreign_account"
    assert {str(reason): reason.status for reason in Reason} == {
        **dict.fromkeys(about_tokens.split(), 401),
        "malformed_credentials": 400,
        "not_canonical": 400,
        "ambiguous": 400,
        "not_found": 404,
        "throttled": 429,
        "unavailable": 503,
    }


def test_a_decision_leaves_no_trace_in_the_facts_that_it_is_made_of() -> None:
    for token in (TOKEN, OTHER, None):
        facts = bindings(binding())
        before = pickle.dumps(facts)
        decide(facts, token, NOW_S)
        assert pickle.dumps(facts) == before


def test_one_of_two_bindings_of_a_token_may_expire_before_the_other() -> None:
    bound = bindings(binding(key_id="key-1", expires_at_s=NOW_S), binding(key_id="key-2"))
    assert [decide(bound, TOKEN, now_s).key_id for now_s in (NOW_S, NOW_S + 1, NOW_S + 2)] == [
        "key-1",
        "key-2",
        "key-2",
    ]


def test_a_principal_is_shared_and_so_nobodys_notepad() -> None:
    granted = decide(GOOD, TOKEN, NOW_S)
    assert isinstance(granted, Grant)
    with pytest.raises(AttributeError, match=r"request\.state"):
        granted.principal.tenant = "acme"


@pytest.mark.parametrize("others", [0, 1, FEW - 1, FEW, 100])
def test_a_token_is_found_among_few_and_among_many(others: int) -> None:
    filler = [binding(Token(str(number).encode()), key_id=f"other-{number}") for number in range(others)]
    bound = bindings(*filler, binding(digest=b""), binding(key_id="late", expires_at_s=NOW_S - 1), binding())
    assert decide(bound, TOKEN, NOW_S).key_id == "key-1"
    assert name_of(decide(bound, OTHER, NOW_S)) == "unknown_token"
    assert len(bound.like(TOKEN.digest)) in (len(bound.bindings), 2)


@pytest.mark.parametrize(("now_s", "is_valid"), [(NOW_S - 1, True), (NOW_S, True), (NOW_S + 0.001, False)])
def test_grant_is_valid_until_its_binding_expires(now_s: float, is_valid: bool) -> None:
    granted = decide(bindings(binding(expires_at_s=NOW_S)), TOKEN, NOW_S)
    assert isinstance(granted, Grant)
    assert granted.is_valid_at(now_s) is is_valid
    assert replace(granted, binding=None).is_valid_at(now_s) is False
