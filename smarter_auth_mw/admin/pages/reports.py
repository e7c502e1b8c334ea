"""Pages that only read: usage, the audit, and why a request is let through or refused."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from smarter_auth_mw.admin.charts import Chart, chart, sparkline
from smarter_auth_mw.admin.pages.commands import command, lines, option
from smarter_auth_mw.admin.pages.forms import FieldError, Given, beside
from smarter_auth_mw.admin.pages.rendering import readable
from smarter_auth_mw.admin.pages.visit import Html, Reply, Visit
from smarter_auth_mw.admin.problems import status_of
from smarter_auth_mw.config.durations import parse_duration
from smarter_auth_mw.decision import Reason
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.errors import NotFoundError, RefusedError, SmarterAuthError, UsageError
from smarter_auth_mw.management.listings import UsageFilters
from smarter_auth_mw.management.listings.filters import PAGE
from smarter_auth_mw.management.listings.usage import MAX_SERIES
from smarter_auth_mw.tokens import Token, hidden

DAY = timedelta(days=1)
SPANS = (
    ("1h", "last hour"),
    ("1d", "last 24 hours"),
    ("7d", "last 7 days"),
    ("30d", "last 30 days"),
    ("365d", "last year"),
)
WORDS: Mapping[str, str] = {
    Reason.MISSING_CREDENTIALS: "The request has no token. Clients send it as Authorization: Token …",
    Reason.UNKNOWN_TOKEN: "No key that is bound to this resource has this token. Bind its key, or send another token.",
    Reason.INACTIVE: "The key is deactivated. Activate it, and its tokens are accepted again.",
    Reason.REVOKED: "The key is revoked for good. Create another key for this client.",
    Reason.EXPIRED: "The key or this token has expired. Change its expiry, or give the client its newest token.",
    Reason.INACTIVE_OWNER: "The owner of the key is inactive in the platform.",
    Reason.FOREIGN_ACCOUNT: "The key belongs to another account than the resource.",
    Reason.MALFORMED_CREDENTIALS: "The credentials cannot be read: send one token, in one header.",
    Reason.NOT_CANONICAL: "The URL does not spell the resource as it is registered. Correct the URL.",
    Reason.AMBIGUOUS: "The request can be read in two ways. Correct the URL.",
    Reason.NOT_FOUND: "No resource has the name or host in the URL.",
    Reason.THROTTLED: "Too many failed attempts came from this network. Wait, then try again.",
    Reason.UNAVAILABLE: "The database does not answer, and no cached answer is young enough.",
}
"""The meaning of each refusal, and what to do about it."""
SPANS_BY_LENGTH = {parse_duration(span): words for span, words in SPANS}


async def usage_chart(
    visit: Visit,
    subject: str,
    *,
    resource: Resource | None = None,
    key_id: UUID | None = None,
    since: timedelta = DAY,
) -> Chart | str:
    """Draw the requests for a resource or with a key; where there is nothing to draw, say why."""
    filters = UsageFilters(resource=resource, key_id=key_id, since=since)
    try:
        drawn = chart(await visit.call().listings.usage_in_all(filters), subject)
    except RefusedError:
        return f"More than {MAX_SERIES:,} tokens were used here: too many to add up for a chart. See them key by key."
    return drawn or f"No requests in the {SPANS_BY_LENGTH.get(since, 'chosen time')}."


async def usage(visit: Visit) -> Reply:
    filters = visit.query.given()
    words = [*option("--resource", filters.get("resource")), *option("--key", filters.get("key"))]
    context: dict[str, Any] = {
        "filters": filters,
        "spans": SPANS,
        "items": [],
        "sparks": [],
        "next": None,
        "chart": None,
        "error": None,
        "command": command("usage", *words, *option("--since", filters.get("since"))),
    }
    if not filters.keys() & {"resource", "key"}:
        return Html("usage.html", context)
    try:
        context |= await _usage(visit, {"since": "1d", **filters})
    except SmarterAuthError as error:
        if status_of(error) not in (404, 422):
            raise
        context["error"] = error
    return Html("usage.html", context)


async def _usage(visit: Visit, filters: Mapping[str, Any]) -> dict[str, Any]:
    with beside("key" if "key" in filters else "resource", NotFoundError, unknown=404):
        found = await visit.document("list_usage", query=filters)
    asked: Any = visit.asked("list_usage", filters)
    drawn = await usage_chart(
        visit,
        str(asked.resource or filters.get("key")),
        resource=asked.resource,
        key_id=None if asked.key is None else UUID(asked.key),
        since=asked.since,
    )
    return {**found, "chart": drawn, "sparks": [sparkline(item["points"]) for item in found["items"]]}


async def audit(visit: Visit) -> Reply:
    """Show changes, unless the query selects requests."""
    filters = visit.query.given()
    asked = {name: value for name, value in filters.items() if name != "requests"}
    words: list[str | None] = ["audit"]
    for name in ("resource", "key", "actor", "action", "reason", "since", "until"):
        words += option(f"--{name}", filters.get(name))
    words += option("--account", filters.get("account") or visit.operator.account)
    words += [None if filters.get("requests") else "--acts", "--limit", str(filters.get("limit", PAGE))]
    context: dict[str, Any] = {
        "filters": filters,
        "is_filtered": bool(filters.keys() - {"cursor", "limit", "requests"}),
        "items": [],
        "next": None,
        "error": None,
        "command": command(*words),
    }
    try:
        context |= await visit.document(
            "list_audit", query=asked if filters.get("requests") else asked | {"acts": "true"}
        )
    except SmarterAuthError as error:
        if status_of(error) not in (404, 422):
            raise
        context["error"] = error
    context["items"] = [{**event, "changes": _changes(event)} for event in context["items"]]
    return Html("audit.html", context)


def _changes(event: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return what an event changed as (name, before, after); every field for a new record."""
    before, after = event["before"] or {}, event["after"] or {}
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return [(name, _shown(before.get(name)), _shown(after.get(name))) for name in names]


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_shown(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return readable(hidden(str(value)))


async def show_check(visit: Visit) -> Reply:
    return _check(visit, None, None)


async def check(visit: Visit) -> Reply:
    """Explain a request; its token is only shown masked."""
    form = visit.form
    token = form.get("token")
    body = {"url": form.get("url"), "method": form.get("method") or "GET", "headers": _headers(form.get("headers"))}
    try:
        body |= {"token": token} if token else {}
        body |= {"key_id": form.get("key_id")} if form.get("key_id") else {}
        with beside("url", UsageError):
            found = await visit.document("explain", body=body)
    except SmarterAuthError as error:
        if status_of(error) != 404:
            raise
        return _check(visit, None, error)
    return _check(visit, found, None, masked=Token(token.encode("utf-8", "surrogatepass")).masked if token else "")


def _check(visit: Visit, found: Mapping[str, Any] | None, error: SmarterAuthError | None, masked: str = "") -> Html:
    form = visit.form.without_tokens() or visit.query
    words: list[str | None] = [*option("--method", form.get("method") if form.get("method") != "GET" else "")]
    headers = lines(form.get("headers"))
    headers += ["Authorization: Token TOKEN"] if masked or form.get("key_id") else []
    words += [word for header in headers for word in ("--header", header)]
    context = {
        "typed": Given({name: form.get(name) for name in ("url", "method", "headers", "key_id")}),
        "found": found,
        "masked": masked,
        "words": WORDS.get(found["reason"], "") if found else "",
        "command": command("check", form.get("url") or "/bots/1", *words),
    }
    return Html("check.html", context | ({"error": error} if error else {}))


def _headers(text: str) -> dict[str, str]:
    lines = [line.partition(":") for line in text.split("\n") if line.strip()]
    if not all(name.strip() and colon for name, colon, _ in lines):
        raise FieldError("headers", "Write one header per line, for example Host: api.example.com.")
    return {name.strip(): value.strip() for name, _, value in lines}
