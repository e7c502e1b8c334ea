"""How references, names, labels and account numbers are spelled: one way, or not at all."""

from __future__ import annotations

import contextlib
import string
import sys
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from smarter_auth_mw.domain import Alias, Resource
from smarter_auth_mw.errors import InvalidReferenceError
from smarter_auth_mw.routing import references

UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"

SECOND_SPELLINGS_OF_42 = [
    "+42",
    "-42",
    "042",
    "42.0",
    "4_2",
    " 42",
    "42 ",
    "42\n",
    "0x2a",
    "4e1",
    "٤٢",
    "\uff14\uff12",
    "42.json",
]
SECOND_SPELLINGS_OF_A_UUID = [
    UUID.replace("-", ""),
    "{" + UUID + "}",
    "urn:uuid:" + UUID,
    UUID + "-",
    "-" + UUID,
    UUID[:4] + "-" + UUID[4:],
    # uuid.UUID drops hyphens wherever they stand, and int(…, 16) takes single underscores:
    "abcd-abcd-abcd-abcd-abcd-abcd-abcd-abcd",
    "a-b_cdefabcdefabcdefabcdefabcdefa",
]
NEARLY_A_UUID = [UUID.replace("-", "_"), "a_b_c_d_e_f_a_b_c_d_e_f_a_b_c_d_"]


@pytest.mark.parametrize("text", ["0", "7", "42", str(2**63 - 1)])
def test_canonical_integer_is_itself(text: str) -> None:
    assert references.integer(text) == references.plain(text) == references.hashed(text) == text


@pytest.mark.parametrize("text", [*SECOND_SPELLINGS_OF_42, "", "-0", "00", str(2**63), "9" * 30])
def test_integer_has_no_second_spelling(text: str) -> None:
    assert references.integer(text) is None
    assert references.plain(text) is None
    assert references.hashed(text) is None


def test_uuid_folds_its_case_and_nothing_else() -> None:
    assert references.uuid(UUID) == references.uuid(UUID.upper()) == UUID
    assert references.uuid(UUID.replace("f", "\uff46")) is None


def test_no_character_but_a_letter_is_a_hex_digit_in_lower_case() -> None:
    digits = {char for char in map(chr, range(sys.maxunicode + 1)) if char.lower() in set("0123456789abcdef-")}
    assert digits == set(string.hexdigits + "-")


@pytest.mark.parametrize("text", [*SECOND_SPELLINGS_OF_A_UUID, *NEARLY_A_UUID])
def test_uuid_has_no_second_spelling(text: str) -> None:
    assert references.uuid(text) is None
    assert references.plain(text) is None


def test_plain_reference_takes_a_uuid_in_lower_case_only() -> None:
    assert references.plain(UUID) == UUID
    assert references.plain(UUID.upper()) is None


@pytest.mark.parametrize("text", ["a", "sales", "sales-2", "my_bot", "a1-b2_c3", "x" * 255, "abc-def", "nan"])
def test_slug_keeps_its_own_spelling(text: str) -> None:
    assert references.plain(text) == text


@pytest.mark.parametrize(
    "text",
    ["Sales", "2sales", "-a", "a-", "a--b", "a-_b", "a.b", "sales.json", "a b", "é", "x" * 256, "a\n", "f" * 32, "~a"],
)
def test_what_is_no_slug(text: str) -> None:
    assert references.plain(text) is None


@pytest.mark.parametrize(
    ("number", "hashed"),
    [
        (1, "rMTAwMDAwMQx"),
        (2, "rMTAwMDAwMgx"),
        (6, "rMTAwMDAwNgx"),
        (27, "rMTAwMDAyNwx"),
        (39, "rMTAwMDAzOQx"),
        (42, "rMTAwMDA0Mgx"),
        (123, "rMTAwMDEyMwx"),
        (1556, "rMTAwMTU1Ngx"),
        (99999, "rMTA5OTk5OQx"),
        (9000000, "rMTAwMDAwMDAx"),
    ],
)
def test_hashed_id_is_the_platforms(number: int, hashed: str) -> None:
    assert references.hashed_id(number) == hashed
    assert references.hashed(hashed) == str(number)


