"""The list of resources, and one resource."""

from __future__ import annotations

from typing import Any

from smarter_auth_mw.admin.call import INNER
from smarter_auth_mw.admin.pages.commands import command, no_route, option
from smarter_auth_mw.admin.pages.reports import usage_chart
from smarter_auth_mw.admin.pages.visit import Html, Reply, Visit
from smarter_auth_mw.admin.problems import status_of
from smarter_auth_mw.errors import SmarterAuthError
from smarter_auth_mw.management import naming
from smarter_auth_mw.management.documents import resource_document


async def list_resources(visit: Visit) -> Reply:
    filters = visit.query.given()
    words: list[str | None] = ["resource", "list"]
    for name, flag in (("kind", "--kind"), ("find", "--find"), ("state", "--state")):
        words += option(flag, filters.get(name))
    words += option("--account", filters.get("account") or visit.operator.account)
    context: dict[str, Any] = {
        "filters": filters,
        "is_filtered": bool(filters.keys() - {"cursor", "limit"}),
        "kinds": visit.services.routes.kinds,
        "items": [],
        "next": None,
        "error": None,
        "command": command(*words),
    }
    try:
        context |= await visit.document("list_resources", query=filters)
    except SmarterAuthError as error:
        if status_of(error) != 422:
            raise
        context["error"] = error
    return Html("resources.html", context)


async def show_resource(visit: Visit) -> Reply:
    call = visit.call()
    found = await call.find_resource(call.resource)
    resource = resource_document(found, most=INNER)
    name = str(found.resource)
    acts = await visit.document("list_audit", query={"resource": name, "acts": "true", "limit": 10})
    context = {
        "resource": resource,
        "name": name,
        "is_platforms": found.is_platforms,
        "platforms_keys": {str(key.key_id) for key in found.keys if key.is_platforms},
        "is_declared": found.protection.value == "declared",
        "urls": naming.urls(visit.services.routes, found.resource),
        "is_routed": resource["kind"] in visit.services.routes.kinds,
        "acts": acts["items"],
        "chart": await usage_chart(visit, name, resource=found.resource),
        "command": command("resource", "show", name, no_route(visit.services.routes, found.resource)),
    }
    return Html("resource.html", context)
