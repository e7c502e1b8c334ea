"""The JSON documents of records, which the command line, the management API and its pages show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import wraps
from typing import Any, ParamSpec

from smarter_auth_mw.domain import Key, KeyToken, RegisteredResource
from smarter_auth_mw.management.operators import RegisteredOperator
from smarter_auth_mw.management.usage import Total
from smarter_auth_mw.observers.usage import ANONYMOUS, GRANTED
from smarter_auth_mw.postgres.reports import AuditEvent
from smarter_auth_mw.tokens import without_tokens

Document = dict[str, Any]
Given = ParamSpec("Given")

_NAMED = ("name", "description", "key_name", "actor", "reason", "labels", "before", "after")
"""Members that hold what people wrote."""


def _hiding_tokens(describe: Callable[Given, Document]) -> Callable[Given, Document]:
    """Hide tokens that were written into names and descriptions; references and ids stay exact."""

    @wraps(describe)
    def described(*args: Given.args, **kwargs: Given.kwargs) -> Document:
        document = describe(*args, **kwargs)
        return document | {name: _without_tokens(document[name]) for name in _NAMED if name in document}

    return described


def _without_tokens(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: one if name in _EXACT else _without_tokens(one) for name, one in value.items()}
    return without_tokens(value) if isinstance(value, str) else value


_EXACT = ("kind", "ref", "account", "domain")
"""Members of what an event changed that are references."""


@_hiding_tokens
def resource_document(registered: RegisteredResource, most: int | None = None) -> Document:
    """Describe a resource and the keys that are bound to it.

    With ``most``, its inner list has at most that many entries, and ``more`` says whether there are others.
    """
    return {
        "kind": registered.resource.kind,
        "ref": registered.resource.ref,
        "name": registered.name,
        "account": registered.account,
        "domain": registered.domain,
        "on_error": registered.on_error,
        "protected": registered.is_protected,
        "bindings": [_binding(key) for key in registered.keys[:most]],
        **_more(most, registered.keys),
    }


@_hiding_tokens
def key_document(key: Key, most: int | None = None) -> Document:
    """Describe a key without its secrets; ``token_key`` is the public head of its newest token.

    ``token_valid``: the key has a token that is valid now, as far as the token alone decides. ``most`` as above.
    """
    now = datetime.now(UTC)
    return {
        "key_id": str(key.key_id),
        "name": key.name,
        "account": key.account,
        "description": key.description,
        "token_key": key.token_keys[-1] if key.token_keys else None,
        "state": _state(key),
        "expires_at": time_text(key.expires_at),
        "last_used_at": time_text(key.last_used_at),
        "revoked_at": time_text(key.revoked_at),
        "labels": dict(key.labels),
        "token_valid": any(token.is_valid(now) for token in key.tokens),
        "tokens": [_token(token) for token in key.tokens[-most if most else None :]],
        "bindings": [str(resource) for resource in key.bindings[:most]],
        **_more(most, key.bindings, key.tokens),
    }


@_hiding_tokens
def operator_document(operator: RegisteredOperator) -> Document:
    """Describe an operator without secrets; ``account`` None stands for all accounts."""
    return {
        "operator_id": str(operator.operator_id),
        "name": operator.name,
        "role": operator.role.value,
        "account": operator.account,
        "state": operator.state(datetime.now(UTC)),
        "created_at": time_text(operator.created_at),
        "expires_at": time_text(operator.expires_at),
        "revoked_at": time_text(operator.revoked_at),
        "tokens": [
            {
                "token_key": token.token_key,
                "created_at": time_text(token.created_at),
                "valid_until": time_text(token.valid_until),
                "last_used_at": time_text(token.last_used_at),
            }
            for token in operator.tokens
        ],
    }


@_hiding_tokens
def audit_document(event: AuditEvent) -> Document:
    """Describe one event of the audit."""
    return {
        "id": event.id,
        "at": time_text(event.at),
        "actor": event.actor,
        "action": event.action,
        "resource": None if event.kind is None else f"{event.kind}:{event.ref}",
        "account": event.account,
        "key_id": None if event.key_id is None else str(event.key_id),
        "reason": event.reason,
        "before": event.before,
        "after": event.after,
        "database_role": event.database_role,
    }


@_hiding_tokens
def usage_document(total: Total) -> Document:
    """Describe all requests for one resource with one key, or without one."""
    denied = {outcome: count for outcome, count in total.outcomes.items() if outcome not in (GRANTED, ANONYMOUS)}
    return {
        "resource": total.resource,
        "key_id": total.key_id,
        "key_name": total.key_name,
        "granted": total.outcomes[GRANTED],
        "anonymous": total.outcomes[ANONYMOUS],
        "denied": sum(denied.values()),
        "reasons": denied,
        "tokens": [{"token_key": token_key, "granted": count} for token_key, count in total.tokens.items()],
        "from": time_text(total.begins),
        "step_s": int(total.width.total_seconds()),
        "points": total.points,
    }


def time_text(time: datetime | None) -> str | None:
    """Write a time as RFC 3339 in UTC."""
    return None if time is None else time.astimezone(UTC).isoformat()


def _more(most: int | None, *inner: Sequence[object]) -> Document:
    return {} if most is None else {"more": any(len(entries) > most for entries in inner)}


def _token(token: KeyToken) -> Document:
    return {
        "token_key": token.token_key,
        "created_at": time_text(token.created_at),
        "valid_until": time_text(token.valid_until),
        "last_used_at": time_text(token.last_used_at),
    }


@_hiding_tokens
def _binding(key: Key) -> Document:
    return {
        "key_id": str(key.key_id),
        "name": key.name,
        "state": _state(key),
        "expires_at": time_text(key.expires_at),
    }


def _state(key: Key) -> str:
    return key.state(datetime.now(UTC)).value