@pytest.mark.parametrize(
    "text",
    [
        "rox",
        "relax",
        "rx",
        "r=x",
        "rMTAwMDA0Mgx ",
        "rMTAwMDA0Mg",
        "MTAwMDA0Mgx",
        "RMTAwMDA0Mgx",
        "rMTAwMDA0Mhx",  # the same bytes with another bit behind them
        "rMTAwMDA0Mg==x",
        references.hashed_id(0),  # at the floor
        references.hashed_id(-5),  # below the floor
        references.hashed_id(2**63),
        "rMDEwMDAwNDIx",  # 01000042
        "r2YLZoQx",  # digits of another script
        "r" + "M" * 60 + "x",
        "rMTAwMDA0x",
        "rMTAwMx",
    ],
)
def test_hashed_id_counts_only_if_its_number_gives_it_back(text: str) -> None:
    assert references.hashed(text) is None


@given(st.integers(min_value=1, max_value=2**63 - 1))
def test_every_number_comes_back_from_its_hashed_id(number: int) -> None:
    assert references.unhash(references.hashed_id(number)) == number


@given(st.text(alphabet="rxMTAwDA0Mgx_-=", max_size=16))
def test_no_two_hashed_ids_have_one_number(text: str) -> None:
    number = references.unhash(text)
    assert number is None or references.hashed_id(number) == text


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("example", "example"),
        ("stackademy_sql", "stackademy-sql"),
        ("My_LLMClient_2025", "my-llmclient-2025"),
        ("My@Bot!_Name", "mybot-name"),
        ("__x__", "x"),
        ("hr bot", "hrbot"),
        ("a" * 70, "a" * 63),
    ],
)
def test_label_of_a_name_is_the_platforms(name: str, label: str) -> None:
    assert references.rfc1034(name) == label


@pytest.mark.parametrize("name", ["é", "", "__", "!!"])
def test_name_of_which_nothing_is_left_has_no_label(name: str) -> None:
    with pytest.raises(InvalidReferenceError, match="host label"):
        references.rfc1034(name)


@pytest.mark.parametrize("text", ["a", "hr", "a" * 63, "a--b", "1a", "42"])
def test_host_label(text: str) -> None:
    assert references.label(text) == text


@pytest.mark.parametrize("text", ["", "a" * 64, "-a", "a-", "a_b", "HR", "a.b", "é", "a\n"])
def test_what_is_no_host_label(text: str) -> None:
    assert references.label(text) is None


@pytest.mark.parametrize("text", ["example", "stackademy_sql", "test-abc123", "42", "2nd_bot"])
def test_name(text: str) -> None:
    assert references.name(text) == text


@pytest.mark.parametrize("text", ["", "Example", "a__b", "_a", "a b", "a.b", "x" * 256, "é", "a\n"])
def test_what_is_no_name(text: str) -> None:
    assert references.name(text) is None


@pytest.mark.parametrize(
    "text", ["3141-5926-5359", "1234-5678-9012", "default", "acme-corp", "twelve-chars", "7", UUID]
)
def test_account(text: str) -> None:
    assert references.account(text) == text


@pytest.mark.parametrize(
    "text", ["123456789012", "3141-5926", "3141-5926-53590", "Acme", "07", "", "\uff13141-5926-5359"]
)
def test_what_is_no_account(text: str) -> None:
    assert references.account(text) is None


@pytest.mark.parametrize("text", ["Sales.v2", "a~b", "042", UUID.upper(), "x" * 255, "...", "llama3:8b", "a::b"])
def test_exact_reference_stands_as_it_is(text: str) -> None:
    assert references.exact(text) == text


@pytest.mark.parametrize("text", [".", "..", "", "a b", "a/b", "a%20b", "é", "x" * 256, "a+b", "a\n", ":a", ":", "a@b"])
def test_what_is_no_exact_reference(text: str) -> None:
    assert references.exact(text) is None


LENIENT_READERS: list[Callable[[str], Any]] = [
    int,
    float,
    Decimal,
    TypeAdapter(int).validate_python,
    lambda text: msgspec.convert(text, int, strict=False),
]
LENIENT_TEXTS = st.text("0042+-_.eE 4\u0664\uff14,:", min_size=1, max_size=8)


@given(LENIENT_TEXTS)
def test_whatever_a_framework_takes_for_a_whole_number_reads_as_one(text: str) -> None:
    for read in LENIENT_READERS:
        with contextlib.suppress(ValueError, ArithmeticError, msgspec.ValidationError):
            if (value := read(text)) == int(value):
                assert references.reads_as_integer(text)
                assert references.reads_as_hashed(text)


