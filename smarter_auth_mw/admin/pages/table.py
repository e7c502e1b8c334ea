"""All pages in one table, from which the pages' server and generated tests are built."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from smarter_auth_mw.admin.operations import ADMIN, MANAGER, VIEWER
from smarter_auth_mw.admin.pages import access, key_acts, keys, overview, reports, resource_acts, resources
from smarter_auth_mw.admin.pages.visit import Reply, Visit
from smarter_auth_mw.management.operators import Role

Handler = Callable[[Visit], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Page:
    """One page: the role that it needs, the function that shows it (GET), and the one that processes its form (POST).

    ``everywhere``: only for operators of all accounts. ``section``: the entry of the menu that it belongs to.
    """

    path: str
    name: str
    show: Handler
    act: Handler | None = None
    role: Role = VIEWER
    everywhere: bool = False
    section: str = ""


_KEY, _RESOURCE = "/keys/{key_id}", "/resources/{kind}/{ref}"

PAGES: tuple[Page, ...] = (
    Page("/", "overview", overview.overview, section="overview"),
    Page("/resources", "resources", resources.list_resources, section="resources"),
    Page(
        "/resources/new",
        "resource_create",
        resource_acts.show_new,
        resource_acts.create,
        MANAGER,
        everywhere=True,
        section="resources",
    ),
    Page(_RESOURCE, "resource", resources.show_resource, section="resources"),
    Page(
        f"{_RESOURCE}/edit",
        "resource_change",
        resource_acts.show_edit,
        resource_acts.edit,
        MANAGER,
        section="resources",
    ),
    Page(
        f"{_RESOURCE}/protect",
        "resource_protect",
        resource_acts.show_protect,
        resource_acts.protect,
        MANAGER,
        section="resources",
    ),
    Page(
        f"{_RESOURCE}/unprotect",
        "resource_unprotect",
        resource_acts.show_unprotect,
        resource_acts.unprotect,
        ADMIN,
        section="resources",
    ),
    Page(
        f"{_RESOURCE}/remove",
        "resource_remove",
        resource_acts.show_remove,
        resource_acts.remove,
        MANAGER,
        everywhere=True,
        section="resources",
    ),
    Page(
        f"{_RESOURCE}/bind", "resource_bind", resource_acts.show_bind, resource_acts.bind, MANAGER, section="resources"
    ),
    Page(
        f"{_RESOURCE}/keys/{{key_id}}/unbind",
        "key_unbind",
        resource_acts.show_unbind,
        resource_acts.unbind,
        MANAGER,
        section="resources",
    ),
    Page("/keys", "keys", keys.list_keys, section="keys"),
    Page("/keys/{key_id}", "key", keys.show_key, section="keys"),
    Page("/keys/new", "key_create", key_acts.show_new, key_acts.create, MANAGER, section="keys"),
    Page("/keys/revoke", "keys_revoke", key_acts.show_revoke_many, key_acts.revoke_many, MANAGER, section="keys"),
    Page(f"{_KEY}/rotate", "key_rotate", key_acts.show_rotate, key_acts.rotate, MANAGER, section="keys"),
    Page(f"{_KEY}/edit", "key_change", key_acts.show_edit, key_acts.edit, MANAGER, section="keys"),
    Page(f"{_KEY}/bind", "key_bind", key_acts.show_bind, key_acts.bind, MANAGER, section="keys"),
    Page(f"{_KEY}/activate", "key_activate", key_acts.show_activate, key_acts.activate, MANAGER, section="keys"),
    Page(
        f"{_KEY}/deactivate", "key_deactivate", key_acts.show_deactivate, key_acts.deactivate, MANAGER, section="keys"
    ),
    Page(f"{_KEY}/revoke", "key_revoke", key_acts.show_revoke, key_acts.revoke, MANAGER, section="keys"),
    Page("/leaks", "leaks", key_acts.show_leaks, key_acts.report_leaks, MANAGER, section="keys"),
    Page("/usage", "usage", reports.usage, section="usage"),
    Page("/audit", "audit", reports.audit, section="audit"),
    Page("/check", "check", reports.show_check, reports.check, section="check"),
    Page("/account", "account", access.account, section="account"),
    Page("/sign-out", "sign_out", access.show_sign_out, access.sign_out, section="account"),
)
