"""Operations on keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from smarter_auth_mw.admin.call import INNER, Answer, Call, etag
from smarter_auth_mw.admin.pages_of_lists import page_answer
from smarter_auth_mw.admin.problems import InvalidError
from smarter_auth_mw.admin.requests import KeyChange, KeyIds, KeyQuery, Leaks, NewKey, Rotation
from smarter_auth_mw.domain import Key, Resource
from smarter_auth_mw.errors import ConflictError, NotFoundError, UsageError
from smarter_auth_mw.management import naming
from smarter_auth_mw.management.documents import key_document, time_text
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.management.leaks import copied_token, end_leaked
from smarter_auth_mw.management.listings import KeyFilters, Page


async def list_keys(call: Call) -> Answer:
    page = await find_keys(call)
    return page_answer([_document(key) for key in page.items], page.next)


async def find_keys(call: Call) -> Page[Key]:
    """Return the page of keys that the query asks for."""
    query: KeyQuery = call.query
    call.check_account(query.account)
    filters = KeyFilters(
        key_id=None if query.key_id is None else UUID(query.key_id),
        labels=dict(label.split("=", 1) for label in query.label),
        **{
            name: getattr(query, name)
            for name in (
                *("token_key", "resource", "account", "state", "find", "expiring_within", "never_expires"),
                *("unused_for", "never_used", "rotating", "sort"),
            )
        },
    )
    return await call.listings.keys(filters, limit=query.limit, cursor=query.cursor, inner=INNER)


async def show_key(call: Call) -> Answer:
    return _answer(await call.find_key(call.key_id))


async def create_key(call: Call) -> Answer:
    body: NewKey = call.body
    call.check_account(body.account)
    try:
        minted = await call.keys.create(
            body.name,
            account=body.account,
            description=body.description,
            expires_at=_expiry(body),
            labels=body.labels,
            bind=[await resource_to_bind(call, resource) for resource in body.bind],
            form=body.format,
        )
    except ConflictError as conflict:
        raise await _with_the_key_that_has_the_name(call, body, conflict) from None
    key_id = str(minted.key.key_id)
    document = _document(minted.key) | {"token": minted.token.reveal(), "created": bool(minted.created)}
    return Answer(document, 201, (("Location", f"keys/{key_id}"), ("ETag", etag(minted.key.updated_at))))


async def change_key(call: Call) -> Answer:
    body: KeyChange = call.body
    given = {name: getattr(body, name) for name in ("name", "description", "expires_at") if name in _given(body)}
    if given.get("name", "") is None:
        raise InvalidError("body.name: a key must have a name.")
    if given.get("description", "") is None:
        given["description"] = ""
    return await _act(call, lambda keys, key_id: keys.set_key(key_id, **given, labels=body.labels))


async def activate_key(call: Call) -> Answer:
    return await _act(call, Management.activate)


async def deactivate_key(call: Call) -> Answer:
    allow_anonymous = call.may_open()
    return await _act(call, lambda keys, key_id: keys.deactivate(key_id, allow_anonymous=allow_anonymous))


async def revoke_key(call: Call) -> Answer:
    answer = await _act(call, Management.revoke)
    return Answer({**answer.document, "within_s": call.services.within_s}, headers=answer.headers)


async def rotate_key(call: Call) -> Answer:
    body: Rotation = call.body
    async with call.keys.together() as keys:
        call.check_etag((await keys.held_key(call.key_id)).updated_at)
        rotated = await keys.rotate(call.key_id, body.overlap, force=body.force, replaces=body.token_key)
    return Answer(
        {
            "key_id": str(rotated.key.key_id),
            "token": rotated.token.reveal(),
            "token_key": rotated.token.token_key,
            "previous_valid_until": time_text(rotated.previous_valid_until),
        }
    )


async def revoke_keys(call: Call) -> Answer:
    """Revoke keys in one transaction, locked in one order; keys of other accounts count as unknown."""
    body: KeyIds = call.body
    revoked: list[str] = []
    unknown: list[str] = []
    async with call.keys.together() as keys:
        for text in sorted(set(body.key_ids)):
            try:
                await (keys.held_key if body.dry_run else keys.revoke)(UUID(text))
            except NotFoundError:
                unknown.append(text)
            else:
                revoked.append(text)
    found: dict[str, Any] = {"count": len(revoked), "key_ids": revoked, "unknown": unknown, "dry_run": body.dry_run}
    return Answer(found | {"within_s": call.services.within_s})


async def report_leaks(call: Call) -> Answer:
    """Revoke the keys and operators' tokens that the leaked tokens belong to; the response repeats no token."""
    body: Leaks = call.body
    tokens = [copied_token(text.encode("utf-8", "surrogatepass")) for text in body.tokens]
    digests = [*dict.fromkeys([*(token.digest for token in tokens), *map(bytes.fromhex, body.digests)])]
    operators = await call.services.door.end_tokens(digests, call.operator.account, call.operator.actor)
    leaked = await end_leaked(call.keys, call.many_keys, digests)
    return Answer(
        {
            "tokens": len(digests),
            "keys_revoked": len(leaked.key_ids),
            "operator_tokens_ended": operators,
            "platform": leaked.platform,
            "unknown": leaked.unknown - operators,
            "within_s": call.services.within_s,
        }
    )


async def resource_to_bind(call: Call, resource: Resource) -> Resource:
    """Return the resource: registered, or, for operators of all accounts, one that requests can reach."""
    if call.operator.account is not None:
        return resource
    try:
        return naming.routed(call.services.routes, *resource)
    except UsageError as error:
        with suppress(NotFoundError):
            return (await call.find_resource(resource)).resource
        raise error


async def _act(call: Call, change: Callable[[Management, UUID], Awaitable[Key]]) -> Answer:
    """Change the key that the path names, in one transaction with the check of If-Match."""
    async with call.keys.together() as keys:
        call.check_etag((await keys.held_key(call.key_id)).updated_at)
        changed = await change(keys, call.key_id)
    return _answer(changed)


async def _with_the_key_that_has_the_name(call: Call, body: NewKey, conflict: ConflictError) -> ConflictError:
    """Add the id of the key that already has the name, for a client that lost the first response."""
    account = body.account or call.operator.account or call.services.settings.default_account
    page = await call.listings.keys(KeyFilters(account=account, find=body.name))
    for key in page.items:
        if key.name == body.name:
            return ConflictError(conflict.message, hint="Rotate it to get a new token.", key_id=key.key_id)
    return conflict


def _expiry(body: NewKey) -> datetime | None:
    if body.expires_in is None:
        return body.expires_at
    if body.expires_at is not None:
        raise InvalidError("body: give expires_at or expires_in, not both.")
    try:
        expires_at: datetime = datetime.now(UTC) + body.expires_in
    except OverflowError:
        raise InvalidError("body.expires_in: too long; the expiry would be after the year 9999.") from None
    return expires_at


def _given(body: KeyChange) -> set[str]:
    return body.model_fields_set


def _answer(key: Key) -> Answer:
    return Answer(_document(key), headers=(("ETag", etag(key.updated_at)),))


def _document(key: Key) -> dict[str, Any]:
    return key_document(key, most=INNER)
