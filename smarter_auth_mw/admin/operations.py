"""The operations of the API, one table: router, OpenAPI document, role matrix and generated tests are built from it."""

from __future__ import annotations

from pydantic import BaseModel

from smarter_auth_mw.admin import answers, requests
from smarter_auth_mw.admin.call import Answer, Call, Operation
from smarter_auth_mw.admin.handlers import keys, reports, resources
from smarter_auth_mw.admin.requests import OpeningQuery
from smarter_auth_mw.management.operators import Role

BASE = "/api/v1"
MAX_LEAKS_BODY = 1_048_576

VIEWER, MANAGER, ADMIN = Role

_RESOURCE, _BINDING, _KEY = "/resources/{kind}/{ref}", "/resources/{kind}/{ref}/keys/{key_id}", "/keys/{key_id}"


async def _show_document(_: Call) -> Answer:
    from smarter_auth_mw.admin import openapi

    return Answer(openapi.document(OPERATIONS))


OPERATIONS: tuple[Operation, ...] = (
    Operation("GET", "/me", "show_me", "Show the current operator", VIEWER, reports.show_me, answers.Me),
    Operation(
        "GET", "/health", "show_health", "Check that the database answers", VIEWER, reports.show_health, answers.Health
    ),
    Operation("GET", "/openapi.json", "show_openapi", "This document", VIEWER, _show_document, BaseModel),
    Operation(
        "GET", "/resources", "list_resources", "List resources", VIEWER, resources.list_resources,
        answers.Resources, requests.ResourceQuery,
    ),
    Operation(
        "POST", "/resources", "create_resource", "Register a resource", MANAGER, resources.create_resource,
        answers.ResourceAnswer, body=requests.NewResource, status=201, everywhere=True,
    ),
    Operation(
        "GET", _RESOURCE, "show_resource", "Show a resource", VIEWER, resources.show_resource, answers.ResourceAnswer
    ),
    Operation(
        "PATCH", _RESOURCE, "change_resource", "Change a resource", MANAGER, resources.change_resource,
        answers.ResourceAnswer, body=requests.ResourceChange, is_versioned=True,
    ),
    Operation(
        "DELETE", _RESOURCE, "remove_resource", "Remove a resource", MANAGER, resources.remove_resource,
        answers.Nothing, OpeningQuery, everywhere=True, is_versioned=True,
    ),
    Operation(
        "POST", f"{_RESOURCE}/protect", "protect_resource", "Protect a resource: require a token", MANAGER,
        resources.protect_resource, answers.ResourceAnswer,
    ),
    Operation(
        "POST", f"{_RESOURCE}/unprotect", "unprotect_resource", "Open a resource to anyone", ADMIN,
        resources.unprotect_resource, answers.ResourceAnswer, body=requests.Confirmation,
    ),
    Operation(
        "PUT", _BINDING, "bind_key", "Bind a key to a resource", MANAGER, resources.bind_key, answers.Key,
        query=OpeningQuery,
        status=201, also=200,
    ),
    Operation(
        "DELETE", _BINDING, "unbind_key", "Unbind a key from a resource", MANAGER, resources.unbind_key, answers.Key,
        OpeningQuery,
    ),
    Operation("GET", "/keys", "list_keys", "List keys", VIEWER, keys.list_keys, answers.Keys, requests.KeyQuery),
    Operation(
        "POST", "/keys", "create_key", "Create a key and bind it", MANAGER, keys.create_key, answers.MintedKey,
        body=requests.NewKey, status=201,
    ),
    Operation(
        "POST", "/keys/revoke", "revoke_keys", "Revoke many keys in one transaction", MANAGER, keys.revoke_keys,
        answers.RevokedKeys, body=requests.KeyIds,
    ),
    Operation("GET", _KEY, "show_key", "Show a key", VIEWER, keys.show_key, answers.Key),
    Operation(
        "PATCH", _KEY, "change_key", "Change name, description, labels or expiry of a key", MANAGER, keys.change_key,
        answers.Key, body=requests.KeyChange, is_versioned=True,
    ),
    Operation(
        "POST", f"{_KEY}/rotate", "rotate_key", "Give a key a new token", MANAGER, keys.rotate_key, answers.RotatedKey,
        body=requests.Rotation, is_versioned=True,
    ),
    Operation(
        "POST", f"{_KEY}/activate", "activate_key", "Activate a key", MANAGER,
        keys.activate_key, answers.Key, is_versioned=True,
    ),
    Operation(
        "POST", f"{_KEY}/deactivate", "deactivate_key", "Deactivate a key, until it is activated again", MANAGER,
        keys.deactivate_key, answers.Key, OpeningQuery, is_versioned=True,
    ),
    Operation(
        "POST", f"{_KEY}/revoke", "revoke_key", "Revoke a key", MANAGER, keys.revoke_key, answers.RevokedKey,
        is_versioned=True,
    ),
    Operation(
        "POST", "/leaks", "report_leaks", "Revoke the keys of leaked tokens", MANAGER, keys.report_leaks,
        answers.EndedLeaks, body=requests.Leaks, max_body=MAX_LEAKS_BODY,
    ),
    Operation(
        "GET", "/usage", "list_usage", "Show usage", VIEWER, reports.list_usage, answers.Usages, requests.UsageQuery
    ),
    Operation(
        "GET", "/audit", "list_audit", "Show the audit", VIEWER, reports.list_audit, answers.Events, requests.AuditQuery
    ),
    Operation(
        "POST", "/check", "explain", "Explain how a request is decided", VIEWER, reports.explain, answers.Explanation,
        body=requests.Question,
    ),
)  # fmt: skip
