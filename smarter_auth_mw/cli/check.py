"""`smarter-auth check`: what the middleware would do with a request, and why."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from smarter_auth_mw.cli import arguments
from smarter_auth_mw.cli.session import Session
from smarter_auth_mw.decision import Anonymous, Decision, Denial, Grant
from smarter_auth_mw.http_auth import Credentials
from smarter_auth_mw.keys import Keys
from smarter_auth_mw.parts import authenticator_of, open_store
from smarter_auth_mw.tokens import Token
from smarter_auth_mw.wiring import Wiring


async def check(
    session: Session,
    url: Annotated[str, typer.Argument(metavar="URL", help="The request's URL, or its path alone.")],
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", metavar="'NAME: VALUE'", help="A header; any number.")
    ] = None,
    method: Annotated[str, typer.Option("--method", "-X", help="The request's method.")] = "GET",
) -> dict[str, Any]:
    """Explain what the middleware does with a request; exit code 1 where it is denied."""
    scope = arguments.request_scope(url, method, arguments.headers(header or ()), session.root_path)
    line = session.routes.explain(scope).line
    decision, detail = await _decided(session, scope)
    document = _document(decision)
    session.exit_code = 1 if document["decision"] == "deny" else 0
    return document | {"routes_from": session.routes_from, "route": line or None, "detail": detail or None}


async def _decided(session: Session, scope: dict[str, Any]) -> tuple[Decision | None, str]:
    """The middleware's decision (None: no resource), and what else an operator may want to know."""
    wiring = Wiring(session.found and session.found.app, session.settings)
    target = wiring.resolve(scope)
    if target is None or isinstance(target, Denial):
        return target, target.detail if target else ""
    credentials = wiring.extractors[scope["type"]](scope["headers"])
    async with open_store(session.settings) as store:
        decision = await authenticator_of(session.settings, store).authenticate(target, credentials)
        detail = decision.detail if isinstance(decision, Denial) else ""
        return decision, detail or await _whose(session.keys_of(store), decision, credentials)


async def _whose(keys: Keys, decision: Decision, credentials: Credentials) -> str:
    """Whose token it is that does not open this resource."""
    if not isinstance(decision, Denial) or not isinstance(credentials, Token):
        return ""
    for key in await keys.keys():
        if credentials.token_key in key.token_keys:
            bound = ", ".join(map(str, key.bindings)) or "nothing"
            return f"The token begins as one of key {key.name!r} ({key.key_id}), which is bound to {bound}."
    return "No key has a token that begins so."


def _document(decision: Decision | None) -> dict[str, Any]:
    match decision:
        case None:
            words, status = ("pass", "no_resource"), 200
        case Anonymous():
            words, status = ("anonymous", "not_protected"), 200
        case Grant():
            words, status = ("grant", "valid_token"), 200
        case Denial(reason=reason):
            words, status = ("deny", reason.value), reason.status
    resource = decision and decision.resource
    return {
        "resource": str(resource) if resource else None,
        "decision": words[0],
        "reason": words[1],
        "status": status,
    }
