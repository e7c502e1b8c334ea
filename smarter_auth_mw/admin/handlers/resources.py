"""Operations on resources and their bindings."""

from __future__ import annotations

from typing import Any

from smarter_auth_mw.admin.call import INNER, Answer, Call, etag
from smarter_auth_mw.admin.handlers.keys import resource_to_bind
from smarter_auth_mw.admin.pages_of_lists import page_answer
from smarter_auth_mw.admin.problems import InvalidError
from smarter_auth_mw.admin.requests import Confirmation, NewResource, ResourceChange, ResourceQuery
from smarter_auth_mw.domain import RegisteredResource, Resource
from smarter_auth_mw.errors import ConflictError
from smarter_auth_mw.management import naming
from smarter_auth_mw.management.documents import key_document, resource_document
from smarter_auth_mw.management.listings import ResourceFilters
from smarter_auth_mw.management.operators import Role


async def list_resources(call: Call) -> Answer:
    query: ResourceQuery = call.query
    call.check_account(query.account)
    filters = ResourceFilters(
        kind=query.kind,
        account=query.account,
        find=query.find,
        open=None if query.state is None else query.state == "open",
        key_id=None if query.key_id is None else (await call.find_key_id(query.key_id)),
    )
    page = await call.listings.resources(filters, limit=query.limit, cursor=query.cursor, inner=INNER)
    return page_answer([_document(resource) for resource in page.items], page.next)


async def show_resource(call: Call) -> Answer:
    return _answer(await call.find_resource(call.resource))


async def create_resource(call: Call) -> Answer:
    body: NewResource = call.body
    make = naming.unrouted if body.no_route else None
    named = make(body.kind, body.ref) if make else naming.routed(call.services.routes, body.kind, body.ref)
    if body.name and not body.no_route:
        naming.check_name(call.services.routes, named.kind, body.name)
    added = await call.keys.add_resource(
        named,
        name=body.name,
        account=body.account,
        domain=body.domain,
        protect=body.protect,
        on_error=body.on_error,
    )
    answer = _answer(added)
    return Answer(answer.document, 201, (("Location", f"resources/{named.kind}/{named.ref}"), *answer.headers))


async def change_resource(call: Call) -> Answer:
    body: ResourceChange = call.body
    given = {name: getattr(body, name) for name in sorted(body.model_fields_set)}
    if given.keys() & {"account", "domain", "on_error"}:
        call.require(Role.MANAGER, everywhere=True)
    for name in ("account", "on_error"):
        if given.get(name, "") is None:
            raise InvalidError(f"body.{name}: required; it cannot be removed.")
    if given.get("name"):
        naming.check_name(call.services.routes, call.resource.kind, given["name"])
    found = await call.find_resource(call.resource)
    call.check_etag(found.updated_at)
    return _answer(await call.keys.set_resource(call.resource, **given, most=INNER + 1))


async def remove_resource(call: Call) -> Answer:
    allow_anonymous = call.may_open()
    found = await call.find_resource(call.resource)
    call.check_etag(found.updated_at)
    await call.keys.remove_resource(call.resource, allow_anonymous=bool(allow_anonymous))
    return Answer()


async def protect_resource(call: Call) -> Answer:
    return _answer(await call.keys.protect(call.resource, most=INNER + 1))


async def unprotect_resource(call: Call) -> Answer:
    body: Confirmation = call.body
    confirmed: Resource = body.confirm
    if confirmed != call.resource:
        raise InvalidError(f"body.confirm: write {call.resource} to confirm that anyone may use it.")
    return _answer(await call.keys.unprotect(call.resource))


async def bind_key(call: Call) -> Answer:
    """Bind a key. Binding it again changes nothing, so a client may repeat a call whose response was lost."""
    allow_anonymous = call.may_open()
    resource = await resource_to_bind(call, call.resource)
    try:
        bound = await call.keys.bind(call.key_id, resource, allow_anonymous=allow_anonymous)
        key, status = bound.key, 201
    except ConflictError:
        key, status = await call.find_key(call.key_id), 200
    return Answer(key_document(key, most=INNER), status, (("ETag", etag(key.updated_at)),))


async def unbind_key(call: Call) -> Answer:
    allow_anonymous = call.may_open()
    unbound = await call.keys.unbind(call.key_id, call.resource, allow_anonymous=allow_anonymous)
    return Answer(key_document(unbound, most=INNER), headers=(("ETag", etag(unbound.updated_at)),))


def _answer(resource: RegisteredResource) -> Answer:
    return Answer(_document(resource), headers=(("ETag", etag(resource.updated_at)),))


def _document(resource: RegisteredResource) -> dict[str, Any]:
    return resource_document(resource, most=INNER)
