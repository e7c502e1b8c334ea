"""All pages, one table: the server of the pages and generated tests are made of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from smarter_auth_mw.admin.operations import VIEWER
from smarter_auth_mw.admin.pages import access, keys
from smarter_auth_mw.admin.pages.visit import Reply, SeeOther, Visit
from smarter_auth_mw.management.operators import Role

Handler = Callable[[Visit], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Page:
    """One page: who may see it, what shows it (GET), and what is done when its form is sent (POST).

    ``everywhere``: only for operators of all accounts. ``section``: the entry of the menu that it belongs to.
    """

    path: str
    name: str
    show: Handler
    act: Handler | None = None
    role: Role = VIEWER
    everywhere: bool = False
    section: str = ""


async def _first(_: Visit) -> Reply:
    return SeeOther("keys")


PAGES: tuple[Page, ...] = (
    Page("/", "overview", _first, section="overview"),
    Page("/keys", "keys", keys.list_keys, section="keys"),
    Page("/keys/{key_id}", "key", keys.show_key, section="keys"),
    Page("/account", "account", access.account, section="account"),
    Page("/sign-out", "sign_out", access.show_sign_out, access.sign_out, section="account"),
)
