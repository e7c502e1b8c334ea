"""The OpenAPI document: a file in the repository, and the same one that is served."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from smarter_auth_mw.admin import answers
from smarter_auth_mw.admin.call import Operation
from smarter_auth_mw.admin.openapi import document
from smarter_auth_mw.admin.operations import OPERATIONS
from tests.support.admin import Caller
from tests.support.documents import ROOT

FILE = ROOT / "docs" / "openapi.json"
MADE = document(OPERATIONS)


def test_file_in_the_repository_is_current() -> None:
    """UPDATE_GOLDEN=1 writes it: read the difference, and note it in the changelog."""
    if os.environ.get("UPDATE_GOLDEN"):
        FILE.write_text(json.dumps(MADE, indent=2) + "\n")
    assert json.loads(FILE.read_text()) == MADE


async def test_document_is_served_as_it_is(admin: Caller) -> None:
    assert await admin.json("GET", "/openapi.json") == json.loads(json.dumps(MADE))


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _objects(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _objects(inner)


def test_every_reference_leads_somewhere_and_every_schema_is_used() -> None:
    asked = {found["$ref"].rpartition("/")[2] for found in _objects(MADE) if "$ref" in found}
    assert asked == set(MADE["components"]["schemas"])


def test_every_schema_is_one() -> None:
    for schema in MADE["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for parameter in (found for found in _objects(MADE["paths"]) if "in" in found and "schema" in found):
        Draft202012Validator.check_schema(parameter["schema"])


def test_every_default_and_example_fits_its_schema() -> None:
    for found in _objects(MADE):
        given = [found["default"]] if "default" in found else []
        for value in [*given, *found.get("examples", [])] if "type" in found or "anyOf" in found else []:
            Draft202012Validator({**found, "components": MADE["components"]}).validate(value)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.name)
def test_every_operation_is_described(operation: Operation) -> None:
    described = MADE["paths"][operation.path][operation.method.lower()]
    assert described["operationId"] == operation.name
    assert operation.role.value in described["description"]
    in_path = {one["name"] for one in described["parameters"] if one["in"] == "path"}
    assert in_path == set(re.findall(r"\{(\w+)\}", operation.path))
    assert ("requestBody" in described) == (operation.body is not None)
    assert {"200", "201"} & set(described["responses"])
    assert {"401", "403", "421", "422", "429", "503"} <= set(described["responses"])


def test_operations_have_names_of_their_own() -> None:
    names = [operation.name for operation in OPERATIONS]
    assert len(set(names)) == len(names)
    places = [(operation.method, operation.path) for operation in OPERATIONS]
    assert len(set(places)) == len(places)


def test_a_token_is_in_two_answers_and_nowhere_else() -> None:
    schemas = MADE["components"]["schemas"]
    assert {name for name, schema in schemas.items() if "token" in schema.get("properties", {})} == {
        *("MintedKey", "RotatedKey"),
        "Question",  # what is to be explained, as it is sent
    }
    assert not [name for name, field in answers.Key.model_fields.items() if "digest" in name or field.alias == "digest"]
