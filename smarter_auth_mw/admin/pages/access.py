"""Sign in, sign out, and the operator's own page."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from smarter_auth_mw.admin.attempts import count_failure
from smarter_auth_mw.admin.pages.commands import command
from smarter_auth_mw.admin.pages.forms import FieldError, Fields
from smarter_auth_mw.admin.pages.visit import Html, Reply, SeeOther, Visit, path_of
from smarter_auth_mw.admin.security import Cookie
from smarter_auth_mw.admin.services import Services
from smarter_auth_mw.errors import SmarterAuthError
from smarter_auth_mw.tokens import MAX_TOKEN_BYTES, Token

_TARGET = re.compile(r"[A-Za-z0-9._~%-]+(?:/[A-Za-z0-9._~%-]+)*(?:\?[!-~]*)?")
_MAKE_OPERATOR = command("operator", "create", "--name", "NAME", "--role", "admin")
_ON_COMMAND_LINE = "Operators on the command line"
_REFUSED = "This is not an operator's token, or it is no longer valid."


class RefusedTokenError(FieldError):
    """The token in the form is not valid, or not that of the operator who is signed in."""


@dataclass
class Arrival:
    """A request for the sign-in page: nobody is signed in yet. ``has_page`` says whether a path leads to a page."""

    services: Services
    cookie: Cookie
    network: str
    query: Fields
    form: Fields
    has_page: Callable[[str], bool]

    @property
    def target(self) -> str:
        """The page to go to, if it is a page of the admin."""
        return checked_target(self.form.get("to") or self.query.get("to"), self.has_page)


def checked_target(text: str, has_page: Callable[[str], bool]) -> str:
    """Return the relative path if it leads to a page of the admin, or else that of the overview."""
    path = text.partition("?")[0]
    return text if _TARGET.fullmatch(text) and has_page(f"/{unquote(path)}") else ""


async def sign_in(arrival: Arrival, *, is_sent: bool) -> Reply:
    """Show the form, or open a session and redirect to the requested page."""
    context = {"to": arrival.target, "command": _MAKE_OPERATOR, "label": _ON_COMMAND_LINE}
    if not is_sent:
        return Html("sign_in.html", context)
    try:
        session_id = await opened(arrival.services, arrival.form.get("token"), arrival.network)
    except SmarterAuthError as error:
        return Html("sign_in.html", context | {"error": error})
    return SeeOther(arrival.target, (arrival.cookie.set(session_id),))


async def opened(services: Services, text: str, network: str) -> str:
    """Open a session; raises FieldError or ThrottledError. A valid token is checked first, and never throttled."""
    token = Token(text.encode("utf-8", "surrogatepass")[:MAX_TOKEN_BYTES])
    session_id = await services.door.sign_in(token)
    if session_id is None:
        await count_failure(services, network)
        raise RefusedTokenError("token", _REFUSED, status=401)
    return session_id


async def confirm_operator(visit: Visit) -> None:
    """Raise FieldError unless the form holds a token of the operator who is signed in."""
    token = Token(visit.form.get("token").encode("utf-8", "surrogatepass")[:MAX_TOKEN_BYTES])
    operator = await visit.services.door.by_token(token)
    if operator is None or operator.operator_id != visit.operator.operator_id:
        await count_failure(visit.services, visit.network)
        raise RefusedTokenError("token", "This is not your token, or it is no longer valid.", status=403)


async def show_sign_out(_: Visit) -> Reply:
    return Html("sign_out.html")


async def sign_out(visit: Visit) -> Reply:
    everywhere = visit.form.get("everywhere") == "true"
    await visit.services.door.sign_out(visit.session_id, everywhere=everywhere)
    return SeeOther(path_of("sign-in"), (visit.cookie.clear(),))


async def account(visit: Visit) -> Reply:
    me = await visit.document("show_me")
    return Html("account.html", {"me": me, "command": command("operator", "list"), "label": _ON_COMMAND_LINE})
