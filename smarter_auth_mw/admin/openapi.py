"""The OpenAPI 3.1 document, generated from the table of operations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from smarter_auth_mw.admin.answers import Problem
from smarter_auth_mw.admin.call import Operation
from smarter_auth_mw.admin.problems import MEDIA_TYPE
from smarter_auth_mw.admin.requests import AuditQuery, NoQuery

_REF = "#/components/schemas/{model}"
VERSION = "1"
"""The version in the API's base path; a new member in an answer does not change it."""
_JSON = "application/json"
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_MEANINGS = {
    "401": "No token, or one that is not valid",
    "403": "The operator's role does not allow this",
    "404": "It does not exist, or belongs to another account",
    "409": "The state of the record does not allow this",
    "412": "The record was changed after the ETag in If-Match",
    "413": "The body is too large",
    "415": "The body is not JSON",
    "421": "This host is not served here",
    "422": "The request does not match the schema of the operation",
    "429": "Too many requests with tokens that are not valid",
    "503": "The database cannot be reached",
}
_HEADERS = {
    "ETag": "another value after each change of the record",
    "Link": 'the next page: <?cursor=…>; rel="next"',
    "Location": "the URL of the new record, relative to this path",
    "Retry-After": "seconds to wait before the next attempt",
}


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """Describe the operations in OpenAPI 3.1; paths are relative to the directory of the document itself."""
    schemas = _schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Management API of smarter_auth_mw",
            "version": VERSION,
            "description": "Keys, resources, usage and the audit, for operators.",
        },
        "servers": [{"url": "."}],
        "security": [{"operator": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "operator": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The token of an operator, sma_…, which smarter-auth operator create prints.",
                }
            },
        },
    }


def _schemas(operations: Sequence[Operation]) -> dict[str, Any]:
    requests = {operation.body for operation in operations if operation.body}
    answers = {operation.answer for operation in operations if operation.answer is not BaseModel} | {Problem}
    models: list[Any] = [(model, "validation") for model in requests] + [(model, "serialization") for model in answers]
    models.sort(key=lambda pair: pair[0].__name__)
    _, found = models_json_schema(models, by_alias=True, ref_template=_REF)
    return dict(sorted(found["$defs"].items()))


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": _least(operation),
        "tags": [operation.path.split("/")[1]],
        "parameters": [*_path_parameters(operation), *_query_parameters(operation), *_header_parameters(operation)],
        "responses": _responses(operation),
        "x-role": operation.role.value,
        "x-all-accounts": operation.everywhere,
    }
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": {_JSON: {"schema": _ref(operation.body)}}}
    return described


def _least(operation: Operation) -> str:
    return f"Needs the role {operation.role.value}{', of all accounts' if operation.everywhere else ''}."


def _path_parameters(operation: Operation) -> Iterable[dict[str, Any]]:
    for name in _PLACEHOLDER.findall(operation.path):
        schema = {"type": "string", "format": "uuid"} if name == "key_id" else {"type": "string"}
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _query_parameters(operation: Operation) -> Iterable[dict[str, Any]]:
    if operation.query is NoQuery:
        return
    for name, schema in operation.query.model_json_schema()["properties"].items():
        described = {key: value for key, value in schema.items() if key not in ("title", "description")}
        parameter = {"name": name, "in": "query", "required": False, "schema": _without_null(described)}
        yield parameter | ({"description": schema["description"]} if "description" in schema else {})


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Remove null from the schema: a query cannot hold it, and leaves the parameter out instead."""
    if "anyOf" not in schema:
        return {key: value for key, value in schema.items() if (key, value) != ("default", None)}
    (given,) = [one for one in schema["anyOf"] if one != {"type": "null"}]
    return dict(given)


def _header_parameters(operation: Operation) -> Iterable[dict[str, Any]]:
    if operation.is_versioned:
        description = "the ETag that you last read; 412 if the record was changed since"
        yield {
            "name": "If-Match",
            "in": "header",
            "required": False,
            "schema": {"type": "string"},
            "description": description,
        }


def _responses(operation: Operation) -> dict[str, Any]:
    content = {_JSON: {"schema": {"type": "object"} if operation.answer is BaseModel else _ref(operation.answer)}}
    if operation.query is AuditQuery:
        content["application/jsonl"] = {"schema": {"type": "string"}}
    done = {"description": "Done", "headers": _headers(operation), "content": content}
    statuses = [str(status) for status in (operation.status, operation.also) if status]
    problems = {status: _problem(status) for status in _problems_of(operation)}
    return dict.fromkeys(statuses, done) | problems


def _headers(operation: Operation) -> dict[str, Any]:
    names = []
    if "cursor" in operation.query.model_fields:
        names.append("Link")
    if operation.answer.__name__ in ("Key", "MintedKey", "RevokedKey", "ResourceAnswer"):
        names.append("ETag")
    if operation.method == "POST" and operation.status == 201:
        names.append("Location")
    return {name: {"schema": {"type": "string"}, "description": _HEADERS[name]} for name in names}


def _problems_of(operation: Operation) -> Iterable[str]:
    return [
        status
        for status in _MEANINGS
        if not (status in ("413", "415") and operation.body is None)
        and not (status == "412" and not operation.is_versioned)
        and not (status == "409" and operation.method == "GET")
    ]


def _problem(status: str) -> dict[str, Any]:
    problem: dict[str, Any] = {"description": _MEANINGS[status], "content": {MEDIA_TYPE: {"schema": _ref(Problem)}}}
    if status in ("429", "503"):
        description = _HEADERS["Retry-After"]
        problem["headers"] = {"Retry-After": {"schema": {"type": "string"}, "description": description}}
    return problem


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}
