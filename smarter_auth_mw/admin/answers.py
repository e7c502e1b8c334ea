"""The models of responses: the OpenAPI document describes them, and tests check every response against them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from smarter_auth_mw.admin.values import UUID_SCHEMA


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


AnsweredTime = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
AnsweredId = Annotated[str, WithJsonSchema(UUID_SCHEMA)]


class Token(_Answer):
    """A token of a key, without its secret."""

    token_key: str
    created_at: AnsweredTime
    valid_until: AnsweredTime | None
    last_used_at: AnsweredTime | None


class Key(_Answer):
    """A key without its secrets, with at most ten tokens and bindings, and whether there are more."""

    key_id: AnsweredId
    name: str
    account: str
    description: str
    token_key: str | None = Field(description="the public head of the newest token")
    state: Literal["active", "inactive", "expired", "revoked"]
    expires_at: AnsweredTime | None
    last_used_at: AnsweredTime | None
    revoked_at: AnsweredTime | None
    labels: dict[str, str]
    token_valid: bool
    tokens: list[Token]
    bindings: list[str]
    more: bool


class MintedKey(Key):
    """A new key with its token, which is shown only now."""

    token: str
    created: bool = Field(description="true if this call registered the resource")


class RevokedKey(Key):
    """A revoked key, and how long at most until every worker refuses it, as this process is configured."""

    within_s: float


class RotatedKey(_Answer):
    """A new token, which is shown only now."""

    key_id: AnsweredId
    token: str
    token_key: str
    previous_valid_until: AnsweredTime


class RevokedKeys(_Answer):
    """The keys that were or would be revoked; keys of other accounts are listed as unknown."""

    count: int
    key_ids: list[AnsweredId]
    unknown: list[AnsweredId]
    dry_run: bool
    within_s: float


class EndedLeaks(_Answer):
    """Counts of the leaked tokens by owner. Keys of an attached platform must be revoked on the platform."""

    tokens: int
    keys_revoked: int
    operator_tokens_ended: int
    platform: int
    unknown: int
    within_s: float


class Bound(_Answer):
    """A key that is bound to a resource."""

    key_id: AnsweredId
    name: str
    state: Literal["active", "inactive", "expired", "revoked"]
    expires_at: AnsweredTime | None


class ResourceAnswer(_Answer):
    """A resource with at most ten of its keys, and whether there are more."""

    kind: str
    ref: str
    name: str | None
    account: str
    domain: str | None
    on_error: Literal["deny", "stale"]
    protected: bool
    bindings: list[Bound]
    more: bool


class TokenUse(_Answer):
    """Requests that were granted with one token."""

    token_key: str
    granted: int


class Usage(_Answer):
    """Requests for one resource with one key, or without one, in equal steps of time."""

    resource: str
    key_id: AnsweredId | None
    key_name: str | None
    granted: int
    anonymous: int
    denied: int
    reasons: dict[str, int]
    tokens: list[TokenUse]
    from_: AnsweredTime = Field(alias="from")
    step_s: int
    points: list[int]


class Event(_Answer):
    """A change or a request."""

    id: int = Field(description="larger for events written later; not in the order of commits")
    at: AnsweredTime = Field(description="when it was done or asked, in UTC")
    actor: str = Field(description="who did it; for requests, the peer's network")
    action: str = Field(description="for example key.revoke or request.deny")
    resource: str | None = Field(description="KIND:REF")
    account: str | None = Field(description="the account of the key or resource")
    key_id: AnsweredId | None
    reason: str = Field(description="the reason for a refusal or a change; may be empty")
    before: dict[str, Any] | None = Field(description="the record before the act")
    after: dict[str, Any] | None = Field(description="the record after the act, or facts of the request")
    database_role: str | None = Field(
        description="who was logged in to the database; null for operators of one account and in older events"
    )


class Explanation(_Answer):
    """The middleware's decision on a request, with its reason."""

    resource: str | None
    decision: Literal["pass", "anonymous", "grant", "deny"]
    reason: str
    status: int
    routes_from: str
    route: str | None
    reading: str | None
    alias: str | None
    detail: str | None


class Me(_Answer):
    """The operator whose token this is."""

    operator_id: AnsweredId
    name: str
    role: Literal["viewer", "manager", "admin"]
    account: str | None = Field(description="the only account that the operator sees; null: all accounts")
    expires_at: AnsweredTime | None
    token_key: str


class Health(_Answer):
    """The state of the database, and its schema."""

    status: Literal["ready"]
    schema_: str = Field(alias="schema")


class Keys(_Answer):
    """A page of keys."""

    items: list[Key]
    next: str | None


class Resources(_Answer):
    """A page of resources."""

    items: list[ResourceAnswer]
    next: str | None


class Usages(_Answer):
    """A page of usage."""

    items: list[Usage]
    next: str | None


class Events(_Answer):
    """A page of the audit."""

    items: list[Event]
    next: str | None


class Nothing(_Answer):
    """An empty object: the operation succeeded."""


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str = Field(description="stable, for programs")
    detail: str
    hint: str | None = None
