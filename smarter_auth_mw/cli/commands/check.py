"""`smarter-auth check`: what the middleware would do with a request, and why."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from smarter_auth_mw.cli import arguments
from smarter_auth_mw.cli.session import Session
from smarter_auth_mw.decision import Anonymous, Decision, Denial, Grant
from smarter_auth_mw.domain import Alias, Target
from smarter_auth_mw.engine.assembly import authenticator_of
from smarter_auth_mw.guard import Wiring
from smarter_auth_mw.http.credentials import Credentials
from smarter_auth_mw.management.keys import Keys
from smarter_auth_mw.postgres.opening import open_store
from smarter_auth_mw.routing.resolution import NOTHING
from smarter_auth_mw.tokens import Token


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
    wiring = Wiring(session.found and session.found.app, session.settings)
    scope = dict(wiring.trusted(scope))
    await _know_domains(session, wiring, scope)
    decision, detail = await _decided(session, wiring, scope)
    document = _document(decision)
    session.exit_code = 1 if document["decision"] == "deny" else 0
    return document | {"routes_from": session.routes_from, **_found(wiring, scope), "detail": detail or None}


async def _know_domains(session: Session, wiring: Wiring, scope: dict[str, Any]) -> None:
    """Look up the custom domains where one of them may decide."""
    if wiring.routes is not None and wiring.may_be_custom(scope):
        async with open_store(session.settings) as store:
            wiring.routes.replace_domains(await store.domains())


def _found(wiring: Wiring, scope: dict[str, Any]) -> dict[str, str | None]:
    """By which line, in which reading of the request, and by which alias."""
    judgement = wiring.routes.explain(scope) if wiring.routes else NOTHING
    names = judgement.result.names if isinstance(judgement.result, Target) else None
    return {
        "route": judgement.line or None,
        "reading": judgement.reading or None,
        "alias": str(names) if isinstance(names, Alias) else None,
    }


async def _decided(session: Session, wiring: Wiring, scope: dict[str, Any]) -> tuple[Decision | None, str]:
    """The middleware's decision (None: no resource), and what else an operator may want to know."""
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
