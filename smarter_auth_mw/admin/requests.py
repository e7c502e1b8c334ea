"""The models of requests: they check each request, and the OpenAPI document describes them."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from smarter_auth_mw.admin.values import (
    Cursor,
    Duration,
    KeyId,
    Label,
    Moment,
    Name,
    Overlap,
    ResourceName,
    Text,
    Time,
    TokenKey,
    checked_text,
)

MAX_LIMIT = 200
MAX_IDS = 200
MAX_LEAKS = 1_000


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class NoQuery(_Request):
    """The query of an operation without parameters."""


class Paged(_Request):
    """A page of a list."""

    limit: int = Field(default=50, ge=1, le=MAX_LIMIT, description="the maximum number of items per page")
    cursor: Cursor | None = Field(default=None, description="`next` of the previous page")


class KeyQuery(Paged):
    """The filters of the list of keys, all of which apply. Revoked keys need state, key_id or token_key."""

    key_id: KeyId | None = None
    token_key: TokenKey | None = Field(default=None, description="the public head of a token")
    resource: ResourceName | None = Field(default=None, description="KIND:REF: keys that are bound to it")
    account: Name | None = None
    state: Literal["active", "inactive", "expired", "revoked", "any"] | None = None
    find: Text | None = Field(
        default=None, description="the beginning of the name; A to Z match a to z, and other letters only themselves"
    )
    label: list[Label] = Field(default=[], max_length=16, description="name=value; may be repeated, each name once")
    expiring_within: Duration | None = None
    never_expires: bool = False
    unused_for: Duration | None = None
    never_used: bool = False
    rotating: bool = Field(default=False, description="a token that was replaced is still valid")
    sort: Literal["name", "created_at", "-created_at"] | None = None

    @field_validator("label")
    @classmethod
    def _check_label_names(cls, labels: list[str]) -> list[str]:
        names = [label.partition("=")[0] for label in labels]
        if len(set(names)) < len(names):
            raise ValueError("each label name may be given once")
        return labels


class ResourceQuery(Paged):
    """The filters of the list of resources."""

    kind: Name | None = None
    account: Name | None = None
    find: Text | None = Field(default=None, description="the beginning of the reference")
    state: Literal["open", "protected"] | None = None
    key_id: KeyId | None = Field(default=None, description="resources that this key is bound to")


class UsageQuery(Paged):
    """Whose usage: of a resource, of a key, or of both together."""

    resource: ResourceName | None = None
    key: KeyId | None = None
    since: Moment = Field(
        default=timedelta(days=1), description="a time, or how long ago", json_schema_extra={"default": "1d"}
    )
    until: Moment | None = None


class AuditQuery(Paged):
    """The filters of the audit."""

    resource: ResourceName | None = None
    key: KeyId | None = None
    account: Name | None = None
    actor: Text | None = None
    action: Text | None = Field(default=None, description="may end in *, for example key.*")
    reason: Text | None = None
    since: Moment | None = None
    until: Moment | None = None
    acts: bool = Field(default=False, description="only changes, without requests")
    order: Literal["newest", "oldest"] = "newest"
    format: Literal["json", "jsonl"] = Field(
        default="json", description="jsonl: one event per line; the next page is in the Link header"
    )


class OpeningQuery(_Request):
    """The permission to open a resource."""

    allow_anonymous: bool = Field(
        default=False, description="allow the change to open the resource to anyone; needs the role admin"
    )


class NewKey(_Request):
    """A key to create."""

    name: Name
    account: Name | None = Field(default=None, description="the operator's own, or DEFAULT_ACCOUNT, unless given")
    description: Annotated[str, Field(max_length=10_000), AfterValidator(checked_text)] = ""
    expires_at: Time | None = None
    expires_in: Duration | None = Field(default=None, description="instead of expires_at")
    labels: dict[str, str] = Field(default={}, max_length=16)
    bind: list[ResourceName] = Field(default=[], max_length=100, description="resources to bind the key to: KIND:REF")
    format: Literal["knox", "checked"] = "checked"


class KeyChange(_Request):
    """A merge patch (RFC 7396): members that are left out stay; null removes an expiry or a label."""

    name: Name | None = None
    description: Annotated[str, Field(max_length=10_000), AfterValidator(checked_text)] | None = None
    expires_at: Time | None = None
    labels: dict[str, str | None] = Field(default={}, max_length=64)


class Rotation(_Request):
    """A new token for a key."""

    token_key: TokenKey = Field(description="the public head of the token to replace")
    overlap: Overlap = Field(
        default=timedelta(hours=24),
        description="how long the previous token stays valid",
        json_schema_extra={"default": "24h"},
    )
    force: bool = Field(default=False, description="rotate even while an earlier rotation overlaps")


class KeyIds(_Request):
    """Keys to revoke in one transaction."""

    key_ids: list[KeyId] = Field(min_length=1, max_length=MAX_IDS)
    dry_run: bool = False


class Leaks(_Request):
    """Leaked tokens, or their digests (SHA-512, hexadecimal)."""

    tokens: list[Annotated[str, Field(min_length=1, max_length=512)]] = Field(default=[], max_length=MAX_LEAKS)
    digests: list[Annotated[str, Field(pattern="^[0-9a-f]{128}$")]] = Field(default=[], max_length=MAX_LEAKS)


class NewResource(_Request):
    """A resource to register."""

    kind: Name
    ref: Name
    name: Name | None = None
    account: Name | None = None
    domain: Name | None = None
    protect: bool = False
    on_error: Literal["deny", "stale"] = "stale"
    no_route: bool = Field(default=False, description="accept a resource that no route reaches")


class ResourceChange(_Request):
    """A merge patch: members that are left out stay; null removes a name or a domain."""

    name: Name | None = None
    account: Name | None = None
    domain: Name | None = None
    on_error: Literal["deny", "stale"] | None = None


class Confirmation(_Request):
    """The resource again, so that none is opened by mistake."""

    confirm: ResourceName


class Question(_Request):
    """A request to explain; nothing of it is stored."""

    url: Annotated[str, Field(min_length=1, max_length=8192)]
    method: Annotated[str, Field(pattern="^[A-Z]{1,20}$")] = "GET"
    headers: dict[str, str] = Field(default={}, max_length=64)
    token: Annotated[str, Field(max_length=512)] | None = Field(
        default=None, description="sent as Authorization: Token"
    )
    key_id: KeyId | None = Field(
        default=None, description="instead of token: decide as if the newest token of this key were sent"
    )
