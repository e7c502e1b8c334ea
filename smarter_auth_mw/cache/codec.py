"""Encodes entries of the shared tier as bytes and back: typed, versioned, and signed together with their key."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from types import NoneType
from typing import Any

from smarter_auth_mw.cache.changes import Snapshot
from smarter_auth_mw.domain import Binding, Bindings, OnError, Protection, Resource
from smarter_auth_mw.errors import counted
from smarter_auth_mw.tokens import same_digest

SCHEMA = 1
"""The version of the encoding, a part of each key, so that entries of another version are never found."""
MAX_VALUE_BYTES = 256 * 1024
MIN_SECRET_BYTES = 32

_MAC_BYTES = 32
_DIGEST_LENGTHS = (0, 64)
_ON_ERROR: dict[str, OnError] = {"stale": "stale", "deny": "deny"}
_ENTRY_SHAPES: set[tuple[type, ...]] = {
    (int, str, str, list, str, str, account, str, str, list)
    for account in (str, NoneType)  # None: an unknown resource.
}
_BINDING_SHAPES: set[tuple[type, ...]] = {
    (str, str, str, str, str, bool, bool, bool, expires_at_s)
    for expires_at_s in (float, NoneType)  # None: never, since JSON has no infinity.
}


@dataclass(frozen=True, slots=True)
class SharedEntry:
    """The data of one resource in the shared cache: its bindings, the snapshot they were read in, and their sources."""

    bindings: Bindings
    snapshot: str
    sources: tuple[str, ...]


class Codec:
    """Seals entries with HMAC-SHA256 under one database's secret, for one epoch.

    The signature covers key and payload. The key is derived from schema number, epoch and look-up, so an entry of
    another database, release or resource is not accepted. The payload repeats its look-up in full.
    """

    def __init__(self, secret: bytes, epoch: str) -> None:
        if len(secret) < MIN_SECRET_BYTES:
            raise ValueError(
                f"The secret of the shared tier has {counted(len(secret), 'byte')}; at least {MIN_SECRET_BYTES}."
            )
        self._secret = secret
        self._epoch = epoch

    def key(self, lookup: str) -> str:
        """Return the entry's key: printable ASCII of a fixed length (memcached allows 250 bytes)."""
        name = hashlib.sha256(f"{self._epoch}\0{lookup}".encode("utf-8", "surrogatepass")).hexdigest()
        return f"smarter_auth:{SCHEMA}:{name}"

    def seal(self, lookup: str, entry: SharedEntry) -> bytes:
        """Return the entry as bytes; raises ValueError if it could not be read back."""
        payload = _encode(lookup, entry)
        return self._mac(lookup, payload) + payload

    def unseal(self, lookup: str, sealed: object) -> SharedEntry:
        """Return the entry that was sealed for this look-up; raises ValueError for any other value."""
        if type(sealed) is not bytes or len(sealed) > MAX_VALUE_BYTES:
            raise ValueError("The entry is empty or too large.")
        mac, payload = sealed[:_MAC_BYTES], sealed[_MAC_BYTES:]
        if not same_digest(mac, self._mac(lookup, payload)):
            raise ValueError("The entry is not signed with this database's secret, or is for another key.")
        return _decode(lookup, payload)

    def _mac(self, lookup: str, payload: bytes) -> bytes:
        return hmac.digest(self._secret, self.key(lookup).encode() + b"\0" + payload, "sha256")


def _encode(lookup: str, entry: SharedEntry) -> bytes:
    facts = entry.bindings
    _check_texts(entry.sources)
    row = [
        SCHEMA,
        lookup,
        entry.snapshot,
        list(entry.sources),
        *facts.resource,
        facts.account,
        facts.protection.value,
        facts.on_error,
        [_encode_binding(binding) for binding in facts.bindings],
    ]
    _check_shape(row, _ENTRY_SHAPES)
    return json.dumps(row, separators=(",", ":"), allow_nan=False).encode()


def _encode_binding(binding: Binding) -> list[Any]:
    row = [
        binding.key_id,
        binding.key_name,
        binding.account,
        binding.digest.hex(),
        binding.token_key,
        binding.is_active,
        binding.is_revoked,
        binding.owner_is_active,
        None if binding.expires_at_s == math.inf else binding.expires_at_s,
    ]
    _check_shape(row, _BINDING_SHAPES)
    return row


def _decode(lookup: str, payload: bytes) -> SharedEntry:
    row = _parse(payload)
    _check_shape(row, _ENTRY_SHAPES)
    schema, found, snapshot, sources, kind, ref, account, protection, on_error, bindings = row
    if schema != SCHEMA or found != lookup or on_error not in _ON_ERROR:
        raise ValueError("The entry has another schema, another look-up or an unknown policy.")
    _check_texts(sources)
    Snapshot.parse(snapshot)  # Parsed here so that the later parse of the entry cannot fail.
    facts = Bindings(
        Resource(kind, ref),
        account,
        Protection(protection),
        _ON_ERROR[on_error],
        tuple(map(_decode_binding, bindings)),
    )
    return SharedEntry(facts, snapshot, tuple(sources))


def _parse(payload: bytes) -> Any:
    try:
        return json.loads(payload.decode("ascii"))
    except RecursionError as error:
        raise ValueError("The entry is nested too deeply.") from error


def _decode_binding(row: Any) -> Binding:
    _check_shape(row, _BINDING_SHAPES)
    key_id, key_name, account, digest, token_key, is_active, is_revoked, owner_is_active, expires_at_s = row
    if expires_at_s is None:
        expires_at_s = math.inf
    elif not math.isfinite(expires_at_s):
        raise ValueError("The expiry is not a time.")
    return Binding(
        key_id,
        key_name,
        account,
        _decode_digest(digest),
        token_key,
        is_active,
        is_revoked,
        owner_is_active,
        expires_at_s,
    )


def _decode_digest(text: str) -> bytes:
    digest = bytes.fromhex(text)
    if len(digest) not in _DIGEST_LENGTHS or digest.hex() != text:
        raise ValueError("The digest has another length or spelling.")
    return digest


def _check_texts(texts: Iterable[Any]) -> None:
    if not set(map(type, texts)) <= {str}:
        raise ValueError("The sources are not text.")


def _check_shape(row: Any, shapes: set[tuple[type, ...]]) -> None:
    if type(row) is not list or tuple(map(type, row)) not in shapes:
        raise ValueError("The fields or types are not those of this schema.")
