"""The decision: one pure function of bindings, token and time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from smarter_auth_mw.domain import Binding, Bindings, Principal, Protection, Resource
from smarter_auth_mw.tally import Tally
from smarter_auth_mw.tokens import Token, same_digest

Require = Literal["bound", "active"]


class Reason(StrEnum):
    """Why a request is denied: for the audit and for ``check``, never for the client."""

    MISSING_CREDENTIALS = "missing_credentials"
    UNKNOWN_TOKEN = "unknown_token"
    INACTIVE = "inactive"
    REVOKED = "revoked"
    EXPIRED = "expired"
    INACTIVE_OWNER = "inactive_owner"
    FOREIGN_ACCOUNT = "foreign_account"
    MALFORMED_CREDENTIALS = "malformed_credentials"
    NOT_CANONICAL = "not_canonical"
    AMBIGUOUS = "ambiguous"
    NOT_FOUND = "not_found"
    THROTTLED = "throttled"
    UNAVAILABLE = "unavailable"

    @property
    def status(self) -> int:
        """The HTTP status of the rejection."""
        return STATUS.get(self, 401)


STATUS = {
    Reason.MALFORMED_CREDENTIALS: 400,
    Reason.NOT_CANONICAL: 400,
    Reason.AMBIGUOUS: 400,
    Reason.NOT_FOUND: 404,
    Reason.THROTTLED: 429,
    Reason.UNAVAILABLE: 503,
}


@dataclass(frozen=True, slots=True)
class Grant:
    """The token opens the resource; ``outer_user`` is the ``scope["user"]`` that an outer middleware had set.

    ``binding`` is the binding that grants it. One grant object may serve any number of requests; ``tally`` counts them
    while an observer keeps it.
    """

    resource: Resource
    principal: Principal
    outer_user: object = None
    binding: Binding | None = field(default=None, compare=False, repr=False)
    tally: Tally = field(init=False, default_factory=Tally, compare=False, repr=False)

    def is_valid_at(self, now_s: float) -> bool:
        """Return whether the binding that grants it has not expired; exactly now is still valid."""
        return self.binding is not None and now_s <= self.binding.expires_at_s

    @property
    def key_id(self) -> str:
        return self.principal.key_id

    @property
    def account(self) -> str:
        return self.principal.account


@dataclass(frozen=True, slots=True)
class Anonymous:
    """The resource is open: the request passes with any credentials. ``account`` is None if it is not registered."""

    resource: Resource
    outer_user: object = None
    principal: None = None
    key_id: None = None
    account: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Denial:
    """The request is refused. ``detail`` explains to operators and never reaches the client.

    ``account`` is the resource's, None if it is not registered; ``token_key`` names the known token that was refused.
    """

    reason: Reason
    resource: Resource | None = None
    key_id: str | None = None
    detail: str = ""
    account: str | None = field(default=None, compare=False)
    token_key: str = field(default="", compare=False)


Decision = Grant | Anonymous | Denial
Holds = Callable[[], bool]
"""Says whether a decision still holds; if not, the request has to be decided again."""

MISTYPED = "its checksum is wrong: mistyped, or made up"


def never() -> bool:
    """Return False: the decision has to be made again each time."""
    return False


def is_protected(bindings: Bindings, *, always: bool = False, require: Require = "bound") -> bool:
    """Return whether the resource requires a token.

    With ``require="active"``, a resource that was closed by a binding opens again when all of its keys are
    deactivated, as on the platform; a revoked or expired key among them, or no binding at all, keeps it closed.
    """
    if always or bindings.protection is Protection.DECLARED:
        return True
    if require == "active" and bindings.bindings and all(map(_was_only_deactivated, bindings.bindings)):
        return False
    return bindings.protection is not Protection.OPEN or bool(bindings.bindings)


_NOBODYS = (Binding("", "", "", bytes(64), "", is_revoked=True),)
"""The binding that an unknown token is compared with, so that refusing it takes as long as a known one."""


def decide(
    bindings: Bindings,
    token: Token | None,
    now_s: float,
    *,
    always: bool = False,
    require: Require = "bound",
) -> Decision:
    """Decide a request for ``bindings.resource`` at ``now_s`` (Unix time), without I/O or state."""
    if not is_protected(bindings, always=always, require=require):
        return Anonymous(bindings.resource, account=bindings.account)
    if token is None:
        return Denial(Reason.MISSING_CREDENTIALS, bindings.resource, account=bindings.account)
    denial = None
    digest = token.digest
    for binding in bindings.like(digest) or _NOBODYS:
        is_same, reason = same_digest(binding.digest, digest), _objection(binding, bindings, now_s)
        if not is_same:
            continue
        if reason is None:
            principal = Principal(binding.key_id, binding.key_name, binding.account)
            return Grant(bindings.resource, principal, binding=binding)
        denial = Denial(reason, bindings.resource, binding.key_id, "", bindings.account, binding.token_key)
    detail = MISTYPED if token.is_mistyped else ""
    return denial or Denial(Reason.UNKNOWN_TOKEN, bindings.resource, detail=detail, account=bindings.account)


def opens(binding: Binding, bindings: Bindings, now_s: float) -> bool:
    """Return whether the token of this binding opens the resource at ``now_s``."""
    return bool(binding.digest) and _objection(binding, bindings, now_s) is None


def _objection(binding: Binding, bindings: Bindings, now_s: float) -> Reason | None:
    if binding.is_revoked:
        return Reason.REVOKED
    if binding.expires_at_s < now_s:  # exactly now is still valid: knox compares with a strict <
        return Reason.EXPIRED
    if not binding.is_active:
        return Reason.INACTIVE
    if not binding.owner_is_active:
        return Reason.INACTIVE_OWNER
    if binding.account != bindings.account:
        return Reason.FOREIGN_ACCOUNT
    return None


def _was_only_deactivated(binding: Binding) -> bool:
    return not binding.is_active and not binding.is_revoked
