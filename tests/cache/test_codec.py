"""Sealed entries: what was put in comes out, and nothing else ever does."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, get_args
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smarter_auth_mw.cache import codec as codec_module
from smarter_auth_mw.cache.codec import MAX_VALUE_BYTES, SCHEMA, Codec, SharedEntry
from smarter_auth_mw.domain import Binding, Bindings, OnError, Protection, Resource
from tests.support.shared import ENTRY, EPOCH, LOOKUP, NOTHING, SECRET, key, payload, row, signed

CODEC = Codec(SECRET, EPOCH)

FIELDS_OF_SCHEMA = {
    1: {
        "SharedEntry": "bindings: Bindings, snapshot: str, sources: tuple[str, ...]",
        "Bindings": (
            "resource: Resource, account: str | None, protection: Protection, on_error: OnError, "
            "bindings: tuple[Binding, ...]"
        ),
        "Binding": (
            "key_id: str, key_name: str, account: str, digest: bytes, token_key: str, is_active: bool, "
            "is_revoked: bool, owner_is_active: bool, expires_at_s: float"
        ),
        "Resource": "kind: str, ref: str",
        "Protection": "open, bound, declared",
        "OnError": "stale, deny",
    },
}
"""What each number stands for. Never change a line: whoever adds a field takes the next number."""

VALUES: tuple[Any, ...] = (None, True, 1, 1.0, "xx", [], [1], {})
"""One of each type that JSON knows."""

bindings = st.builds(
    Binding,
    key_id=st.text(max_size=40),
    key_name=st.text(st.characters(exclude_categories=()), max_size=20),
    account=st.text(max_size=10),
    digest=st.just(b"") | st.binary(min_size=64, max_size=64),
    token_key=st.text(max_size=15),
    is_active=st.booleans(),
    is_revoked=st.booleans(),
    owner_is_active=st.booleans(),
    expires_at_s=st.just(math.inf) | st.floats(allow_nan=False, allow_infinity=False),
)
entries = st.builds(
    SharedEntry,
    st.builds(
        Bindings,
        st.builds(Resource, st.text(max_size=10), st.text(max_size=30)),
        st.none() | st.text(max_size=10),
        st.sampled_from(Protection),
        st.sampled_from(get_args(OnError)),
        st.lists(bindings, max_size=4).map(tuple),
    ),
    st.sampled_from(["10:10:", "10:20:11,15"]),
    st.lists(st.text(max_size=20), max_size=4).map(tuple),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


def refused(sealed: object) -> bool:
    with pytest.raises(ValueError):  # noqa: PT011  Any text: nobody reads it.
        CODEC.unseal(LOOKUP, sealed)
    return True


def fields(cls: type) -> str:
    """Those that are given, and not made of the others."""
    return ", ".join(f"{field.name}: {field.type}" for field in dataclasses.fields(cls) if field.init)


def items(cls: type) -> str:
    return ", ".join(f"{name}: {kind.__forward_arg__}" for name, kind in cls.__annotations__.items())


def test_new_field_takes_a_new_schema_number() -> None:
    assert FIELDS_OF_SCHEMA[SCHEMA] == {
        "SharedEntry": fields(SharedEntry),
        "Bindings": fields(Bindings),
        "Binding": items(Binding),
        "Resource": items(Resource),
        "Protection": ", ".join(Protection),
        "OnError": ", ".join(get_args(OnError)),
    }


def test_schema_1_is_written_as_it_always_was() -> None:
    assert CODEC.seal(LOOKUP, ENTRY) == signed(payload())
    assert CODEC.key(LOOKUP) == key()


@given(st.text(max_size=20), entries)
def test_what_is_sealed_comes_out_the_same(lookup: str, entry: SharedEntry) -> None:
    assert CODEC.unseal(lookup, CODEC.seal(lookup, entry)) == entry


def test_unknown_resource_can_be_shared_too() -> None:
    assert CODEC.unseal("bot:9", CODEC.seal("bot:9", NOTHING)) == NOTHING


def test_every_single_changed_byte_is_noticed() -> None:
    sealed = CODEC.seal(LOOKUP, ENTRY)
    for place in range(len(sealed)):
        assert refused(sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :])
        assert refused(sealed[:place])


def test_entry_of_another_secret_is_refused() -> None:
    assert refused(Codec(bytes(32), EPOCH).seal(LOOKUP, ENTRY))


def test_entry_of_another_epoch_is_refused() -> None:
    assert refused(Codec(SECRET, "another").seal(LOOKUP, ENTRY))


def test_entry_of_another_resource_is_refused() -> None:
    assert refused(CODEC.seal("bot:other", ENTRY))


def test_entry_whose_payload_names_another_resource_is_refused_although_it_is_signed() -> None:
    assert refused(signed(payload(lookup="bot:other")))


def test_payload_of_another_schema_is_refused_although_it_is_signed() -> None:
    assert refused(signed(payload(schema=SCHEMA + 1)))


@pytest.mark.parametrize("position", range(len(row())))
def test_field_of_another_type_is_refused(position: int) -> None:
    for value in VALUES:
        fields = row()
        if type(value) is not type(fields[position]) and (value, position) != (None, 6):
            fields[position] = value
            assert refused(signed(json.dumps(fields).encode()))


@pytest.mark.parametrize("position", range(9))
def test_field_of_a_binding_of_another_type_is_refused(position: int) -> None:
    for value in VALUES:
        binding = row()[-1][1]
        if type(value) is not type(binding[position]) and (value, position) != (None, 8):
            binding[position] = value
            assert refused(signed(payload(bindings=[binding])))


@pytest.mark.parametrize(
    "changes",
    [
        {"sources": ["resource:bot:1", 1]},
        {"sources": "ab"},
        {"snapshot": "now"},
        {"snapshot": "1:2"},
        {"protection": "none"},
        {"on_error": "open"},
        {"bindings": ["123456789"]},
        {"bindings": [7]},
        {"bindings": [[]]},
        {"bindings": [[*row()[-1][0], "more"]]},
        {"bindings": [["", "", "", "00", "", True, False, True, None]]},
        {"bindings": [["", "", "", "zz" * 64, "", True, False, True, None]]},
        {"bindings": [["", "", "", "00 " * 64, "", True, False, True, None]]},
        {"bindings": [["", "", "", "AA" * 64, "", True, False, True, None]]},
        {"bindings": [["", "", "", " ", "", True, False, True, None]]},
        {"bindings": [["", "", "", "", "", True, False, True, math.inf]]},
        {"bindings": [["", "", "", "", "", True, False, True, math.nan]]},
    ],
)
def test_value_that_is_none_is_refused_although_it_is_signed(changes: dict[str, Any]) -> None:
    assert refused(signed(payload(**changes)))


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        "text",
        bytearray(signed(payload())),
        b"",
        b"\0" * 200,
        signed(b""),
        signed(b"[" * 200_000),
        signed(b"\xff"),
    ],
    ids=range(8),
)
def test_garbage_is_refused(garbage: object) -> None:
    assert refused(garbage)


@given(json_values)
def test_signed_json_of_any_other_form_is_refused(value: object) -> None:
    assert refused(signed(json.dumps(value).encode()))


def test_signed_entry_that_is_too_large_is_refused() -> None:
    assert refused(signed(payload() + b" " * MAX_VALUE_BYTES))


@pytest.mark.parametrize(
    "change",
    [{"key_id": UUID(int=1)}, {"expires_at_s": 1}, {"expires_at_s": math.nan}, {"expires_at_s": -math.inf}],
    ids=str,
)
def test_what_could_not_be_read_back_is_not_sealed(change: dict[str, Any]) -> None:
    binding = ENTRY.bindings.bindings[0]._replace(**change)
    with pytest.raises(ValueError, match=r"fields|JSON"):
        CODEC.seal(LOOKUP, dataclasses.replace(ENTRY, bindings=Bindings(Resource("bot", "1"), bindings=(binding,))))


@pytest.mark.parametrize("lookup", ["", "bot:1", "bot:a b\r\n", "bot:" + "x" * 8000, "bot:ü\ud800"])
def test_key_is_short_and_printable_whatever_is_looked_up(lookup: str) -> None:
    assert CODEC.key(lookup).startswith(f"smarter_auth:{SCHEMA}:")
    assert len(CODEC.key(lookup)) < 100
    assert all("!" <= character <= "~" for character in CODEC.key(lookup))


def test_schema_epoch_and_resource_each_have_keys_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {CODEC.key("bot:1"), CODEC.key("bot:2"), Codec(SECRET, "another").key("bot:1")}
    monkeypatch.setattr(codec_module, "SCHEMA", SCHEMA + 1)
    assert len(keys | {CODEC.key("bot:1")}) == 4


def test_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="has 31 bytes; at least 32"):
        Codec(b"x" * 31, EPOCH)


def test_secret_does_not_show() -> None:
    assert str(SECRET) not in repr(CODEC)
