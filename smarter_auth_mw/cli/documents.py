"""The JSON shapes of the records, which are also what people see."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from smarter_auth_mw.domain import Key, KeyToken, RegisteredResource


def resource_document(registered: RegisteredResource) -> dict[str, Any]:
    """A resource with the keys that are bound to it."""
    return {
        "kind": registered.resource.kind,
        "ref": registered.resource.ref,
        "name": registered.name,
        "account": registered.account,
        "domain": registered.domain,
        "on_error": registered.on_error,
        "protected": registered.is_protected,
        "bindings": [_binding(key) for key in registered.keys],
    }


def key_document(key: Key) -> dict[str, Any]:
    """A key without its secrets; ``token_key`` is the public head of its newest token."""
    return {
        "key_id": str(key.key_id),
        "name": key.name,
        "account": key.account,
        "description": key.description,
        "token_key": key.token_keys[-1] if key.token_keys else None,
        "state": _state(key),
        "expires_at": _time(key.expires_at),
        "last_used_at": _time(key.last_used_at),
        "tokens": [_token(token) for token in key.tokens],
        "bindings": [str(resource) for resource in key.bindings],
    }


def _token(token: KeyToken) -> dict[str, Any]:
    return {
        "token_key": token.token_key,
        "created_at": _time(token.created_at),
        "valid_until": _time(token.valid_until),
        "last_used_at": _time(token.last_used_at),
    }


def _binding(key: Key) -> dict[str, Any]:
    return {"key_id": str(key.key_id), "name": key.name, "state": _state(key), "expires_at": _time(key.expires_at)}


def _state(key: Key) -> str:
    return key.state(datetime.now(UTC)).value


def _time(time: datetime | None) -> str | None:
    return None if time is None else time.astimezone(UTC).isoformat()
