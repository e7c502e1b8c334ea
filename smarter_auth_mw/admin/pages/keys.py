"""The list of keys, and one key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from smarter_auth_mw.admin.call import INNER
from smarter_auth_mw.admin.handlers.keys import find_keys
from smarter_auth_mw.admin.pages.commands import command, option
from smarter_auth_mw.admin.pages.forms import FieldError
from smarter_auth_mw.admin.pages.reports import usage_chart
from smarter_auth_mw.admin.pages.visit import Html, Reply, Visit
from smarter_auth_mw.admin.problems import status_of
from smarter_auth_mw.admin.values import UUID_TEXT
from smarter_auth_mw.errors import SmarterAuthError, UsageError
from smarter_auth_mw.management.documents import key_document
from smarter_auth_mw.management.listings.filters import PAGE

_TOKEN_KEY = re.compile("sm_[a-z0-9]{0,8}_?[0-9A-Za-z]{3,12}|[0-9a-f]{15}")

_OPTIONS = {
    "resource": "--resource",
    "state": "--state",
    "find": "--find",
    "expiring_within": "--expiring",
    "unused_for": "--unused-for",
    "sort": "--sort",
}
_FLAGS = {"never_expires": "--never-expires", "never_used": "--never-used", "rotating": "--rotating"}
"""The options of the command line for the filters of the page."""


async def list_keys(visit: Visit) -> Reply:
    filters = visit.query.given()
    context: dict[str, Any] = {
        "filters": filters,
        "is_filtered": bool(filters.keys() - {"cursor", "limit", "sort"}),
        "items": [],
        "next": None,
        "error": None,
    }
    try:
        page = await find_keys(visit.call(query=visit.asked("list_keys", _exact(filters))))
    except SmarterAuthError as error:
        if status_of(error) not in (422, 409):
            raise
        if type(error) is UsageError:  # Filters that exclude each other; it is the state that has to be changed.
            error = FieldError("state", error)
        return Html("keys.html", context | {"error": error, "command": command("key", "list")})
    items = [{**key_document(key, most=INNER), "is_platforms": key.is_platforms} for key in page.items]
    return Html("keys.html", context | {"items": items, "next": page.next, "command": _command(visit, _exact(filters))})


def _exact(filters: dict[str, Any]) -> dict[str, Any]:
    """Let the search field for names find key ids and token_keys too."""
    find = filters.get("find")
    if not isinstance(find, str):
        return filters
    rest = {name: value for name, value in filters.items() if name != "find"}
    if UUID_TEXT.fullmatch(find.lower()):
        return rest | {"key_id": find.lower()}
    return rest | {"token_key": find} if _TOKEN_KEY.fullmatch(find) and len(find) == 15 else filters


def _command(visit: Visit, filters: Mapping[str, Any]) -> str:
    """Return the command for a page of the list; without a state, only pages leave revoked keys out."""
    if "key_id" in filters:
        return command("key", "show", filters["key_id"])
    account = filters.get("account") or visit.operator.account
    limit = filters.get("limit") or (None if filters.get("state") else PAGE)
    words: list[str | None] = ["key", "list"]
    for name, flag in _OPTIONS.items():
        words += option(flag, filters.get(name))
    labels = filters.get("label", [])
    for label in [labels] if isinstance(labels, str) else labels:
        words += option("--label", label)
    words += [flag for name, flag in _FLAGS.items() if filters.get(name) == "true"]
    return command(*words, *option("--account", account), *option("--limit", limit))


async def show_key(visit: Visit) -> Reply:
    call = visit.call()
    record = await call.find_key(call.key_id)
    key = key_document(record, most=INNER)
    acts = (await visit.document("list_audit", query={"key": key["key_id"], "acts": "true", "limit": 10}))["items"]
    in_force_at = record.revoked_at and record.revoked_at + timedelta(seconds=visit.services.within_s)
    context = {
        "key": key,
        "in_force_at": in_force_at,
        "chart": await usage_chart(visit, key["name"], key_id=record.key_id),
        "is_platforms": record.is_platforms,
        "created_at": record.created_at,
        "acts": acts,
        "command": command("key", "show", key["key_id"]),
    }
    return Html("key.html", context)