@pytest.mark.parametrize(
    "text", ["4_2.0", "42.0_0", "0-42", "+0_0-42", "_42", "4__2", ".42e2", "\u0664\u0662.0", "4e400", "-4e400"]
)
def test_rare_spellings_of_integers_read_as_integers(text: str) -> None:
    assert references.reads_as_integer(text)


@pytest.mark.parametrize("verb", [":cancel", ",43", "@v2", "(x)", "=1", "~", "!"])
def test_id_may_have_a_separator_and_more_behind_it(verb: str) -> None:
    assert references.reads_as_integer(f"42{verb}")
    assert references.reads_as_integer(f"42 {verb}")
    assert references.reads_as_uuid(f"{UUID}{verb}")
    assert references.reads_as_uuid(f"{UUID.replace('-', '')}{verb}")
    assert references.reads_as_uuid(f"urn:uuid:{UUID}{verb}")
    assert references.reads_as_hashed(f"rMTAwMDA0Mgx{verb}")
    assert references.reads_as_id(f"42{verb}")
    assert references.reads_as_id(f"{UUID}{verb}")


@pytest.mark.parametrize("suffix", [".json", ".HTML", ".yml", ".jsonl", " .json", "\u2003.xml ", "", " "])
def test_id_may_have_the_suffix_of_a_data_format_and_blanks(suffix: str) -> None:
    assert references.reads_as_integer(f"42{suffix}")
    assert references.reads_as_integer(f" 42{suffix}")
    assert references.reads_as_uuid(f"{UUID}{suffix}")
    assert references.reads_as_hashed(f"rMTAwMDA0Mgx{suffix}")


@pytest.mark.parametrize(
    "text",
    ["", "+", "-", ".", "_", "4.2", "42-sales", "42a", "4e", "10-42", "v42", "+-", "42.png", "10.0.0.1", "1.2.3",
     "42.min.js", "2026-11-29", "2026-11-29T10:00:00Z", "42_of_50.jpg", "3.0-beta", "4x4", "007.mp4", "42 sales",
     "4.5" + "0" * 300],
)  # fmt: skip
def test_what_no_framework_takes_for_a_whole_number(text: str) -> None:
    assert not references.reads_as_integer(text)
    assert not references.reads_as_id(text)


@pytest.mark.parametrize("text", [*SECOND_SPELLINGS_OF_A_UUID, UUID, UUID.upper(), f" {UUID} "])
def test_any_spelling_of_a_uuid_reads_as_one(text: str) -> None:
    assert references.reads_as_uuid(text)
    assert references.reads_as_id(text)


@pytest.mark.parametrize(
    "text", ["", "42", "sales", UUID[1:], "f" * 31, "f" * 33, "g" * 32, *NEARLY_A_UUID, f"x{UUID}:run", "x" * 64]
)
def test_what_no_framework_takes_for_a_uuid(text: str) -> None:
    assert not references.reads_as_uuid(text)


@pytest.mark.parametrize(
    "text", ["r", "ra", "rx", "relax", "report", "rMTAwMDA0MgXx", "rmtawmda0mgx", "MTAwMDA0Mgx", "sales"]
)
def test_what_no_parser_takes_for_a_hashed_id(text: str) -> None:
    assert not references.reads_as_hashed(text)


@given(st.text("urn:id{}-0f8a_.jso", min_size=30, max_size=50))
def test_whatever_is_taken_for_a_uuid_reads_as_one(text: str) -> None:
    with contextlib.suppress(ValueError):
        uuid.UUID(text)
        assert references.reads_as_uuid(text)


@given(st.text(max_size=40))
def test_no_text_breaks_a_form_and_what_is_taken_is_taken_again(text: str) -> None:
    for form in references.FORMS.values():
        value = form.parse(text)
        assert value is None or form.parse(value) == value


@pytest.mark.parametrize("form", references.FORMS.values(), ids=lambda form: form.placeholder)
def test_form_names_each_reserved_character_that_it_accepts(form: references.Form) -> None:
    accepted = {char for char in map(chr, range(0x80)) if form.parse(f"a{char}b") is not None}
    assert accepted - set(string.ascii_letters + string.digits + "-._~") == set(form.reserved)


def test_no_reference_shares_its_key_with_an_alias() -> None:
    alias = Alias("bot", "name", "sales", "acme")
    for ref in ("name:acme:sales", alias.lookup.partition(":")[2]):
        assert references.exact(ref) is None or Resource("bot", ref).lookup != alias.lookup
