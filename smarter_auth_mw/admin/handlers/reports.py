"""Operations that only read: who am I, health, usage, the audit, and why a request is refused."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from uuid import UUID

from smarter_auth_mw.admin.call import Answer, Call
from smarter_auth_mw.admin.pages_of_lists import page_answer
from smarter_auth_mw.admin.problems import InvalidError
from smarter_auth_mw.admin.requests import AuditQuery, Question, UsageQuery
from smarter_auth_mw.engine.assembly import authenticator_of
from smarter_auth_mw.errors import NotFoundError
from smarter_auth_mw.management.check import Authenticate, Checker, request_scope
from smarter_auth_mw.management.documents import audit_document, time_text, usage_document
from smarter_auth_mw.management.listings import AuditFilters, UsageFilters
from smarter_auth_mw.postgres.queries import SCHEMA
from smarter_auth_mw.postgres.store import Store
from smarter_auth_mw.tokens import StoredToken, Token


async def show_me(call: Call) -> Answer:
    operator = call.operator
    return Answer(
        {
            "operator_id": str(operator.operator_id),
            "name": operator.name,
            "role": operator.role.value,
            "account": operator.account,
            "expires_at": time_text(operator.expires_at),
            "token_key": operator.token_key,
        }
    )


async def show_health(call: Call) -> Answer:
    await call.services.store.check()
    return Answer({"status": "ready", "schema": f"{SCHEMA:04}"})


async def list_usage(call: Call) -> Answer:
    query: UsageQuery = call.query
    if query.resource is None and query.key is None:
        raise InvalidError("query: name a resource or a key.")
    if query.key is not None:
        await call.find_key(UUID(query.key))
    if query.resource is not None:
        await call.find_resource(query.resource)
    filters = UsageFilters(
        resource=query.resource,
        key_id=None if query.key is None else UUID(query.key),
        since=query.since,
        until=query.until,
    )
    page = await call.listings.usage(filters, limit=query.limit, cursor=query.cursor)
    return page_answer([usage_document(total) for total in page.items], page.next)


async def list_audit(call: Call) -> Answer:
    query: AuditQuery = call.query
    call.check_account(query.account)
    filters = AuditFilters(
        key_id=None if query.key is None else UUID(query.key),
        **{
            name: getattr(query, name)
            for name in ("resource", "account", "actor", "action", "reason", "since", "until", "acts")
        },
    )
    page = await call.listings.audit(filters, order=query.order, limit=query.limit, cursor=query.cursor)
    documents = [audit_document(event) for event in page.items]
    return page_answer(documents, page.next, as_lines=query.format == "jsonl")


async def explain(call: Call) -> Answer:
    """Explain a request; for an operator of one account, only one whose resource belongs to it."""
    body: Question = call.body
    services = call.services
    scope = request_scope(body.url, body.method, _headers(body))

    def opened() -> AbstractAsyncContextManager[Store]:
        return nullcontext(services.store)

    def authenticator(store: Store) -> Authenticate:
        return authenticator_of(services.settings, store).authenticate

    checker = Checker(
        services.guard,
        opened,
        authenticator,
        routes_from=services.settings.origin("routes"),
        account=call.operator.account,
    )
    document = await checker.check(scope, await _token_of(call, body))
    if call.operator.account is not None and document["reason"] == "not_found":
        raise NotFoundError("There is no such resource.")
    return Answer(document)


async def _token_of(call: Call, body: Question) -> Token | None:
    """Return the newest token of the requested key, as far as it is stored."""
    if body.key_id is None:
        return None
    if body.token is not None:
        raise InvalidError("body: give token or key_id, not both.", by_field={"key_id": "without a token"})
    key = await call.find_key(UUID(body.key_id))
    if not key.tokens:
        raise InvalidError("body.key_id: this key has no token.", by_field={"key_id": "this key has no token"})
    return StoredToken(key.tokens[-1].token_key, key.tokens[-1].digest)


def _headers(body: Question) -> list[tuple[bytes, bytes]]:
    headers = [(_latin(name.lower()), _latin(value.strip(" \t"))) for name, value in body.headers.items()]
    if any(b"\n" in part or b"\r" in part or b"\0" in part for header in headers for part in header):
        raise InvalidError("body.headers: a header value may not contain a line break.")
    if body.token is not None:
        headers.append((b"authorization", b"Token " + _latin(body.token)))
    return headers


def _latin(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
